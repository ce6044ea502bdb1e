"""The singer: lyrics (and, if you like, a score) in, a take out.

    take = load_singer().sing("[verse]\\nrow row row your boat", style="folk, calm", seed=7)
    take.save("boat.wav")

Each passage of one or two lines is a `Script`: the pieces of text, with pitch and length where they
are given. The grammar says which ids are legal; text is always forced, pitch and length are forced
when given and sampled when not, and codes are sampled from their own slot. So no undecodable id can
come out, and the head is computed for the legal ids only. Passages are sung side by side in one
batch; each draws from a generator of its own, so that a take depends on its seed and not on its
neighbours.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill import coded_songs, lyrics
from distill.audio import files as audio_files
from distill.audio import stems
from distill.audio.codec_format import CodecFormat
from distill.config import settings as strict
from distill.errors import AdapterError, FitError, LyricsError, SettingsError
from distill.lm import logits
from distill.lm.grammar import Grammar
from distill.lm.prompts import (
    JOIN,
    Coded,
    Passage,
    Piece,
    header,
    look_ahead,
    passages,
    words_texts,
)
from distill.lm.student import Student
from distill.lm.vocabulary import AudioVocabulary, Span
from distill.runtime.devices import best_device
from distill.singing.singer_folder import (
    About,
    Sound,
    codec_settings,
    open_singer,
    open_vocoder,
    read_about,
    singer_folder,
)
from distill.songs import Line, Note, Section, Song
from distill.vocoders import Vocoder
from distill.vocoders.codec import CodecVocoder

# what an unscored one is expected to take, to tell beforehand whether a passage fits
SYLLABLE_SECONDS = 0.4


@dataclass(frozen=True)
class Take:
    """What was sung: wave_CW, its rate, its codes, and the score it was sung to: (start s, end s,
    MIDI or None).

    stems: each track's own wave_CW, where the codec encodes tracks apart (wave_CW is then their
    mix).
    """

    wave_CW: Tensor
    sample_rate: int
    codes_FS: Tensor
    notes: tuple[tuple[float, float, float | None], ...]
    pieces: tuple[str, ...]
    text: str
    seed: int
    compute_seconds: float
    stems: dict[str, Tensor] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """How long it sounds."""
        return self.wave_CW.shape[1] / self.sample_rate

    def save(self, path: str | Path) -> Path:
        """Write a WAV file (16 bit)."""
        audio_files.write(path, self.wave_CW, self.sample_rate)
        return Path(path)

    def save_stems(self, folder: str | Path) -> list[Path]:
        """Write each track as <track>.wav into a folder, all turned down alike where one passes
        full scale. Raises SettingsError for a take that is not of tracks.
        """
        if not self.stems:
            raise SettingsError(
                "this singer's codec hears songs as a whole, so there are no stems; use a singer "
                "of a codec of tracks"
            )
        peak = max(float(wave_CW.abs().max()) for wave_CW in self.stems.values())
        gain = 1.0 if peak <= 1.0 else stems.LOUDEST / peak
        for track, wave_CW in self.stems.items():
            audio_files.write(Path(folder) / f"{track}.wav", gain * wave_CW, self.sample_rate)
        return [Path(folder) / f"{track}.wav" for track in self.stems]

    def _repr_html_(self) -> str:
        from distill.audio.spectrogram import player_html

        return player_html(self.wave_CW.mean(0).numpy(), self.sample_rate, self.text)


@dataclass(frozen=True)
class Sampling:
    """How ids are chosen: a temperature per level of slots (the last repeats), one for the score,
    top-k and top-p."""

    temperatures: tuple[float, ...]
    score_temperature: float
    top_k: int | None = None
    top_p: float | None = None

    def level(self, level: int) -> float:
        return self.temperatures[min(level, len(self.temperatures) - 1)]


@dataclass(frozen=True)
class Request:
    """The next id of a passage: `forced`, or sampled from `spans` at a temperature.

    `codes`: at a boundary where a piece may go on or stop, how many ids at the end of `spans` go
    on. `instead`: the id drawn before only said "stop" and is not written; this one, chosen anew,
    stands in its place.
    """

    spans: tuple[Span, ...]
    temperature: float = 0.0
    forced: int | None = None
    codes: int = 0
    instead: bool = False


@dataclass
class Sung:
    """What came of one passage: its audio ids as they were written, and its pieces."""

    ids: list[int] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)


def script(
    pieces: Sequence[Piece],
    encode: Any,
    vocabulary: AudioVocabulary,
    sampling: Sampling,
    sung: Sung,
    room: int,
) -> Generator[Request, int, None]:
    """Asks for one passage id by id (send the chosen id back) and fills `sung`; undecided pitches
    and lengths are sampled.

    No more than `room` frames are sung: lengths are drawn within it, and a piece of open length
    ends there at the latest.
    """
    v, grammar = vocabulary, Grammar(vocabulary)
    state, stopped, sung_frames = grammar.start(), False, 0
    for index, piece in enumerate(pieces):
        left = max(1, room - sung_frames - sum(p.frames or 1 for p in pieces[index + 1 :]))
        for id in encode(piece.text) if piece.text else []:
            state = grammar.step(state, (yield Request((), forced=id, instead=stopped)))
            stopped = False
        id = yield replace(_pitch(piece, v, sampling), instead=stopped)
        stopped = False
        state, midi = grammar.step(state, id), v.midi(id)
        id = yield _length(piece, v, sampling, left)
        state, frames = grammar.step(state, id), 0
        while state.kind == "slot" or (state.left is None and frames < left):
            open = state.kind == "boundary"
            slot = 0 if open else state.owed[0]
            id = yield Request(
                grammar.legal(state),
                sampling.level(v.format.levels[slot]),
                codes=len(v.span(0)) if open else 0,
            )
            if open and id not in v.span(0):
                stopped = True
                break
            state = grammar.step(state, id)
            sung.ids.append(id)
            frames += slot == 0
        sung_frames += frames
        sung.pieces.append(replace(piece, midi=midi, frames=frames))
    late = v.order.first_late
    while late is not None and state.kind != "end":
        slot = state.owed[0] if state.kind == "tail" else late
        id = yield Request((v.span(slot),), sampling.level(v.format.levels[slot]), instead=stopped)
        stopped, state = False, grammar.step(state, id)
        sung.ids.append(id)
    yield Request((), forced=v.end, instead=stopped)


def _pitch(piece: Piece, v: AudioVocabulary, sampling: Sampling) -> Request:
    """A given pitch, rest or "unknown" is forced; a syllable that nobody gave a pitch gets a sung
    one."""
    silent = piece.text[:1] in ("", ",")
    if piece.pitched and piece.midi is None and piece.frames is None and not silent:
        return Request(
            (Span(v.pitch_span.start + 2, v.pitch_span.stop),), sampling.score_temperature
        )
    return Request((), forced=v.pitch(piece.midi, piece.pitched))


def _length(piece: Piece, v: AudioVocabulary, sampling: Sampling, left: int) -> Request:
    """A given length is forced; others are drawn, up to `left` frames. Words and lines may also be
    left open."""
    if piece.open or piece.frames is not None:
        return Request((), forced=v.length(None if piece.open else piece.frames))
    start, stop = v.length_span.start, v.length_span.stop
    return Request(
        (Span(start + piece.pitched, min(stop, start + 1 + left)),), sampling.score_temperature
    )


def sample(
    logits_C: Tensor, request: Request, sampling: Sampling, generator: torch.Generator
) -> int:
    """Index of the chosen id among the request's spans, laid end to end; 0 stands for any stop.

    Whether a piece goes on is drawn first, at the model's own odds: a temperature over all ids at
    once would favour the one stop over the many codes.
    """
    if request.codes:
        stop_C, sound_C = logits_C[: -request.codes].float(), logits_C[-request.codes :].float()
        on = (sound_C.logsumexp(-1) - stop_C.logsumexp(-1)).sigmoid()
        if on < (0.5 if request.temperature <= 0 else torch.rand((), generator=generator)):
            return 0
        return len(stop_C) + sample(sound_C, replace(request, codes=0), sampling, generator)
    if request.temperature <= 0:
        return int(logits_C.argmax())
    scaled_C = logits_C.float() / request.temperature
    if sampling.top_k is not None and sampling.top_k < len(scaled_C):
        scaled_C = scaled_C.masked_fill(
            scaled_C < scaled_C.topk(sampling.top_k).values[-1], -torch.inf
        )
    probabilities_C = scaled_C.softmax(-1)
    if sampling.top_p is not None:
        ordered, order = probabilities_C.sort(descending=True)
        keep = ordered.cumsum(-1) - ordered < sampling.top_p
        probabilities_C = torch.zeros_like(probabilities_C).scatter(0, order[keep], ordered[keep])
    below_C = probabilities_C.cumsum(-1)
    # rand < 1, so what has no probability is never drawn
    drawn = torch.rand((), generator=generator) * below_C[-1]
    return int(torch.searchsorted(below_C, drawn, right=True))


class Singer:
    """A student with its codec, and what makes sound of its codes. `load_singer` makes one."""

    def __init__(self, student: Student, codec: Any, about: About, vocoder: Vocoder | None = None):
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
    ) -> Take:
        """Sing lyrics, with or without [section] tags. `score`: one Line with notes for each line
        of the lyrics.

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
        takes = self.sing_lines(lines, style, voice, seed, temperature)
        return _joined(takes, self.vocoder, self.codec.format, text)

    def sing_lines(
        self,
        lines: Sequence[Line],
        style: str | Sequence[str] | None = None,
        voice: str | Sequence[str] | None = None,
        seed: int | None = None,
        temperature: float | None = None,
        at_once: int = 32,
    ) -> list[Take]:
        """One take per line, sung side by side. Lines with notes (seconds from the line's start)
        are followed.

        `style` and `voice`: one for all lines, or one each; a voice may join words of several that
        were heard ("alto, breathy"). A seed repeats: line i draws from seed + i.
        """
        if not lines:
            raise LyricsError("there is no line to sing; give at least one")
        seed = random.SystemRandom().randrange(2**31) if seed is None else seed
        self._check_voices([voice] if isinstance(voice, str) else voice or [])
        styles, voices = (
            _each(style, self.about.styles, lines),
            _each(voice, self.about.voices, lines),
        )
        sampling = self._sampling(temperature)
        plans = [self._plan(*item) for item in zip(lines, styles, voices, strict=True)]
        takes: list[Take] = []
        for first in range(0, len(plans), at_once):
            some = plans[first : first + at_once]
            started = time.perf_counter()
            sung = self._generate(some, [seed + first + i for i in range(len(some))], sampling)
            spent = (time.perf_counter() - started) / len(some)
            for i, result in enumerate(sung):
                takes.append(self._take(result, lines[first + i].text, seed + first + i, spent))
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

    def _sampling(self, temperature: float | None) -> Sampling:
        said = self.about.sampling
        if temperature is None:
            return Sampling(said.temperatures, said.score_temperature, said.top_k, said.top_p)
        if not 0 <= temperature <= 10:
            raise SettingsError(
                f"temperature is {temperature}; give 0 (always the likeliest) to 10"
            )
        return Sampling(
            (temperature,), min(temperature, said.score_temperature), said.top_k, said.top_p
        )

    def _plan(self, line: Line, style: str, voice: str) -> Passage:
        """The line as a passage: along its notes, or with pitch and length left open. Refuses what
        cannot fit."""
        writing, v = self.about.writing, self.student.vocabulary
        if line.notes:
            line = replace(
                line, start=0.0, end=line.end if line.end is not None else line.notes[-1].end + 0.4
            )
            song = Song("asked", (Section("", (line,)),), style, voice)
            passage = passages(song, self.codec.format.frame_rate, v.longest, writing)[0]
        else:
            passage = Passage("asked", header(style, voice, [line], writing), self._unscored(line))
        syllable = max(1, round(SYLLABLE_SECONDS * self.codec.format.frame_rate))
        frames = sum(
            p.frames or syllable * (1 + p.text.count(JOIN) * (not p.pitched))
            for p in passage.pieces
        )
        if frames > self._room(passage):
            raise FitError(self._too_long(passage, line, frames, header(style, voice, [], writing)))
        return passage

    def _unscored(self, line: Line) -> tuple[Piece, ...]:
        """The pieces of a line that comes without notes, as finely as this singer learnt to sing."""
        words = words_texts(lyrics.words(line.text), self.about.writing)
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
        encode = self.student.encode_text
        text = (
            len(encode(passage.header)) + sum(2 + len(encode(p.text)) for p in passage.pieces) + 2
        )
        return (self._limit - text) // self.student.vocabulary.format.slots

    def _too_long(self, passage: Passage, line: Line, frames: int, style: str) -> str:
        """What would fit: all but the style grows with the line."""
        v = self.student.vocabulary
        needed = self._limit + (frames - self._room(passage)) * v.format.slots
        fixed = len(self.student.encode_text(style)) + 2
        share = max(0.0, (self._limit - fixed) / (needed - fixed))
        seconds = frames / v.format.frame_rate
        return (
            f"line {line.text[:40]!r}: {seconds:.1f} s of song needs {needed:,} tokens, the "
            f"singer holds {self._limit:,}; "
            f"shorten it to {int(10 * seconds * share) / 10:.1f} s "
            f"({int(len(passage.pieces) * share)} notes) or break the line"
        )

    @torch.inference_mode()
    def _generate(
        self, plans: Sequence[Passage], seeds: Sequence[int], sampling: Sampling
    ) -> list[Sung]:
        """All passages side by side, one id a step each, with a key-value cache."""
        from transformers import DynamicCache

        student, v = self.student, self.student.vocabulary
        sung = [Sung() for _ in plans]
        scripts = [
            script(plan.pieces, student.encode_text, v, sampling, result, self._room(plan))
            for plan, result in zip(plans, sung, strict=True)
        ]
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        headers = [[*student.encode_text(p.header), v.sing] for p in plans]
        width = max(map(len, headers))
        device = student.device
        ids_BT = torch.tensor([[0] * (width - len(h)) + h for h in headers], device=device)
        mask_BT = torch.tensor(
            [[0] * (width - len(h)) + [1] * len(h) for h in headers], device=device
        )
        positions_BT = (mask_BT.cumsum(-1) - 1).clamp(min=0)
        requests: list[Request | None] = [next(s) for s in scripts]
        cache, alone = DynamicCache(), len(plans) == 1
        while any(w is not None for w in requests):
            run = [[0] for _ in plans]
            hidden_BTD = student.hidden(ids_BT, positions_BT, cache, None if alone else mask_BT)
            chosen = self._sample(hidden_BTD[:, -1], requests, sampling, generators)
            for row, id in enumerate(chosen):
                if id is not None:
                    again = partial(
                        self._sample,
                        hidden_BTD[row : row + 1, -1],
                        sampling=sampling,
                        generators=generators[row:],
                    )
                    id, requests[row] = _send(scripts[row], id, again)
                    run[row] = [id]
            while alone and (request := requests[0]) is not None and request.forced is not None:
                requests[0] = _next(scripts[0], request.forced)
                run[0].append(request.forced)  # forced ids in a row are read in one pass
            ids_BT = torch.tensor(run, device=device)
            more = ids_BT.shape[1]
            positions_BT = positions_BT[:, -1:] + torch.arange(1, more + 1, device=device)
            mask_BT = torch.cat([mask_BT, mask_BT.new_ones(len(plans), more)], -1)
        return sung

    def _sample(
        self,
        hidden_BD: Tensor,
        requests: Sequence[Request | None],
        sampling: Sampling,
        generators: Sequence[torch.Generator],
    ) -> list[int | None]:
        """The next id of every passage; rows with the same legal spans are scored together."""
        chosen: list[int | None] = [
            None if request is None else request.forced for request in requests
        ]
        groups: dict[tuple[Span, ...], list[int]] = {}
        for row, request in enumerate(requests):
            if request is not None and request.forced is None:
                groups.setdefault(request.spans, []).append(row)
        for spans, rows in groups.items():
            logits_RC = (
                torch.cat(
                    [self.student.logits(hidden_BD[rows], s.start, s.stop) for s in spans], -1
                )
                .float()
                .cpu()
            )
            for logits_C, row in zip(logits_RC, rows, strict=True):
                request = requests[row]
                assert request is not None
                index = sample(logits_C, request, sampling, generators[row])
                for span in spans:
                    if index < len(span):
                        chosen[row] = span.start + index
                        break
                    index -= len(span)
        return chosen

    def _take(self, sung: Sung, text: str, seed: int, spent: float) -> Take:
        codes_FS = self.student.vocabulary.read(torch.tensor(sung.ids))
        started = time.perf_counter()
        wave_CW, tracks = _heard(codes_FS, self.vocoder, self.codec.format)
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
        spent += time.perf_counter() - started
        about = (tuple(notes), tuple(pieces), text, seed, spent, tracks)
        return Take(wave_CW, self.vocoder.sample_rate, codes_FS, *about)

    # --- teacher-forced figures -------------------------------------------------------------------
    def nats(self, songs: Sequence[Song]) -> dict[str, Any]:
        """Held-out nats of songs with audio, by slot (see scores.held_out)."""
        return logits.held_out(self.student, self.coded(songs))

    def coded(self, songs: Sequence[Song]) -> list[Coded]:
        """The passages of songs with audio, as this singer's codec hears them and as it learnt to
        write them."""
        return coded_songs.code(
            songs, self.codec, self.student.vocabulary.longest, self.about.writing
        )


