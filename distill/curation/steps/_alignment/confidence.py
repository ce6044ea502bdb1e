"""How sure a placement is: the probability that a word is within 0.2 s, a line within 0.3 s.

What the aligner thinks of its own path is not enough: it is sure of itself with the wrong lyrics
too. So a logistic regression weighs that (`mass`) against what can be seen beside it: whether the
sounds that should be there are heard (`agree`), the same around it (`near`: a word's line, a line's
neighbours) and over the whole song (`song`), whether there is singing at all (`voice`), and whether
it is as long as people sing (`pace`, and its square). The weights were fitted on generated songs
with the band from silent to far too loud, under their own lyrics, under lyrics with lines left out
or put in that nobody sings, and under another song's, where every placement is wrong
(`bench/alignment.py --fit`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
WORD_SECONDS, LINE_SECONDS = 0.2, 0.3
SEEN = ("mass", "agree", "near", "song", "voice", "pace", "pace squared")
# constant, then as in SEEN
WORD_WEIGHTS = (1.6772, 0.7067, 0.0243, 1.7421, 1.8912, 1.5723, -0.0763, -1.1512)
LINE_WEIGHTS = (1.4508, 0.6615, 2.0628, 0.7341, 1.5694, 2.2032, -1.0319, -1.6884)
LEAST_SHARE = 1e-3  # whose log odds are -7
NEWTON_STEPS = 50


def logit(share: Floats) -> Floats:
    """Log odds, kept within +-7."""
    held = np.clip(share, LEAST_SHARE, 1.0 - LEAST_SHARE)
    return np.log(held / (1.0 - held))


def sure(seen_NX: Floats, weights: tuple[float, ...]) -> Floats:
    """Confidences 0 to 1 from what is seen of N placements (columns as in SEEN)."""
    return 1.0 / (1.0 + np.exp(-(weights[0] + seen_NX @ np.array(weights[1:]))))


def fit(seen_NX: Floats, right_N: NDArray[np.bool_], ridge: float = 1e-3) -> tuple[float, ...]:
    """Weights by Newton's method on the ridge-penalised log likelihood."""
    inputs = np.column_stack([np.ones(len(seen_NX)), seen_NX])
    weights = np.zeros(inputs.shape[1])
    penalty = ridge * len(inputs)
    for _ in range(NEWTON_STEPS):
        chance = 1.0 / (1.0 + np.exp(-inputs @ weights))
        slope = inputs.T @ (right_N - chance) - penalty * weights
        curvature = (inputs * (chance * (1 - chance))[:, None]).T @ inputs
        weights += np.linalg.solve(curvature + penalty * np.eye(len(weights)), slope)
    return tuple(round(float(weight), 4) for weight in weights)
