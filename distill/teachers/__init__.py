"""Teachers: who is imitated. One file per kind; its name is the recipe's `kind`.

    Settings                        frozen dataclass of the recipe's words
    Settings.load(codec) -> Teacher
    Teacher.signals(coded) -> one Signal per coded passage, in code space

A teacher refuses a codec that is not its own, by name: distributions over other codes mean nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from distill.codecs import Codec
from distill.errors import TeacherError
from distill.folders import Json
from distill.writing.prompts import Coded
from distill.writing.signals import Signal
from distill.writing.vocabulary import AudioVocabulary


class Teacher(Protocol):
    """What every teacher promises."""

    fingerprint: str

    def signals(self, coded: Sequence[Coded]) -> list[Signal]:
        """What it says about each passage."""
        ...


class TeacherSettings(Protocol):
    """The `Settings` of every teacher."""

    singer: str

    def load(self, codec: Codec) -> Teacher:
        """The teacher, its codec checked. Raises TeacherError, FolderError."""
        ...


def check_codec(name: str, about: Json, codec: Codec) -> None:
    """Raise TeacherError unless the teacher's singer.json names this very codec."""
    fingerprint, slots = about.get("codec_fingerprint"), tuple(about["slot_sizes"])
    if fingerprint != codec.fingerprint or slots != codec.format.slot_sizes:
        raise TeacherError(
            f"teacher {name}: it sings codes of another codec (slots {slots}, fingerprint "
            f"{str(fingerprint)[:12]}); use its codec, or a teacher of {codec.fingerprint[:12]}"
        )


def check_symbols(name: str, theirs: AudioVocabulary, ours: AudioVocabulary) -> None:
    """Raise TeacherError unless teacher and student have the same pitch and length symbols."""
    symbols = [(v.lowest_midi, v.highest_midi, v.longest) for v in (theirs, ours)]
    if symbols[0] != symbols[1]:
        raise TeacherError(
            "teacher {}: its symbols are MIDI {} to {} and lengths up to {} frames; the student's "
            "are {} to {} and {}; use a teacher that was trained alike".format(
                name, *symbols[0], *symbols[1]
            )
        )
