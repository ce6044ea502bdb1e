"""Can the words be made out?

pocketsphinx 5.1.1 with its own en-us model listens to the line with a grammar of one slot a word:
the true word or one of 7 others with the same number of syllables that sound different. It must
choose one per slot, so chance is 7 wrong in 8. (Open dictation is useless here: speech recognisers
split long sung vowels into several words. A forced choice is hard enough to tell singers apart, and
its chance is known. It says nothing of human listeners.)

The others come from a fixed list of common words (`words.txt`); which of them and in which order
depends on the line's text alone, by sha256, so every row of a report and every machine asks the
same question. Words that the recogniser's dictionary lacks are named and not scored. A word with
fewer than 7 others of its length has a smaller slot; the report states the chance that follows.

Control: the same takes, asked for another line's words of equal count, with the words really sung
taken out of the slots. A judge that hears what it is told to hear would be content.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distill.errors import DistillError
from distill.measures import Details, Figures, Performance, Sheet, lot
from distill.measures._waves import at_rate

FIGURES = {
    "word_error": "share of words missed in an 8-way forced choice",
    "wrong_lyrics_error": "control: the same takes asked for another line's words; should be high",
}

ALTERNATIVES = 8
RECOGNISER_RATE = 16_000  # Hz
PEAK = 0.7
SILENCE_SECONDS = 0.3
# standard deviation, full scale 1: digital silence is nothing a recogniser has ever heard
NOISE = 3e-4
VOWELS = {"AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW"}


def measure(performance: Performance, others: Sequence[Sheet]) -> tuple[Figures, Details]:
    """Words missed in one line, and its control.

    Details: what was `heard` for each word (null: nothing), `chance` (sum over the scored words),
    which words were `scored`, and those `not_in_dictionary`.
    """
    sheet, ear = performance.sheet, recogniser()
    if sheet.language != "en":  # the recogniser's only one
        sheet = replace(sheet, words=())
    slots = ear.slots(sheet.words, sheet.text)
    heard = ear.hear(performance.wave_W, performance.sample_rate, slots)
    known = [ear.knows(word) for word in sheet.words]
    sizes = [len(slot) for slot, scored in zip(slots, known, strict=True) if scored]
    figures = {
        "word_error": (_missed(sheet.words, heard, known), sum(known)),
        "wrong_lyrics_error": wrong_lyrics(performance, others) if sheet.words else (0, 0),
    }
    return figures, {
        "heard": heard,
        "chance": round(sum(1 - 1 / size for size in sizes), 4),
        "scored": sum(known),
        "not_in_dictionary": [word for word in sheet.words if not ear.knows(word)],
    }


def wrong_lyrics(performance: Performance, others: Sequence[Sheet]) -> tuple[int, int]:
    """(words missed, asked) when the take is asked for other words, those it sings not counted."""
    sheet, ear = performance.sheet, recogniser()
    wrong = other_words(sheet, others)
    asked = [ear.knows(word) and word not in sheet.words for word in wrong]
    if not any(asked):
        return 0, 0
    slots = ear.slots(wrong, f"{sheet.text}|{' '.join(wrong)}", without=sheet.words)
    heard = ear.hear(performance.wave_W, performance.sample_rate, slots)
    return _missed(wrong, heard, asked), sum(asked)


def _missed(words: Sequence[str], heard: Sequence[str | None], scored: Sequence[bool]) -> int:
    triples = zip(words, heard, scored, strict=True)
    return sum(counts and word != answer for word, answer, counts in triples)


def summarise(details: Sequence[Details]) -> dict[str, object]:
    """The error of pure guessing, and the words that could not be asked for."""
    scored = sum(line["scored"] for line in details)
    missing = [word for line in details for word in line["not_in_dictionary"]]
    chance = round(sum(line["chance"] for line in details) / scored, 4) if scored else None
    names = sorted(set(missing))
    return {"chance": chance, "words_not_scored": len(missing), "not_in_dictionary": names}


def other_words(sheet: Sheet, others: Sequence[Sheet]) -> tuple[str, ...]:
    """Another line's words of equal count, which share fewest with these; else of the list."""
    count, sung = len(sheet.words), set(sheet.words)
    equal = [o for o in others if len(o.words) == count and not set(o.words) <= sung]
    if equal:
        return min(equal, key=lambda o: (len(sung & set(o.words)), lot(sheet.text, o.text))).words
    free = [word for word in vocabulary() if word not in sung]
    return tuple(_draw(free, 1, sheet.text, str(number))[0] for number in range(count))


@functools.cache
def vocabulary() -> tuple[str, ...]:
    """The list that wrong answers come from: 1,199 common words, all in the dictionary."""
    return tuple((Path(__file__).parent / "words.txt").read_text(encoding="utf-8").split())


def _draw(words: Collection[str], count: int, *texts: str) -> list[str]:
    """`count` of the words, or all, in an order that depends on the texts alone."""
    return sorted(words, key=lambda word: lot(*texts, word))[:count]


