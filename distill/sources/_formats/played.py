"""In which order the measures of a score are played: repeats and their endings unrolled.

    |: 1  2 [1. 3 :| [2. 4 |   ->   1 2 3, 1 2 4

Repeats within repeats are not; nor are jumps (D.C., D.S., to coda), which scores write in too many
ways to be sure.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from xml.etree.ElementTree import Element

from distill.errors import LyricsError

MOST_TIMES = 20
MOST_MEASURES = 20_000
ADVICE = "write it out as it is sung"
JUMP = re.compile(r"\bD\.? ?[CS]\b\.?|\bda capo\b|\bdal segno\b|\bto coda\b", re.IGNORECASE)


class Bars(NamedTuple):
    """What stands at a measure's barlines: whether a repeat begins, and the rest as below."""

    begins: bool
    times: int  # how often the repeat that ends here is played; 0: none ends
    endings: tuple[int, ...]  # the times for which the measure is written; (): for all
    stops: bool  # whether that ending stops here


def play_order(parts: list[list[Element]], where: str) -> list[tuple[int, int]]:
    """(measure, for the how many-th time) in the order of playing, counted from 0 and from 1.

    Without a sign where it begins, a repeat goes back to behind the one before, or to the start.
    Raises LyricsError for jumps, and for endings that would leave a measure out."""
    count = max(len(part) for part in parts)
    if count > MOST_MEASURES:
        raise LyricsError(f"{where}: {count:,} measures are no song's; cut it into songs")
    bars = _bars(parts, count, where)
    most = _times(bars)
    order: list[tuple[int, int]] = []
    index, first, time = 0, 0, 1
    while index < count:
        bar = bars[index]
        if bar.begins and index != first:
            first, time = index, 1
        if bar.endings and time not in bar.endings:
            index += 1
            continue
        order.append((index, time))
        if len(order) > MOST_MEASURES:
            played = f"more than {MOST_MEASURES:,} measures with its repeats"
            raise LyricsError(f"{where}: {played}; cut it into songs")
        if bar.times and time < most[index]:
            index, time = first, time + 1
            continue
        if bar.times or (bar.endings and bar.stops):
            first, time = index + 1, 1
            while bar.endings and first < count and bars[first].endings:
                first += 1  # endings of times that have been
            index = first
            continue
        index += 1
    if len({index for index, _ in order}) < count:
        raise LyricsError(f"{where}: repeats and endings that do not fit together; {ADVICE}")
    return order


def _times(bars: list[Bars]) -> list[int]:
    """How often the passage is played that ends at each measure: by endings, their last number."""
    most = [max(bar.times, *bar.endings) if bar.endings else bar.times for bar in bars]
    for index in reversed(range(len(bars) - 1)):
        if bars[index].endings and bars[index + 1].endings:
            most[index] = max(most[index], most[index + 1])
    return most


def _bars(parts: list[list[Element]], count: int, where: str) -> list[Bars]:
    bars = []
    open_endings: tuple[int, ...] = ()
    for index in range(count):
        begins, times, stops = False, 0, False
        for measure in (part[index] for part in parts if index < len(part)):
            _refuse_jumps(measure, where)
            for bar in measure.findall("barline"):
                repeat, ending = bar.find("repeat"), bar.find("ending")
                if repeat is not None and repeat.get("direction") == "forward":
                    begins = True
                elif repeat is not None:
                    times = max(times, _number(repeat.get("times", "2"), where))
                if ending is not None and ending.get("type") == "start":
                    numbers = re.findall(r"\d+", ending.get("number", ""))
                    open_endings = tuple(_number(number, where) for number in numbers) or (1,)
                elif ending is not None:
                    stops = True
        bars.append(Bars(begins, times, open_endings, stops))
        if stops:
            open_endings = ()
    return bars


def _number(text: str, where: str) -> int:
    if not re.fullmatch(r"\s*\d{1,3}\s*", text) or not 1 <= int(text) <= MOST_TIMES:
        raise LyricsError(f"{where}: a passage repeated {text[:10]!r} times; write it out")
    return int(text)


def _refuse_jumps(measure: Element, where: str) -> None:
    for sound in measure.iter("sound"):
        if {"dacapo", "dalsegno", "tocoda"} & set(sound.keys()):
            raise LyricsError(f"{where}: the score jumps (D.C., D.S. or coda); {ADVICE}")
    for mark in measure.iter("words"):
        if JUMP.search(mark.text or ""):
            raise LyricsError(f"{where}: the score says {(mark.text or '')[:20]!r}; {ADVICE}")
