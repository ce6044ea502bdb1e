"""Songs made from nothing: words, melodies and accompaniment from a seed, sung by espeak-ng and
WORLD.

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
import itertools
import multiprocessing
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile
from numpy.typing import NDArray

from distill import lyrics
from distill.errors import DistillError, FolderError, SettingsError, SongError
from distill.songbook import band, composing, mandarin, scores, traditional, verses
from distill.songbook.singers import SINGERS, Singer, in_manner
from distill.songbook.singing import GRID_SECONDS, SungSyllable, sing
from distill.songbook.voice import VOICE_RATE, Phone, SpokenWord, Voice
from distill.songs import Song, manifest_row, read_manifest

__all__ = ["Settings", "is_held_out", "render"]

LANGUAGES = ("en", "zh")
PEAK = 0.89  # of a mix with its accompaniment: -1 dB


@dataclasses.dataclass(frozen=True)
class Settings:
    """Hours of song to sing into `folder`, from `seed`; what is already there is kept and only the
    rest is sung.

    "traditional" are old songs instead of generated ones; they too are for judging. Each song draws
    from `voices`, `languages` and `accompaniment` ("guitar", "piano", "pad", "band", "harp", or
    "none" for the voice alone)."""

    folder: str
    hours: float = 1.0
    seed: int = 1
    split: Literal["train", "held-out", "traditional"] = "train"
    workers: int = 1
    voices: tuple[str, ...] = tuple(SINGERS)
    languages: tuple[str, ...] = LANGUAGES
    accompaniment: tuple[str, ...] = composing.ACCOMPANIMENTS

    def __post_init__(self) -> None:
        if not 0 < self.hours < 10_000:
            raise SettingsError(
                f"songbook.hours is {self.hours}; give a number above 0 (and below 10,000)"
            )
        if self.workers < 1:
            raise SettingsError(f"songbook.workers is {self.workers}; give 1 or more")
        for name, known in (
            ("voices", tuple(SINGERS)),
            ("languages", LANGUAGES),
            ("accompaniment", ("none", *composing.ACCOMPANIMENTS)),
        ):
            wrong = [value for value in getattr(self, name) if value not in known]
            if wrong or not getattr(self, name):
                raise SettingsError(
                    f"songbook.{name} has {', '.join(wrong) or 'nothing'}; give some of: "
                    f"{', '.join(known)}"
                )

    def load(self) -> list[Song]:
        """The songs, sung now if they are not in the folder yet."""
        return render(self)

    def score(self, index: int) -> scores.Score:
        """Song `index` before it is sung."""
        return composing.compose(
            self.seed, index, self.split, self.voices, self.languages, self.accompaniment
        )

    def scores(self) -> Iterator[scores.Score]:
        """Scores until their length, silences included, is that many hours."""
        endless = (self.score(index) for index in itertools.count())
        old = traditional.songs(self.voices, self.languages, self.accompaniment)
        left = self.hours * 3600
        for score in old if self.split == "traditional" else endless:
            yield score
            left -= score.steps * GRID_SECONDS
            if left <= 0:
                return


def is_held_out(word: str) -> bool:
    """Whether no training song ever holds this English word or Chinese character, or one that
    sounds like it."""
    return verses.is_held_out(word) or mandarin.is_held_out(word)


def sing_score(score: scores.Score, voice: Voice) -> NDArray[np.float32]:
    """The voice of a whole score as float32 samples at VOICE_RATE; as long as the score."""
    singer = in_manner(SINGERS[score.voice], score.manner)
    samples = round(GRID_SECONDS * VOICE_RATE)
    wave_W = np.zeros(score.steps * samples, np.float32)
    for line, first in zip(score.lines, score.setting.firsts, strict=True):
        # behind its last note a line is silent, and may reach into the next one's lead-in
        sung_W = _sing_line(line, voice, singer)[: len(wave_W) - first * samples]
        wave_W[first * samples : first * samples + len(sung_W)] += sung_W
    return wave_W


def _sing_line(line: scores.LineScore, voice: Voice, singer: Singer) -> NDArray[np.float32]:
    syllables = []
    for word, sung in line.words:
        for (spoken, onset, nucleus, coda), piece in zip(
            _speak(line, word, sung, voice), sung, strict=True
        ):
            syllables.append(SungSyllable(spoken, onset, nucleus, coda, piece.notes))
    return sing(syllables, zlib.crc32(line.text.encode()), singer)


Spoken = tuple[SpokenWord, tuple[Phone, ...], Phone, tuple[Phone, ...]]


def _speak(
    line: scores.LineScore, word: str, sung: tuple[scores.SyllableScore, ...], voice: Voice
) -> Iterator[Spoken]:
    """Each syllable of a word: onset, nucleus and coda in the word as spoken."""
    if line.language == "zh":
        spoken, before = voice.speak_pinyin(mandarin.readings()[word])
        phones = spoken.phones
        yield spoken, phones[:before], phones[before], phones[before + 1 :]
        return
    spoken = voice.speak(lyrics.phones(word))
    phones = spoken.phones
    for piece in sung:
        onset, coda = len(piece.syllable.onset), len(piece.syllable.coda)
        yield spoken, phones[:onset], phones[onset], phones[onset + 1 : onset + 1 + coda]
        phones = phones[onset + 1 + coda :]
    if phones:
        raise SongError(
            f"songbook: the syllables of {word!r} do not hold all its phones; this is a bug in "
            "lyrics"
        )


def mix(
    score: scores.Score, vocals_W: NDArray[np.float32]
) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """(vocals, accompaniment) of a song in 16 bits, so loud that their sum just does not clip. The
    voice, where it sings, is as many dB above the accompaniment as the score says."""
    band_W = band.play(score.setting, VOICE_RATE, score.id)
    voice_power = float((vocals_W[np.abs(vocals_W) > 0.003] ** 2).mean())
    gain = np.sqrt(voice_power / max(float((band_W**2).mean()), 1e-12))
    band_W = band_W * np.float32(gain * 10 ** (-score.setting.voice_over_band_db / 20))
    full = 32767 * PEAK / float(np.abs(vocals_W + band_W).max())
    return np.round(vocals_W * full).astype(np.int16), np.round(band_W * full).astype(np.int16)


_voice: Voice | None = None  # one espeak-ng, and one word cache, per process


def _sing_to_file(work: tuple[scores.Score, str]) -> Song:
    """Sings one song into a folder; its files appear whole or not at all."""
    global _voice
    score, folder = work
    _voice = _voice or Voice()
    vocals_W = sing_score(score, _voice)
    if score.setting.accompaniment == "none":
        _write(vocals_W, Path(folder, f"{score.id}.flac"))
        return scores.as_song(score, f"{score.id}.flac")
    files = [f"{score.id}{stem}.flac" for stem in ("", ".vocals", ".accompaniment")]
    vocals, accompaniment = mix(score, vocals_W)
    for file, track in zip(files, (vocals + accompaniment, vocals, accompaniment), strict=True):
        _write(track, Path(folder, file))
    return scores.as_song(score, *files)


def _write(wave_W: NDArray[np.float32] | NDArray[np.int16], path: Path) -> None:
    partial = path.with_suffix(".partial")
    soundfile.write(partial, wave_W, VOICE_RATE, format="FLAC", subtype="PCM_16")
    partial.replace(path)


def render(settings: Settings) -> list[Song]:
    """Sings songs until the folder holds the hours asked for; returns all its songs.

    Raises FolderError if the folder holds songs of other settings."""
    folder = Path(settings.folder)
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / "manifest.jsonl"
    there = read_manifest(manifest) if manifest.exists() else []
    wanted = list(settings.scores())
    for index in range(len(wanted), len(there)):  # the folder may hold more hours than asked now
        if settings.split != "traditional":
            wanted.append(settings.score(index))
    for song, score in itertools.zip_longest(there, wanted[: len(there)]):
        if score is None or (song.id, song.text) != (score.id, "\n".join(_text(score))):
            raise FolderError(
                f"{folder}: holds songs of another seed or split, or of other voices ({song.id});"
                " give an empty folder"
            )
    work = [(score, settings.folder) for score in wanted[len(there) :]]
    with manifest.open("a", encoding="utf-8") as rows:
        for song in _map(work, settings.workers):
            rows.write(manifest_row(song, folder) + "\n")
            rows.flush()
    return read_manifest(manifest)


def _text(score: scores.Score) -> Iterator[str]:
    for tag, lines in score.sections:
        yield f"[{tag}]"
        yield from (line.text for line in lines)


def _map(work: list[tuple[scores.Score, str]], workers: int) -> Iterator[Song]:
    if workers <= 1 or len(work) < 2:
        yield from map(_sing_to_file, work)
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap(_sing_to_file, work)


def main() -> None:
    """The command line: one folder of songs."""
    parser = argparse.ArgumentParser(
        description="Make songs, with all that is to be known of them, from a seed."
    )
    parser.add_argument("--out", required=True)
    parser.add_argument("--hours", type=float, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--split", choices=("train", "held-out", "traditional"), default="train")
    parser.add_argument("--workers", type=int, default=1)
    for name, known in (
        ("voices", tuple(SINGERS)),
        ("languages", LANGUAGES),
        ("accompaniment", composing.ACCOMPANIMENTS),
    ):
        parser.add_argument(
            f"--{name}",
            type=lambda text: tuple(value.strip() for value in text.split(",")),
            default=known,
            help=f"with commas between; from: {', '.join(known)}"
            + (", none" if name[0] == "a" else ""),
        )
    asked = vars(parser.parse_args())
    try:
        songs = Settings(asked.pop("out"), **asked).load()
    except DistillError as error:
        raise SystemExit(str(error)) from None
    print(f"{len(songs)} songs, {sum(s.lines[-1].end or 0 for s in songs) / 3600:.2f} hours")


if __name__ == "__main__":
    main()
