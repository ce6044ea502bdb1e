"""Songs that are one song: copies, excerpts, edits and covers are found, grouped, and kept on one
side of the split.

    the same sound      an acoustic fingerprint of each recording (_fingerprint.py)
    the same words      MinHash of the lyrics (_minhash.py): covers and other takes, whatever they sound like

Both find pairs; pairs make groups (`Song.group`), and a group is held out as a whole or not at all.
Three things follow (_kinship.py):

- A training song that is in one group with a song held out by its source is set aside: scores on a
  song that the model has learned mean nothing, and a held-out set must not change because a copy
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
from typing import Any, Literal

import numpy as np

from distill.curation.steps import Item
from distill.curation.steps._fingerprint import Peaks, between, constellation, nominated, overlap
from distill.curation.steps._kinship import Family, Link, Worth
from distill.curation.steps._minhash import Wording, alike, jaccard, wording
from distill.errors import SettingsError
from distill.songs import Line

NAME = "duplicates"
LEAST_PEAKS = 20  # in a recording that can be told from others
LEAST_BLOCKS = 3  # seconds in common, or it is no evidence
LOSSLESS = (".wav", ".flac", ".aif", ".aiff")


@dataclass(frozen=True)
class Settings:
    """When two songs are one, and what follows.

    audio_share: of the shorter recording, found in the other at the same times but for an offset
    (null: sound is not compared). lyrics_jaccard: of the lyrics' runs of three words, or of four
    characters where words are not spaced (null: lyrics are not compared). keep: "best" sets the
    other copies of a recording aside, "all" keeps them, in one group. held_out_share: of the songs,
    in whole groups, where the source holds out none.

    The defaults lie in wide gaps. Of generated songs strangers share at most 0.25 of the sound (the
    same piano in the same key and tempo) and 0.1 of the words; re-encodings share 0.9 and more of
    the sound, a song of which a part was cut out 0.5. A long song with a tenth of its words
    misheard has an index of 0.57, without half of its lines 0.5.
    """

    audio_share: float | None = 0.4
    lyrics_jaccard: float | None = 0.4
    keep: Literal["best", "all"] = "best"
    held_out_share: float = 0.0

    def __post_init__(self) -> None:
        for name in ("audio_share", "lyrics_jaccard"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise SettingsError(f"{name} is {value}; give a share above 0 and up to 1, or null")
        if self.keep not in ("best", "all"):
            raise SettingsError(f"keep is {self.keep!r}; give best or all")
        if not 0 <= self.held_out_share < 1:
            raise SettingsError(
                f"held_out_share is {self.held_out_share}; give a share from 0 to below 1"
            )

    def curate(self, item: Item) -> Item:
        """Leaves the recording's fingerprint.

        What is looked at is what will be learned: where a person has timed all lines, the sound
        from the first to the last, because two songs may be cut from one file.
        """
        name = "audio" if "audio" in item.tracks else "vocals"
        if self.audio_share is None or name not in item.tracks:
            return item.leave(NAME, {})
        sound, file = item.tracks[name], item.song.tracks.get(name, "")
        peaks = between(constellation(sound.wave_CW, sound.sample_rate), *_taught(item.song.lines))
        if len(peaks) < LEAST_PEAKS:
            item = item.remark(
                NAME, "noted", f"too little sound to compare ({len(peaks)} spectral peaks)"
            )
        trace = {
            "peaks": base64.b64encode(peaks.astype("<u4").tobytes()).decode(),
            "seconds": round(sound.seconds, 3),
            "sample_rate": sound.sample_rate,
            "lossless": file.lower().endswith(LOSSLESS),  # the copy that goes on always is
            "file": hashlib.sha256(file.encode(errors="surrogateescape")).hexdigest()[:16]
            if file
            else "",
        }
        return item.leave(NAME, trace)

    def curate_all(self, items: Sequence[Item]) -> list[Item]:
        """Groups, the split and remarks. What an earlier step set aside takes no part."""
        order = sorted(
            (n for n, item in enumerate(items) if not item.aside), key=lambda n: items[n].song.id
        )
        looked = [items[n] for n in order]  # by id, so that the order given does not matter
        files = [_trace(item).get("file", "") for item in looked]
        family = Family([item.song for item in looked], files, self._links(looked, files))
        aside = family.leaks()
        left = [n for n in range(len(looked)) if n not in aside]
        groups = family.groups(range(len(looked))) | family.groups(left)
        if self.keep == "best":
            aside |= family.copies(left, [_worth(item) for item in looked])
        draw = self.held_out_share > 0 and not family.split_by_source
        held = family.drawn(groups, self.held_out_share) if draw else set()
        done = list(items)
        for n, item in enumerate(looked):
            split = "held-out" if n in held else item.song.split
            item = replace(item, song=replace(item.song, group=groups[n], split=split))
            done[order[n]] = self._told(item, family, n, aside.get(n))
        return done

    def _links(self, items: Sequence[Item], files: Sequence[str]) -> dict[tuple[int, int], Link]:
        """What pairs of songs have in common.

        Two songs cut from one file, as `folder` holds out last lines, are linked only where they
        hold the same seconds of it: a chorus that comes again in the other is what the user asked
        for.
        """
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
                if (
                    max(common.share_a, common.share_b) >= self.audio_share
                    and common.blocks >= LEAST_BLOCKS
                ):
                    links[a, b] = Link(common, _agreement(wordings[a], wordings[b]))
        if self.lyrics_jaccard is not None:
            for (a, b), index in alike(wordings, self.lyrics_jaccard).items():
                if (a, b) not in links and not (files[a] and files[a] == files[b]):
                    links[a, b] = Link(None, index)
        return links

    def _told(self, item: Item, family: Family, n: int, aside: str | None) -> Item:
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


def _trace(item: Item) -> dict[str, Any]:
    return item.traces.get(NAME, {})


def _peaks(item: Item) -> Peaks:
    """The recording's fingerprint; empty where there is none or too little to tell it from others."""
    peaks = np.frombuffer(base64.b64decode(_trace(item).get("peaks", "")), "<u4").astype(np.int64)
    return peaks if len(peaks) >= LEAST_PEAKS else peaks[:0]


def _taught(lines: Sequence[Line]) -> tuple[float, float]:
    """From when to when (seconds) there are lines to learn, as a person has timed them; else from
    start to end."""
    timed = [(line.start, line.end) for line in lines if line.confidence is None]
    if not lines or len(timed) < len(lines):
        return 0.0, np.inf
    starts, ends = zip(*timed, strict=True)
    return (0.0, np.inf) if None in starts or None in ends else (min(starts), max(ends))


def _agreement(a: Wording, b: Wording) -> float:
    """How alike the lyrics to one recording are: 1 also where they are short or there are none."""
    return 1.0 if a.tokens == b.tokens else jaccard(a, b)


def _worth(item: Item) -> Worth:
    song, trace = item.song, _trace(item)
    band, lines = song.fact("bandwidth_hz"), max(1, len(song.lines))
    return Worth(
        sum(3 if line.notes else 2 if line.words else line.start is not None for line in song.lines)
        / lines,
        sum(line.start is not None and line.confidence is None for line in song.lines) / lines,
        float(band.value) if band is not None else trace.get("sample_rate", 0) / 2,
        float(trace.get("lossless", False)),
        trace.get("seconds", 0.0),
    )
