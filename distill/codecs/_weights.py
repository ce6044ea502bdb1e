"""Weights from elsewhere: tensors and plain words, whole and finite, or refused by name.

A weights file is data. safetensors can hold nothing else; a PyTorch checkpoint is a pickle, which
can call whatever it names, so PyTorch's own restricted reader reads it (`weights_only=True`), and
what that will not build is refused, as is an archive that brings its own source (torch.package,
TorchScript) and a `config.json` that names code (`auto_map`). Nothing is loaded loosely: every
weight that the network has must be in the file.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from distill.audio.codec_format import CodecFormat
from distill.errors import CodecError
from distill.folders import Json, fingerprint

# what torch.load raises for a file that is cut short or damaged
BROKEN = (
    RuntimeError, OSError, EOFError, ValueError, LookupError, TypeError, AttributeError,
    zipfile.BadZipFile,
)  # fmt: skip
Network = TypeVar("Network", bound=nn.Module)
COPY_FILE, COPY_FOLDER = "copy the file again", "copy the folder again"


def read_config(path: Path, keys: Iterable[str] = (), whose: str = "this codec") -> Json:
    """A JSON file with at least these keys. CodecError when missing, damaged or with code."""
    try:
        config = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise CodecError(f"{path}: missing; name the folder of it and the weights") from error
    except (OSError, ValueError) as error:
        raise CodecError(f"{path}: not {whose}'s configuration ({error}); {COPY_FOLDER}") from error
    if not isinstance(config, dict):
        raise CodecError(f"{path}: not {whose}'s configuration (no keys); {COPY_FOLDER}")
    for name in keys:
        if name not in config:
            raise CodecError(f"{path}: {name} is missing; this is not {whose}'s configuration")
    refuse_code(config, path)
    return config


def refuse_code(config: object, path: Path) -> None:
    """CodecError when a configuration, at any depth, names code to be run."""
    if isinstance(config, dict):
        if "auto_map" in config:
            raise CodecError(f"{path}: names code to run (auto_map); use a copy without it")
        config = list(config.values())
    if isinstance(config, list):
        for value in config:
            refuse_code(value, path)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The named tensors of a safetensors file. CodecError if missing, cut short or not finite."""
    try:
        return checked(safetensors.torch.load_file(path), path)
    except FileNotFoundError as error:
        raise CodecError(f"{path}: missing; name the folder that holds it") from error
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise CodecError(f"{path}: damaged or cut short ({reason(error)}); {COPY_FILE}") from error


def read_checkpoint(path: Path, shallow: bool = False) -> Any:
    """What a PyTorch checkpoint holds: tensors, numbers, text, lists and dicts, never code.

    `shallow` leaves the tensors' values on disk where the file allows, for what stands beside them.
    CodecError when the file is missing, cut short, or wants to run code.
    """
    if not path.is_file():
        raise CodecError(f"{path}: missing; name a weights file")
    mapped = False
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
            code = [n for n in names if n.endswith(".py") or ".data/extern_modules" in n]
            if code:
                raise CodecError(f"{path}: brings code of its own ({code[0]}); use weights alone")
            mapped = shallow
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        fault = f"wants to run code, or is damaged ({_refused(error)})"
        raise CodecError(f"{path}: {fault}; use a file with tensors alone") from error
    except BROKEN as error:
        raise CodecError(f"{path}: damaged or cut short ({reason(error)}); {COPY_FILE}") from error


def checked(state: object, path: Path) -> dict[str, Tensor]:
    """`state` if it is named tensors, all finite; CodecError names the first that is not."""
    if not isinstance(state, Mapping) or not state:
        raise CodecError(f"{path}: holds no named weights; name a checkpoint of this codec")
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise CodecError(f"{path}: {name} is no tensor; name a checkpoint of this codec")
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise CodecError(f"{path}: {name} holds NaN or infinity; {COPY_FILE}")
    return dict(state)


