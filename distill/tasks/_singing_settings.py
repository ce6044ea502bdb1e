"""What the recipe of a singer may say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from distill.codecs import CodecSettings
from distill.config.ranges import Checked, at_least, share
from distill.config.settings import part, parts, parts_in
from distill.curation.steps import CurationStep
from distill.errors import SettingsError
from distill.lm.from_scratch import FromScratchSettings
from distill.lm.layers import check_layers
from distill.lm.student import LoraSettings
from distill.sources import Source
from distill.teachers import TeacherSettings
from distill.training.trainer import TrainSettings
from distill.vocoders import VocoderSettings
from distill.writing.batches import PackingSettings
from distill.writing.losses import CrossEntropy, ForwardKl, Loss
from distill.writing.prompts import WritingSettings
from distill.writing.sampling import Sampling

_PATH = "embedded/base"  # unless the recipe says another


@dataclass(frozen=True)
class BaseSettings(Checked):
    """The LLM to graft: a folder, a hub id, a GGUF file (a path, `org/name/FILE.gguf`, or
    `package:NAME/FILE.gguf` of an installed Python package); or, with `from_scratch`, a new one
    with random weights; or, with `singer`, no LLM but a singer, whose own rows (and LoRA) go on.

    layers: the first N that are kept of it, or a list of their numbers. dtype: what its weights are
    held in (null: float32). quantise: linear layers in 8 or 4 bits (null: none). For a singer null
    is what it was trained in.
    """

    path: str = _PATH
    layers: int | tuple[int, ...] | None = None
    from_scratch: FromScratchSettings | None = field(default=None, metadata={"was": "blank"})
    singer: str = ""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    quantise: Literal["none", "int8", "nf4"] | None = None
    init: Literal["codebooks", "mean"] = "codebooks"
    licence: str = ""  # empty: that of this package for its own, else unknown

    def __post_init__(self) -> None:
        super().__post_init__()
        check_layers(self.layers)
        if self.layers is not None and self.from_scratch is not None:
            raise SettingsError("layers cuts a base on disk; give from_scratch.layers instead")
        others = {"path": self.path not in ("", _PATH), "from_scratch": self.from_scratch}
        others |= {"layers": self.layers is not None}
        if self.singer and (given := [name for name, value in others.items() if value]):
            raise SettingsError(f"names singer {self.singer} and {given[0]}; give one of them")

    @property
    def terms(self) -> str:
        """The licence of the weights. What is new is under the one of this package, and so is the
        base it ships."""
        new = self.from_scratch
        path = self.path if new is None else new.like  # of a tokenizer like another's: its terms
        ours = path.startswith("embedded/") or (new is not None and not path)
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
class WatchSettings(Checked):
    """What is measured while training goes on: held-out nats every `evaluate_every` steps (null: up
    to 20 times a run, as often as a twentieth of its time allows) on so many audio `tokens`; with
    `sing`, now and then a line. `patience`: evaluations without a better one, after which training
    ends (null: never)."""

    evaluate_every: int | None = at_least(1, default=None)
    tokens: int = at_least(1, default=8192)
    patience: int | None = at_least(1, default=None)
    sing: bool = True


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
    losses: tuple[Loss, ...] = parts_in("writing/losses", default=(CrossEntropy(),))
    terms: TermSettings = field(default_factory=TermSettings)
    writing: WritingSettings = field(default_factory=WritingSettings)
    packing: PackingSettings = field(default_factory=PackingSettings)
    sampling: Sampling | None = None
    judge: JudgeSettings = field(default_factory=JudgeSettings)
    watch: WatchSettings = field(default_factory=WatchSettings)

    def __post_init__(self) -> None:
        if self.sampling is None:  # in its place stands what is used, in every resolved recipe too
            object.__setattr__(self, "sampling", getattr(self.codec, "sampling", None))
        if self.base.from_scratch is not None and self.adapter is not None:
            raise SettingsError(
                "a base from scratch is on no disk for an adapter to stand on; set adapter: null"
            )
        if self.adapter is None:
            self._check_full_training()
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
        if getattr(self.teacher, "form", "") == "topk":
            self._refuse_what_a_tail_hides()
        if self.teacher is not None and not any(loss.needs_teacher for loss in self.losses):
            raise SettingsError(
                "there is a teacher but no loss listens to it; add forward_kl or leave it out"
            )

    def _check_full_training(self) -> None:
        """Small updates of weights in half precision are rounded away, of quantised ones more."""
        base = self.base
        if base.dtype not in (None, "float32") or base.quantise not in (None, "none"):
            held = base.dtype if base.quantise in (None, "none") else base.quantise
            raise SettingsError(
                f"base is held in {held}, and adapter: null trains its weights themselves; hold "
                "them in float32, or train an adapter"
            )

    def _refuse_what_a_tail_hides(self) -> None:
        """SettingsError for a loss that a top-K teacher would answer wrongly."""
        for loss in self.losses:
            if loss.needs_teacher and loss != ForwardKl(loss.weight):
                raise SettingsError(
                    f"losses: {loss}; teacher.form topk knows no more than the sum of its tail, "
                    "which is enough for forward_kl at temperature 1; use that, or form int8"
                )
