"""What a run's report answers, in sentences: for its summary and for the card of its singer.

Does the adapter do anything? Does it remember instead of sing?
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from distill.folders import Json

STATES = {"before_training": "before training", "rows_alone": "with LoRA off and the new rows kept"}
ROWS = {
    "held_out_words": "of takes on held-out words",
    "learnt_words": "of takes on words that it learnt",
    "held_out_songs": "of held-out songs that nobody learnt from (the control)",
}
SUNG = {
    "in_tune": "notes in tune",
    "word_error": "words missed of eight",
    "dictation_error": "words wrong in dictation",
    "codes_changed": "codes that differ",
}


def adapter_lines(report: Json) -> list[str]:
    """What training changed, a sentence a state; none where it was not measured."""
    adapter = report.get("adapter") or {}
    on = (adapter.get("on") or {}).get("sung", {})
    return [
        f"against the model {words}: {_kl(adapter[state])}{_sung(adapter[state]['sung'], on)}"
        for state, words in STATES.items()
        if state in adapter
    ]


def _kl(figures: Json) -> str:
    nats = ", ".join(f"{value:.3g}" for value in figures["kl_per_token"])
    return f"KL {nats} nats a token by slot"


def _sung(off: Json, on: Json) -> str:
    """What is heard of it, from the same seed."""
    parts = []
    for name, words in SUNG.items():
        if off.get(name) is not None:
            here = "" if on.get(name) is None else f" (on: {on[name]:.0%})"
            parts.append(f"{words} {off[name]:.0%}{here}")
    if off.get("pitch_cents") is not None:
        parts.append(f"pitch {off['pitch_cents']:.0f} cents apart")
    if off.get("mel_l1") is not None:
        parts.append(f"spectrum {off['mel_l1']:.2f} nepers apart")
    return f"; sung from the same seed: {', '.join(parts)}" if parts else ""


def memory_lines(report: Json) -> list[str]:
    """What of its takes stands in the training songs, a sentence a length of run, beside the
    control; none where it was not measured."""
    memory = report.get("memory") or {}
    return [*_code_lines(memory.get("codes") or {}), *_melody_line(memory.get("melodies") or {})]


def _code_lines(codes: Json) -> Iterator[str]:
    of = f"of {codes.get('training_frames', 0):,} frames of training songs"
    for run in codes.get("runs", ()):
        for name, words in (("slot0", "by the coarsest code"), ("all_slots", "by all codes")):
            if shares := _shares(run[name]):
                yield f"in runs of {run['seconds']:g} s {of}, {words}: {shares}"


def _melody_line(melodies: Json) -> Iterator[str]:
    if shares := _shares(melodies.get("shares", {})):
        known = f"of {melodies['training_notes']:,} notes of training songs"
        yield f"melodies, in runs of {melodies['notes']} notes {known}: {shares}"


def _shares(shares: Mapping[str, float | None]) -> str:
    return ", ".join(
        f"{shares[row]:.1%} {words}" for row, words in ROWS.items() if shares.get(row) is not None
    )
