"""What the recipe of a singer may say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from distill.codecs import CodecSettings
from distill.config.ranges import Checked, at_least, share
from distill.config.settings import part, parts, parts_in
from distill.curation.steps import CurationStep
from distill.errors import SettingsError
from distill.lm.batches import PackingSettings
from distill.lm.from_scratch import FromScratchSettings
from distill.lm.losses import CrossEntropy, Loss
from distill.lm.prompts import WritingSettings
from distill.lm.sampling import Sampling
from distill.lm.student import LoraSettings
from distill.sources import Source
from distill.teachers import TeacherSettings
from distill.training.trainer import TrainSettings
from distill.vocoders import VocoderSettings


@dataclass(frozen=True)
class BaseSettings:
    """The LLM to graft: a package folder, folder or hub id; or, with `from_scratch`, a new one with
    random weights."""

    path: str = "embedded/base"
    from_scratch: FromScratchSettings | None = field(default=None, metadata={"was": "blank"})
    quantise: Literal["none", "int8", "nf4"] = "none"
    init: Literal["codebooks", "mean"] = "codebooks"
    licence: str = ""  # empty: that of this package for its own, else unknown

    @property
    def terms(self) -> str:
        """The licence of the weights. What is new is under the one of this package, and so is the
        base it ships."""
        ours = self.from_scratch is not None or self.path.startswith("embedded/")
        return self.licence or ("apache-2.0" if ours else "unknown")


@dataclass(frozen=True)
class TermSettings(Checked):
    """Weights of the terms beside the losses, and the share of positions on which the format term
    is taken."""

    pieces: float = at_least(0, default=0.2)
    lengths: float = at_least(0, default=0.1)
    opens: float = at_least(0, default=0.2)
    format: float = at_least(0, default=0.1)
    format_share: float = share(default=1 / 16)


@dataclass(frozen=True)
class JudgeSettings(Checked):
    """How the finished singer is judged: held-out lines sung (0: none)."""

    lines: int = at_least(0, default=24)


@dataclass(frozen=True)
class SingingSettings:
    """The recipe of a singer. `curation`: steps the songs go through first. `adapter` null trains
    all weights.

    `vocoder`: a trained head that goes with the singer, and makes its sound where it measures
    better than the codec. `sampling`: null takes the codec's own.
    """

    songs: Source = part("sources")
    codec: CodecSettings = part("codecs")
    curation: tuple[CurationStep, ...] = parts("curation/steps", default=())
    train: TrainSettings = field(default_factory=lambda: TrainSettings(seconds=240))
    base: BaseSettings = field(default_factory=BaseSettings)
    adapter: LoraSettings | None = field(default_factory=LoraSettings)
    teacher: TeacherSettings | None = part("teachers", default=None)
    vocoder: VocoderSettings | None = part("vocoders", default=None)
    losses: tuple[Loss, ...] = parts_in("lm/losses", default=(CrossEntropy(),))
    terms: TermSettings = field(default_factory=TermSettings)
    writing: WritingSettings = field(default_factory=WritingSettings)
    packing: PackingSettings = field(default_factory=PackingSettings)
    sampling: Sampling | None = None
    judge: JudgeSettings = field(default_factory=JudgeSettings)

    def __post_init__(self) -> None:
        if self.sampling is None:  # in its place stands what is used, in every resolved recipe too
            object.__setattr__(self, "sampling", getattr(self.codec, "sampling", None))
        if self.base.from_scratch is not None and self.adapter is not None:
            raise SettingsError(
                "a base from scratch is on no disk for an adapter to stand on; set adapter: null"
            )
        kinds = [type(loss) for loss in self.losses]
        if not kinds or len(set(kinds)) < len(kinds):
            raise SettingsError(
                "losses name none, or one twice; give each at most once, with its weight"
            )
        for loss in self.losses:
            if not loss.weight >= 0 or not getattr(loss, "temperature", 1.0) > 0:
                raise SettingsError(f"losses: {loss}; a weight is 0 or more, a temperature above 0")
        if self.teacher is None and any(loss.needs_teacher for loss in self.losses):
            raise SettingsError(
                "losses ask for a teacher and there is none; name a teacher or use cross_entropy"
            )
        if self.teacher is not None and not any(loss.needs_teacher for loss in self.losses):
            raise SettingsError(
                "there is a teacher but no loss listens to it; add forward_kl or leave it out"
            )
