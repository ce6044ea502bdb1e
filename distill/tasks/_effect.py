"""Does the adapter do anything? The trained student beside what it was before its first step.

Off stands for one of two states, and on for the trained one:

    before_training   what was grafted: LoRA off, the new rows at their first values
    rows_alone        LoRA off, the new rows as they were trained (of a student with LoRA)

KL(on || off) is taken over held-out passages, in nats per token by slot: 0 means that nothing was
learnt, or that what was learnt was not loaded. The same lines sung from the same seed, on and off,
say what of it is heard.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import kl_div

from distill import measures
from distill.errors import DistillError
from distill.folders import Json
from distill.lm import logits
from distill.lm.student import Student
from distill.singing import evaluate
from distill.singing.evaluate import Asked
from distill.singing.singer import Singer
from distill.singing.take import Take
from distill.songs import Note, Song, from_its_start
from distill.tasks._sound import SpectralDistance, whole
from distill.writing.prompts import Coded

State = Mapping[str, Tensor]  # trained parameters by name
LINES = 4  # sung by each
LORA = ".lora_"


def copied(student: Student) -> dict[str, Tensor]:
    """The student's trained parameters as they are now, on the CPU."""
    return {name: tensor.to("cpu", copy=True) for name, tensor in student.state().items()}


def effect(
    singer: Singer, first: State, held_out: Sequence[Coded], songs: Sequence[Song], seed: int
) -> Json:
    """What training changed since the student's parameters were `first`; it is left as it was.

    {"on": {"nats_per_token", "sung"}, <off>: {"nats_per_token", "kl_per_token", "sung"}}, figures
    by slot on `held_out`; `sung`: see `_heard`.
    """
    student = singer.student
    asked, on = _asked(songs), copied(student)
    states: dict[str, State] = {"before_training": first}
    if student.lora is not None:
        states["rows_alone"] = {n: first[n] if LORA in n else on[n] for n in on}
    takes = {"on": _sung(singer, asked, seed)}
    results: dict[str, Json] = {
        "on": {"nats_per_token": logits.held_out(student, held_out)["nats_per_token"]}
    }
    for name, state in states.items():
        results[name] = {"kl_per_token": divergence(student, on, state, held_out)}
        with _as(student, state, on):
            nats = logits.held_out(student, held_out)["nats_per_token"]
            results[name]["nats_per_token"] = nats
            takes[name] = _sung(singer, asked, seed)
    for name, figures in _heard(asked, takes).items():
        results[name]["sung"] = figures
    return results


@torch.no_grad()
def divergence(student: Student, on: State, off: State, coded: Sequence[Coded]) -> list[float]:
    """KL(on || off) over the passages, nats per token by slot; the student is left `on`."""
    student.model.eval()
    slots = student.vocabulary.format.slots
    sums, frames = [0.0] * slots, 0
    for _, batch in logits.packed(student, coded, 4096):
        on_by_slot = _logs(student, batch)
        with _as(student, off, on):
            off_by_slot = _logs(student, batch)
        frames += len(on_by_slot[0])
        for slot, (on_NC, off_NC) in enumerate(zip(on_by_slot, off_by_slot, strict=True)):
            sums[slot] += float(kl_div(off_NC, on_NC, reduction="sum", log_target=True))
    return [total / max(1, frames) for total in sums]


def _logs(student: Student, batch: logits.Batch) -> list[Tensor]:
    """Log-probabilities log_NC of each slot's codes at its places."""
    hidden_ND = logits.hidden_ND(student, batch)
    slots = range(len(batch.slots))
    by_slot = (logits.slot_logits_NC(student, hidden_ND, batch, slot) for slot in slots)
    return [logits_NC.float().log_softmax(-1) for logits_NC in by_slot]


@contextmanager
def _as(student: Student, state: State, afterwards: State) -> Iterator[None]:
    """The student with other parameters for a while."""
    student.load_state(dict(state))
    try:
        yield
    finally:
        student.load_state(dict(afterwards))


