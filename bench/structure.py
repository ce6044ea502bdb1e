"""Verses and choruses guessed from lines alone, in songs whose sections are known: a table.

    python bench/structure.py --songs MANIFEST [--count 200]

Tags and sections are taken away, the step `structure` guesses them, and its guess is compared with
what was taken away; again with a tenth and a fifth of the words replaced by others, as people
write down what they hear. Only verse and chorus are ever guessed: lines of a bridge count as wrong.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from distill.curation.steps import Item, structure
from distill.songs import Line, Section, Song, read_manifest

COLUMNS = (
    "songs", "words changed %", "lines named right %", "boundaries found", "found that are right",
)  # fmt: skip


def bare(song: Song, noise: float, generator: random.Random, vocabulary: Sequence[str]) -> Song:
    """The song's lines as one section without times, a share `noise` of the words replaced."""

    def misheard(line: Line) -> Line:
        words = [
            generator.choice(vocabulary) if generator.random() < noise else word
            for word in line.text.split()
        ]
        return Line(" ".join(words))

    return replace(song, sections=(Section("verse", tuple(map(misheard, song.lines))),), facts=())


def labels(song: Song) -> Iterator[str]:
    """The tag of every line."""
    for section in song.sections:
        yield from (section.tag for _ in section.lines)


def cuts(song: Song) -> set[int]:
    """Lines at which a section other than the first begins."""
    lengths = [len(section.lines) for section in song.sections[:-1]]
    return set(accumulate(lengths))


def row(songs: Sequence[Song], noise: float) -> list[str]:
    """Lines with the right name; boundaries found, and right of those found."""
    generator = random.Random(3)
    words = {word for song in songs for line in song.lines for word in line.text.split()}
    vocabulary = sorted(words)
    lines = right = true = guessed = hits = 0
    for song in songs:
        guess = structure.Settings().curate(Item(bare(song, noise, generator, vocabulary))).song
        tags = list(zip(labels(song), labels(guess), strict=True))
        lines += len(tags)
        right += sum(own == other for own, other in tags)
        true, guessed = true + len(cuts(song)), guessed + len(cuts(guess))
        hits += len(cuts(song) & cuts(guess))
    return [f"{100 * right / max(1, lines):.1f}", f"{hits} of {true}", f"{hits} of {guessed}"]


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--songs", required=True, metavar="MANIFEST")
    parser.add_argument("--count", type=int, default=200)
    options = parser.parse_args()
    songs = read_manifest(options.songs)[: options.count]
    returning = [song for song in songs if sum(s.tag == "chorus" for s in song.sections) > 1]
    where = f"{len(songs)} songs, {len(returning)} of them with a chorus that returns"
    table = Table(title=f"structure of {where}")
    for column in COLUMNS:
        table.add_column(column)
    for name, those in (("chorus returns", returning), ("all", songs)):
        for noise in (0.0, 0.1, 0.2):
            if those:
                table.add_row(name, f"{100 * noise:.0f}", *row(those, noise))
    Console(width=110).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
