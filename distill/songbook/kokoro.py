"""Kokoro as a speaker: a line of phones to a wave, with where each phone begins.

Kokoro-82M (hexgrad, 2025; Apache-2.0) in its ONNX form, on one thread. The variable DISTILL_KOKORO
names a folder that holds the model (`kokoro*.onnx`), its voices (`voices*.npz` or `.bin`, styles of
[510, 1, 256] by name) and `vocab.json` (letters of its alphabet -> ids, or a `config.json` with
"vocab"). A whole line is spoken at once: words run into each other as in speech, which is why it is
understood better than one that speaks word by word.

The graph rounds each letter's duration before it lays the line out; that tensor is made an output,
so where a phone begins is known and not guessed.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.errors import SongError, first_line
from distill.songbook import stress
from distill.songbook.espeak import extra

VARIABLE = "DISTILL_KOKORO"
RATE = 24_000  # Hz
_DURATIONS = "/encoder/Clip_output_0"  # frames of each letter, of equal length
_AHEAD = 0.05  # seconds by which its sound comes before its frames say (voicing against classes)
SPEED = (
    0.75  # spoken slowly, so that vowels are reached: sung, half as many words are missed as at 1
)
_LONGEST = 510  # letters
_BETWEEN, _END = " ", "."
# fmt: off
LETTERS = {
    "AA": "ɑ", "AE": "æ", "AH": "ʌ", "AO": "ɔ", "AW": "W", "AY": "I", "EH": "ɛ", "ER": "ɜɹ",
    "EY": "A", "IH": "ɪ", "IY": "i", "OW": "O", "OY": "Y", "UH": "ʊ", "UW": "u",
    "B": "b", "CH": "ʧ", "D": "d", "DH": "ð", "F": "f", "G": "ɡ", "HH": "h", "JH": "ʤ", "K": "k",
    "L": "l", "M": "m", "N": "n", "NG": "ŋ", "P": "p", "R": "ɹ", "S": "s", "SH": "ʃ", "T": "t",
    "TH": "θ", "V": "v", "W": "w", "Y": "j", "Z": "z", "ZH": "ʒ",
}
# fmt: on
_STRESS, _SCHWA = "ˈ", "ə"

Starts = list[list[float]]  # of each word: seconds at which its phones begin, and the last one ends


class Kokoro:
    """The model, opened once a process."""

    def __init__(self, folder: str) -> None:
        onnx, runtime = extra("onnx"), extra("onnxruntime")
        self.folder = Path(folder)
        model = onnx.load(self._one("kokoro*.onnx"))
        model.graph.output.append(onnx.helper.make_empty_tensor_value_info(_DURATIONS))
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session: Any = runtime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's own
            fault = f"{self.folder}: no Kokoro in it ({first_line(error)})"
            raise SongError(f"songbook: {fault}; {_advice()}") from None
        self._ids: dict[str, int] = self._vocabulary()
        self._styles = np.load(self._one("voices*"))

    @property
    def speakers(self) -> list[str]:
        """Names of its voices."""
        return sorted(self._styles)

    def say(
        self, words: Sequence[tuple[str, Sequence[str]]], speaker: str, speed: float = SPEED
    ) -> tuple[NDArray[np.float32], Starts]:
        """The wave at RATE of (spelling, ARPABET phones) after each other, and each word's times.

        SongError for a voice it does not have, or a line that is too long."""
        letters: list[str] = []
        first: list[list[int]] = []  # of each word: the letters at which its phones begin, and end
        for spelling, phones in words:
            begins = []
            for phone, accent in zip(phones, stress.of_phones(spelling, phones), strict=True):
                begins.append(len(letters))
                letters += _letters(phone, accent)
            first.append([*begins, len(letters)])
            letters.append(_BETWEEN)
        letters[-1:] = [_END]
        if len(letters) > _LONGEST or speaker not in self._styles:
            known = ", ".join(self.speakers)
            fault = f"{len(letters)} letters for the voice {speaker!r}"
            raise SongError(f"songbook: {fault}; Kokoro takes {_LONGEST}, and has {known}")
        style = self._styles[speaker][len(letters) - 1].reshape(1, 256).astype(np.float32)
        given = {
            "tokens": np.array([[0, *(self._ids[letter] for letter in letters), 0]], np.int64),
            "style": style,
            "speed": np.array([speed], np.float32),
        }
        names = [self._session.get_outputs()[0].name, _DURATIONS]
        wave, frames = self._session.run(names, given)
        wave_W, frames_N = np.asarray(wave).reshape(-1), np.asarray(frames).reshape(-1)
        ends = np.cumsum(frames_N) * (len(wave_W) / RATE / frames_N.sum()) - _AHEAD
        # letter k is token k + 1, which begins where token k ends
        return wave_W, [[max(0.0, float(ends[letter])) for letter in begins] for begins in first]

    def _one(self, pattern: str) -> Path:
        found = sorted(self.folder.glob(pattern))
        if not found:
            raise SongError(f"songbook: {self.folder}: has no {pattern}; {_advice()}")
        return found[0]

    def _vocabulary(self) -> dict[str, int]:
        path = next(iter(sorted(self.folder.glob("vocab.json"))), self.folder / "config.json")
        try:
            read = json.loads(path.read_text(encoding="utf-8"))
            ids = {str(letter): int(id) for letter, id in read.get("vocab", read).items()}
        except (OSError, ValueError, AttributeError) as error:
            fault = f"{path}: is no alphabet ({first_line(error)})"
            raise SongError(f"songbook: {fault}; {_advice()}") from None
        lacking = {c for c in "".join(LETTERS.values()) + _STRESS + _SCHWA + _END} - set(ids)
        if lacking:
            raise SongError(f"songbook: {path}: lacks {' '.join(sorted(lacking))}; {_advice()}")
        return ids


def _letters(phone: str, accent: bool | None) -> list[str]:
    """A phone in Kokoro's alphabet. `accent`: of a vowel, whether it is stressed; else None."""
    if phone == "AH" and accent is False:
        return [_SCHWA]
    if phone == "ER" and accent is False:
        return [_SCHWA, LETTERS["R"]]
    return [*([_STRESS] if accent else []), *LETTERS[phone]]


def _advice() -> str:
    return f"{VARIABLE} names a folder with kokoro*.onnx, voices* and vocab.json"


def installed() -> bool:
    """Whether a folder of it is named."""
    return bool(os.environ.get(VARIABLE))


@functools.cache
def opened() -> Kokoro:
    """The model of this process. SongError where no folder is named."""
    folder = os.environ.get(VARIABLE)
    if not folder:
        raise SongError(f"songbook: these voices are Kokoro's, and none is named; {_advice()}")
    return Kokoro(folder)
