"""One song on its time axis: waveform, spectrogram, notes, pitch, sections, lines and words.

A page needs nothing but the sound beside it (out/audio), which it plays from wherever one clicks.
Given times are drawn solid, guessed ones hatched and the paler the less sure; weak ones red.
"""

from __future__ import annotations

import base64
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from distill.audio.spectrogram import height, spectrogram_png
from distill.curation.report.templates import clock, count, templates
from distill.curation.rows import Row
from distill.curation.steps import _pitch, _salience
from distill.songs import Line, Section, Song

PICTURE_COLUMNS = 3600  # of all tracks together: some 130 kB ...
PICTURE_COLOURS = 16  # ... in steps of 4 dB; 64 colours take twice that
PICTURE_HOPS = 0.01, 0.02  # seconds a column, of a short song and of one longer than ...
SHORT_SECONDS = 36  # ... PICTURE_COLUMNS of the short hop
ENVELOPE_COLUMNS = 1500
EMPHASIS = 0.9  # of what is high, or a band's bass outshines the harmonics of its voice
BREAK_SEMITONES = 2.0  # between frames of 20 ms: the line of the pitch is broken there
MOST_LANES = 4  # of lines that overlap
TOUCH_SECONDS = 0.05  # lines that overlap by less share a lane
RULER_SECONDS = (0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600)
MOST_TICKS = 40
TRACK_NAMES = {
    "audio": "the recording",
    "vocals": "vocals alone",
    "accompaniment": "accompaniment alone",
}
HUES = (262, 150, 28, 200, 330, 60, 100, 0)


def page(row: Row, digest: str = "") -> str:
    """The page of one song, whose tracks it reads. `digest`: what it is made from."""
    assert row.item is not None
    song = row.item.song
    tags = dict.fromkeys(section.tag for section in song.sections)
    return templates.get_template("song_page.html").render(
        digest=digest,
        row=row,
        song=song,
        summary=_summary(row, song),
        hues=dict(zip(tags, itertools.cycle(HUES), strict=False)),
        **(_stage(song) if song.tracks else {}),
    )


def _summary(row: Row, song: Song) -> str:
    about = [song.credit, f"licence {song.licence}", song.source, song.language, song.style]
    about += [song.voice, f"split {song.split}", f"group {song.group}" if song.group else ""]
    timed = [line for line in song.lines if line.start is not None]
    given = sum(line.confidence is None for line in timed)
    words = sum(len(line.words) for line in song.lines)
    notes = sum(len(line.notes) for line in song.lines)
    return (
        f"{'; '.join(filter(None, about))}. "
        f"{clock(row.seconds)}, {count(len(song.lines), 'line')}: {given} with given times, "
        f"{len(timed) - given} with guessed ones, {len(song.lines) - len(timed)} with none; "
        f"{count(words, 'word')} and {count(notes, 'note')} with times."
    )


def _stage(song: Song) -> dict[str, object]:
    """What is drawn on the time axis: players, the song at a glance, and the strip below."""
    waves = {name: _mono(path) for name, path in song.tracks.items()}
    seconds = max(len(wave_W) for wave_W in waves.values()) / _pitch.RATE or 1.0
    first_W = next(iter(waves.values()))
    columns, envelope = _envelope(first_W, _pitch.RATE, seconds)
    lanes, lines = _in_lanes(song.lines)
    share = PICTURE_COLUMNS // len(waves)
    return {
        "seconds": seconds,
        "track_names": TRACK_NAMES,
        "sounds": {name: f"../audio/{Path(path).name}" for name, path in song.tracks.items()},
        "pictures": {name: _picture(wave_W, seconds, share) for name, wave_W in waves.items()},
        "columns": columns,
        "envelope": envelope,
        "apart": "vocals" in waves,
        "hop_seconds": _salience.HOP_SECONDS,
        **_melody(song, waves.get("vocals", first_W), "vocals" in waves),
        "ticks": _ticks(seconds),
        "sections": _spans(song.sections),
        "lanes": lanes,
        "lines": lines,
    }


def _mono(path: str) -> NDArray[np.float32]:
    """A track at the rate that is looked at, channels averaged."""
    wave_WC, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return _pitch.at_rate(wave_WC.mean(1), rate)


def _padded(wave_W: NDArray[np.float32], rate: int, seconds: float) -> NDArray[np.float32]:
    return np.pad(wave_W, (0, max(0, round(seconds * rate) - len(wave_W))))


