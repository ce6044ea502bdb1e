"""A singer measured by its song: held-out lines sung along their score, beside the codec's ceiling
and the audio itself.

Low teacher-forced loss and garbage audio is this field's commonest failure; so what counts here is
free-running takes, heard by `measures` (notes in tune, words by forced choice) with wrong-lyrics
and wrong-melody controls. Where the codec keeps the vocals apart, they are heard alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from distill import lyrics, measures
from distill.audio import stems
from distill.errors import DistillError, FitError, SongError
from distill.folders import Json
from distill.measures import Performance
from distill.songs import Line, Note, Song, from_its_start, primary

if TYPE_CHECKING:
    from torch import Tensor

    from distill.codecs import Codec
    from distill.singing.singer import Singer


@dataclass(frozen=True)
class Asked:
    """One line to sing: its times from its own start, whose it is, and where it lies in the song
    (seconds)."""

    line: Line
    song: Song
    first: float
    last: float | None


def lines_of(songs: Sequence[Song]) -> list[Asked]:
    """Every line that has notes. Raises SongError when there is none."""
    asked = [
        Asked(from_its_start(line), song, line.start or 0.0, line.end)
        for song in songs
        for line in song.lines
        if line.notes
    ]
    if not asked:
        raise SongError("no line of these songs has notes; judge by songs with a score")
    return asked


def spread(asked: Sequence[Asked], count: int) -> list[Asked]:
    """`count` lines, evenly spread over the songs; all of them where there are no more."""
    count = min(count, len(asked))
    return [asked[i * len(asked) // count] for i in range(count)]


def ceilings(asked: Sequence[Asked], codec: Codec) -> dict[str, list[Performance]]:
    """The songs' own audio, and the same after a round trip through the codec."""
    format, rate = codec.format, codec.format.sample_rate
    rows: dict[str, list[Performance]] = {"uncoded": [], "codec": []}
    waves: dict[str, Tensor] = {}
    for each in asked:
        if each.song.audio is None and not format.tracks:
            raise SongError(
                f"song {each.song.id}: has no audio to compare with; judge its takes with --takes"
            )
        if each.song.id not in waves:
            waves[each.song.id] = stems.read(stems.files(each.song, format), format)
        last = None if each.last is None else round(each.last * rate)
        wave_CW = waves[each.song.id][:, round(each.first * rate) : last]
        decoded_CW = codec.decode(codec.encode(wave_CW)).cpu()
        for row, sound_CW in (("uncoded", wave_CW), ("codec", decoded_CW)):
            voice_CW = stems.apart(sound_CW, format).get("vocals", stems.mixed(sound_CW, format))
            rows[row].append(performance(each.line, voice_CW, rate, each.song.language))
    return rows


def sing(
    singer: Singer, asked: Sequence[Asked], seed: int, temperature: float | None
) -> tuple[list[Performance], float]:
    """(performances, seconds of compute): the singer follows the score of every line."""
    styles, voices = [each.song.style for each in asked], [each.song.voice for each in asked]
    # a song in a language that the singer never heard is sung as the singer would read it
    of_songs = [each.song.language for each in asked]
    languages = [name if singer.knows(name) else None for name in of_songs]
    lines = [each.line for each in asked]
    takes = singer.sing_lines(lines, styles, voices, seed, temperature, languages)
    sung = []
    for each, take in zip(asked, takes, strict=True):
        wanted = [note.midi for note in each.line.notes if note.midi is not None]
        if [midi for _, _, midi in take.notes if midi is not None] != wanted:
            raise FitError(
                f"line {each.line.text!r}: was sung to another score than was given; this is a "
                "bug, report it"
            )
        notes = tuple(Note(start, end, midi) for start, end, midi in take.notes)
        voice_CW = take.stems.get("vocals", take.wave_CW)
        line, rate = replace(each.line, notes=notes), take.sample_rate
        sung.append(performance(line, voice_CW, rate, each.song.language))
    return sung, sum(take.compute_seconds for take in takes)


def performance(line: Line, wave_CW: ArrayLike, sample_rate: int, language: str) -> Performance:
    """A line and its sound, as the measures want them; channels are averaged."""
    notes = tuple((note.start, note.end, note.midi) for note in line.notes if note.midi is not None)
    wave_W = np.asarray(wave_CW, dtype=np.float32).mean(0)
    words = tuple(lyrics.words(line.text))
    return Performance(line.text, words, notes, wave_W, sample_rate, language=primary(language))


def report(singer: Singer, songs: Sequence[Song], lines: int, seed: int = 0) -> Json | None:
    """Everything that is measured of a singer on `lines` held-out lines, beside codec and uncoded
    audio.

    None where no line has notes, or nothing is asked; where the judges are not installed, the
    reason stands in "why".
    """
    if not lines or not any(line.notes for song in songs for line in song.lines):
        return None
    asked = spread(lines_of(songs), lines)
    rows = ceilings(asked, singer.codec)
    rows["singer"], compute = sing(singer, asked, seed, None)
    try:
        judged = measures.judge(rows)
    except DistillError as error:
        return {"why": str(error)}
    seconds = sum(line.seconds for line in rows["singer"])
    shares = {
        row: {name: figure["value"] for name, figure in of_row["figures"].items() if figure}
        for row, of_row in judged["rows"].items()
    }
    return {
        **judged,
        "lines": len(asked),
        "shares": shares,
        "seconds_of_audio": seconds,
        "seconds_of_compute": compute,
    }
