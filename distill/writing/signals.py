"""A teacher's signal for a passage: distributions over *codes*, never over token ids or positions.

So teacher and student may be different LLM families with different tokenizers, each writing the
same pieces before the same frames in its own way, as long as they speak the same codec.

A whole distribution over a slot's 512 to 1,024 codes is 1 to 2 kB in half precision: every
divergence stays exact. Recorded, it has one of three forms:

    fp16    whole, in half precision
    int8    whole, in 255 steps of one size a row: half of that, and still every divergence
    topk    the K most probable codes in such steps, and all others together as one outcome, the
            tail

A top-K signal is a distribution over K + 1 outcomes. The student's own logits are brought to the
same outcomes (`bucketed`), exactly, and a divergence is taken between those. What that leaves out
of KL(p || q) is p(tail) * KL(p || q within the tail), and of its gradient at most 2 p(tail), summed
over codes: small wherever the teacher's tail is. Of KL(q || p) it leaves out *q*(tail) * KL(q || p
within the tail), which a student that does not know the teacher yet has nearly all of: a recipe may
not ask for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from distill.errors import TeacherError

Form = Literal["fp16", "int8", "topk"]
LEAST = -6e4  # a log-probability that half precision can hold
DEEPEST = 30.0  # nats below a row's best, where int8 ends: losses.IMPOSSIBLE counts nothing there
STEPS = 255


@dataclass(frozen=True)
class Signal:
    """Natural-log probabilities for one passage; fingerprint: the teacher's.

    slots[s]: logp_FC over slot s's codes, given everything before. pitch_PK and length_PL: over
    pitch and length symbols of each piece. kept[s], of a top-K signal: the codes_FK that the first
    K columns of slots[s] are of; its last column is the tail. None: the slot is whole.
    """

    slots: tuple[Tensor, ...]
    pitch_PK: Tensor
    length_PL: Tensor
    fingerprint: str = ""
    kept: tuple[Tensor | None, ...] = ()

    @property
    def frames(self) -> int:
        return len(self.slots[0])

    def kept_FK(self, slot: int) -> Tensor | None:
        """The codes that a slot's columns are of; None where it is whole."""
        return self.kept[slot] if self.kept else None


def bucketed(logits_NC: Tensor, kept_NK: Tensor) -> Tensor:
    """logits_NB over B = K + 1 outcomes: the kept codes, and all others as one.

    Their softmax is the softmax over C with the others' probabilities added up.
    """
    logits_NC = logits_NC.float()
    others_NC = logits_NC.scatter(1, kept_NK, -torch.inf)
    tail_N1 = others_NC.logsumexp(-1, keepdim=True)
    return torch.cat([logits_NC.gather(1, kept_NK), tail_N1], -1)


# --- as it is recorded ----------------------------------------------------------------------------
def packed(signal: Signal, form: Form, top_k: int) -> dict[str, Tensor]:
    """A signal's tensors in one of the forms. Score symbols are few, and always fp16. A slot of no
    more than top_k + 1 codes is kept whole, in fp16."""
    tensors = {"pitch": _half(signal.pitch_PK), "length": _half(signal.length_PL)}
    for slot, logp_FC in enumerate(signal.slots):
        parts = {"slot": _half(logp_FC)}
        if form == "int8":
            parts = _in_steps(logp_FC)
        elif form == "topk" and logp_FC.shape[1] > top_k + 1:
            parts = _best(logp_FC, top_k)
        tensors |= {f"{name}{slot}": part for name, part in parts.items()}
    return tensors


def unpacked(tensors: Mapping[str, Tensor], slots: int, fingerprint: str) -> Signal:
    """The signal that `packed` made tensors of, in float32. KeyError for one that is missing."""
    logps: list[Tensor] = []
    kept: list[Tensor | None] = []
    for slot in range(slots):
        logp_FC, scale_F = tensors[f"slot{slot}"].float(), tensors.get(f"scale{slot}")
        if scale_F is not None:
            logp_FC = (-scale_F.float()[:, None] * logp_FC).log_softmax(-1)
        codes_FK = tensors.get(f"kept{slot}")
        if codes_FK is not None:
            tail_F1 = tensors[f"tail{slot}"].float()[:, None]
            logp_FC = torch.cat([logp_FC + torch.log1p(-tail_F1.exp()), tail_F1], -1)
        logps.append(logp_FC)
        kept.append(None if codes_FK is None else _codes_FK(codes_FK, tensors[f"slot{slot}"]))
    pitch_PK, length_PL = tensors["pitch"].float(), tensors["length"].float()
    some = tuple(kept) if any(codes is not None for codes in kept) else ()
    return Signal(tuple(logps), pitch_PK, length_PL, fingerprint, some)


def _half(logp: Tensor) -> Tensor:
    return logp.clamp(min=LEAST).half().contiguous()


def _in_steps(logp_FC: Tensor) -> dict[str, Tensor]:
    """How many steps each code lies below its row's best, and the size of a row's step (nats)."""
    below_FC = (logp_FC.amax(-1, keepdim=True) - logp_FC.float()).clamp(max=DEEPEST)
    scale_F = (below_FC.amax(-1) / STEPS).clamp(min=1e-4).half()
    # a half may be smaller than what was rounded to it: the deepest stays within the steps
    steps_FC = (below_FC / scale_F.float()[:, None]).round().clamp(max=STEPS)
    return {"slot": steps_FC.to(torch.uint8), "scale": scale_F}


def _best(logp_FC: Tensor, top_k: int) -> dict[str, Tensor]:
    """The top_k codes in ascending order, in steps; which they are, by numbers or by a bit for
    every code, whichever is shorter; and the log-probability of all others together."""
    kept_FK = logp_FC.topk(top_k, -1).indices.sort(-1).values
    tail_F = bucketed(logp_FC, kept_FK).log_softmax(-1)[:, -1]
    tail_F = tail_F.clamp(max=-1e-3)  # something is outside the tail, and a half can say so
    kept = kept_FK.to(torch.int16)
    if 2 * top_k > logp_FC.shape[1] / 8:
        chosen_FC = torch.zeros(logp_FC.shape, dtype=torch.bool).scatter(1, kept_FK, True)
        kept = torch.from_numpy(np.packbits(chosen_FC.numpy(), axis=1))
    return _in_steps(logp_FC.gather(1, kept_FK)) | {"kept": kept, "tail": _half(tail_F)}


def _codes_FK(kept: Tensor, steps_FK: Tensor) -> Tensor:
    """The codes that `_best` wrote down."""
    if kept.dtype == torch.uint8:
        return (
            torch.from_numpy(np.unpackbits(kept.numpy(), axis=1))
            .nonzero()[:, 1]
            .view(steps_FK.shape)
        )
    return kept.long() % 2**16


def check_signal(signal: Signal, codes_FS: Tensor, pieces: int, where: str) -> None:
    """Raise TeacherError unless a signal is of as many frames, slots and pieces, and of numbers."""
    sizes, wanted = (signal.frames, len(signal.slots), len(signal.pitch_PK)), codes_FS.shape
    if sizes != (*wanted, pieces):
        has = "the signal has {} frames, {} slots, {} pieces".format(*sizes)
        song = f"the song {wanted[0]}, {wanted[1]}, {pieces}"
        raise TeacherError(f"{where}: {has}, {song}; record it again")
    every = (*signal.slots, signal.pitch_PK, signal.length_PL)
    if any(bool(torch.isnan(logp).any()) for logp in every):
        raise TeacherError(f"{where}: the signal holds NaN; record it again")
