"""The base LLM: opening it, knowing it again, and writing text in its own ids.

**Knowing it again.** An adapter fits one base. PEFT loads it onto any base of the same shape
without a word, and the result is noise; so an adapter has its base's fingerprint: sha256 over every
weight (dtype, shape, bytes; not its name, which transformers changes between memory and disk) and
over what its tokenizer does (its pieces and ids, and how it cuts a few sentences). A base of which
only some layers are kept has another fingerprint than the whole one.

**Text stays text.** Lyrics may spell `</s>` or `<custom_token_5>`; a tokenizer that knows such a
token makes one id of it, and a singer would stop or hear sound. `TextCoder` writes plain letters.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer
from torch import Tensor, nn

from distill.errors import FolderError, first_line
from distill.folders import locate
from distill.lm.families import opener
from distill.lm.gguf_base import as_folder, source, whole_model
from distill.lm.layers import Layers, keep_layers, kept_layers
from distill.runtime import torchaudio_standin
from distill.runtime.devices import best_device

torchaudio_standin.install()
import transformers

# an optional package: not our user's care
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
from transformers import (
    AutoConfig,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

# its bars would stand before every one-line error of ours
transformers.utils.logging.disable_progress_bar()

Quantisation = Literal["none", "int8", "nf4"]
SENTENCES = (
    "Row, row, row your boat,\ngently down the stream.",
    "[verse] s t r I m 0123456789",
    "\u4f60\u597d caf\u00e9 \u266a\n\n  two spaces",
)


def open_base(
    where: str | Path,
    dtype: str = "float32",
    quantise: Quantisation = "none",
    layers: Layers = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """(model, tokenizer) of a folder, `embedded/base`, hub id, or GGUF file (a path,
    `org/name/FILE.gguf`, `package:NAME/FILE.gguf`): safetensors or GGUF only, no remote code.

    `quantise`: linear layers in 8 or 4 bits (QLoRA, arXiv 2305.14314). `layers`: how many of its
    layers are kept, or which. Raises FolderError, and GraftError for layers that it has not.
    """
    folder = folder_for(where, dtype)
    options: dict[str, Any] = {"dtype": getattr(torch, dtype)}
    if quantise != "none":
        options["quantization_config"] = _quantisation(quantise, getattr(torch, dtype))
        options["device_map"] = {"": best_device()}
    try:
        # said, not left out: else transformers waits for someone to type y
        trust = {"trust_remote_code": False}
        tokenizer = AutoTokenizer.from_pretrained(folder, **trust)
        kind = opener(AutoConfig.from_pretrained(folder, **trust))
        model = whole_model(folder, kind, use_safetensors=True, **trust, **options)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        reason = first_line(error)
        unread = f"transformers cannot load it as a causal LM ({reason})"
        raise FolderError(f"{where}: {unread}; check it") from error
    keep_layers(model, layers, str(where))
    # bitsandbytes repacks 4-bit weights in place at the first forward without gradients, for a
    # kernel that has no backward: training after any evaluation would go wrong in silence
    module: Any
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model.eval(), tokenizer


def folder_for(where: str | Path, dtype: str = "float32") -> Path:
    """The folder of transformers that a base is opened from: itself, or what its GGUF became."""
    path = locate(str(where))
    return as_folder(path, dtype) if path.is_file() else path


def _quantisation(quantise: Quantisation, dtype: torch.dtype) -> BitsAndBytesConfig:
    if quantise == "int8":
        # it writes one line per matrix product, of no use to anyone
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


# --- knowing it again -----------------------------------------------------------------------------
def fingerprint(
    model: nn.Module | None, tokenizer: PreTrainedTokenizerBase, folder: Path | None = None
) -> str:
    """sha256 (hex) of a base: of the weights in its folder, else of the model in memory. The two
    agree for a model that `save_pretrained` saved and that is held in the dtype it was saved in.
    Of a GGUF, the file counts and not what it became; of a model with fewer layers, which."""
    if folder is None:
        assert model is not None
        digest = _of_tensors(_held(model))
    elif made_of := source(folder):
        digest = hashlib.sha256(bytes.fromhex(made_of["sha256"]))
    else:
        digest = _of_tensors(_stored(folder))
    if layers := kept_layers(model):
        digest.update(json.dumps({"layers": layers}).encode())
    pieces = sorted(tokenizer.get_vocab().items())
    cuts = [tokenizer.encode(sentence, add_special_tokens=False) for sentence in SENTENCES]
    digest.update(json.dumps([pieces, cuts]).encode())
    return digest.hexdigest()


def folder_of(model: nn.Module) -> Path | None:
    """The local folder of safetensors that a model was loaded from, if any."""
    folder = Path(getattr(model, "name_or_path", "") or "missing")
    return folder if folder.is_dir() and any(folder.glob("*.safetensors")) else None


def _of_tensors(tensors: Iterator[Tensor]) -> hashlib._Hash:
    return hashlib.sha256(b"".join(sorted(map(_digest, tensors))))


def _digest(tensor: Tensor) -> bytes:
    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}\n".encode())
    digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.digest()


def _stored(folder: Path) -> Iterator[Tensor]:
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in list(file.keys()):  # not a dict, whatever it looks like
                yield file.get_tensor(name)


def _held(model: nn.Module) -> Iterator[Tensor]:
    seen: set[int] = set()  # a tied head is stored once
    for tensor in model.state_dict().values():
        if tensor.data_ptr() not in seen or not tensor.numel():
            seen.add(tensor.data_ptr())
            yield tensor


def name_of(model: nn.Module, module: nn.Module) -> str:
    """Dotted name of a module in a model."""
    return next(name for name, candidate in model.named_modules() if candidate is module)


# --- what stands before a text --------------------------------------------------------------------
def opening_of(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Ids that a base's own tokenizer puts before a text: LLaMA and Gemma a BOS, Qwen nothing.

    FolderError for a tokenizer that writes a text itself otherwise where it may put something
    before it.
    """
    plain = tokenizer.encode(SENTENCES[0], add_special_tokens=False)
    whole = tokenizer.encode(SENTENCES[0], add_special_tokens=True)
    for start in range(len(whole) - len(plain) + 1):
        if whole[start : start + len(plain)] == plain:
            return tuple(whole[:start])
    fault = "this base's tokenizer changes a text when it adds special tokens"
    raise FolderError(f"{fault}; give a base with a stock tokenizer.json")


