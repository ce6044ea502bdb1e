"""An LLM from scratch: shapes that cannot be are refused before anything is made."""

from __future__ import annotations

from typing import Any

import pytest
import tiny_singer
import torch

from distill.errors import SettingsError
from distill.lm.from_scratch import FromScratchSettings, make

SHAPE = {"width": 32, "inner": 8, "layers": 1, "heads": 2, "context": 64}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"heads": 0}, "heads is 0; it must be 1 or more"),
        ({"layers": 0}, "layers is 0; it must be 1 or more"),
        ({"inner": -1}, "inner is -1; it must be 1 or more"),
        ({"context": 0}, "context is 0; it must be 1 or more"),
        ({"pieces": 256}, "pieces is 256; it must be 257 or more"),
        ({"heads": 3}, "width 32 is no even multiple of heads 3; change one"),
        ({"width": 30}, "width 30 is no even multiple of heads 2; change one"),
        ({"family": "gpt"}, "family is 'gpt'; it must be one of llama"),
    ],
)
def test_impossible_shapes_are_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        FromScratchSettings(**(SHAPE | wrong))


@pytest.mark.parametrize("pieces", [257, 100_000])
def test_pieces_that_no_text_gives_are_refused(pieces: int) -> None:
    settings = tiny_singer.from_scratch(pieces=pieces)
    with pytest.raises(SettingsError, match=rf"pieces {pieces}: sentencepiece cannot make so many"):
        make(settings, 0)


@pytest.mark.parametrize("heads", [1, 2, 16])
def test_what_is_allowed_can_be_made_and_run(heads: int) -> None:
    shape: dict[str, Any] = SHAPE | {"heads": heads}
    model, _ = make(tiny_singer.from_scratch("qwen3", **shape), 0)
    assert model(input_ids=torch.arange(5)[None]).logits.shape[:2] == (1, 5)
