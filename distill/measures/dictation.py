"""What would somebody write down who hears the line for the first time?

Whisper (Radford et al. 2022, arXiv:2212.04356) by way of faster-whisper writes the line down, told
its language and nothing else; beam of 5, temperature 0, so twice the same. Both texts are spelled
alike by Whisper's own normaliser (whisper-normalizer), and jiwer counts: words missed, replaced and
added, over the words that were sung; for languages that write no spaces, characters. More than all
may be wrong, where words are added. No score and no list of words helps it, so it says more of a
listener than the forced choice of `words`, and less of a small student, of which it hears nothing.

Control: the same texts against another line's words, which should be all wrong.

Which Whisper: the variable DISTILL_WHISPER, a size ("base", "large-v3"; fetched from the hub the
first time) or a folder in CTranslate2's form. Where it is unset, "base" if it was fetched before;
else nothing is measured, and the report says so.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distill.errors import DistillError, first_line
from distill.measures import Details, Figures, Performance, Sheet, lot
from distill.measures._waves import at_rate

FIGURES = {
    "dictation_error": "words that a recogniser wrote down wrong, for the words sung",
    "wrong_lyrics_dictation": "control: the same texts against another line's words; near 100 %",
}

VARIABLE = "DISTILL_WHISPER"
USUAL = "base"
RECOGNISER_RATE = 16_000  # Hz
BEAM = 5
# at most so many times the words of the line are written: a recogniser that loops is stopped there
TOKENS_A_WORD, LEAST_TOKENS, MOST_TOKENS = 6, 24, 220  # Whisper has room for 448 in all
SPACELESS = ("zh", "ja", "th", "yue", "lo", "my", "km")  # their characters are counted


@dataclass(frozen=True)
class Count:
    """Of one text against what was sung. `of`: the words (or characters) sung."""

    replaced: int
    missed: int
    added: int
    of: int

    @property
    def wrong(self) -> int:
        return self.replaced + self.missed + self.added


def absent() -> str | None:
    """Why nothing can be measured here, and what to do; None where it can."""
    try:
        _folder(os.environ.get(VARIABLE))
    except DistillError as error:
        return str(error)
    return None


def measure(performance: Performance, others: Sequence[Sheet]) -> tuple[Figures, Details]:
    """Words wrong in one line, and its control. Details: what was `written`, and the kinds of
    faults; of a language that the recogniser does not know, nothing is counted."""
    sheet, ear = performance.sheet, recogniser()
    none = Count(0, 0, 0, 0)
    if not sheet.words or not ear.knows(sheet.language):  # a band; a language it was not taught
        written, own, astray = None, none, none
    else:
        written, other = ear.write(performance), _another_text(sheet, others)
        own = count(sheet.text, written, sheet.language)
        astray = none if other is None else count(other, written, sheet.language)
    figures = {
        "dictation_error": (own.wrong, own.of),
        "wrong_lyrics_dictation": (astray.wrong, astray.of),
    }
    faults = {"replaced": own.replaced, "missed": own.missed, "added": own.added}
    return figures, {"written": written, **faults}


def summarise(details: Sequence[Details]) -> dict[str, object]:
    """The recogniser, and the faults by kind."""
    kinds = {name: sum(line[name] for line in details) for name in ("replaced", "missed", "added")}
    return {"recogniser": recogniser().name, **kinds}


def count(sung: str, written: str, language: str) -> Count:
    """Faults of a text, both spelled alike."""
    import jiwer

    sung, written = (spelled_alike(text, language) for text in (sung, written))
    if not sung:
        return Count(0, 0, 0, 0)
    found = jiwer.process_words(sung, written)
    of = found.hits + found.substitutions + found.deletions
    return Count(found.substitutions, found.deletions, found.insertions, of)


def spelled_alike(text: str, language: str) -> str:
    """Words between single spaces: lower case, no punctuation, contractions and numbers one way."""
    if language == "en":
        return _english()(text).strip()
    return _basic(language in SPACELESS)(re.sub("['’]", " ", text)).strip()


@functools.cache
def _english() -> Callable[[str], str]:
    from whisper_normalizer.english import EnglishTextNormalizer

    return EnglishTextNormalizer()


@functools.cache
def _basic(split_letters: bool) -> Callable[[str], str]:
    from whisper_normalizer.basic import BasicTextNormalizer

    return BasicTextNormalizer(split_letters=split_letters)


def _another_text(sheet: Sheet, others: Sequence[Sheet]) -> str | None:
    """Of another line, as nearly as long as can be, that shares fewest words."""
    own, language = set(sheet.words), sheet.language
    free = [o for o in others if o.language == language and not set(o.words) <= own]
    if not free:
        return None

    def turn(other: Sheet) -> tuple[int, int, bytes]:
        apart = abs(len(other.words) - len(sheet.words))
        return len(own & set(other.words)), apart, lot(sheet.text, other.text)

    return min(free, key=turn).text


# --- the recogniser -------------------------------------------------------------------------------


@functools.cache
def recogniser() -> Recogniser:
    """One per process. DistillError where there is none."""
    return Recogniser(os.environ.get(VARIABLE))


class Recogniser:
    """Whisper in 8-bit integers on one thread. `name`: its size, or its folder's name."""

    def __init__(self, asked: str | None) -> None:
        from faster_whisper import WhisperModel

        self.name = Path(asked).name if asked else USUAL
        folder = _folder(asked)
        try:
            self._model = WhisperModel(folder, "cpu", compute_type="int8", cpu_threads=1)
        except Exception as error:  # CTranslate2's, tokenizers': all say the same here
            fault = f"measures.dictation: {folder} cannot be opened ({first_line(error)})"
            raise DistillError(f"{fault}; fetch it again, or name another by {VARIABLE}") from None

    def knows(self, language: str) -> bool:
        """Whether it was taught the language (a code such as "en")."""
        return language in self._model.supported_languages

    def write(self, performance: Performance) -> str:
        """What it hears in one line."""
        wave_W = at_rate(performance.wave_W, performance.sample_rate, RECOGNISER_RATE)
        if not np.any(wave_W):
            return ""
        wanted = TOKENS_A_WORD * len(performance.words)
        pieces, _ = self._model.transcribe(
            np.asarray(wave_W, np.float32),
            language=performance.language,
            beam_size=BEAM,
            temperature=0.0,
            without_timestamps=True,
            condition_on_previous_text=False,
            max_new_tokens=min(MOST_TOKENS, max(LEAST_TOKENS, wanted)),
        )
        return " ".join("".join(piece.text for piece in pieces).split())


@functools.cache
def _folder(asked: str | None) -> str:
    """Where the recogniser lies; fetched only where it was asked for by name."""
    try:
        import jiwer  # noqa: F401
        import whisper_normalizer  # noqa: F401
        from faster_whisper.utils import download_model
    except ImportError as error:
        fault = f"measures.dictation: {error.name} cannot be imported ({error})"
        raise DistillError(f'{fault}; pip install "distill[judge]"') from None
    if asked and Path(asked).is_dir():
        return asked
    try:
        return download_model(asked or USUAL, local_files_only=asked is None)
    except Exception as error:  # the hub's own, of many kinds
        if asked is None:
            fault = f"no recogniser is at hand; {VARIABLE}={USUAL} fetches one (145 MB), and"
            advice = "a folder of one does as well"
        else:
            fault = f"{VARIABLE}={asked} cannot be had ({first_line(error)});"
            advice = "give a size of Whisper, such as base, or a folder in CTranslate2's form"
        raise DistillError(f"measures.dictation: {fault} {advice}") from None
