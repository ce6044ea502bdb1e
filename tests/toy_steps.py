"""Steps of curation for tests of the runner, in a file that worker processes can import."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from distill.curation.steps import Item, Sound
from distill.errors import AudioError, FolderError
from distill.songs import Fact


@dataclass(frozen=True)
class Gain:
    """Makes every track louder, and writes down whom it saw."""

    times: float = 1.0
    log: str = ""
    seconds: float = 0.0

    def curate(self, item: Item) -> Item:
        if self.log:
            with Path(self.log).open("a") as file:
                file.write(item.song.id + "\n")
        time.sleep(self.seconds)
        tracks = {
            name: Sound(s.wave_CW * np.float32(self.times), s.sample_rate)
            for name, s in item.tracks.items()
        }
        item = replace(item, tracks=tracks)
        return (
            item.remark("gain", "mended", f"{self.times} times as loud")
            if self.times != 1
            else item
        )


@dataclass(frozen=True)
class Level:
    """Leaves each song's level, then groups songs by it. Its trace is a tuple, unknown to JSON."""

    def curate(self, item: Item) -> Item:
        level = round(
            max((float(np.abs(s.wave_CW).max()) for s in item.tracks.values()), default=0.0), 2
        )
        return item.leave("level", (level,)).know(Fact("level", level, "level", 0.5))

    def curate_all(self, items: Sequence[Item]) -> list[Item]:
        assert all(item.tracks == {} and isinstance(item.traces["level"], list) for item in items)
        levels = [item.traces["level"][0] for item in items]
        return [
            replace(item, song=replace(item.song, group=f"level {level}")).remark(
                "level", "noted", "grouped"
            )
            if levels.count(level) > 1
            else item
            for item, level in zip(items, levels, strict=True)
        ]


@dataclass(frozen=True)
class Odd:
    """Does with one song what `does` says; leaves the others, with a trace nobody asks for."""

    song: str
    does: str

    def curate(self, item: Item) -> Item:
        if item.song.id != self.song:
            return item.leave("odd", [0] * 1000)
        match self.does:
            case "fault":
                return item.song.nonsense  # type: ignore[attr-defined]
            case "nothing":
                return None  # type: ignore[return-value]
            case "numpy":
                return item.know(Fact("level", np.float32(1.0)))
            case "nan":
                return item.leave("odd", float("nan"))
            case "noise":
                return replace(
                    item,
                    tracks={n: Sound(s.wave_CW * np.nan, 8000) for n, s in item.tracks.items()},
                )
            case "refuse":
                raise AudioError(f"song {item.song.id}: too odd; sing it again")
            case "disk":
                raise FolderError("disk: full; make room")
            case "die":
                os._exit(9)
        raise AssertionError(self.does)
