"""Which part of a song is what: by its tags, else guessed from the lines that come again.

Lyrics without tags are one long verse, cut at empty lines. What returns in them, two lines or more
at a time with other lines between, is taken for the chorus; what stands between is verse. Lines are
compared by words with a normalised edit distance, so "I will love you" and "and I will love you"
are nearly the same line. Of all blocks that return, the one that covers most lines wins:
(occurrences - 1) x length. This is self-similarity as music structure analysis uses it on sound
(Foote, 1999, "Visualizing music and audio using self-similarity"), on text.

The bounds, 0.6 for a block and 0.4 for its first and last line, find no chorus in songs without one
and most in songs whose words return misheard (bench/structure.py). Lower bounds forgive more, but
verses of real songs often share half of their words.

It is a guess, and its Fact("structure") says so with a confidence. What it cannot know: which verse
is a bridge, and where a chorus begins that is sung once. Where nothing returns, the sections stay
as they are.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from distill.config.ranges import Checked, above, at_least, share
from distill.curation.steps import Item
from distill.curation.steps._alignment.phones import units
from distill.songs import Fact, Section, Song

STEP = "structure"
MOST_LINES = 400  # the comparison is quadratic; longer texts are no songs
LEAST_ALIKE = 0.4  # of the first and the last line of a block that returns
MOST_CHORUS = 0.6  # of the lines between two sure edges: then all of them are chorus
# Of a song whose lines return twice, thrice, more often. From judgement, not from measured songs:
# on generated ones, whose choruses return word by word, every chorus that was found was one.
CONFIDENCE = {2: 0.6, 3: 0.75, 4: 0.85}
AT_EDGES = 0.1  # more of it where all choruses begin at sure edges
ONE_LINE = 0.6  # times that for a chorus of one line
MOST_CONFIDENCE, NO_CHORUS = 0.9, 0.2


@dataclass(frozen=True)
class Settings(Checked):
    """alike: from which similarity two lines count as the same. shortest: lines of a chorus.
    gap_seconds: a pause between timed lines that ends a section. apply: whether the guess cuts and
    names the song's sections, or is only noted."""

    alike: float = share(zero=False, default=0.6)
    shortest: int = at_least(1, default=2)
    gap_seconds: float = above(0, default=4.0)
    apply: bool = True

    def curate(self, item: Item) -> Item:
        """The item with Fact("structure"): the names of its sections in order."""
        song = item.song
        tags = [section.tag for section in song.sections]
        if not song.lines or len(song.lines) > MOST_LINES:
            return item
        known = song.fact("structure")
        if known is not None and known.value == tags:
            return item  # what was guessed once stays a guess when the songs are curated again
        if any(section.tag != "verse" for section in song.sections if section.lines):
            return item.know(Fact("structure", tags))
        guess = self.guess(song)
        if guess is None:
            text = "no block of lines returns: no chorus found, sections left as they stand"
            item = item.know(Fact("structure", tags, STEP, NO_CHORUS))
            return item.remark(STEP, "noted", text)
        sections, confidence = guess
        tags = [section.tag for section in sections]
        text = f"guessed from lines that return: {', '.join(tags)} (confidence {confidence:.2f})"
        item = item.know(Fact("structure", tags, STEP, round(confidence, 3)))
        if not self.apply:
            return item.remark(STEP, "noted", text)
        item = replace(item, song=replace(item.song, sections=sections))
        return item.remark(STEP, "mended", text)

    def guess(self, song: Song) -> tuple[tuple[Section, ...], float] | None:
        """The lines as verse and chorus, and how sure that is; None where nothing returns."""
        lines = song.lines
        alike_LL = similarity([line.text for line in lines])
        block = chorus(alike_LL, self.alike, self.shortest)
        if block is None:
            return None
        first, length, starts = block
        edges = self._edges(song)
        in_chorus = np.zeros(len(lines), bool)
        for start in starts:
            in_chorus[start : start + length] = True
        in_chorus = _snapped(in_chorus, edges)
        turns = {cut for cut in range(1, len(lines)) if _turns(cut, in_chorus, starts)}
        sections = _cut(song, sorted({0} | edges | turns), in_chorus)
        rows = [[alike_LL[first + k, start + k] for k in range(length)] for start in starts]
        agreed = len(edges) > 1 and sum(start in edges for start in starts) / len(starts)
        sure = CONFIDENCE[min(len(starts), 4)] * float(np.mean(rows)) + AT_EDGES * agreed
        return sections, min(MOST_CONFIDENCE, sure * (1.0 if length > 1 else ONE_LINE))

    def _edges(self, song: Song) -> set[int]:
        """Lines at which a section begins for sure: at an empty line, or after a pause."""
        edges = {number for number in _first_lines(song) if number < len(song.lines)}
        for number, (before, after) in enumerate(itertools.pairwise(song.lines), 1):
            end, start = before.end, after.start
            if end is not None and start is not None and start - end >= self.gap_seconds:
                edges.add(number)
        return edges


