"""Some of many passages, drawn from everywhere, without a list of all."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from distill.writing.prompts import Coded

MEASURED = 32_768  # audio tokens: 11 minutes of the embedded codec, a minute of a 0.6 B model


def everywhere(count: int) -> Iterator[int]:
    """The numbers below `count`, each once; the first few lie all over it. The same every time."""
    least = max(1, round(0.618 * count))
    stride = next(s for s in range(least, 2 * count + 2) if math.gcd(s, count) == 1)
    return (number * stride % count for number in range(count))


def sample(coded: Sequence[Coded], tokens: int = MEASURED) -> list[Coded]:
    """All passages, or as many as hold so many audio tokens; in order."""
    chosen, held = dict[int, Coded](), 0
    for at in everywhere(len(coded)):
        chosen[at] = coded[at]
        held += chosen[at].codes_FS.numel()
        if held >= tokens:
            break
    return [chosen[at] for at in sorted(chosen)]