# --- the recogniser -------------------------------------------------------------------------------


@functools.cache
def recogniser() -> Recogniser:
    """One per process: loading its model takes a few tenths of a second."""
    return Recogniser()


class Recogniser:
    """pocketsphinx with one grammar a line. Answers depend on sound and slots, no earlier line."""

    def __init__(self) -> None:
        try:
            import pocketsphinx
        except ImportError as error:
            fault = f"pocketsphinx cannot be imported ({error})"
            raise DistillError(f'measures.words: {fault}; pip install "distill[judge]"') from None
        self._decoder = pocketsphinx.Decoder(lm=None, loglevel="FATAL")
        self._sounds: dict[str, tuple[str, ...]] = {}
        self._draws: dict[tuple[object, ...], list[tuple[str, ...]]] = {}
        self._by_syllables: dict[int, list[str]] = {}
        for word in vocabulary():
            self._by_syllables.setdefault(self.syllables(word), []).append(word)

    def sounds(self, word: str) -> tuple[str, ...]:
        """Every pronunciation of the dictionary, the first first; () for a word it lacks."""
        if word not in self._sounds:
            lookup: Callable[[str], str | None] = self._decoder.lookup_word
            sounds: list[str] = []
            sound = lookup(word) if _writable(word) else None
            while sound is not None:
                sounds.append(sound)
                sound = lookup(f"{word}({len(sounds) + 1})")
            self._sounds[word] = tuple(sounds)
        return self._sounds[word]

    def knows(self, word: str) -> bool:
        """Whether a word can be asked for."""
        return bool(self.sounds(word))

    def syllables(self, word: str) -> int:
        """Vowels of the first pronunciation."""
        return sum(phone in VOWELS for phone in self.sounds(word)[0].split())

    def slots(
        self, words: Sequence[str], seed: str, without: Collection[str] = ()
    ) -> list[tuple[str, ...]]:
        """The alternatives for each word, in the order the grammar lists them.

        A word that the dictionary lacks keeps its place in the line with any words of the list: it
        is not scored, but its sound must not push its neighbours out of their slots.
        """
        key = (tuple(words), seed, frozenset(without))
        if key not in self._draws:
            numbered = enumerate(words)
            self._draws[key] = [self._slot(word, seed, str(i), without) for i, word in numbered]
        return self._draws[key]

    def _slot(self, word: str, seed: str, number: str, without: Collection[str]) -> tuple[str, ...]:
        if not self.knows(word):
            return tuple(_draw(vocabulary(), 4 * ALTERNATIVES, seed, number))
        sounds = set(self.sounds(word))
        same_length = self._by_syllables.get(self.syllables(word), [])
        allowed = (other for other in same_length if other not in without)
        unlike = [other for other in allowed if sounds.isdisjoint(self.sounds(other))]
        words = [word, *_draw(unlike, ALTERNATIVES - 1, seed, number)]
        return tuple(_draw(words, ALTERNATIVES, seed, number, "order"))

    def hear(
        self, wave_W: NDArray[np.floating], sample_rate: int, slots: Sequence[Sequence[str]]
    ) -> list[str | None]:
        """One word for each slot, None where the sound ended before the grammar did."""
        if not slots:
            return []
        line = " ".join(f"( {' | '.join(slot)} )" for slot in slots)
        grammar = f"#JSGF V1.0;\ngrammar line;\npublic <line> = {line} ;\n"
        self._decoder.add_jsgf_string("line", grammar)
        self._decoder.activate_search("line")
        self._decoder.reinit_feat()  # else what it heard before colours what it hears now
        self._decoder.start_utt()
        sound = prepare(wave_W, sample_rate).tobytes()
        self._decoder.process_raw(sound, no_search=False, full_utt=True)
        self._decoder.end_utt()
        hypothesis = self._decoder.hyp()
        answer = hypothesis.hypstr.split() if hypothesis is not None else []
        words: list[str | None] = [re.sub(r"\(\d+\)$", "", word) for word in answer]
        return (words + [None] * len(slots))[: len(slots)]


def _writable(word: str) -> bool:
    """Whether a word can stand in a grammar as it is; no other is in the dictionary either."""
    return re.fullmatch(r"[a-z][a-z'.-]*", word) is not None


def prepare(wave_W: NDArray[np.floating], sample_rate: int) -> NDArray[np.int16]:
    """As the recogniser gets it: 16 kHz, peak 0.7, some silence at both ends, a trace of noise."""
    wave_W = at_rate(np.asarray(wave_W, dtype=np.float64), sample_rate, RECOGNISER_RATE)
    loudest = np.abs(wave_W).max(initial=0.0)
    gain = PEAK / loudest if loudest > 0 else 0.0
    wave_W = np.pad(wave_W * gain, round(SILENCE_SECONDS * RECOGNISER_RATE))
    wave_W = wave_W + np.random.default_rng(0).normal(0, NOISE, len(wave_W))
    return np.round(np.clip(wave_W, -1, 1) * 32767).astype(np.int16)
