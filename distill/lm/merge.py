"""Merging: one stock model out of base, graft and LoRA, loaded again before it counts as done.

A merged folder is what plain transformers, vLLM or llama.cpp load: stock architecture, one table
with `config.vocab_size` rows, `tie_word_embeddings` as it is in fact, a tokenizer that names every
new id `<custom_token_N>` (plain added tokens: llama.cpp hides special ones), and a generation
config that stops at the song's end. Merges elsewhere break in silence: a tied flag overwrites a
trained head at the next load, trained rows are not saved. So the folder is written aside, loaded
again, and compared by logits; only then does it get its name.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from distill.errors import AdapterError, FolderError
from distill.folders import atomic_folder, locate
from distill.lm import attention
from distill.lm.base import Quantisation, folder_of, name_of, open_base
from distill.lm.families import text_config
from distill.lm.graft import Grafted, is_tied
from distill.lm.graft_checks import check_student
from distill.lm.student import CARD, Student, layers_on, opening_in, read_card, rows_of
from distill.runtime import torchaudio_standin
from distill.writing.vocabulary import AudioVocabulary

torchaudio_standin.install()
from peft.tuners.lora import LoraLayer
from peft.utils.integrations import dequantize_bnb_weight
from transformers import AddedToken, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

# of the logits of a float32 merge, where the largest is up to ten; beyond that in proportion
LARGEST_DIFFERENCE = 1e-5
# of the largest logit, where base or folder are in half precision or quantised; of all tokens but a
# share, since rounding sends a few of them to other experts. Half of them are new ids, so whatever
# of the student was lost shows in more
COARSE_DIFFERENCE, COARSE_SHARE = 0.05, 0.25
STORED = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}  # safetensors' names


@dataclass(frozen=True)
class Merged:
    """Where the merged model is, and the largest difference of its logits from the student's."""

    folder: Path
    largest_difference: float
    largest_logit: float
    tied: bool


def merge(
    student: Student,
    folder: str | Path,
    dtype: str | None = None,
    generation: Mapping[str, object] | None = None,
) -> Merged:
    """Writes the student as one stock model; it stays as it is.

    `dtype` of its parameters: None is the type in which the base itself is stored. `generation`:
    more values for generation_config.json. AdapterError where the folder, loaded again, gives other
    logits; then nothing is written.
    """
    dtype = dtype or stored_dtype(student)
    if dtype not in STORED.values():
        known = ", ".join(STORED.values())
        raise AdapterError(f"{Path(folder).name}: dtype {dtype} is unknown; choose of {known}")
    with atomic_folder(folder) as inside:
        model = stock_model(student, getattr(torch, dtype))
        pad = text_config(model.config).pad_token_id
        ids = {"eos_token_id": student.vocabulary.end, "pad_token_id": pad}
        values = {"do_sample": True, **ids, **(generation or {})}
        model.generation_config = GenerationConfig(**values)
        model.save_pretrained(inside)
        del model
        tokenizer_with_names(student).save_pretrained(inside)
        student.write_card(inside, "merged")
        difference, largest = _compare(student, inside, dtype, Path(folder).name)
    return Merged(Path(folder), difference, largest, student.tied)


def load_merged(
    folder: str | Path, dtype: str = "float32", quantise: Quantisation = "none"
) -> Student:
    """A student that sings and can be trained in full. Raises AdapterError or FolderError."""
    path = locate(str(folder))
    card, vocabulary = read_card(path, "merged")
    model, tokenizer = _reopen(path, path.name, dtype, quantise)
    if rows_of(model) != vocabulary.rows:
        fault = f"its tables lack the {vocabulary.rows} rows of its {CARD}"
        raise AdapterError(f"{path.name}: {fault}; merge again")
    about = {name: card[name] for name in ("base", "base_fingerprint", "base_pieces")}
    about |= {"layers": layers_on(card), "opening": opening_in(card)}
    student = Student(model, tokenizer, vocabulary, tied=is_tied(model), **about)
    check_student(student)
    return student


def stored_dtype(student: Student) -> str:
    """In which most numbers of the base's files are; without files, what it is held in."""
    folder, counts = folder_of(student.model), dict.fromkeys(STORED, 0)
    for path in sorted(folder.glob("*.safetensors")) if folder else ():
        with safe_open(path, "pt") as file:
            for name in list(file.keys()):
                part = file.get_slice(name)
                if part.get_dtype() in counts:
                    counts[part.get_dtype()] += math.prod(part.get_shape())
    if any(counts.values()):
        return STORED[max(counts, key=lambda name: counts[name])]
    return str(student.dtype).removeprefix("torch.")


def stock_model(student: Student, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """The student as one stock model, on the CPU; merged in float32, then rounded to `dtype`."""
    config = copy.deepcopy(student.model.config)
    attention.use(text_config(config), apart=False)
    text_config(config).vocab_size = student.vocabulary.rows
    for level in (config, text_config(config)):
        level.tie_word_embeddings = student.tied
        level.eos_token_id = student.vocabulary.end
        level.dtype = dtype
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):  # shapes only: the parameters are put in, not copied over
        model = type(student.model)(config)
    state = {name: tensor.to(dtype).contiguous() for name, tensor in _merged_state(student).items()}
    missing, unexpected = model.load_state_dict(state, strict=False, assign=True)
    head = f"{name_of(student.model, student.head)}.weight"
    if unexpected or set(missing) - ({head} if student.tied else set()):
        wrong = f"merged weights do not fit its class ({[*unexpected, *missing][0]})"
        raise AdapterError(f"{student.base}: {wrong}; graft another base")
    model.tie_weights()
    return model


