"""Tiny random LLMs of five families with a byte-level tokenizer, to test the graft on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from distill.audio.codec_format import CodecFormat
from distill.lm.vocabulary import AudioVocabulary
from distill.runtime import torchaudio_standin

torchaudio_standin.install()
from transformers import (
    AutoModelForCausalLM,
    GemmaConfig,
    GPTNeoXConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

ROWS = 300  # more than the tokenizer's pieces, and not a multiple of 64: both happen to real bases
CODES = (40, 24)
GROUPED = {"num_key_value_heads": 2}
FAMILIES: dict[str, tuple[Any, dict[str, int]]] = {
    "llama": (LlamaConfig, GROUPED),
    "qwen2": (Qwen2Config, GROUPED),
    "qwen3": (Qwen3Config, GROUPED | {"head_dim": 8}),
    "gemma": (GemmaConfig, GROUPED | {"head_dim": 8}),
    "gpt_neox": (GPTNeoXConfig, {}),
}
CASES = [(family, tied) for family in FAMILIES for tied in (True, False)]


def tokenizer() -> Any:
    """Byte-level BPE with <s> and </s>."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=280,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    backend.train_from_iterator(["row row row your boat gently down the stream"] * 3, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="<s>"
    )


def config(family: str = "llama", tied: bool = False, **more: Any) -> Any:
    kind, own = FAMILIES[family]
    shape = {
        "vocab_size": ROWS,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 128,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 0,
    }
    return kind(**(shape | own | {"tie_word_embeddings": tied} | more))


def build(settings: Any, seed: int = 0) -> Any:
    """A random causal LM of a config, in float32."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(settings).eval()


def write(folder: Path, settings: Any, seed: int = 0) -> Path:
    """The same, as a folder that transformers loads."""
    build(settings, seed).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def vocabulary(rows: int = ROWS) -> AudioVocabulary:
    return AudioVocabulary(
        rows, CodecFormat(16_000, 25.0, CODES), lowest_midi=45, highest_midi=72, longest=16
    )


def codebooks() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(codes, 6, generator=generator) for codes in CODES]


def disturb(student: Any, amount: float = 0.05) -> None:
    """Stands in for training: moves everything that trains."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in student.trainable().values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * amount)