def _first_lines(song: Song) -> list[int]:
    """The number of the first line of each section."""
    return [0, *itertools.accumulate(len(section.lines) for section in song.sections)][:-1]


def _cut(song: Song, cuts: list[int], in_chorus: NDArray[np.bool_]) -> tuple[Section, ...]:
    """Sections that begin at the cuts; those without lines stay before the line behind them."""
    lines, sections = song.lines, list[Section]()
    silent: dict[int, list[Section]] = {}
    for number, section in zip(_first_lines(song), song.sections, strict=True):
        if not section.lines:
            silent.setdefault(number, []).append(section)
    for first, last in zip(cuts, [*cuts[1:], len(lines)], strict=True):
        tag = "chorus" if in_chorus[first] else "verse"
        sections += [*silent.get(first, ()), Section(tag, lines[first:last])]
    return (*sections, *silent.get(len(lines), ()))


def similarity(lines: Sequence[str]) -> NDArray[np.float64]:
    """alike_LL: 1 minus the normalised edit distance of lines in words (East Asian: characters)."""
    spelled = [tuple(units(line)) for line in lines]
    kinds = {line: number for number, line in enumerate(dict.fromkeys(spelled))}
    alike_KK = np.eye(len(kinds))
    for (a, i), (b, j) in itertools.combinations(kinds.items(), 2):
        if set(a) & set(b):
            longest = max(len(a), len(b))
            alike_KK[i, j] = alike_KK[j, i] = 1 - edit_distance(a, b) / longest
    kind_L = np.array([kinds[line] for line in spelled], int)
    return alike_KK[np.ix_(kind_L, kind_L)]


def chorus(
    alike_LL: NDArray[np.float64], alike: float, shortest: int
) -> tuple[int, int, list[int]] | None:
    """The block of lines that returns and covers most: (first line, lines, where it stands), or
    None. At least one return has other lines before it: a row sung twice at once is no chorus."""
    count = len(alike_LL)
    best, covered = None, 0.0
    for start in range(count):
        for length in range(shortest, (count - start) // 2 + 1):
            mean_L = _along(alike_LL, start, length)
            if not (mean_L[start + length :] >= alike).any():
                break  # a longer block returns no more often
            starts = _apart(mean_L, alike, length)
            if not any(after - before > length for before, after in itertools.pairwise(starts)):
                continue
            covers = (len(starts) - 1) * length * float(np.mean(mean_L[starts]))
            if covers > covered + 1e-9:  # more than rounding
                best, covered = (start, length, starts), covers
    return best


def _along(alike_LL: NDArray[np.float64], start: int, length: int) -> NDArray[np.float64]:
    """The mean likeness of the block at `start` to that at each line, 0 where an end is another."""
    count = len(alike_LL)
    rows_KL = np.stack([alike_LL[start + k, k : count - length + 1 + k] for k in range(length)])
    # a block that begins or ends otherwise is a shorter one
    ends_L = np.minimum(rows_KL[0], rows_KL[-1])
    return np.where(ends_L >= LEAST_ALIKE, rows_KL.mean(0), 0.0)


def _apart(mean_L: NDArray[np.float64], alike: float, length: int) -> list[int]:
    """Where the block stands, the best taken first, without overlap; in order."""
    taken: list[int] = []
    for start in np.argsort(-mean_L, kind="stable").tolist():
        if mean_L[start] < alike:
            break
        if all(abs(start - other) >= length for other in taken):
            taken.append(start)
    return sorted(taken)


def _snapped(in_chorus: NDArray[np.bool_], edges: set[int]) -> NDArray[np.bool_]:
    """Between two sure edges: all chorus where most lines are; else as they were."""
    cuts = sorted({0, *edges, len(in_chorus)})
    snapped = in_chorus.copy()
    if len(cuts) > 2:
        for first, last in itertools.pairwise(cuts):
            if in_chorus[first:last].mean() >= MOST_CHORUS:
                snapped[first:last] = True
    return snapped


def _turns(cut: int, in_chorus: NDArray[np.bool_], starts: Sequence[int]) -> bool:
    """Whether verse turns to chorus or back here, or a chorus begins behind another."""
    return bool(in_chorus[cut] != in_chorus[cut - 1]) or (cut in starts and bool(in_chorus[cut]))


def edit_distance(a: Sequence[str], b: Sequence[str]) -> int:
    """Levenshtein distance of two sequences."""
    before = list(range(len(b) + 1))
    for row, left in enumerate(a, 1):
        now = [row]
        for column, right in enumerate(b, 1):
            now.append(min(before[column] + 1, now[-1] + 1, before[column - 1] + (left != right)))
        before = now
    return before[-1]