def _picture(wave_W: NDArray[np.float32], seconds: float, columns: int) -> str:
    """The spectrogram of a track, a PNG in base64."""
    wave_W = _padded(wave_W, _pitch.RATE, seconds)
    bright_W = np.append(wave_W[:1], wave_W[1:] - EMPHASIS * wave_W[:-1])
    hop = PICTURE_HOPS[seconds >= SHORT_SECONDS]
    png = spectrogram_png(bright_W, _pitch.RATE, hop, columns, PICTURE_COLOURS)
    return base64.b64encode(png).decode()


def _envelope(wave_W: NDArray[np.float32], rate: int, seconds: float) -> tuple[int, dict[str, str]]:
    """Columns, and SVG paths of the peaks and within them the level (RMS), mirrored about 100."""
    wave_W = _padded(wave_W, rate, seconds)
    columns = min(ENVELOPE_COLUMNS, len(wave_W))
    parts = np.array_split(wave_W, columns) if columns else []
    scale = 100 / max(float(np.abs(wave_W).max(initial=0)), 1e-6)
    sizes = {
        "peak": [float(np.abs(part).max()) for part in parts],
        "body": [float(np.sqrt(np.mean(part**2))) for part in parts],
    }
    return columns, {name: _mirrored([round(scale * s) for s in sizes[name]]) for name in sizes}


def _mirrored(sizes: list[int]) -> str:
    steps = list(itertools.pairwise([0, *sizes, 0]))
    upper = [f"1 {before - after}" for before, after in steps]
    lower = [f"-1 {before - after}" for before, after in reversed(steps)]
    # relative and without spaces: a third of the size
    return f"M-1 100l{' '.join(upper + lower)}z".replace(" -", "-")


def _melody(song: Song, voice_W: NDArray[np.float32], apart: bool) -> dict[str, str]:
    """SVG paths of the notes, of the pitch heard where lines are sung, and of that elsewhere."""
    midi_F = _pitch.track(voice_W).midi_F[::2] if apart else _salience.track(voice_W)
    step = _salience.HOP_SECONDS
    timed = [line for line in song.lines if line.start is not None and line.end is not None]
    sung_F = np.full(len(midi_F), not timed)
    for line in timed:
        sung_F[max(0, round((line.start or 0) / step)) : max(0, round((line.end or 0) / step))] = 1
    notes = [note for line in song.lines for note in line.notes]
    bars = [(n.start / step, (n.end - n.start) / step, n.midi) for n in notes]
    return {
        "pitch": _curve(np.where(sung_F, midi_F, np.nan)),
        "elsewhere": _curve(np.where(sung_F, np.nan, midi_F)),
        "notes": "".join(
            f"M{x:.0f} {_y(key)}h{max(1, n - 1):.0f}" for x, n, key in bars if key is not None
        ),
    }


def _curve(midi_F: NDArray[np.float64]) -> str:
    """The pitch of voiced frames as an SVG path, broken where it leaps; in relative steps."""
    steps, before = [], None
    for x, midi in enumerate(midi_F.tolist()):
        if midi != midi:
            before = None
            continue
        y = _y(midi)
        if before is None or abs(midi - before[0]) > BREAK_SEMITONES:
            steps.append(f"M{x} {y}h1")
        else:
            steps.append(f"l1 {y - before[1]}")
        before = midi, y
    return "".join(steps)


def _y(midi: float) -> int:
    return round(1000 * (1 - height(440 * 2 ** ((midi - 69) / 12))))


def _ticks(seconds: float) -> list[float]:
    """The moments that the ruler names."""
    step = next((s for s in RULER_SECONDS if seconds / s <= MOST_TICKS), RULER_SECONDS[-1])
    return [number * step for number in range(int(seconds / step) + 1)]


def _spans(sections: Sequence[Section]) -> list[tuple[str, float, float]]:
    """Tag, start and end of each section in which a line has times."""
    spans = []
    for section in sections:
        starts = [line.start for line in section.lines if line.start is not None]
        ends = [line.end for line in section.lines if line.end is not None]
        if starts and ends:
            spans.append((section.tag, min(starts), max(ends)))
    return spans


def _in_lanes(lines: Iterable[Line]) -> tuple[int, list[tuple[int, Line]]]:
    """How many lanes there are, and each line's; lines that overlap lie below each other."""
    bars, until = [], [0.0]
    for line in lines:
        if line.start is not None and line.end is not None:
            free = (n for n, end in enumerate(until) if end <= line.start + TOUCH_SECONDS)
            lane = min(next(free, len(until)), MOST_LANES - 1)
            until[lane : lane + 1] = [line.end]
            bars.append((lane, line))
    return len(until), bars
