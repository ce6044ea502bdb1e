"""Songs made from a seed: words, melodies and accompaniment, sung by espeak-ng and WORLD.

A song costs no download and no rights, and its lyrics, notes, word times, key, tempo, beats and
chords are exact because they came first. The recipe is the one measured in the songbook study
(speech word by word, re-timed and re-pitched to a score).

    python -m distill.sources.songbook --out songs --hours 2 --seed 1 --split train

writes one FLAC a song (`ID.flac`, and its stems `ID.vocals.flac` and `ID.accompaniment.flac`, which
add up to it sample by sample) and `manifest.jsonl`, a row for each finished song, in order; started
again it goes on where it stopped. The same seed gives the same bytes on one machine and lock file,
and the same score and text everywhere.

Five voices, English and Mandarin, bars, chords, five ways to accompany. What is rendered is ours to
give away (CC0); espeak-ng, which makes it, is GPL-3+ and an optional extra.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import multiprocessing
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile
from numpy.typing import NDArray

from distill.config.ranges import Checked, Range, at_least
from distill.errors import DistillError, FolderError, SettingsError, SongError
from distill.songbook import band, composing, mandarin, traditional, verses
from distill.songbook.scores import LineScore, Score, SyllableScore, as_song
from distill.songbook.singers import SINGERS, Singer, in_manner
from distill.songbook.singing import GRID_SECONDS, SungSyllable, sing
from distill.songbook.speakers import Speakers
from distill.songbook.voice import VOICE_RATE, Phone, SpokenWord
from distill.songs import Song, manifest_row, read_manifest

__all__ = ["Settings", "is_held_out", "render"]

LANGUAGES = ("en", "zh")
PEAK = 0.89  # of a mix with its accompaniment: -1 dB
CHOICES = {
    "voices": tuple(SINGERS),
    "languages": LANGUAGES,
    "accompaniment": ("none", *composing.ACCOMPANIMENTS),
}
SINGS = 0.003  # amplitude above which there is a voice
_HOURS = Range(lambda hours: 0 < hours < 10_000, "a number above 0 and below 10,000")


@dataclasses.dataclass(frozen=True)
class Settings(Checked):
    """Hours of song to sing into `folder`, from `seed`; what is already there is kept.

    "traditional" are old songs instead of generated ones, also held out. Each song draws from
    `voices`, `languages` and `accompaniment` ("none": the voice alone)."""

    folder: str
    hours: float = dataclasses.field(default=1.0, metadata={"range": _HOURS})
    seed: int = 1
    split: Literal["train", "held-out", "traditional"] = "train"
    workers: int = at_least(1, default=1)
    voices: tuple[str, ...] = tuple(SINGERS)
    languages: tuple[str, ...] = LANGUAGES
    accompaniment: tuple[str, ...] = composing.ACCOMPANIMENTS
    edition: Literal[2, 3] = 2

    def __post_init__(self) -> None:
        try:
            super().__post_init__()
        except SettingsError as error:
            raise SettingsError(f"songbook.{error}") from None
        for name, choices in CHOICES.items():
            values = getattr(self, name)
            wrong = [value for value in values if value not in choices]
            if wrong or not values:
                given, known = ", ".join(wrong) or "nothing", ", ".join(choices)
                raise SettingsError(f"songbook.{name} has {given}; give some of: {known}")

    def load(self) -> list[Song]:
        """The songs, sung now if they are not in the folder yet."""
        return render(self)

    def score(self, index: int) -> Score:
        """Song `index` before it is sung."""
        drawn_from = self.voices, self.languages, self.accompaniment, self.edition
        return composing.compose(self.seed, index, self.split, *drawn_from)

    def scores(self) -> Iterator[Score]:
        """Scores until their length, silences included, is that many hours."""
        scores: Iterable[Score] = map(self.score, itertools.count())
        if self.split == "traditional":
            scores = traditional.songs(self.voices, self.languages, self.accompaniment)
        left = self.hours * 3600
        for score in scores:
            yield score
            left -= score.steps * GRID_SECONDS
            if left <= 0:
                return


def is_held_out(word: str) -> bool:
    """Whether no training song holds this English word or Chinese character, or its sound."""
    return verses.is_held_out(word) or mandarin.is_held_out(word)


def sing_score(score: Score, speakers: Speakers) -> NDArray[np.float32]:
    """The voice of a whole score as samples at VOICE_RATE; as long as the score."""
    singer = in_manner(SINGERS[score.voice], score.manner)
    step_samples = round(GRID_SECONDS * VOICE_RATE)
    wave_W = np.zeros(score.steps * step_samples, np.float32)
    for line, first in zip(score.lines, score.setting.firsts, strict=True):
        # behind its last note a line is silent, and may reach into the next one's lead-in
        rest_W = wave_W[first * step_samples :]
        sung_W = _sing_line(line, speakers, singer)[: len(rest_W)]
        rest_W[: len(sung_W)] += sung_W
    return wave_W


def _sing_line(line: LineScore, speakers: Speakers, singer: Singer) -> NDArray[np.float32]:
    syllables = list(_syllables(line, speakers, singer))
    return sing(syllables, zlib.crc32(line.text.encode()), singer)


def _syllables(line: LineScore, speakers: Speakers, singer: Singer) -> Iterator[SungSyllable]:
    """Each syllable of a line: onset, nucleus and coda in its word as spoken, and its notes."""
    if line.language == "zh":
        for word, sung in line.words:
            pinyin, onset = speakers.espeak.speak_pinyin(mandarin.readings()[word])
            yield _sung(pinyin, pinyin.phones, onset, sung[0])
        return
    spoken_words = speakers.words([word for word, _ in line.words], singer.speaker)
    for (word, sung), spoken in zip(line.words, spoken_words, strict=True):
        phones = spoken.phones
        for score in sung:
            onset = len(score.syllable.onset)
            end = onset + 1 + len(score.syllable.coda)
            yield _sung(spoken, phones[:end], onset, score)
            phones = phones[end:]
        if phones:
            lacking = f"the syllables of {word!r} lack some of its phones"
            raise SongError(f"songbook: {lacking}; this is a bug in lyrics")


def _sung(
    spoken: SpokenWord, phones: tuple[Phone, ...], onset: int, score: SyllableScore
) -> SungSyllable:
    return SungSyllable(spoken, phones[:onset], phones[onset], phones[onset + 1 :], score.notes)


def mix(score: Score, vocals_W: NDArray[np.float32]) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """(vocals, accompaniment) in 16 bits, as far apart (dB) as the score says; their sum peaks."""
    band_W = band.play(score.setting, VOICE_RATE, score.id)
    voice_power = float((vocals_W[np.abs(vocals_W) > SINGS] ** 2).mean())
    gain = np.sqrt(voice_power / max(float((band_W**2).mean()), 1e-12))
    band_W = band_W * np.float32(gain * 10 ** (-score.setting.voice_over_band_db / 20))
    full = 32767 * PEAK / float(np.abs(vocals_W + band_W).max())
    return np.round(vocals_W * full).astype(np.int16), np.round(band_W * full).astype(np.int16)


_speakers = functools.cache(Speakers)  # one cache of spoken words per process


def _sing_to_file(work: tuple[Score, str]) -> Song:
    """Sings one song into a folder; its files appear whole or not at all."""
    score, folder = work
    vocals_W = sing_score(score, _speakers())
    if score.setting.accompaniment == "none":
        _write(vocals_W, Path(folder, f"{score.id}.flac"))
        return as_song(score, f"{score.id}.flac")
    files = [f"{score.id}{stem}.flac" for stem in ("", ".vocals", ".accompaniment")]
    vocals, accompaniment = mix(score, vocals_W)
    for file, track in zip(files, (vocals + accompaniment, vocals, accompaniment), strict=True):
        _write(track, Path(folder, file))
    return as_song(score, *files)


def _write(wave_W: NDArray[np.float32] | NDArray[np.int16], path: Path) -> None:
    partial = path.with_suffix(".partial")
    soundfile.write(partial, wave_W, VOICE_RATE, format="FLAC", subtype="PCM_16")
    partial.replace(path)


def render(settings: Settings) -> list[Song]:
    """All the folder's songs, once it holds the hours. FolderError if it has others' songs."""
    folder = Path(settings.folder)
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / "manifest.jsonl"
    songs = read_manifest(manifest) if manifest.exists() else []
    scores = list(settings.scores())
    if settings.split != "traditional":  # the folder may hold more hours than asked now
        scores += map(settings.score, range(len(scores), len(songs)))
    for song, score in itertools.zip_longest(songs, scores[: len(songs)]):
        if score is None or (song.id, song.text) != (score.id, _text(score)):
            others = f"holds songs of another seed or split, or of other voices ({song.id})"
            raise FolderError(f"{folder}: {others}; give an empty folder")
    work = [(score, settings.folder) for score in scores[len(songs) :]]
    with manifest.open("a", encoding="utf-8") as rows:
        for song in _sung_songs(work, settings.workers):
            rows.write(manifest_row(song, folder) + "\n")
            rows.flush()
    return read_manifest(manifest)


def _text(score: Score) -> str:
    rows = ([f"[{tag}]", *(line.text for line in lines)] for tag, lines in score.sections)
    return "\n".join(itertools.chain.from_iterable(rows))


def _sung_songs(work: list[tuple[Score, str]], workers: int) -> Iterator[Song]:
    if workers <= 1 or len(work) < 2:
        yield from map(_sing_to_file, work)
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap(_sing_to_file, work)


def _listed(text: str) -> tuple[str, ...]:
    return tuple(value.strip() for value in text.split(","))


def main() -> None:
    """The command line: one folder of songs."""
    parser = argparse.ArgumentParser(description="Make songs, and all to know of them, by a seed.")
    parser.add_argument("--out", required=True)
    parser.add_argument("--hours", type=float, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--split", choices=("train", "held-out", "traditional"), default="train")
    parser.add_argument("--workers", type=int, default=1)
    for name, choices in CHOICES.items():
        default = tuple(choice for choice in choices if choice != "none")
        text = f"with commas between; from: {', '.join(choices)}"
        parser.add_argument(f"--{name}", type=_listed, default=default, help=text)
    options = vars(parser.parse_args())
    try:
        songs = Settings(options.pop("out"), **options).load()
    except DistillError as error:
        raise SystemExit(str(error)) from None
    hours = sum(song.lines[-1].end or 0 for song in songs) / 3600
    print(f"{len(songs)} songs, {hours:.2f} hours")


if __name__ == "__main__":
    main()