def load_singer(
    where: str | Path | None = None, device: str | None = None, vocoder: Sound | None = None
) -> Singer:
    """A singer: the embedded one, or that of a run folder, an adapter, a merged folder, or a hub
    id.

    `vocoder`: "codec" or "head" makes its sound; None: whichever measured better when the singer
    was made. Raises FolderError where there is none, AdapterError where codec or base is not the
    one it was trained with.
    """
    place = "embedded/singer" if where is None else str(where)
    student, _, folder = open_singer(place)
    about = read_about(singer_folder(folder))
    codec = strict.build(
        {"c": codec_settings(folder, about)}, _CodecPart, f"{place}: singer.json"
    ).c.load()
    if codec.fingerprint != about.codec_fingerprint:
        raise AdapterError(
            f"{place}: was trained on codec {about.codec_fingerprint[:12]}, the one found is "
            f"{codec.fingerprint[:12]}; "
            "give it its own codec"
        )
    if student.vocabulary.format != codec.format:
        raise AdapterError(
            f"{place}: singer.json's codec speaks {codec.format.slot_sizes} codes, its weights "
            "were trained on "
            f"{student.vocabulary.format.slot_sizes}; put back the singer.json it was trained with"
        )
    if student.vocabulary.layout != about.writing.layout:
        raise AdapterError(
            f"{place}: singer.json says layout {about.writing.layout}, its weights were trained on "
            f"{student.vocabulary.layout}; put back the singer.json it was trained with"
        )
    try:
        student.to(device or best_device())
        # which lacks the float64 of a codec's phases; it stays on the CPU
        if student.device.type != "mps":
            codec.to(student.device)
    except (RuntimeError, AssertionError) as error:  # torch has no type of its own for this
        reason = (str(error).splitlines() or ["?"])[0][:120]
        raise SettingsError(f"device {device}: cannot be used ({reason}); try cpu") from None
    return Singer(student, codec, about, open_vocoder(folder, about, codec, vocoder))


