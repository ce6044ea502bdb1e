"""Songs that are one song are found, grouped, and kept on one side of the split.

    the same sound    an acoustic fingerprint of each recording (_fingerprint.py)
    the same words    MinHash of the lyrics (_minhash.py): covers, other takes, however they sound

Both find pairs; pairs make groups (`Song.group`), and a group is held out as a whole or not at all.
Three things follow (_kinship.py):

- A training song that is in one group with a song held out by its source is set aside: measures on
  a song that the model has learned mean nothing, and a held-out set must not change because a copy
  turned up elsewhere.
- Of several copies of one recording with the same lyrics the best is kept (finest line times,
  widest band, lossless, longest), so that nothing is learned twice. Excerpts, covers and other
  lyrics to the same recording stay.
- `held_out_share` holds out groups where the source holds out nothing. Which ones is decided by a
  hash of the songs' ids: their order does not matter, and a song changes sides only if another one
  joins its group.

Not found: copies at another speed or in another key, and translations.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypedDict

import numpy as np

from distill.config.ranges import Checked, share
from distill.curation.steps import Item
from distill.curation.steps._fingerprint import Peaks, between, constellation, nominated, overlap
from distill.curation.steps._kinship import Family, Link, Worth
from distill.curation.steps._minhash import Wording, alike, jaccard, wording
from distill.songs import Line

NAME = "duplicates"
LEAST_PEAKS = 20  # in a recording that can be told from others
LEAST_BLOCKS = 3  # seconds in common, or it is no evidence
LOSSLESS = (".wav", ".flac", ".aif", ".aiff")


@dataclass(frozen=True)
class Settings(Checked):
    """audio_share: of the shorter recording, found in the other at the same times but for an offset
    (null: sound is not compared). lyrics_jaccard: of the lyrics' runs of three words, or of four
    characters where words are not spaced (null: lyrics are not compared). keep: "best" sets the
    other copies of a recording aside, "all" keeps them, in one group. held_out_share: of the songs,
    in whole groups, where the source holds out none.

    The defaults lie in wide gaps. Of generated songs strangers share at most 0.25 of the sound (the
    same piano in the same key and tempo) and 0.1 of the words; re-encodings share 0.9 and more of
    the sound, a song of which a part was cut out 0.5. A long song with a tenth of its words
    misheard has an index of 0.57, without half of its lines 0.5."""

    audio_share: float | None = share(zero=False, default=0.4)
    lyrics_jaccard: float | None = share(zero=False, default=0.4)
    keep: Literal["best", "all"] = "best"
    held_out_share: float = share(one=False, default=0.0)

    def curate(self, item: Item) -> Item:
        """Leaves the recording's fingerprint, of what will be learned: where a person has timed all
        lines, of the sound from the first to the last, for two songs may be cut from one file."""
        name = "audio" if "audio" in item.tracks else "vocals"
        if self.audio_share is None or name not in item.tracks:
            return item.leave(NAME, {})
        sound, file = item.tracks[name], item.song.tracks.get(name, "")
        peaks = between(constellation(sound.wave_CW, sound.sample_rate), *_taught(item.song.lines))
        if len(peaks) < LEAST_PEAKS:
            text = f"too little sound to compare ({len(peaks)} spectral peaks)"
            item = item.remark(NAME, "noted", text)
        digest = hashlib.sha256(file.encode(errors="surrogateescape")).hexdigest()
        trace: Trace = {
            "peaks": base64.b64encode(peaks.astype("<u4").tobytes()).decode(),
            "seconds": round(sound.seconds, 3),
            "sample_rate": sound.sample_rate,
            "lossless": file.lower().endswith(LOSSLESS),  # the copy that goes on always is
            "file": digest[:16] if file else "",
        }
        return item.leave(NAME, trace)

    def curate_all(self, items: Sequence[Item]) -> list[Item]:
        """Groups, the split and remarks. What an earlier step set aside takes no part."""
        order = [n for n, item in enumerate(items) if not item.aside]
        order.sort(key=lambda n: items[n].song.id)  # the order given does not matter
        compared = [items[n] for n in order]
        files = [_trace(item).get("file", "") for item in compared]
        family = Family([item.song for item in compared], files, self._links(compared, files))
        aside = family.leaks()
        left = [n for n in range(len(compared)) if n not in aside]
        groups = family.groups(range(len(compared))) | family.groups(left)
        if self.keep == "best":
            aside |= family.copies(left, [_worth(item) for item in compared])
        draw = self.held_out_share > 0 and not family.split_by_source
        held = family.drawn(groups, self.held_out_share) if draw else set()
        result = list(items)
        for n, item in enumerate(compared):
            split = "held-out" if n in held else item.song.split
            item = replace(item, song=replace(item.song, group=groups[n], split=split))
            result[order[n]] = self._remarked(item, family, n, aside.get(n))
        return result

    def _links(self, items: Sequence[Item], files: Sequence[str]) -> dict[tuple[int, int], Link]:
        """What pairs of songs have in common. Two songs cut from one file, as `folder` holds out
        last lines, are linked only where they hold the same seconds of it: a chorus that comes
        again in the other is what the user asked for."""
        links = {}
        wordings = [wording(line.text for line in item.song.lines) for item in items]
        if self.audio_share is not None:
            skies = [_peaks(item) for item in items]
            for a, b, offsets in nominated(skies):
                if files[a] and files[a] == files[b]:
                    offsets = [offset for offset in offsets if abs(offset) <= 1][:1]
                    if not offsets:
                        continue
                common = overlap(skies[a], skies[b], offsets)
                larger = max(common.share_a, common.share_b)
                if larger >= self.audio_share and common.blocks >= LEAST_BLOCKS:
                    links[a, b] = Link(common, _agreement(wordings[a], wordings[b]))
        if self.lyrics_jaccard is not None:
            for (a, b), index in alike(wordings, self.lyrics_jaccard).items():
                if (a, b) not in links and not (files[a] and files[a] == files[b]):
                    links[a, b] = Link(None, index)
        return links

    def _remarked(self, item: Item, family: Family, n: int, aside: str | None) -> Item:
        """The item with its remarks."""
        if aside is not None:
            return item.remark(NAME, "set aside", aside)
        if linked := family.linked[n]:
            other, link = linked[0]
            more = f"; {len(linked) - 1} more songs are like it" if len(linked) > 1 else ""
            item = item.remark(NAME, "noted", link.words(family.songs[other].id) + more)
        if item.song.split != "train" and self.held_out_share:
            why = f"held out by held_out_share {self.held_out_share:g}"
            if family.split_by_source:
                why = "held out by its source, so held_out_share is not used"
            item = item.remark(NAME, "noted", why)
        return item


class Trace(TypedDict, total=False):
    """What `curate` leaves for `curate_all`: peaks (32-bit integers, base64), the file's hash."""

    peaks: str
    seconds: float
    sample_rate: int
    lossless: bool
    file: str


