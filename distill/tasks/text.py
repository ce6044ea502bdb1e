"""Pretrain a small text LLM: the "existing open LLM" of the quickstart, made in the open.

Rows are random crops of one long text; the loss is plain next-token cross entropy. Measured by
held-out bits per byte, beside `xz -9` on the same held-out text.
"""

from __future__ import annotations

import lzma
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from distill.config.ranges import Checked, at_least
from distill.config.recipe import Recipe
from distill.errors import SettingsError
from distill.folders import atomic_folder
from distill.lm import from_scratch
from distill.lm.from_scratch import FromScratchSettings
from distill.songs import Song
from distill.tasks import Task, parameter_groups
from distill.training.trainer import TrainSettings, numbered


@dataclass(frozen=True)
class Settings(Checked):
    """The recipe of a text LLM: its shape and text, crops of `row_tokens`, `rows` a batch, and how
    to train."""

    train: TrainSettings
    model: FromScratchSettings = field(default_factory=FromScratchSettings)
    row_tokens: int = at_least(1, default=512)
    rows: int = at_least(1, default=8)

    def run(self, recipe: Recipe, folder: Path) -> str:
        """Pretrains the LLM and measures it, in a folder."""
        from distill.tasks import _run  # the trainer, which checking a recipe does not need

        return _run.run(self.task(recipe.seed), recipe, folder)

    def task(self, seed: int) -> TextTask:
        """The task, its text read and its tokenizer trained."""
        return TextTask(self, seed)


class TextTask(Task):
    """A language model, learning the next token of a text."""

    def __init__(self, settings: Settings, seed: int = 0) -> None:
        self.settings = settings
        self.model, self.tokenizer = from_scratch.make(settings.model, seed)
        text = from_scratch.read_text(settings.model.text, "train")
        self.ids_T = torch.tensor(_encode(self.tokenizer, text))
        if len(self.ids_T) <= settings.row_tokens + 1:
            raise SettingsError(
                f"the text has {len(self.ids_T)} tokens, a row {settings.row_tokens}; give more "
                "text"
            )

    def batches(self, generator: torch.Generator, start: int, stride: int = 1) -> Iterator[Tensor]:
        """ids_BT of random crops, a token longer than a row; batch k is a function of (seed, k)."""
        number = start
        while True:
            chance = numbered(generator, number)
            span = self.settings.row_tokens + 1
            starts = torch.randint(len(self.ids_T) - span, (self.settings.rows,), generator=chance)
            yield torch.stack([self.ids_T[s : s + span] for s in starts.tolist()])
            number += stride

    def counts(self, ids_BT: Tensor) -> dict[str, float]:
        return {"nats": float(ids_BT[:, 1:].numel())}

    def loss(self, ids_BT: Tensor) -> dict[str, tuple[Tensor, float]]:
        self.model.train()
        logits_BTV = self.model(input_ids=ids_BT[:, :-1], use_cache=False).logits.float()
        nats = cross_entropy(logits_BTV.flatten(0, 1), ids_BT[:, 1:].flatten(), reduction="sum")
        return {"nats": (nats, float(ids_BT[:, 1:].numel()))}

    def loss_weights(self) -> dict[str, float]:
        return {"nats": 1.0}

    def parameters(self) -> list[dict[str, Any]]:
        return parameter_groups(self.model.parameters())

    def state(self) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in self.model.named_parameters()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(state[name])

    def size(self, ids_BT: Tensor) -> int:
        return ids_BT[:, 1:].numel()

    def to(self, device: torch.device) -> None:
        self.model.to(device)

    def save(self, folder: Path) -> None:
        """A stock folder in half precision."""
        with atomic_folder(folder) as path:
            self.model.half().save_pretrained(path)
            self.model.float()
            self.tokenizer.save_pretrained(path)

    def evaluate(self, songs: Sequence[Song] = ()) -> dict[str, float]:
        """Held-out bits per byte, and xz -9's on the same bytes. A text has no songs."""
        text = from_scratch.read_text(self.settings.model.text, "held-out")
        return bits_per_byte(self.model, self.tokenizer, text)


def _encode(tokenizer: Any, text: str) -> list[int]:
    """Ids of a long text, by paragraph: a tokenizer's time is not linear in length."""
    parts = text.split("\n\n")
    encoded = tokenizer([part + "\n\n" for part in parts], add_special_tokens=False)["input_ids"]
    return [id for ids in encoded for id in ids]


@torch.no_grad()
def bits_per_byte(model: Any, tokenizer: Any, text: str, row_tokens: int = 512) -> dict[str, float]:
    """Bits per UTF-8 byte of a text read in rows that overlap by half, so that every token but the
    first has context."""
    model.eval()
    ids_T = torch.tensor(
        [tokenizer.bos_token_id or 0, *_encode(tokenizer, text)], device=model.device
    )
    nats, half = 0.0, row_tokens // 2
    for start in range(0, len(ids_T) - 1, half):
        row = ids_T[max(0, start - half) : start + half + 1]
        fresh = len(row) - 1 - (start - max(0, start - half))
        logits_TV = model(input_ids=row[None, :-1]).logits[0].float()
        nats += float(cross_entropy(logits_TV[-fresh:], row[1:][-fresh:], reduction="sum"))
    size = len(text.encode())
    packed = len(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))
    return {
        "bits_per_byte": nats / math.log(2) / size,
        "xz_bits_per_byte": 8 * packed / size,
        "bytes": float(size),
    }
