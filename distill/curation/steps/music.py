"""What music a song is set to: key, tempo, beats and the range of the voice, heard from the sound.

All four are weak labels and carry a confidence. What was given with a song is never overwritten:
where the sound says otherwise, the song gets a remark with both. The range is that of the notes
where a song has them, else of the notes heard in the vocals.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distill.audio.resampling import resample_array
from distill.curation.steps import Item, Sound
from distill.curation.steps import _harmony as harmony
from distill.curation.steps import _melody as melody
from distill.curation.steps import _rhythm as rhythm
from distill.curation.steps._pitch import HOP_SECONDS
from distill.errors import SettingsError
from distill.songs import Fact

STEP = "music"
# of the time sung: what is lower or higher for no longer is a slip, of the singer or of the tracker
RARE = 0.01
LEAST_SUNG_SECONDS = 2.0
TEMPO_TOLERANCE = 0.04  # MIREX: a tempo within 4 % is the same tempo
OCTAVES = (1 / 3, 0.5, 1, 2, 3)  # of a tempo: between which listeners waver
RANGE_TOLERANCE = 2.0  # semitones
SEMITONES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
GIVEN_CONFIDENCE = 0.9


@dataclass(frozen=True)
class Settings:
    """key, tempo, range: which facts are looked for. unaccompanied: recordings without stems are a
    voice alone. Else no range is looked for in them, for the lowest pitch is the bass's."""

    key: bool = True
    tempo: bool = True
    range: bool = True
    unaccompanied: bool = False

    def __post_init__(self) -> None:
        if not (self.key or self.tempo or self.range):
            raise SettingsError("key, tempo and range are all false; leave the step out instead")

    def curate(self, item: Item) -> Item:
        """Adds key, tempo_bpm, beats_seconds and vocal_range_midi, each by "music"."""
        sound = together(item)
        if sound is None:
            return item
        facts: list[Fact] = []
        if self.key and (key := harmony.key(harmony.chroma(_at_rate(sound, harmony.RATE)))):
            facts.append(Fact("key", key.name, STEP, round(key.confidence, 3)))
        if self.tempo and (beat := rhythm.rhythm(_at_rate(sound, rhythm.RATE))):
            sure = round(beat.confidence, 3)
            facts.append(Fact("tempo_bpm", round(beat.tempo_bpm, 2), STEP, sure))
            facts.append(Fact("beats_seconds", list(beat.beats), STEP, sure))
        if self.range and (span := vocal_range(item, self.unaccompanied)):
            facts.append(span)
        return _known(item, facts)


def together(item: Item) -> Sound | None:
    """The recording as it sounds; where only stems are there, their sum."""
    if "audio" in item.tracks:
        return item.tracks["audio"]
    stems = list(item.tracks.values())
    if not stems:
        return None
    length = max(stem.wave_CW.shape[1] for stem in stems)
    total_W = np.zeros(length, dtype=np.float32)
    for stem in stems:
        total_W[: stem.wave_CW.shape[1]] += stem.mono()
    return Sound(total_W[None], stems[0].sample_rate)


def _at_rate(sound: Sound, rate: int) -> NDArray[np.float32]:
    wave_W = np.ascontiguousarray(sound.mono(), dtype=np.float32)
    return resample_array(wave_W, sound.sample_rate, rate)


def vocal_range(item: Item, unaccompanied: bool = False) -> Fact | None:
    """Fact vocal_range_midi: the lowest and the highest key of a song's notes, where it has them;
    else of the notes that are heard in its voice, without the outermost RARE of their time."""
    given = [note.midi for line in item.song.lines for note in line.notes if note.midi is not None]
    if given:
        ends = [round(min(given)), round(max(given))]
        return Fact("vocal_range_midi", ends, STEP, GIVEN_CONFIDENCE)
    if item.voice is None or not ("vocals" in item.tracks or unaccompanied):
        return None
    voice = melody.listen(item.voice)
    notes = melody.transcribe(voice)
    frames_N = np.array([note.stop - note.first for note in notes])
    if frames_N.sum() * HOP_SECONDS < LEAST_SUNG_SECONDS:
        return None
    key_N = np.array([note.key for note in notes])
    order_N = np.argsort(key_N, kind="stable")
    share_N = np.cumsum(frames_N[order_N]) / frames_N.sum()
    low, high = (int(key_N[order_N][np.searchsorted(share_N, part)]) for part in (RARE, 1 - RARE))
    strength = float(voice.strength_F[voice.voiced_F].mean())
    return Fact("vocal_range_midi", [low, high], STEP, round(strength, 3))


def _known(item: Item, facts: Sequence[Fact]) -> Item:
    """The item with what was not given, and a remark for given facts that the sound contradicts."""
    for fact in facts:
        given = item.song.fact(fact.name)
        if given is None or given.by == STEP:
            item = item.know(fact)
        elif fact.name in DIFFERS and DIFFERS[fact.name](given.value, fact.value):
            heard = f"heard as {fact.value} (confidence {fact.confidence:.2f})"
            text = f"{fact.name}: given as {given.value}, {heard}; the given one is kept"
            item = item.remark(STEP, "noted", text)
    return item


def _other_key(given: object, heard: object) -> bool:
    """Whether both are keys and differ; what is no plain key (a mode, a word) differs from none."""
    keys = _named(str(given)), _named(str(heard))
    return None not in keys and keys[0] != keys[1]


def _named(name: str) -> tuple[int, bool] | None:
    """Tonic (0 is C) and whether minor of "C# minor", "Dbm", "c-moll", "A"; else None."""
    plain = name.strip().replace("\u266f", "#").replace("\u266d", "b")
    match = re.fullmatch(r"([A-Ga-g])(#{0,2}|b{0,2})[ -]*(m|min|minor|moll|maj|major|dur|)", plain)
    if match is None:
        return None
    letter, bent, mode = match.groups()
    tonic = SEMITONES[letter.upper()] + bent.count("#") - bent.count("b")
    return tonic % 12, mode in ("m", "min", "minor", "moll")


def _other_tempo(given: object, heard: object) -> bool:
    """Whether no octave of the tempo heard is the tempo given."""
    if not isinstance(given, int | float) or not isinstance(heard, int | float) or given <= 0:
        return False
    return all(abs(heard * factor / given - 1) > TEMPO_TOLERANCE for factor in OCTAVES)


def _other_range(given: object, heard: object) -> bool:
    if not isinstance(given, Iterable) or not isinstance(heard, Iterable):
        return False
    try:
        pairs = zip(given, heard, strict=True)
        return any(abs(float(a) - float(b)) > RANGE_TOLERANCE for a, b in pairs)
    except (TypeError, ValueError):
        return False


DIFFERS: dict[str, Callable[[object, object], bool]] = {
    "key": _other_key,
    "tempo_bpm": _other_tempo,
    "vocal_range_midi": _other_range,
}