# --- text stays text ------------------------------------------------------------------------------
class TextCoder:
    """Text in a base's own ids: never a special token, nor one from `pieces` up (codec tokens)."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, pieces: int):
        if not getattr(tokenizer, "is_fast", False):
            raise FolderError("this base's tokenizer is slow; convert it to a tokenizer.json first")
        plan = json.loads(tokenizer.backend_tokenizer.to_str())
        plan["added_tokens"] = [token for token in plan["added_tokens"] if token["id"] < pieces]
        self._backend = Tokenizer.from_str(json.dumps(plan))
        self._backend.no_padding()
        self._backend.no_truncation()
        self._backend.encode_special_tokens = True  # "</s>" in a text is four letters
        special = [id for id in tokenizer.all_special_ids if id != tokenizer.unk_token_id]
        # of two coders with the same, every text has the same ids
        self.identity = hashlib.sha256(json.dumps([plan, pieces, special]).encode()).hexdigest()
        self._special = {id: str(tokenizer.convert_ids_to_tokens(id)) for id in special}

    def encode(self, text: str) -> list[int]:
        """Ids of a text as it stands, with nothing put before or after it."""
        ids = self._encode(text)
        if self._special.keys().isdisjoint(ids):
            return ids
        # a unigram model has "</s>" among its pieces: cut such words in two, so that none matches
        parts = [text]
        for word in self._special.values():
            parts = [half for part in parts for half in _cut(part, word)]
        return [id for part in parts for id in self._encode(part) if id not in self._special]

    def _encode(self, text: str) -> list[int]:
        return self._backend.encode(text, add_special_tokens=False).ids

    def decode(self, ids: list[int]) -> str:
        """Text of ids below `pieces`."""
        return self._backend.decode(ids, skip_special_tokens=False)


def _cut(text: str, word: str) -> list[str]:
    """The text cut inside each occurrence of a word, behind its first letter."""
    first, *others = text.split(word)
    parts = [first]
    for other in others:
        parts[-1] += word[:1]
        parts.append(word[1:] + other)
    return [part for part in parts if part]
