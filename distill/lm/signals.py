"""A teacher's signal for a passage: distributions over *codes*, never over token ids or positions.

So teacher and student may be different LLM families with different tokenizers, each writing the
same pieces before the same frames in its own way, as long as they speak the same codec. A whole
distribution over a slot's 512 to 1,024 codes is 1 to 2 kB in half precision, so every divergence
stays exact; nothing is cut to a top-k.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from distill.errors import TeacherError
from distill.folders import write_atomic

LEAST = -6e4  # a log-probability that half precision can hold


@dataclass(frozen=True)
class Signal:
    """Natural-log probabilities for one passage; fingerprint: the teacher's.

    slots[s]: logp_FC over slot s's codes, given everything before. pitch_PK and length_PL: over
    pitch and length symbols of each piece.
    """

    slots: tuple[Tensor, ...]
    pitch_PK: Tensor
    length_PL: Tensor
    fingerprint: str = ""

    @property
    def frames(self) -> int:
        return len(self.slots[0])


def write_signal(path: str | Path, signal: Signal) -> None:
    """Records a signal in half precision as safetensors, atomically."""
    tensors = {f"slot{s}": logp_FC for s, logp_FC in enumerate(signal.slots)}
    tensors |= {"pitch": signal.pitch_PK, "length": signal.length_PL}
    halves = {name: x.clamp(min=LEAST).half().contiguous() for name, x in tensors.items()}
    about = {"version": "1", "slots": str(len(signal.slots)), "teacher": signal.fingerprint}
    write_atomic(Path(path), save(halves, {"about": json.dumps(about)}))


def read_signal(path: str | Path) -> Signal:
    """Load what `write_signal` saved, as float32. Raises TeacherError for a damaged file."""
    try:
        with safe_open(str(path), "pt") as file:
            about = json.loads((file.metadata() or {})["about"])
            names = list(file.keys())
            tensors = {name: file.get_tensor(name).float() for name in names}
        slots = tuple(tensors[f"slot{s}"] for s in range(int(about["slots"])))
        return Signal(slots, tensors["pitch"], tensors["length"], about["teacher"])
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        fault = f"not a recorded signal ({error})"
        raise TeacherError(f"{path}: {fault}; delete it and record it again") from None


def check_signal(signal: Signal, codes_FS: Tensor, pieces: int, where: str) -> None:
    """Raise TeacherError unless a signal is of as many frames, slots and pieces, and of numbers."""
    sizes, wanted = (signal.frames, len(signal.slots), len(signal.pitch_PK)), codes_FS.shape
    if sizes != (*wanted, pieces):
        has = "the signal has {} frames, {} slots, {} pieces".format(*sizes)
        song = f"the song {wanted[0]}, {wanted[1]}, {pieces}"
        raise TeacherError(f"{where}: {has}, {song}; record it again")
    if any(bool(torch.isnan(slot).any()) for slot in signal.slots):
        raise TeacherError(f"{where}: the signal holds NaN; record it again")
