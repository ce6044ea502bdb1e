"""Divergences between a student and what it should have said: pure functions, nats per token out.

Each takes logits_NC (the student's, of the C codes that are legal), codes_N (what was sung) and
teacher_NC (the teacher's log-probabilities, or None) and returns nats_N. No masking, weighting or
reduction inside. The legal slice alone equals the full softmax conditioned on the slot (chain
rule), so all of these are exact. A class here is a loss: its snake_case name is the recipe's
`kind` (losses: [{kind: forward_kl, weight: 0.5}]); tests/laws/test_losses.py holds it to float64.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax

IMPOSSIBLE = -30.0  # a log-probability, below which a code does not count


class Loss(Protocol):
    """What every loss promises."""

    # a class attribute, no field; the first loss that needs a teacher also compares score symbols
    needs_teacher: bool

    @property
    def weight(self) -> float:
        """Its weight in the sum: a field of the dataclass, and so a key of the recipe."""
        ...

    def __call__(
        self, logits_NC: Tensor, codes_N: Tensor, teacher_NC: Tensor | None = None
    ) -> Tensor:
        """nats_N."""
        ...


@dataclass(frozen=True)
class CrossEntropy:
    """-log q(code): learn what was sung."""

    weight: float = 1.0
    needs_teacher = False

    def __call__(
        self, logits_NC: Tensor, codes_N: Tensor, teacher_NC: Tensor | None = None
    ) -> Tensor:
        return cross_entropy(logits_NC.float(), codes_N, reduction="none")


@dataclass(frozen=True)
class _Divergence(ABC):
    """Of teacher p and student q at a temperature, times its square (Hinton, arXiv 1503.02531)."""

    weight: float = 1.0
    temperature: float = 1.0
    needs_teacher = True

    def __call__(
        self, logits_NC: Tensor, codes_N: Tensor, teacher_NC: Tensor | None = None
    ) -> Tensor:
        assert teacher_NC is not None, "this loss needs a teacher"
        p_NC = log_softmax(teacher_NC.float() / self.temperature, -1)
        q_NC = log_softmax(logits_NC.float() / self.temperature, -1)
        return self.between(p_NC, q_NC) * self.temperature**2

    @abstractmethod
    def between(self, p_NC: Tensor, q_NC: Tensor) -> Tensor:
        """Of log-probabilities of teacher and student."""


@dataclass(frozen=True)
class ForwardKl(_Divergence):
    """KL(p || q): cover the teacher."""

    def between(self, p_NC: Tensor, q_NC: Tensor) -> Tensor:
        return _kl(p_NC, q_NC)


@dataclass(frozen=True)
class ReverseKl(_Divergence):
    """KL(q || p), exact: stay where the teacher is (Gu et al., arXiv 2306.08543)."""

    def between(self, p_NC: Tensor, q_NC: Tensor) -> Tensor:
        return _kl(q_NC, p_NC)


def _kl(p_NC: Tensor, q_NC: Tensor) -> Tensor:
    """sum_c p (log p - log q), where p = 0 counts nothing."""
    return torch.where(p_NC > IMPOSSIBLE, p_NC.exp() * (p_NC - q_NC), 0.0).sum(-1)
