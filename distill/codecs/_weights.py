"""Weights from elsewhere: tensors and plain words, whole and finite, or refused by name.

A weights file is data. safetensors can hold nothing else; a PyTorch checkpoint is a pickle, which
can call whatever it names, so it is read by PyTorch's own restricted reader (`weights_only=True`),
and whatever that reader will not build is refused here, as is an archive that brings its own source
(torch.package, TorchScript). A `config.json` that names code (`auto_map`) is refused too. Nothing
is loaded loosely: every weight that the network has must be in the file.
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
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from distill.audio.codec_format import CodecFormat
from distill.errors import CodecError
from distill.folders import fingerprint


def read_config(place: Path, needed: Iterable[str] = ()) -> dict[str, Any]:
    """A JSON file with at least the keys `needed`. CodecError when it is missing, damaged or names
    code."""
    try:
        config = json.loads(place.read_text("utf-8"))
    except FileNotFoundError as problem:
        raise CodecError(
            f"{place}: missing; name the folder that holds it and the weights"
        ) from problem
    except (OSError, ValueError) as problem:
        raise CodecError(f"{place}: cannot be read ({problem}); copy the folder again") from problem
    if not isinstance(config, dict):
        raise CodecError(f"{place}: not a configuration (no keys); copy the folder again")
    for name in needed:
        if name not in config:
            raise CodecError(f"{place}: {name} is missing; this is not this codec's configuration")
    refuse_code(config, place)
    return config


def refuse_code(config: Any, place: Path) -> None:
    """CodecError when a configuration, at any depth, names code to be run."""
    if isinstance(config, dict):
        if "auto_map" in config:
            raise CodecError(f"{place}: names code to run (auto_map); use a copy without it")
        config = list(config.values())
    if isinstance(config, list):
        for value in config:
            refuse_code(value, place)


def read_tensors(place: Path) -> dict[str, Tensor]:
    """The named tensors of a safetensors file. CodecError when it is missing, cut short or not
    finite."""
    try:
        return checked(safetensors.torch.load_file(place), place)
    except FileNotFoundError as problem:
        raise CodecError(f"{place}: missing; name the folder that holds it") from problem
    except (safetensors.SafetensorError, OSError, ValueError) as problem:
        raise CodecError(
            f"{place}: damaged or cut short ({reason(problem)}); copy the file again"
        ) from problem


def read_checkpoint(place: Path, shallow: bool = False) -> Any:
    """What a PyTorch checkpoint holds: tensors, numbers, text, lists and dicts, never code.

    `shallow` leaves the tensors' values on disk where the file allows: enough to read what stands
    beside them. CodecError when the file is missing, cut short, or wants to run code.
    """
    if not place.is_file():
        raise CodecError(f"{place}: missing; name a weights file")
    mapped = False
    try:
        if zipfile.is_zipfile(place):
            with zipfile.ZipFile(place) as archive:
                source = [
                    n
                    for n in archive.namelist()
                    if n.endswith(".py") or ".data/extern_modules" in n
                ]
            if source:
                raise CodecError(
                    f"{place}: brings code of its own ({source[0]}); use the checkpoint with "
                    "weights alone"
                )
            mapped = shallow
        return torch.load(place, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as problem:
        raise CodecError(
            f"{place}: wants to run code, or is damaged ({_refused(problem)}); use a file with "
            "tensors alone"
        ) from problem
    except (
        RuntimeError, OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, zipfile.BadZipFile
    ) as problem:  # fmt: skip
        raise CodecError(
            f"{place}: damaged or cut short ({reason(problem)}); copy the file again"
        ) from problem


def checked(state: Any, place: Path) -> dict[str, Tensor]:
    """`state` if it is a dict of named tensors with finite values; CodecError naming the first that
    is not."""
    if not isinstance(state, Mapping) or not state:
        raise CodecError(f"{place}: holds no named weights; name a checkpoint of this codec")
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise CodecError(f"{place}: {name} is no tensor; name a checkpoint of this codec")
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise CodecError(f"{place}: {name} holds NaN or infinity; copy the file again")
    return dict(state)


def fill(network: nn.Module, state: Mapping[str, Tensor], place: Path) -> None:
    """Load every weight that the network has. CodecError names the first that is missing or does
    not fit.

    What a checkpoint holds beside them (a discriminator, a decoder that is not used) is left where
    it is.
    """
    wanted = network.state_dict()
    for name, value in wanted.items():
        if name not in state:
            raise CodecError(
                f"{place}: {name} is missing; weights and configuration do not belong together"
            )
        if state[name].shape != value.shape:
            raise CodecError(
                f"{place}: {name} is {tuple(state[name].shape)}, its configuration says "
                f"{tuple(value.shape)}"
            )
    network.load_state_dict({name: state[name] for name in wanted})


def halves(named: Iterable[tuple[str, Tensor]], folder: Path) -> bytes:
    """A weights.safetensors of our own, in half precision. CodecError if a weight is not finite in
    it."""
    found = {name: value.detach().to("cpu", torch.float16).contiguous() for name, value in named}
    for name, value in found.items():
        if not bool(torch.isfinite(value).all()):
            raise CodecError(
                f"{folder}: {name} is NaN or too large for half precision, so nothing was saved; "
                "train again"
            )
    return safetensors.torch.save(found, metadata={"format": "pt"})


def fill_from_halves(wanted: Mapping[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """Fill these from the folder's weights.safetensors, whole and finite or not at all; gives what
    the file holds."""
    place = folder / "weights.safetensors"
    found = read_tensors(place)
    if odd := sorted(set(found) ^ set(wanted)):
        raise CodecError(
            f"{place}: weights and config.json do not belong together (first: {odd[0]}); copy the "
            "folder again"
        )
    for name, target in wanted.items():
        if found[name].shape != target.shape or not found[name].is_floating_point():
            raise CodecError(
                f"{place}: {name} is {tuple(found[name].shape)}, not {tuple(target.shape)} as in "
                "config.json"
            )
    for name, target in wanted.items():
        target.data.copy_(found[name])
    return found


def settled(network: nn.Module) -> nn.Module:
    """The network as it is used, its weights worked out once: a parametrised one (weight norm) does
    so at every call, and cannot be sent to an encoding process.
    """
    for module in network.modules():
        if parametrize.is_parametrized(module):
            for name in list(module.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(module, name)
            # weight norm's, for old checkpoints: a function without a name
            module._load_state_dict_pre_hooks.clear()
    return network.eval()


@contextmanager
def as_configured(place: Path) -> Iterator[None]:
    """Around whatever is made of a stranger's configuration: whichever way it fails, it is a
    CodecError.

    The packages check little of what they are given, so a wrong value shows as any kind of error.
    What torch says of the old weight_norm that dac and snac are built on is nothing that a user
    could act on.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*weight_norm.* is deprecated", FutureWarning)
            yield
    except CodecError:
        raise
    except Exception as problem:
        raise CodecError(
            f"{place}: not this codec's configuration ({reason(problem)}); copy it again"
        ) from problem


