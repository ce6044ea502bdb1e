"""A GGUF file as a base: read once, then an ordinary folder of transformers in the cache.

transformers turns a GGUF into an ordinary model (`gguf_file=`), but slowly (every weight is made
whole again, 20 s for 135 M parameters), and what comes out says that it is quantised and refuses to
be saved. So it is done once: the folder beside which nothing of GGUF is left is kept under the
file's sha256 and the dtype, with a note of where it came from, and every later opening reads that.

The note is also what such a base is known by (`source`): the fingerprint is that of the file, so it
is the same in every dtype. Nothing is guessed: weights that the file does not have, or a tokenizer
that does not give a text back, are refused here, where transformers goes on with random numbers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from distill.errors import FolderError, first_line
from distill.folders import atomic_folder, cache_folder, damage, sha256_file
from distill.runtime import torchaudio_standin

torchaudio_standin.install()
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

NOTE = "gguf.json"  # in a folder that was made of a GGUF file: its sha256 and name
SPOKEN = "Row, row, row your boat,\ngently down the stream: 1, 2, 3."
# keys of a GGUF, see docs/gguf.md of ggml
ARCHITECTURE, TOKENIZER, PIECES = (
    "general.architecture",
    "tokenizer.ggml.model",
    "tokenizer.ggml.tokens",
)


def as_folder(file: Path, dtype: str) -> Path:
    """The folder that holds the model and tokenizer of a GGUF file, made at the first call.
    FolderError, in one line, where the file is damaged or not a causal LM with its tokenizer."""
    sha256 = sha256_file(file)
    folder = cache_folder() / "bases" / f"{sha256}-{dtype}"
    if folder.is_dir() and damage(folder) is None:
        return folder
    pieces = _inspect(file)
    tokenizer = _tokenizer(file, pieces)
    model = _model(file, dtype)
    with atomic_folder(folder) as inside:
        model.save_pretrained(inside)
        tokenizer.save_pretrained(inside)
        note = {"sha256": sha256, "file": file.name}
        (inside / NOTE).write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
    return folder


def source(folder: Path) -> dict[str, str]:
    """`sha256` and name (`file`) of the GGUF that a folder was made of; empty for any other."""
    note = folder / NOTE
    return json.loads(note.read_text(encoding="utf-8")) if note.is_file() else {}


def _inspect(file: Path) -> int:
    """How many pieces the file's tokenizer has. FolderError unless the file is whole."""
    try:
        from gguf import GGUFReader
    except ImportError:
        raise FolderError(f"{file.name}: a GGUF needs a package more; pip install gguf") from None
    try:
        fields = GGUFReader(file).fields
    except Exception as error:  # numpy's, struct's and enum's errors, as the bytes happen to fall
        reason = first_line(error)
        if "GGMLQuantizationType" in reason:
            fault, ways = f"a tensor is of an unknown quantisation ({reason})", "take another file"
        else:
            fault, ways = f"is no whole GGUF file ({reason})", "fetch it again"
        raise FolderError(f"{file.name}: {fault}; {ways}") from error
    if ARCHITECTURE not in fields:
        raise FolderError(f"{file.name}: does not say its {ARCHITECTURE}; take another file")
    if TOKENIZER not in fields or PIECES not in fields:
        ways = "take a file with one, or the model's own folder"
        raise FolderError(f"{file.name}: has no tokenizer ({TOKENIZER}); {ways}")
    return len(fields[PIECES].data)


def _tokenizer(file: Path, pieces: int) -> PreTrainedTokenizerBase:
    """The file's tokenizer, rebuilt; it has as many ids, and gives a text back."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        ids = tokenizer.encode(SPOKEN, add_special_tokens=False)
        back = str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))
        reason = "" if back.strip() == SPOKEN else f"it reads a line back as {back[:40]!r}"
        if len(tokenizer) < pieces:
            reason = f"{len(tokenizer)} of its {pieces} ids came out"
    except Exception as error:  # each converter fails in its own way
        reason = first_line(error)
    if not reason:
        return tokenizer
    ways = "take the model's own folder, or another file"
    raise FolderError(f"{file.name}: its tokenizer cannot be rebuilt ({reason}); {ways}")


def _model(file: Path, dtype: str) -> Any:
    """The file's model, every weight whole again in `dtype`, with no trace of a quantisation."""
    try:
        model = whole_model(file.parent, gguf_file=file.name, dtype=getattr(torch, dtype))
    except Exception as error:  # transformers' and gguf's errors, and those of damaged tensors
        unread = f"transformers cannot load it as a causal LM ({first_line(error)})"
        ways = "take another file, or the model's own folder"
        raise FolderError(f"{file.name}: {unread}; {ways}") from error
    del model.config.quantization_config
    model.config.__dict__.pop("_model_name_or_path", None)  # a title, which a GGUF has for a name
    model.hf_quantizer = None  # else save_pretrained refuses
    return model


def whole_model(folder: Path, kind: Any = AutoModelForCausalLM, **options: Any) -> Any:
    """`from_pretrained` of a causal LM, of a class of transformers; ValueError where weights are
    missing, for which transformers takes random numbers."""
    loaded: Any = kind.from_pretrained(folder, output_loading_info=True, **options)
    model, about = loaded
    if missing := sorted(about["missing_keys"]):
        raise ValueError(f"{len(missing)} of its weights are missing: {missing[0]}")
    return model
