"""Laws of every loss in distill/writing/losses.py: value, gradient against float64, edges too."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from distill.config.settings import classes_in
from distill.writing.losses import CrossEntropy, ForwardKl, ReverseKl

CLASSES = classes_in("writing/losses")
EVERY_LOSS = pytest.mark.parametrize("kind", sorted(CLASSES))
EVERY_DIVERGENCE = pytest.mark.parametrize(
    "kind", sorted(kind for kind in CLASSES if CLASSES[kind].needs_teacher)
)
ROWS, CODES = 7, 11


def log_softmax(x_NC: np.ndarray) -> np.ndarray:
    x_NC = x_NC - x_NC.max(-1, keepdims=True)
    return x_NC - np.log(np.exp(x_NC).sum(-1, keepdims=True))


def kl(p_NC: np.ndarray, q_NC: np.ndarray) -> np.ndarray:
    return (np.exp(p_NC) * (p_NC - q_NC)).sum(-1)


Reference = Callable[[np.ndarray, np.ndarray, np.ndarray, float], np.ndarray]
# (logits, codes, teacher, temperature) -> nats, all in float64
REFERENCES: dict[str, Reference] = {
    "cross_entropy": lambda s, c, t, h: -log_softmax(s)[np.arange(len(c)), c],
    "forward_kl": lambda s, c, t, h: h * h * kl(log_softmax(t / h), log_softmax(s / h)),
    "reverse_kl": lambda s, c, t, h: h * h * kl(log_softmax(s / h), log_softmax(t / h)),
}


def drawn(seed: int = 0, spread: float = 2.0) -> tuple[Tensor, Tensor, Tensor]:
    """logits_NC, codes_N, teacher_NC (log-probabilities)."""
    generator = torch.Generator().manual_seed(seed)
    logits_NC = torch.randn(ROWS, CODES, generator=generator) * spread
    teacher_NC = (torch.randn(ROWS, CODES, generator=generator) * spread).log_softmax(-1)
    return logits_NC, torch.randint(CODES, (ROWS,), generator=generator), teacher_NC


def reference(
    kind: str, logits_NC: Tensor, codes_N: Tensor, teacher_NC: Tensor, temperature: float
) -> np.ndarray:
    assert kind in REFERENCES, f"{kind} is new: write down what it should be"
    return REFERENCES[kind](
        logits_NC.double().numpy(), codes_N.numpy(), teacher_NC.double().numpy(), temperature
    )


def instances(kind: str) -> list[tuple[object, float]]:
    cls = CLASSES[kind]
    hot = "temperature" in cls.__dataclass_fields__
    return [(cls(temperature=t), t) for t in (1.0, 2.0, 0.5)] if hot else [(cls(), 1.0)]


def test_the_losses_are_found():
    assert {"cross_entropy", "forward_kl", "reverse_kl"} <= set(CLASSES)
    assert all(
        cls().weight == 1.0 and isinstance(cls.needs_teacher, bool) for cls in CLASSES.values()
    )


@EVERY_LOSS
def test_it_equals_its_float64_reference_and_is_never_negative(kind):
    for loss, temperature in instances(kind):
        for seed in range(4):
            values = drawn(seed, spread=[0.1, 1.0, 3.0, 8.0][seed])
            nats_N = loss(*values)
            assert nats_N.shape == (ROWS,)
            wanted_N = reference(kind, *values, temperature)
            np.testing.assert_allclose(nats_N.double().numpy(), wanted_N, rtol=2e-4, atol=1e-5)
            assert (nats_N >= -1e-6).all()


@EVERY_LOSS
def test_its_gradient_is_that_of_float64_finite_differences(kind):
    for loss, temperature in instances(kind):
        logits_NC, codes_N, teacher_NC = drawn(5)
        watched_NC = logits_NC.clone().requires_grad_()
        loss(watched_NC, codes_N, teacher_NC).sum().backward()
        step, wanted_NC = 1e-5, np.zeros((ROWS, CODES))
        for code in range(CODES):
            up_NC, down_NC = logits_NC.double(), logits_NC.double()
            up_NC[:, code] += step
            down_NC[:, code] -= step
            above_N = reference(kind, up_NC, codes_N, teacher_NC, temperature)
            wanted_NC[:, code] = (
                above_N - reference(kind, down_NC, codes_N, teacher_NC, temperature)
            ) / (2 * step)
        assert watched_NC.grad is not None and np.abs(wanted_NC).max() > 1e-2
        np.testing.assert_allclose(watched_NC.grad.numpy(), wanted_NC, atol=2e-5)


@EVERY_DIVERGENCE
def test_a_divergence_is_zero_with_no_gradient_where_student_and_teacher_agree(kind):
    for loss, _ in instances(kind):
        _, codes_N, teacher_NC = drawn(2)
        # a constant changes no distribution
        logits_NC = (teacher_NC + torch.randn(ROWS, 1)).requires_grad_()
        nats_N = loss(logits_NC, codes_N, teacher_NC)
        assert nats_N.abs().max() < 1e-5
        nats_N.sum().backward()
        assert logits_NC.grad is not None and logits_NC.grad.abs().max() < 1e-5
        assert loss(logits_NC.detach().flip(-1), codes_N, teacher_NC).min() > 1e-3


@EVERY_LOSS
def test_it_stays_finite_where_student_or_teacher_is_certain(kind):
    loss = CLASSES[kind]()
    _, codes_N, teacher_NC = drawn(3)
    certain_NC = torch.full((ROWS, CODES), -6e4)  # what signals keep of log 0
    certain_NC[:, 0] = 0.0
    for logits_NC, said_NC in [
        (certain_NC / 600, teacher_NC),
        (drawn(3)[0], certain_NC),
        (certain_NC, certain_NC),
    ]:
        watched_NC = logits_NC.clone().requires_grad_()
        nats_N = loss(watched_NC, codes_N, said_NC)
        nats_N.sum().backward()
        assert nats_N.isfinite().all()
        assert watched_NC.grad is not None
        assert watched_NC.grad.isfinite().all()


@EVERY_LOSS
def test_half_precision_scores_are_taken_in_float32(kind):
    loss = CLASSES[kind]()
    logits_NC, codes_N, teacher_NC = drawn(4)
    half_NC = logits_NC.bfloat16()
    nats_N = loss(half_NC, codes_N, teacher_NC)
    assert nats_N.dtype == torch.float32
    torch.testing.assert_close(nats_N, loss(half_NC.float(), codes_N, teacher_NC))


def test_a_one_hot_teacher_makes_forward_kl_cross_entropy():
    logits_NC, codes_N, _ = drawn(6)
    sure_NC = torch.full((ROWS, CODES), -torch.inf)
    sure_NC[torch.arange(ROWS), codes_N] = 0.0
    one_NC, two_NC = logits_NC.clone().requires_grad_(), logits_NC.clone().requires_grad_()
    by_teacher_N, by_code_N = ForwardKl()(one_NC, codes_N, sure_NC), CrossEntropy()(two_NC, codes_N)
    torch.testing.assert_close(by_teacher_N, by_code_N)
    by_teacher_N.sum().backward()
    by_code_N.sum().backward()
    torch.testing.assert_close(one_NC.grad, two_NC.grad)


def test_forward_and_reverse_are_each_other_with_roles_exchanged():
    logits_NC, codes_N, teacher_NC = drawn(7)
    forward_N = ForwardKl()(logits_NC, codes_N, teacher_NC)
    torch.testing.assert_close(ReverseKl()(teacher_NC, codes_N, logits_NC), forward_N)
    assert (forward_N - ReverseKl()(logits_NC, codes_N, teacher_NC)).abs().max() > 1e-2


def test_a_slots_slice_is_the_full_softmax_given_the_slot():
    generator = torch.Generator().manual_seed(8)
    full_NV = torch.randn(ROWS, 60, generator=generator, dtype=torch.float64)
    start, stop = 20, 20 + CODES
    codes_N = torch.randint(CODES, (ROWS,), generator=generator)
    logp_NV = full_NV.log_softmax(-1)
    of_code_N = logp_NV[torch.arange(ROWS), start + codes_N]
    of_slot_N = logp_NV[:, start:stop].logsumexp(-1)
    sliced_N = CrossEntropy()(full_NV[:, start:stop], codes_N)
    torch.testing.assert_close(sliced_N.double(), -(of_code_N - of_slot_N), atol=1e-5, rtol=1e-5)
    # chain rule: -log P(code) = -log P(slot) + -log P(code | slot)
    torch.testing.assert_close(-of_code_N, -of_slot_N + sliced_N.double(), atol=1e-5, rtol=1e-5)
