"""Checkpoints: a training run on disk, whole or absent, and complete or refused.

A checkpoint is a folder `step-00000123` with

    weights.safetensors     the task's trained parameters
    optimizer.safetensors   both moments and the step of every parameter, by its number; of an
                            8-bit optimiser its bytes, their scales and their maps as they are
    state.json              where the run stands, which run it is, torch and thread count; in fp16
                            the scale of the loss
    manifest.json           the sha256 of each (folders.py)

Random numbers need no file: the trainer seeds every step from (seed, step), and batch k is a
function of (seed, k). A missing piece is an error, never a fresh optimiser without a word (as in HF
Trainer 5.23). No pickle anywhere.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Optimizer

from distill import folders
from distill.errors import CheckpointError, FolderError
from distill.training import sharding
from distill.training.run_folder import INTACT, Run

Tensors = dict[str, Tensor]  # by name
PREFIX = "step-"
SCALER = "loss_scale"
_EARLIER = "remove this folder to go on from the one before"
_MOMENTS = ("exp_avg", "exp_avg_sq"), ("state1", "state2")  # torch's names, bitsandbytes'
_BLOCKS = {"qmap1", "qmap2", "absmax1", "absmax2"}  # how bytes are read, where they are bytes


@dataclass(frozen=True)
class Place:
    """Where a run stands: `step` updates done, `micro_batches` used, `seconds` spent training."""

    step: int = 0
    micro_batches: int = 0
    seconds: float = 0.0


def machine() -> dict[str, object]:
    """What must be equal for a resumed run to be bit-identical."""
    return {"torch": torch.__version__, "threads": torch.get_num_threads()}


def save(
    parent: Path,
    now: Place,
    run: Run,
    parameters: Tensors,
    optimizer: Optimizer,
    keep: int | None,
    scaler: GradScaler | None = None,
) -> Path:
    """Writes a checkpoint below `parent`, then removes all but the `keep` newest up to this one.
    None: writes nothing, but gives another process the pieces that lie here.
    CheckpointError when the disk refuses; earlier checkpoints are then untouched."""
    path = parent / f"{PREFIX}{now.step:08d}"
    weights, moments = _plain(parameters), _plain(_moments(optimizer))
    if keep is None:
        return path
    state = {"version": 1, **asdict(now), **machine(), "run": run}
    if scaler is not None and scaler.is_enabled():
        state[SCALER] = scaler.state_dict()
    try:
        with folders.atomic_folder(path) as partial:
            save_file(weights, partial / "weights.safetensors")
            save_file(moments, partial / "optimizer.safetensors")
            (partial / "state.json").write_text(json.dumps(state, indent=1), encoding="utf-8")
    except (FolderError, SafetensorError) as error:
        cause = str(error.__cause__ or error)
        raise CheckpointError(f"{path}: could not be written ({cause}); {INTACT}") from error
    older = sorted(p for p in parent.glob(PREFIX + "*") if p.is_dir() and p.name <= path.name)
    for old in older[:-keep]:
        folders.discard(old)
    return path


def load(
    path: Path, optimizer: Optimizer, scaler: GradScaler | None = None
) -> tuple[Tensors, dict[str, object], Place]:
    """(trained parameters, state.json, where the run stood); moments and the scale of the loss are
    put back. CheckpointError when anything is missing or of another shape."""
    try:
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        parameters = load_file(path / "weights.safetensors")
        moments = load_file(path / "optimizer.safetensors")
        now = Place(int(state["step"]), int(state["micro_batches"]), float(state["seconds"]))
        scaled = scaler is not None and scaler.is_enabled()
        missing = {"run", *machine(), *([SCALER] if scaled else [])} - set(state)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        fault = f"a piece is missing or unreadable ({error})"
        raise CheckpointError(f"{path}: {fault}; {_EARLIER}") from error
    if missing or not moments or not parameters:
        what = ", ".join(missing) or ("the optimiser's state" if parameters else "the weights")
        raise CheckpointError(f"{path}: holds no {what}; {_EARLIER}")
    _restore(path, moments, optimizer)
    if scaler is not None and scaled:
        scaler.load_state_dict(state[SCALER])
    return parameters, state, now


def _plain(tensors: Tensors) -> Tensors:
    """Whole copies on the CPU, contiguous, sharing no memory (safetensors refuses shared ones)."""
    whole = ((name, sharding.full(tensor.detach())) for name, tensor in tensors.items())
    copies = {name: tensor.to("cpu", copy=True) for name, tensor in whole}
    return {name: copy.contiguous() for name, copy in copies.items()}


def _moments(optimizer: Optimizer) -> Tensors:
    """An optimiser's state under flat names: "<parameter number>.<step, moment or scale>"."""
    return {
        f"{number}.{kind}": torch.as_tensor(value)
        for number, parameter in enumerate(_parameters(optimizer))
        for kind, value in optimizer.state.get(parameter, {}).items()
    }


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _restore(path: Path, moments: Tensors, optimizer: Optimizer) -> None:
    """Puts saved moments back; a parameter has all that belongs to them or none, in its shape."""
    parameters = _parameters(optimizer)
    of_torch = isinstance(optimizer, torch.optim.AdamW)
    names = _MOMENTS[0 if of_torch else 1]
    state: dict[int, dict[str, Any]] = {}
    for name, value in moments.items():
        number, _, kind = name.partition(".")
        state.setdefault(int(number), {})[kind] = value
    for index, kinds in state.items():
        needed = {"step", *names}
        if not of_torch and (first := kinds.get(names[0])) is not None:
            needed |= _BLOCKS if first.dtype == torch.uint8 else set()
        fits = index < len(parameters) and set(kinds) == needed
        if not fits or any(kinds[name].shape != parameters[index].shape for name in names):
            fault = f"the optimiser's state of parameter {index} does not fit this task"
            raise CheckpointError(f"{path}: {fault}; is this the folder of another run?")
        if not of_torch:
            kinds["step"] = int(kinds["step"])
        for name in names:
            kinds[name] = sharding.like(kinds[name], parameters[index])
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
