"""Which songs belong together, once it is known what pairs have in common, and what follows.

links between pairs -> groups -> what not to train on, what need not be kept, what to hold out
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from distill.curation.steps._fingerprint import Overlap
from distill.songs import Song

# of both recordings in each other: a copy, ends trimmed or not; below it an excerpt or edit
COPY = 0.8
SAME_WORDS = 0.8  # Jaccard: the same lyrics but for a typing error or two


class Link(NamedTuple):
    """What song a has in common with song b: sound (None: not found) and words (Jaccard index)."""

    sound: Overlap | None
    jaccard: float

    def turned(self) -> Link:
        """The same as b sees it."""
        return self._replace(sound=self.sound and self.sound.turned())

    @property
    def is_copy(self) -> bool:
        return self.sound is not None and min(self.sound.share_a, self.sound.share_b) >= COPY

    @property
    def strength(self) -> tuple[float, float]:
        return (self.sound.share_a + self.sound.share_b if self.sound else 0.0), self.jaccard

    def words(self, other: str) -> str:
        """For a person, as song a sees it. other: b's id. Offset: the time here less that there."""
        if self.sound is None:
            return f"same words as {other} (Jaccard index {self.jaccard:.2f}), another recording"
        mine, theirs = self.sound.share_a, self.sound.share_b
        at = f"offset {0.0 - round(self.sound.offset_seconds, 1):+.1f} s"
        if self.is_copy:
            return f"same recording as {other}, {at}, {mine:.0%} of it"
        if mine >= COPY:
            return f"an excerpt of {other}, {at}, {mine:.0%} of it"
        if theirs >= COPY:
            return f"{other} is an excerpt of it, {at}, {theirs:.0%} of that"
        return f"shares sound with {other}, {at}, {mine:.0%} of it"


Links = Mapping[tuple[int, int], Link]


class Worth(NamedTuple):
    """What makes one copy of a recording better than another, the weightiest first."""

    finer_times: float = 0.0
    times_by_a_person: float = 0.0
    wider_band: float = 0.0
    lossless: float = 0.0
    longer: float = 0.0

    def over(self, other: Worth) -> str:
        """Why this one is the better."""
        pairs = zip(self._fields, self, other, strict=True)
        better = (name.replace("_", " ") for name, mine, theirs in pairs if mine > theirs)
        return next(better, "first by name")


@dataclass(frozen=True)
class Family:
    """Songs in order of id, the file each was cut from ("": unknown), links of pairs a < b."""

    songs: Sequence[Song]
    files: Sequence[str]
    links: Links

    @property
    def split_by_source(self) -> bool:
        """Whether the source itself holds songs out."""
        return any(song.split != "train" for song in self.songs)

    @cached_property
    def linked(self) -> list[list[tuple[int, Link]]]:
        """For each song those that it has something in common with, the closest first."""
        links: list[list[tuple[int, Link]]] = [[] for _ in self.songs]
        for (a, b), link in self.links.items():
            links[a].append((b, link))
            links[b].append((a, link.turned()))
        for of_song in links:
            of_song.sort(key=lambda pair: (*(-x for x in pair[1].strength), pair[0]))
        return links

    def groups(self, among: Iterable[int]) -> dict[int, str]:
        """The group of each song: its source's, or the first id of those that hang together; "" for
        one alone. Songs cut from one file go together too, unless the source has split them."""
        among = sorted(set(among))
        above: dict[str, str] = {}

        def root(name: str) -> str:
            while (higher := above.setdefault(name, name)) != name:
                above[name] = name = above[higher]
            return name

        for n in among:
            song, file = self.songs[n], self.files[n]
            for name in (song.group, f"\0{file}" if file and not self.split_by_source else ""):
                if name:
                    above[root(name)] = root(song.id)
        inside = set(among)
        for a, b in self.links:
            if a in inside and b in inside:
                above[root(self.songs[b].id)] = root(self.songs[a].id)
        members: dict[str, list[Song]] = {}
        for n in among:
            members.setdefault(root(self.songs[n].id), []).append(self.songs[n])
        return {n: _name(members[root(self.songs[n].id)]) for n in among}

    def leaks(self) -> dict[int, str]:
        """The training songs that hang together with held-out ones, and why. A part of a file whose
        other part is held out was cut off on purpose: only what it shares itself counts."""
        groups = self.groups(range(len(self.songs)))
        held: dict[str, list[int]] = {}
        for n, song in enumerate(self.songs):
            if song.split != "train" and groups[n]:
                held.setdefault(groups[n], []).append(n)
        reasons = {}
        for n, song in enumerate(self.songs):
            others = held.get(groups[n], [])
            if song.split != "train" or not others:
                continue
            direct = next((pair for pair in self.linked[n] if pair[0] in others), None)
            if direct is not None:
                reasons[n] = f"{direct[1].words(self.songs[direct[0]].id)}, which is held out"
            elif not self.files[n] or self.files[n] not in (self.files[other] for other in others):
                reasons[n] = f"in one group with {self.songs[others[0]].id}, which is held out"
        return reasons

    def copies(self, among: Iterable[int], worth: Sequence[Worth]) -> dict[int, str]:
        """The songs of which a better copy with the same lyrics is kept, with the reason. Only a
        direct link counts, so of more copies than are linked to each other (32) a few are kept."""
        kept, reasons = set[int](), {}
        for n in sorted(among, key=lambda n: ([-x for x in worth[n]], n)):
            for k, link in self.linked[n]:
                if k in kept and link.is_copy and link.jaccard >= SAME_WORDS:
                    id, why = self.songs[k].id, worth[k].over(worth[n])
                    reasons[n] = f"{link.words(id)}, same lyrics; {id} is kept: {why}"
                    break
            else:
                kept.add(n)
        return reasons

    def drawn(self, groups: Mapping[int, str], share: float) -> set[int]:
        """The songs to hold out. Each group draws a number by its songs' ids, those below `share`
        are held out; of two or more groups at least one is, and at least one is not."""
        members: dict[str, list[int]] = {}
        for n, song in enumerate(self.songs):
            members.setdefault(groups[n] or song.id, []).append(n)
        draws = sorted((min(_draw(self.songs[n].id) for n in g)[1], g) for g in members.values())
        below = sum(number < share for number, _ in draws)
        return {n for _, group in draws[: min(max(1, below), len(draws) - 1)] for n in group}


def _name(group: Sequence[Song]) -> str:
    given = [song.group for song in group if song.group]
    if given:
        return min(given)
    return min(song.id for song in group) if len(group) > 1 else ""


def _draw(id: str) -> tuple[int, float]:
    """How early a song speaks for its group (the least does), and the number it draws, 0 to 1."""
    digest = hashlib.blake2b(id.encode(errors="surrogateescape"), digest_size=16).digest()
    return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big") / 2**64