def _merged_state(student: Student) -> dict[str, Tensor]:
    """Tensors by their stock names, on the CPU; in float32 where something was added to them."""
    model = student.model
    head = name_of(model, student.head)
    heads = {} if student.tied else {head: student.head}
    tables = {name_of(model, student.embedding): student.embedding} | heads
    state: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if ".lora_" in name or name.removesuffix(".old") in {*tables, head}:
            continue
        stock_name = name.removesuffix(".base_layer")
        for leaf, parameter in module.named_parameters(recurse=False):
            state[f"{stock_name}.{leaf}"] = _plain(module) if leaf == "weight" else parameter
        for leaf, buffer in module.named_buffers(recurse=False):
            if leaf not in module._non_persistent_buffers_set:
                state[f"{stock_name}.{leaf}"] = buffer
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            update: Any = module.get_delta_weight  # type: ignore[attr-defined]
            state[f"{name}.weight"] = state[f"{name}.weight"].float() + update("default").float()
    for name, table in tables.items():
        state[f"{name}.weight"] = table.joined() if isinstance(table, Grafted) else table.weight
    return {name: tensor.detach().cpu() for name, tensor in state.items()}


def _is_quantised(module: nn.Module) -> bool:
    return type(getattr(module, "weight", None)).__name__ in ("Params4bit", "Int8Params")


def _plain(module: Any) -> Tensor:
    """A module's weight_OI, as numbers where it is quantised."""
    if _is_quantised(module):
        return dequantize_bnb_weight(module.weight, getattr(module, "state", None))
    return module.weight


def tokenizer_with_names(student: Student) -> PreTrainedTokenizerBase:
    """The base's tokenizer with a name for each new id; rows without one are `<unused_token_k>`."""
    vocabulary = student.vocabulary
    tokenizer = copy.deepcopy(student.tokenizer)
    have = 1 + max(tokenizer.get_vocab().values())
    names = [f"<unused_token_{id}>" for id in range(have, vocabulary.base_rows)]
    names += [vocabulary.name(id) for id in range(max(have, vocabulary.base_rows), vocabulary.rows)]
    tokenizer.add_tokens([AddedToken(name, special=False, normalized=False) for name in names])
    _check_names(tokenizer, vocabulary)
    return tokenizer


def _check_names(tokenizer: PreTrainedTokenizerBase, vocabulary: AudioVocabulary) -> None:
    for id in (vocabulary.sing, vocabulary.end, vocabulary.audio_span.start, vocabulary.rows - 1):
        name = vocabulary.name(id)
        written = tokenizer.encode(name, add_special_tokens=False)
        if tokenizer.convert_tokens_to_ids(name) != id or written[-1:] != [id]:
            raise AdapterError(f"{name}: its id is not {id} in this tokenizer; graft another base")


def _reopen(
    folder: Path, name: str, dtype: str = "float32", quantise: Quantisation = "none"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A merged model and its tokenizer. FolderError where transformers cannot load them."""
    try:
        return open_base(folder, dtype, quantise)
    except FolderError as error:
        reason = str(error).removeprefix(f"{folder}: ").rpartition(";")[0]
        raise FolderError(f"{name}: {reason}; merge again") from error


def _compare(student: Student, folder: Path, dtype: str, where: str) -> tuple[float, float]:
    """(largest difference, largest logit) between the student and the folder, loaded again."""
    again, tokenizer = _reopen(folder, where)
    _check_names(tokenizer, student.vocabulary)
    if is_tied(again) != student.tied:
        head = f"its head {'tied' if is_tied(again) else 'untied'}"
        raise AdapterError(f"{where}: came back with {head}, unlike the student; keep the adapter")
    quantised = any(_is_quantised(module) for module in student.model.modules())
    exact = dtype == "float32" and student.dtype == torch.float32 and not quantised
    ids_BT = _mixed(student.vocabulary)
    difference_N, largest = _difference(student.model, again, ids_BT)
    allowed = LARGEST_DIFFERENCE * max(1.0, largest / 10) if exact else COARSE_DIFFERENCE * largest
    if exact and difference_N.max() > allowed:  # a sharp model amplifies rounding: in float64
        double = copy.deepcopy(student.model).double()
        difference_N, largest = _difference(double, again.double(), ids_BT)
    counted = float(difference_N.max() if exact else difference_N.quantile(1 - COARSE_SHARE))
    difference = float(difference_N.max())
    if not counted <= allowed:  # also when it is not a number
        wrong = f"merged logits differ by {counted:.2g} (allowed {allowed:.2g})"
        raise AdapterError(f"{where}: {wrong}; nothing was written, keep the adapter")
    return difference, largest


def _mixed(vocabulary: AudioVocabulary) -> Tensor:
    """Random ids_BT, every second one a new id."""
    generator = torch.Generator().manual_seed(0)
    ids_BT = torch.randint(vocabulary.base_rows, (2, 48), generator=generator)
    new_ids = torch.randint(vocabulary.base_rows, vocabulary.rows, (2, 24), generator=generator)
    ids_BT[:, ::2] = new_ids
    return ids_BT


@torch.no_grad()
def _difference(
    ours: PreTrainedModel, theirs: PreTrainedModel, ids_BT: Tensor
) -> tuple[Tensor, float]:
    """(largest difference_N by token, largest logit) of two models on the same ids."""
    training = ours.training
    ours.eval()
    ours_BTV = ours(input_ids=ids_BT.to(ours.device), use_cache=False).logits.double().cpu()
    ours.train(training)
    theirs_BTV = theirs(input_ids=ids_BT, use_cache=False).logits.double()
    difference_N = (ours_BTV - theirs_BTV).abs().amax(-1).flatten()
    return difference_N, float(ours_BTV.abs().max())
