"""What a teacher says about a song: distributions over *codes*, never over token ids or token
positions.

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


@dataclass(frozen=True)
class Signal:
    """Natural-log probabilities for one passage.

    slots[s]: logp_FC over slot s's codes, given everything before. pitch_PK and length_PL: over
    pitch and length symbols of each piece. fingerprint: the teacher's.
    """

    slots: tuple[Tensor, ...]
    pitch_PK: Tensor
    length_PL: Tensor
    fingerprint: str = ""

    @property
    def frames(self) -> int:
        return len(self.slots[0])


def write_signal(path: str | Path, signal: Signal) -> None:
    """Save in half precision as safetensors, atomically."""
    tensors = {f"slot{s}": logp_FC for s, logp_FC in enumerate(signal.slots)}
    tensors |= {"pitch": signal.pitch_PK, "length": signal.length_PL}
    halves = {name: tensor.clamp(min=-6e4).half().contiguous() for name, tensor in tensors.items()}
    about = {"version": "1", "slots": str(len(signal.slots)), "teacher": signal.fingerprint}
    write_atomic(Path(path), save(halves, {"about": json.dumps(about)}))


def read_signal(path: str | Path) -> Signal:
    """Load what `write_signal` saved, as float32. Raises TeacherError for a damaged file."""
    try:
        with safe_open(str(path), "pt") as file:
            about = json.loads((file.metadata() or {})["about"])
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 (not a dict)
        slots = tuple(tensors[f"slot{s}"] for s in range(int(about["slots"])))
        return Signal(slots, tensors["pitch"], tensors["length"], about["teacher"])
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise TeacherError(
            f"{path}: not a recorded signal ({error}); delete it and score again"
        ) from None


def check_signal(signal: Signal, codes_FS: Tensor, pieces: int, where: str) -> None:
    """A signal belongs to these codes and pieces, or TeacherError says which count differs."""
    if (
        signal.frames != len(codes_FS)
        or len(signal.slots) != codes_FS.shape[1]
        or len(signal.pitch_PK) != pieces
    ):
        raise TeacherError(
            f"{where}: the signal has {signal.frames} frames, {len(signal.slots)} slots, "
            f"{len(signal.pitch_PK)} pieces, "
            f"the song {len(codes_FS)}, {codes_FS.shape[1]}, {pieces}; score it again"
        )
    if any(bool(torch.isnan(slot).any()) for slot in signal.slots):
        raise TeacherError(f"{where}: the signal holds NaN; score it again")