def spoken(
    sample_rate: int, hop: int, slot_sizes: tuple[int, ...], channels: int = 1
) -> CodecFormat:
    """The format of a codec whose frames are `hop` samples. ValueError unless all are whole and
    above 0."""
    for name, value in (("sample rate", sample_rate), ("hop", hop), ("channels", channels)):
        if type(value) is not int or value < 1:
            raise ValueError(f"{name} is {value}")
    if not slot_sizes or any(type(size) is not int or size < 2 for size in slot_sizes):
        raise ValueError(f"slots have {slot_sizes} codes")
    return CodecFormat(sample_rate, sample_rate / hop, slot_sizes, channels)


def chosen(slots: int | None, trained: int, where: str) -> int:
    """How many codebooks are used: all, or as many as asked for. CodecError when there are not so
    many."""
    if type(trained) is not int or trained < 1:
        raise CodecError(f"{where}: has {trained} codebooks by its configuration; copy it again")
    if slots is not None and not 1 <= slots <= trained:
        raise CodecError(
            f"{where}: slots is {slots}, this codec has 1 to {trained}; choose one of those"
        )
    return trained if slots is None else slots


def terms(stated: str, where: str, known: Mapping[str, str]) -> str:
    """The licence of weights: what a recipe states, else what is known of where they lie (in any
    revision), else "unknown"."""
    return stated or known.get(where.partition("@")[0], "unknown")


def identity(state: Mapping[str, Tensor], config: Any) -> str:
    """sha256 over every weight and the configuration: the codec's fingerprint, in whatever file it
    came."""
    words = json.dumps(config, sort_keys=True, default=str)
    return hashlib.sha256((fingerprint(state) + words).encode()).hexdigest()


def reason(problem: BaseException) -> str:
    """Somebody else's error in a line of ours."""
    text = " ".join(str(problem).split())
    return f"{type(problem).__name__}: {text[:200]}" if text else type(problem).__name__


def _refused(problem: BaseException) -> str:
    """PyTorch's reason without its advice to read the file unsafely."""
    lines = [
        line for line in str(problem).splitlines() if "Unsupported" in line or "GLOBAL" in line
    ]
    return (
        lines[0].split("WeightsUnpickler error: ")[-1].split(". ")[0].strip()
        if lines
        else "not a checkpoint"
    )
