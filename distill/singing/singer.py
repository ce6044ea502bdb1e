"""The singer: lyrics (and, if you like, a score) in, a take out.

    take = load_singer().sing("[verse]\\nrow row row your boat", style="folk, calm", seed=7)
    take.save("boat.wav")

A line becomes a passage: pieces of text, with pitch and length where they are given. `sampling`
says what is asked of the model for each id, `generation` sings passages side by side.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from distill import coded_songs, lyrics
from distill.codecs import Codec, CodecSettings
from distill.config import settings as strict
from distill.errors import AdapterError, FitError, LyricsError, SettingsError
from distill.folders import Json
from distill.lm import logits
from distill.lm.base import Quantisation
from distill.lm.held import Dtype
from distill.lm.student import Student
from distill.runtime.devices import best_device
from distill.singing.generation import generate
from distill.singing.sampling import Sung
from distill.singing.singer_folder import (
    About,
    Sound,
    codec_settings,
    open_singer,
    open_vocoder,
    read_about,
    singer_folder,
)
from distill.singing.take import Take, decode, join
from distill.songs import TAIL_SECONDS, Line, Section, Song, primary
from distill.vocoders import Vocoder
from distill.vocoders.codec import CodecVocoder
from distill.writing.prompts import (
    JOIN,
    Coded,
    Passage,
    Piece,
    header,
    look_ahead,
    passages,
    texts_of_words,
)

# seconds that a syllable without notes is expected to take, to tell beforehand whether a line fits
SYLLABLE_SECONDS = 0.4


class Singer:
    """A student with its codec, and what makes sound of its codes. `load_singer` makes one."""

    def __init__(
        self, student: Student, codec: Codec, about: About, vocoder: Vocoder | None = None
    ) -> None:
        self.student, self.codec, self.about = student, codec, about
        self.vocoder = CodecVocoder(codec) if vocoder is None else vocoder
        self.student.model.eval()

    # --- singing ----------------------------------------------------------------------------------
    def sing(
        self,
        text: str,
        style: str | None = None,
        voice: str | None = None,
        seed: int | None = None,
        temperature: float | None = None,
        score: Sequence[Line] | None = None,
        language: str | None = None,
    ) -> Take:
        """Sing lyrics, with or without [section] tags. `score`: one Line with notes for each line
        of the lyrics. `language` (ISO 639-1): how the words are read; None: as `sing_lines` has it,
        of all lines together.

        Raises LyricsError for lyrics that cannot be sung, FitError for a line too long to fit (it
        says what would).
        """
        lines = [Line(line) for verse in lyrics.parse(text) for line in verse.lines]
        if score is not None:
            if len(score) != len(lines):
                raise LyricsError(
                    f"the score has {len(score)} lines, the lyrics {len(lines)}; give one for each"
                )
            lines = [
                replace(notes, text=line.text) for notes, line in zip(score, lines, strict=True)
            ]
        language = language or self.language_of([line.text for line in lines])
        takes = self.sing_lines(lines, style, voice, seed, temperature, language)
        return join(takes, self.vocoder, self.codec.format, text)

    def sing_lines(
        self,
        lines: Sequence[Line],
        style: str | Sequence[str] | None = None,
        voice: str | Sequence[str] | None = None,
        seed: int | None = None,
        temperature: float | None = None,
        language: str | Sequence[str | None] | None = None,
        at_once: int = 32,
    ) -> list[Take]:
        """One take per line, sung side by side. Lines with notes (seconds from the line's start)
        are followed.

        `style` and `voice`: one for all lines, or one each; a voice may join words of several that
        were heard ("alto, breathy"). `language`: the same, one that its songs are in; None: theirs,
        or where they are in several, the likeliest of them. A seed repeats: line i draws from
        seed + i.
        """
        if not lines:
            raise LyricsError("there is no line to sing; give at least one")
        seed = random.SystemRandom().randrange(2**31) if seed is None else seed
        self._check_voices([voice] if isinstance(voice, str) else voice or [])
        styles = _each(style, self.about.styles, lines)
        voices = _each(voice, self.about.voices, lines)
        languages = self._languages(language, lines)
        sampling = self.about.sampling.at(temperature)
        asked = zip(lines, styles, voices, languages, strict=True)
        planned = [self._plan(*item) for item in asked]
        takes: list[Take] = []
        for first in range(0, len(planned), at_once):
            batch = planned[first : first + at_once]
            seeds = [seed + first + i for i in range(len(batch))]
            rooms = [self._room(passage) for passage in batch]
            started = time.perf_counter()
            results = generate(self.student, batch, rooms, seeds, sampling)
            seconds = (time.perf_counter() - started) / len(batch)
            texts = [line.text for line in lines[first : first + at_once]]
            takes += [
                self._take(sung, text, own_seed, seconds)
                for sung, text, own_seed in zip(results, texts, seeds, strict=True)
            ]
        return takes

    def _check_voices(self, voices: Sequence[str]) -> None:
        """A voice may join what was heard apart ("soprano, breathy"), but holds nothing that was
        never heard."""
        heard = dict.fromkeys(part for voice in self.about.voices for part in _parts(voice))
        for voice in voices:
            if heard and any(part not in heard for part in _parts(voice)):
                known = ", ".join(map(repr, heard))
                raise SettingsError(
                    f"voice {voice!r}: this singer never heard it; it knows {known}"
                )

    def knows(self, language: str) -> bool:
        """Whether its songs are in this language, as far as singer.json says which they are in."""
        return not self.about.languages or primary(language) in self.about.languages

    def _languages(
        self, language: str | Sequence[str | None] | None, lines: Sequence[Line]
    ) -> list[str]:
        """How the words of each line are read. SettingsError for a language that it never heard."""
        asked = (
            [language] * len(lines) if language is None or isinstance(language, str) else language
        )
        if len(asked) != len(lines):
            raise SettingsError(
                f"{len(asked)} languages for {len(lines)} lines; give one, or one for each line"
            )
        for name in asked:
            if name and not self.knows(name):
                known = ", ".join(map(repr, self.about.languages))
                raise SettingsError(
                    f"language {name!r}: this singer never heard it; it knows {known}"
                )
        pairs = zip(asked, lines, strict=True)
        return [primary(name) if name else self.language_of([line.text]) for name, line in pairs]

    def language_of(self, texts: Sequence[str]) -> str:
        """The language of its songs; of several, the one that these lyrics are most likely in."""
        known = self.about.languages
        if len(known) < 2:
            return known[0] if known else "en"  # singers that say nothing read all as English
        from distill.curation.steps.language import likeliest  # its model takes a second to load

        return likeliest(texts, known)

    def _plan(self, line: Line, style: str, voice: str, language: str = "en") -> Passage:
        """The line as a passage: along its notes, or with pitch and length left open. Refuses what
        cannot fit."""
        writing, v = self.about.writing, self.student.vocabulary
        if line.notes:
            end = line.notes[-1].end + TAIL_SECONDS if line.end is None else line.end
            line = replace(line, start=0.0, end=end)
            song = Song("asked", (Section("", (line,)),), style, voice, language)
            passage = passages(song, self.codec.format.frame_rate, v.longest, writing)[0]
        else:
            text = header(style, voice, [line], writing, language)
            passage = Passage("asked", text, self._unscored(line, language))
        syllable = max(1, round(SYLLABLE_SECONDS * self.codec.format.frame_rate))
        frames = sum(
            p.frames or syllable * (1 + p.text.count(JOIN) * (not p.pitched))
            for p in passage.pieces
        )
        if frames > self._room(passage):
            raise FitError(self._too_long(passage, line, frames, header(style, voice, [], writing)))
        return passage

    def _unscored(self, line: Line, language: str) -> tuple[Piece, ...]:
        """The pieces of a line without notes, as finely as this singer learnt to sing."""
        words = texts_of_words(lyrics.words(line.text), self.about.writing, language)
        texts = [text for word in words for text in word]
        if not texts:
            raise LyricsError(f"{line.text!r}: holds no word to sing; write some")
        if self.about.grain == "none":
            return (Piece("", None, None, False, open=True),)
        if self.about.grain == "line":
            return (Piece(JOIN.join(texts), None, None, False),)
        if self.about.grain == "word":
            return tuple(Piece(JOIN.join(word), None, None, False) for word in words)
        rest = Piece("", None, None)
        return (*look_ahead([rest, *(Piece(text, None, None) for text in texts)]), rest)

    @property
    def _limit(self) -> int:
        """Tokens of the longest passage it can sing."""
        return min(self.about.tokens, self.student.longest)

    def _room(self, passage: Passage) -> int:
        """Frames that fit beside a passage's header, its pieces with pitch and length, `sing` and
        `end`."""
        encode, head = self.student.encode_text, len(self.student.opened(passage.header))
        text = head + sum(2 + len(encode(p.text)) for p in passage.pieces) + 1
        return (self._limit - text) // self.student.vocabulary.format.slots

    def _too_long(self, passage: Passage, line: Line, frames: int, style: str) -> str:
        """What would fit: all but the style grows with the line."""
        v = self.student.vocabulary
        needed = self._limit + (frames - self._room(passage)) * v.format.slots
        fixed = len(self.student.opened(style)) + 1
        share = max(0.0, (self._limit - fixed) / (needed - fixed))
        seconds = frames / v.format.frame_rate
        return (
            f"line {line.text[:40]!r}: {seconds:.1f} s of song needs {needed:,} tokens, the "
            f"singer holds {self._limit:,}; "
            f"shorten it to {int(10 * seconds * share) / 10:.1f} s "
            f"({int(len(passage.pieces) * share)} notes) or break the line"
        )

    def _take(self, sung: Sung, text: str, seed: int, seconds: float) -> Take:
        """The passage as sound, with its score; `seconds` of compute are spent on it already."""
        started = time.perf_counter()
        codes_FS = self.student.vocabulary.read(torch.tensor(sung.ids))
        wave_CW, tracks = decode(codes_FS, self.vocoder, self.codec.format)
        rate, now = self.codec.format.frame_rate, 0
        notes: list[tuple[float, float, float | None]] = []
        pieces: list[str] = []
        for piece in sung.pieces:
            stop = now + (piece.frames or 0)
            if piece.goes_on:
                notes[-1] = (notes[-1][0], stop / rate, piece.midi)
            else:
                notes.append((now / rate, stop / rate, piece.midi))
                pieces.append(piece.text.split(",")[0].strip() if piece.pitched else piece.text)
            now = stop
        return Take(
            wave_CW,
            self.vocoder.sample_rate,
            codes_FS,
            tuple(notes),
            tuple(pieces),
            text,
            seed,
            compute_seconds=seconds + time.perf_counter() - started,
            stems=tracks,
        )

    # --- teacher-forced figures -------------------------------------------------------------------
    def nats(self, songs: Sequence[Song]) -> Json:
        """Held-out nats of songs with audio, by slot (see `logits.held_out`)."""
        return logits.held_out(self.student, self.coded(songs))

    def coded(self, songs: Sequence[Song]) -> list[Coded]:
        """The passages of songs with audio, as this singer's codec hears them and as it learnt to
        write them."""
        student, about = self.student, self.about
        coded = coded_songs.code(
            songs,
            self.codec,
            student.vocabulary.longest,
            about.writing,
            lambda passage: student.tokens_of(passage, passage.frames) <= self._limit,
        )
        return list(coded)


def load_singer(
    where: str | Path | None = None,
    device: str | None = None,
    vocoder: Sound | None = None,
    dtype: Dtype | None = None,
    quantise: Quantisation | None = None,
) -> Singer:
    """A singer: the embedded one, or that of a run folder, an adapter, a merged folder, or a hub
    id.

    `dtype` (float32, bfloat16, float16) and `quantise` (none, int8, nf4): how its weights are held;
    None: as they were when it was trained, a merged one in float32.
    `vocoder`: "codec" or "head" makes its sound; None: whichever measured better when the singer
    was made. Raises FolderError where there is none, AdapterError where codec or base is not the
    one it was trained with.
    """
    name = "embedded/singer" if where is None else str(where)
    student, _, folder = open_singer(name, dtype, quantise)
    about = read_about(singer_folder(folder))
    row = {"codec": codec_settings(folder, about)}
    codec = strict.build(row, _CodecPart, f"{name}: singer.json").codec.load()
    _refuse_another(name, student, codec, about)
    try:
        student.to(device or best_device())
        # mps lacks the float64 of a codec's phases: there the codec stays on the CPU
        if student.device.type != "mps":
            codec.to(student.device)
    except (RuntimeError, AssertionError) as error:  # torch has no type of its own for this
        reason = (str(error).splitlines() or ["?"])[0][:120]
        raise SettingsError(f"device {device}: cannot be used ({reason}); try cpu") from None
    return Singer(student, codec, about, open_vocoder(folder, about, codec, vocoder))


@dataclass(frozen=True)
class _CodecPart:
    codec: CodecSettings = strict.part("codecs")


def _refuse_another(name: str, student: Student, codec: Codec, about: About) -> None:
    """AdapterError where codec, weights and singer.json do not belong together."""
    v = student.vocabulary
    if codec.fingerprint != about.codec_fingerprint:
        raise AdapterError(
            f"{name}: was trained on codec {about.codec_fingerprint[:12]}, the one found is "
            f"{codec.fingerprint[:12]}; give it its own codec"
        )
    if v.format != codec.format:
        raise AdapterError(
            f"{name}: singer.json's codec speaks {codec.format.slot_sizes} codes, its weights were "
            f"trained on {v.format.slot_sizes}; put back the singer.json it was trained with"
        )
    if v.layout != about.writing.layout:
        raise AdapterError(
            f"{name}: singer.json says layout {about.writing.layout}, its weights were trained on "
            f"{v.layout}; put back the singer.json it was trained with"
        )


def _each(
    value: str | Sequence[str] | None, known: Sequence[str], lines: Sequence[Line]
) -> list[str]:
    if value is None or isinstance(value, str):
        return [value if value else (known[0] if known else "")] * len(lines)
    if len(value) != len(lines):
        raise SettingsError(
            f"{len(value)} styles or voices for {len(lines)} lines; give one, or one for each line"
        )
    return list(value)


def _parts(voice: str) -> list[str]:
    """What a voice's words say, one by one: "alto, breathy" is an alto who sings breathily."""
    return [part.strip() for part in voice.split(",") if part.strip()]


__all__ = ["Singer", "Take", "load_singer"]