@dataclass(frozen=True)
class _CodecPart:
    c: Any = strict.part("codecs")


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


def _send(
    script: Generator[Request, int, None], id: int, again: Callable[[list[Request]], list[Any]]
) -> tuple[int, Request | None]:
    """(the id to write, the request after it, None at the end): `id`, or what is chosen in place of
    a drawn stop."""
    request = _next(script, id)
    if request is not None and request.instead:
        id = again([request])[0]
        return id, _next(script, id)
    return id, request


def _next(script: Generator[Request, int, None], id: int) -> Request | None:
    try:
        return script.send(id)
    except StopIteration:
        return None


def _joined(takes: Sequence[Take], vocoder: Vocoder, format: CodecFormat, text: str) -> Take:
    """Takes one after another as one; decoded together, so that no seam is heard."""
    if len(takes) == 1:
        return replace(takes[0], text=text)
    codes_FS = torch.cat([take.codes_FS for take in takes])
    started, notes, now = time.perf_counter(), [], 0.0
    for take in takes:
        notes += [(start + now, end + now, midi) for start, end, midi in take.notes]
        now += len(take.codes_FS) / format.frame_rate
    wave_CW, tracks = _heard(codes_FS, vocoder, format)
    spent = sum(take.compute_seconds for take in takes) + time.perf_counter() - started
    pieces = tuple(piece for take in takes for piece in take.pieces)
    about = (tuple(notes), pieces, text, takes[0].seed, spent, tracks)
    return Take(wave_CW, takes[0].sample_rate, codes_FS, *about)


def _heard(codes_FS: Tensor, decoder: Any, format: CodecFormat) -> tuple[Tensor, dict[str, Tensor]]:
    """(the sound of these codes, its stems)."""
    wave_CW = decoder.decode(codes_FS).cpu()
    return stems.mixed(wave_CW, format), stems.apart(wave_CW, format)


__all__ = ["Note", "Sampling", "Singer", "Take", "load_singer"]
