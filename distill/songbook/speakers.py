"""Who speaks the words that are made to sing: espeak-ng word by word, Kokoro a line at a time."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
from scipy.signal import resample_poly

from distill import lyrics
from distill.songbook import kokoro
from distill.songbook.voice import FRAME_SECONDS, VOICE_RATE, Phone, SpokenWord, Voice, analyse

_LINES = 64  # spoken lines that are remembered: a chorus returns
_PITCH_HERTZ = (60.0, 500.0)


class Speakers:
    """Every voice of a process. `speaker`: "" is espeak-ng, else one of Kokoro's."""

    @functools.cached_property
    def espeak(self) -> Voice:
        """espeak-ng, started when it is first asked."""
        return Voice()

    def words(self, words: Sequence[str], speaker: str) -> list[SpokenWord]:
        """Features of an English line's words, in order. SongError where they cannot be said."""
        if not speaker:
            return [self.espeak.speak(lyrics.phones(word)) for word in words]
        return _spoken(tuple(words), speaker)


@functools.lru_cache(_LINES)
def _spoken(words: tuple[str, ...], speaker: str) -> list[SpokenWord]:
    """One analysis for all words of a line; each word knows where its phones lie in it."""
    phones = [lyrics.phones(word) for word in words]
    wave_W, starts = kokoro.opened().say(list(zip(words, phones, strict=True)), speaker)
    shared = math.gcd(VOICE_RATE, kokoro.RATE)
    wave_W = resample_poly(wave_W.astype(np.float64), VOICE_RATE // shared, kokoro.RATE // shared)
    features = analyse(np.ascontiguousarray(wave_W), _PITCH_HERTZ)
    spoken = []
    for names, seconds in zip(phones, starts, strict=True):
        frames = [second / FRAME_SECONDS for second in seconds]
        spoken.append(SpokenWord(tuple(map(Phone, names, frames, frames[1:])), *features))
    return spoken
