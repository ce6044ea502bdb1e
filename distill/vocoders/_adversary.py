"""The adversary of the Vocos paper: discriminators over periods and spectrograms, their losses.

It needs no optimiser of its own. Its own loss sees a copy of the sound that hands no gradient back,
and the sound's losses are taken while its parameters are held; so one backward pass gives each side
exactly its own gradient, and one AdamW, which treats every parameter apart, steps both. (The
paper's code steps the discriminators first; here both step at once, each against the other as it
was.)
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from distill.runtime.torchaudio_standin import install

install()

from vocos.discriminators import MultiPeriodDiscriminator, MultiResolutionDiscriminator
from vocos.loss import DiscriminatorLoss, FeatureMatchingLoss, GeneratorLoss


class Adversary(nn.Module):
    """Discriminators over periods and, counted by share (paper: 0.1), spectrograms; () is none."""

    def __init__(self, periods: tuple[int, ...], windows: tuple[int, ...], window_share: float):
        super().__init__()
        # they are built on torch's first weight_norm, which says it is old
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            self.by_period = MultiPeriodDiscriminator(periods)
            self.by_window = MultiResolutionDiscriminator(windows)
        self.window_share = window_share

    def kinds(self) -> list[tuple[nn.Module, float]]:
        """The kinds that have discriminators, and how much each counts."""
        both = [(self.by_period, 1.0), (self.by_window, self.window_share)]
        return [(kind, share) for kind, share in both if len(kind.discriminators)]

    def judged(self, made_BW: Tensor, true_BW: Tensor) -> Tensor:
        """How badly it tells made from true (hinge, a scalar): its own loss, and nobody else's."""
        loss = made_BW.new_zeros(())
        for kind, share in self.kinds():
            true_logits, made_logits, _, _ = kind(true_BW, made_BW.detach())
            hinge = DiscriminatorLoss()(true_logits, made_logits)[0].sum()
            loss = loss + share * hinge / len(true_logits)
        return loss

    def fooled(self, made_BW: Tensor, true_BW: Tensor) -> tuple[Tensor, Tensor]:
        """How badly the sound passes for true (hinge), and its features' distance: scalars."""
        hinge, features = made_BW.new_zeros(()), made_BW.new_zeros(())
        with held(self):
            for kind, share in self.kinds():
                _, made_logits, true_features, made_features = kind(true_BW, made_BW)
                hinge = hinge + share * GeneratorLoss()(made_logits)[0].sum() / len(made_logits)
                apart = FeatureMatchingLoss()(true_features, made_features).sum()
                features = features + share * apart / len(made_features)
        return hinge, features


@contextmanager
def held(module: nn.Module) -> Iterator[None]:
    """No gradient reaches the module's parameters through what is computed here."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)