# --- what is heard --------------------------------------------------------------------------------
def _asked(songs: Sequence[Song]) -> list[Asked]:
    """Lines with notes, spread over the songs; else the first line of all."""
    if any(line.notes for song in songs for line in song.lines):
        return evaluate.spread(evaluate.lines_of(songs), LINES)
    lines = [(line, song) for song in songs for line in song.lines][:1]
    return [Asked(from_its_start(line), song, 0.0, line.end) for line, song in lines]


def _sung(singer: Singer, asked: Sequence[Asked], seed: int) -> list[Take]:
    """The lines from one seed; none where they do not fit."""
    voices = singer.about.voices
    own = [each.song.voice if each.song.voice in voices else [*voices, ""][0] for each in asked]
    styles = [each.song.style for each in asked]
    try:
        return singer.sing_lines([each.line for each in asked], styles, own, seed) if asked else []
    except DistillError:
        return []


def _heard(asked: Sequence[Asked], takes: Mapping[str, Sequence[Take]]) -> dict[str, Json]:
    """By state: in_tune, word_error and dictation_error (where the judges are installed), and of a
    state that is off how far it is from on: codes_changed (a share), pitch_cents (median), mel_l1.
    """
    rows = {row: _performances(asked, taken) for row, taken in takes.items()}
    shares: dict[str, Json] = {row: {"lines": len(taken)} for row, taken in takes.items()}
    try:
        judged = measures.judge(rows, reference=None)["rows"] if all(rows.values()) else {}
    except DistillError:  # their extra is not installed
        judged = {}
    for row, of_row in judged.items():
        for name in ("in_tune", "word_error", "dictation_error"):
            figure = of_row["figures"].get(name)
            shares[row][name] = figure and figure["value"]
    for row, taken in takes.items():
        if row != "on" and taken and takes["on"]:
            shares[row] |= _apart(takes["on"], taken)
    return shares


def _performances(asked: Sequence[Asked], takes: Sequence[Take]) -> list[measures.Performance]:
    return [
        evaluate.performance(
            replace(each.line, notes=tuple(Note(*note) for note in take.notes)),
            take.stems.get("vocals", take.wave_CW),
            take.sample_rate,
            each.song.language,
        )
        for each, take in zip(asked, takes, strict=False)
    ]


def _apart(on: Sequence[Take], off: Sequence[Take]) -> dict[str, float | None]:
    """How far takes of the same lines are from each other, over their common length."""
    changed, mels, cents = [], [], []
    for take, without in zip(on, off, strict=True):
        frames = min(len(take.codes_FS), len(without.codes_FS))
        changed.append(float((take.codes_FS[:frames] != without.codes_FS[:frames]).float().mean()))
        samples = max(4096, min(take.wave_CW.shape[1], without.wave_CW.shape[1]))
        with_CW, without_CW = whole(take.wave_CW, samples), whole(without.wave_CW, samples)
        distance = SpectralDistance(take.sample_rate)
        mels.append(float(distance(without_CW.mean(0)[None], with_CW.mean(0)[None])[0]))
        cents += _cents(with_CW, without_CW, take.sample_rate)
    median = float(np.median(cents)) if cents else None
    return {
        "codes_changed": sum(changed) / len(changed),
        "pitch_cents": median,
        "mel_l1": sum(mels) / len(mels),
    }


def _cents(with_CW: Tensor, without_CW: Tensor, rate: int) -> list[float]:
    """Distances of two pitches where both are voiced; none without the judges' extra."""
    pitch = measures.load("pitch")
    try:
        ours_F, theirs_F = (
            pitch.track(wave.mean(0).numpy(), rate) for wave in (with_CW, without_CW)
        )
    except DistillError:
        return []
    away_F = 100 * np.abs(ours_F - theirs_F)
    return away_F[~np.isnan(away_F)].tolist()
