"""An LLM from scratch: a tokenizer trained on text and a stock model with random weights.

Two uses: the embedded base is pretrained from one (task `text`), and a teacher of another family
can start from one without any text of its own. It is saved as a stock folder of transformers;
nothing here is ours alone.
"""

from __future__ import annotations

import lzma
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from distill.config.ranges import Checked, at_least
from distill.errors import FolderError, SettingsError, first_line
from distill.folders import locate
from distill.lm.base import folder_for
from distill.runtime import torchaudio_standin

torchaudio_standin.install()
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaTokenizerFast,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

BYTES = 256  # each is a piece of its own, so that a tokenizer can spell anything


@dataclass(frozen=True)
class FromScratchSettings(Checked):
    """Shape of a small LLM (family: transformers' model_type), its tokenizer, and their text. Or
    `like` a base (a path, hub id or GGUF, as of `base.path`): its shape and its tokenizer, none of
    its weights; what is said of a shape is then left out."""

    family: Literal["llama", "qwen2", "qwen3"] = "llama"
    width: int = at_least(2, default=256)
    inner: int = at_least(1, default=576)
    layers: int = at_least(1, default=5)
    heads: int = at_least(1, default=4)
    context: int = at_least(1, default=4096)
    tied: bool = False
    tokenizer: Literal["sentencepiece", "bytes"] = "sentencepiece"
    pieces: int = at_least(BYTES + 1, default=1024)
    text: str = "recipes/text"
    like: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % (2 * self.heads):  # positions turn pairs of a head's numbers
            raise SettingsError(
                f"width {self.width} is no even multiple of heads {self.heads}; change one"
            )
        others = [field for field in fields(self) if field.name not in ("like", "text")]
        given = [field.name for field in others if getattr(self, field.name) != field.default]
        if self.like and given:
            fault = f"{given[0]} and like {self.like} both say what shape it has"
            raise SettingsError(f"{fault}; leave out {', '.join(given)}, or like")


def read_text(where: str, split: Literal["train", "held-out"]) -> str:
    """The text of a folder with `train.txt.xz` and `held-out.txt.xz`, or the same uncompressed."""
    folder = locate(where)
    packed, plain = folder / f"{split}.txt.xz", folder / f"{split}.txt"
    try:
        if packed.exists():
            return lzma.decompress(packed.read_bytes()).decode()
        return plain.read_text(encoding="utf-8")
    except (OSError, lzma.LZMAError, UnicodeDecodeError) as error:
        unread = f"{split}.txt.xz cannot be read ({error})"
        raise FolderError(f"{where}: {unread}; give a folder with both splits") from None


def make(settings: FromScratchSettings, seed: int) -> tuple[Any, PreTrainedTokenizerBase]:
    """(model, tokenizer): random weights from `seed`; the tokenizer trained on the settings' text,
    or that of the base it is like. FolderError where there is no such text or base."""
    config, tokenizer = _like(settings.like) if settings.like else _small(settings)
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    try:
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    finally:
        torch.random.set_rng_state(state)
    return model, tokenizer


def _like(base: str) -> tuple[Any, PreTrainedTokenizerBase]:
    """(config, tokenizer) of a base; of its weights nothing is read."""
    folder = folder_for(base)
    try:
        return AutoConfig.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        reason = first_line(error)
        unread = f"transformers cannot read its config and tokenizer ({reason})"
        raise FolderError(f"{base}: {unread}; check it") from error


def _small(settings: FromScratchSettings) -> tuple[Any, PreTrainedTokenizerBase]:
    """(config, tokenizer) of the settings' shape and text."""
    text = read_text(settings.text, "train")
    train = _sentencepiece if settings.tokenizer == "sentencepiece" else _bytes
    tokenizer = train(text, settings.pieces)
    width, heads = settings.width, settings.heads
    config = AutoConfig.for_model(
        settings.family,
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=settings.inner,
        num_hidden_layers=settings.layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=settings.context,
        tie_word_embeddings=settings.tied,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=None,
        **({"head_dim": width // heads} if settings.family == "qwen3" else {}),
    )
    return config, tokenizer


def _sentencepiece(text: str, pieces: int) -> PreTrainedTokenizerBase:
    """A SentencePiece BPE model with byte fallback, as LLaMA has."""
    import sentencepiece

    with tempfile.TemporaryDirectory() as folder:
        source, prefix = Path(folder, "text.txt"), Path(folder, "tokenizer")
        source.write_text(text, encoding="utf-8")
        try:
            sentencepiece.SentencePieceTrainer.train(
                input=str(source), model_prefix=str(prefix), vocab_size=pieces, model_type="bpe",
                byte_fallback=True, character_coverage=1.0, max_sentence_length=1 << 20,
                num_threads=1, minloglevel=2, normalization_rule_name="identity",
                remove_extra_whitespaces=False, split_digits=True,
            )  # fmt: skip
        except (RuntimeError, OSError) as error:  # too few or too many pieces for this text
            reason = str(error).strip().splitlines()[-1]
            fault = f"pieces {pieces}: sentencepiece cannot make so many from this text ({reason})"
            raise SettingsError(f"{fault}; give another number, or more text") from None
        model = sentencepiece.SentencePieceProcessor(model_file=f"{prefix}.model")
    return _llama_tokenizer(model)


def _llama_tokenizer(model: SentencePieceProcessor) -> PreTrainedTokenizerBase:
    """The trained pieces as transformers' LLaMA tokenizer, merges by a piece's log-probability."""
    vocabulary = {model.id_to_piece(i): i for i in range(model.get_piece_size())}
    merges = []
    for piece, id in vocabulary.items():
        if model.is_byte(id) or model.is_control(id) or model.is_unknown(id):
            continue
        halves = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
        halves = [(a, b) for a, b in halves if a in vocabulary and b in vocabulary]
        order = -model.get_score(id)
        merges += [(order, min(vocabulary[a], vocabulary[b]), a, b) for a, b in halves]
    merges.sort(key=lambda m: m[:2])
    return LlamaTokenizerFast(vocab=vocabulary, merges=[(a, b) for _, _, a, b in merges])


def _bytes(text: str, pieces: int) -> PreTrainedTokenizerBase:
    """Byte-level BPE, as GPT-2 and Qwen have."""
    end = "<|endoftext|>"
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=pieces,
        special_tokens=[end],
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    backend.train_from_iterator(text.splitlines(keepends=True), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=end, eos_token=end)