def _trace(item: Item) -> Trace:
    trace: Trace = item.traces.get(NAME, {})
    return trace


def _peaks(item: Item) -> Peaks:
    """The recording's fingerprint; empty where there is none or too little to tell it by."""
    peaks = np.frombuffer(base64.b64decode(_trace(item).get("peaks", "")), "<u4").astype(np.int64)
    return peaks if len(peaks) >= LEAST_PEAKS else peaks[:0]


def _taught(lines: Sequence[Line]) -> tuple[float, float]:
    """From when to when (seconds) a person has timed all lines; else from start to end."""
    timed = [(line.start, line.end) for line in lines if line.confidence is None]
    if not lines or len(timed) < len(lines):
        return 0.0, np.inf
    starts, ends = zip(*timed, strict=True)
    return (0.0, np.inf) if None in starts or None in ends else (min(starts), max(ends))


def _agreement(a: Wording, b: Wording) -> float:
    """How alike the lyrics to one recording are: 1 also where they are short or there are none."""
    return 1.0 if a.tokens == b.tokens else jaccard(a, b)


def _worth(item: Item) -> Worth:
    """3 for a line with notes, 2 with words, 1 with times; shares of the lines; Hz; seconds."""
    lines, trace, band = item.song.lines, _trace(item), item.song.fact("bandwidth_hz")
    grains = [3 if line.notes else 2 if line.words else line.start is not None for line in lines]
    by_a_person = [line.start is not None and line.confidence is None for line in lines]
    return Worth(
        sum(grains) / max(1, len(lines)),
        sum(by_a_person) / max(1, len(lines)),
        float(band.value) if band is not None else trace.get("sample_rate", 0) / 2,
        float(trace.get("lossless", False)),
        trace.get("seconds", 0.0),
    )