def fill(network: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load every weight of the network and no other. CodecError names one missing or misshapen."""
    wanted = network.state_dict()
    for name, value in wanted.items():
        if name not in state:
            raise CodecError(f"{path}: {name} is missing; its configuration wants it")
        if state[name].shape != value.shape:
            shapes = f"{tuple(state[name].shape)}, its configuration says {tuple(value.shape)}"
            raise CodecError(f"{path}: {name} is {shapes}")
    network.load_state_dict({name: state[name] for name in wanted})


def halves(named: Iterable[tuple[str, Tensor]], folder: Path) -> bytes:
    """A weights.safetensors in half precision. CodecError if a weight is not finite in it."""
    state = {name: value.detach().to("cpu", torch.float16).contiguous() for name, value in named}
    for name, value in state.items():
        if not bool(torch.isfinite(value).all()):
            fault = f"{name} is NaN or too large for half precision, so nothing was saved"
            raise CodecError(f"{folder}: {fault}; train again")
    return safetensors.torch.save(state, metadata={"format": "pt"})


def fill_from_halves(wanted: Mapping[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """Fill these from weights.safetensors, all or none (CodecError); gives what the file holds."""
    path = folder / "weights.safetensors"
    state = read_tensors(path)
    if odd := sorted(set(state) ^ set(wanted)):
        raise CodecError(f"{path}: {odd[0]} and config.json do not belong together; {COPY_FOLDER}")
    for name, target in wanted.items():
        if state[name].shape != target.shape or not state[name].is_floating_point():
            shapes = f"{tuple(state[name].shape)}, not {tuple(target.shape)} as in config.json"
            raise CodecError(f"{path}: {name} is {shapes}")
    for name, target in wanted.items():
        target.data.copy_(state[name])
    return state


def settled(network: Network) -> Network:
    """The network with its weight norms worked out once; one with them is slow and not pickled."""
    for module in network.modules():
        if parametrize.is_parametrized(module):
            for name in list(module.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(module, name)
            # weight norm's, for old checkpoints: a function without a name
            module._load_state_dict_pre_hooks.clear()
    return network.eval()


@contextmanager
def as_configured(path: Path, whose: str = "this codec") -> Iterator[None]:
    """Around whatever is made of a stranger's configuration: any failure is a CodecError.

    The packages check little of what they are given, so a wrong value shows as any kind of error.
    Torch's warning of the old weight_norm in dac and snac is nothing that a user could act on.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*weight_norm.* is deprecated", FutureWarning)
            yield
    except CodecError:
        raise
    except Exception as error:
        fault = f"not {whose}'s configuration ({reason(error)})"
        raise CodecError(f"{path}: {fault}; copy it again") from error


def spoken(sample_rate: int, hop: int, sizes: tuple[int, ...], channels: int = 1) -> CodecFormat:
    """A codec's format by Hz, samples a frame and codes a slot. ValueError unless whole and > 0."""
    for name, value in (("sample rate", sample_rate), ("hop", hop), ("channels", channels)):
        if type(value) is not int or value < 1:
            raise ValueError(f"{name} is {value}")
    if not sizes or any(type(size) is not int or size < 2 for size in sizes):
        raise ValueError(f"slots have {sizes} codes")
    return CodecFormat(sample_rate, sample_rate / hop, sizes, channels)


def chosen(slots: int | None, trained: int, where: str) -> int:
    """How many codebooks are used: all, or as many as asked for; CodecError if there are fewer."""
    if type(trained) is not int or trained < 1:
        raise CodecError(f"{where}: has {trained} codebooks by its configuration; copy it again")
    if slots is not None and not 1 <= slots <= trained:
        raise CodecError(f"{where}: slots is {slots}; this codec has 1 to {trained}")
    return trained if slots is None else slots


def terms(stated: str, where: str, known: Mapping[str, str]) -> str:
    """A licence: what a recipe states, else the `known` (in any revision), else "unknown"."""
    return stated or known.get(where.partition("@")[0], "unknown")


def identity(state: Mapping[str, Tensor], config: object) -> str:
    """A codec's fingerprint: sha256 over every weight and the configuration, whatever the file."""
    words = json.dumps(config, sort_keys=True, default=str)
    return hashlib.sha256((fingerprint(state) + words).encode()).hexdigest()


def reason(error: BaseException) -> str:
    """Another package's error in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


def _refused(error: BaseException) -> str:
    """PyTorch's reason without its advice to read the file unsafely."""
    for line in str(error).splitlines():
        if "Unsupported" in line or "GLOBAL" in line:
            return line.split("WeightsUnpickler error: ")[-1].split(". ")[0].strip()
    return "not a checkpoint"
