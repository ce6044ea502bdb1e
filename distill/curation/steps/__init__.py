"""What is done to songs before anyone learns from them: one file a step.

    Item -- step.curate --> Item -- step.curate --> ... then, all songs together, step.curate_all

A step's `Settings` has `curate(item)`, which sees one song with its sound, or `curate_all(items)`,
which sees all songs that are left without their sound, or both. Steps are functions of values: they
read no file, write none and know nothing of each other. What they have to say is a Remark on the
song; the source is never changed.

    kept        nothing to say
    mended      the copy that goes on is better than its source was (level, encoding, ...)
    noted       worth knowing, nothing was changed
    set aside   the song goes no further, and the remark says why
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from distill.audio.safe_decode import Sound
from distill.songs import Fact, Song

__all__ = ["CurationStep", "Item", "Remark", "Sound", "StepOnAll", "StepOnOne", "Verdict"]

Verdict = Literal["mended", "noted", "set aside"]


class Remark(NamedTuple):
    """What a step has to say about a song."""

    step: str
    verdict: Verdict
    text: str


@dataclass(frozen=True)
class Item:
    """A song on its way through curation. tracks: decoded sound by name ("audio", "vocals",
    "accompaniment"), empty when all songs are looked at together. traces: plain JSON that a step
    leaves under its name, for its `curate_all` or the report."""

    song: Song
    tracks: Mapping[str, Sound] = field(default_factory=dict)
    remarks: tuple[Remark, ...] = ()
    traces: Mapping[str, Any] = field(default_factory=dict)

    @property
    def aside(self) -> bool:
        """Whether a step has set the song aside."""
        return any(remark.verdict == "set aside" for remark in self.remarks)

    @property
    def voice(self) -> Sound | None:
        """Where to look for the voice: the vocals where they are apart, else the recording."""
        return self.tracks.get("vocals", self.tracks.get("audio"))

    def remark(self, step: str, verdict: Verdict, text: str) -> Item:
        return replace(self, remarks=(*self.remarks, Remark(step, verdict, text)))

    def leave(self, step: str, trace: object) -> Item:
        return replace(self, traces={**self.traces, step: trace})

    def know(self, *facts: Fact) -> Item:
        """The item whose song has these facts."""
        song = self.song
        for fact in facts:
            song = song.with_fact(fact)
        return replace(self, song=song)


@runtime_checkable
class StepOnOne(Protocol):
    """The `Settings` of a step that sees each song with its sound."""

    def curate(self, item: Item) -> Item:
        """The item with what was found out, mended or remarked."""


@runtime_checkable
class StepOnAll(Protocol):
    """The `Settings` of a step that sees all songs together, without their sound."""

    def curate_all(self, items: Sequence[Item]) -> list[Item]:
        """The same items, in the same order."""


CurationStep = StepOnOne | StepOnAll
