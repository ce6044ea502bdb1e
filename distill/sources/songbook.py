"""Songs made from nothing: words and melodies from a seed, sung by espeak-ng and WORLD.

A song costs no download and no rights, and its lyrics, notes and word times are exact because they came
first. The recipe is the one measured in the songbook study (speech word by word, re-timed and re-pitched to
a score).

    python -m distill.sources.songbook --out songs --hours 2 --seed 1 --split train

writes one FLAC a song and `manifest.jsonl`, a row for each finished song, in order; started again it goes
on where it stopped. The audio is ours to give away (CC0); espeak-ng, which makes it, is GPL-3+ and an
optional extra.
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

from distill import lyrics
from distill.errors import FolderError, SettingsError, SongError
from distill.songs import Song, manifest_row, read_manifest
from distill.sources._songbook import scores, traditional
from distill.sources._songbook.singing import GRID_SECONDS, SAMPLE_RATE, SungSyllable, sing
from distill.sources._songbook.verses import is_held_out
from distill.sources._songbook.voice import Phone, Voice

__all__ = ["Settings", "is_held_out", "render"]


@dataclasses.dataclass(frozen=True)
class Settings:
    """Hours of song to sing into `folder`, from `seed`; what is already there is kept and only the rest is
    sung.

    "traditional" are old songs, 33 in all, instead of generated ones; they too are for judging."""

    folder: str
    hours: float = 1.0
    seed: int = 1
    split: Literal["train", "held-out", "traditional"] = "train"
    workers: int = 1

    def load(self) -> list[Song]:
        """The songs, sung now if they are not in the folder yet."""
        return render(Path(self.folder), self.hours, self.seed, self.split, self.workers)


def sing_score(score: scores.Score, voice: Voice) -> np.ndarray:
    """A whole score as float32 samples at 16 kHz, its lines one after another."""
    return np.concatenate([_sing_line(line, voice) for line in score.lines])


def _sing_line(line: scores.LineScore, voice: Voice) -> np.ndarray:
    syllables = []
    for word, sung in line.words:
        spoken = voice.speak(lyrics.phones(word))
        phones: list[Phone] = list(spoken.phones)
        for piece in sung:
            onset, coda = len(piece.syllable.onset), len(piece.syllable.coda)
            taken, phones = phones[: onset + 1 + coda], phones[onset + 1 + coda :]
            syllables.append(
                SungSyllable(
                    spoken, tuple(taken[:onset]), taken[onset], tuple(taken[onset + 1 :]), piece.notes
                )
            )
        if phones:
            raise SongError(
                f"songbook: the syllables of {word!r} do not hold all its phones; this is a bug in lyrics"
            )
    return sing(voice, syllables, zlib.crc32(line.text.encode()))


_voice: Voice | None = None  # one espeak-ng, and one word cache, per process


def _sing_to_file(work: tuple[scores.Score, str]) -> tuple[scores.Score, float]:
    global _voice
    score, path = work
    _voice = _voice or Voice()
    wave = sing_score(score, _voice)
    partial = Path(path).with_suffix(".partial")
    soundfile.write(partial, wave, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    partial.replace(path)
    return score, len(wave) / SAMPLE_RATE


def _scores(hours: float, seed: int, split: str) -> Iterator[scores.Score]:
    """Scores until their length, silences included, is that many hours."""
    endless = (scores.compose(seed, index, split) for index in itertools.count())
    left = hours * 3600
    for score in traditional.songs() if split == "traditional" else endless:
        yield score
        left -= sum(line.steps for line in score.lines) * GRID_SECONDS
        if left <= 0:
            return


def render(folder: Path, hours: float, seed: int, split: str = "train", workers: int = 1) -> list[Song]:
    """Sings songs until the folder holds `hours` of them; returns all its songs.

    Raises SettingsError for hours <= 0, FolderError if the folder holds songs of another seed or split."""
    if not 0 < hours < 10_000:
        raise SettingsError(f"songbook.hours is {hours}; give a number above 0 (and below 10,000)")
    if workers < 1:
        raise SettingsError(f"songbook.workers is {workers}; give 1 or more")
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / "manifest.jsonl"
    done = {song.id for song in read_manifest(manifest)} if manifest.exists() else set()
    wanted = list(_scores(hours, seed, split))
    # the folder may hold more hours than asked now
    more = {f"{split}-{seed}-{index:05d}" for index in range(len(done))}
    strangers = done - {score.id for score in wanted} - more
    if strangers:
        raise FolderError(
            f"{folder}: holds songs of another seed or split ({min(strangers)}); give an empty folder"
        )
    work = [(score, str(folder / f"{score.id}.flac")) for score in wanted if score.id not in done]
    with manifest.open("a", encoding="utf-8") as rows:
        for score, _ in _map(work, workers):
            rows.write(manifest_row(scores.as_song(score, f"{score.id}.flac"), folder) + "\n")
            rows.flush()
    return read_manifest(manifest)


def _map(work: list[tuple[scores.Score, str]], workers: int) -> Iterator[tuple[scores.Score, float]]:
    if workers <= 1 or len(work) < 2:
        yield from map(_sing_to_file, work)
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap(_sing_to_file, work)


def main() -> None:
    """The command line: one folder of songs."""
    parser = argparse.ArgumentParser(description="Make lyric-to-song pairs from a seed.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--hours", type=float, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--split", choices=("train", "held-out", "traditional"), default="train")
    parser.add_argument("--workers", type=int, default=1)
    asked = parser.parse_args()
    songs = render(asked.out, asked.hours, asked.seed, asked.split, asked.workers)
    print(f"{asked.out}: {len(songs)} songs, {sum(s.lines[-1].end or 0 for s in songs) / 3600:.2f} hours")


if __name__ == "__main__":
    main()
