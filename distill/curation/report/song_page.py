"""One song on its time axis: waveform, spectrogram, notes, the pitch of the voice, sections, lines
and words.

A page needs nothing but the sound beside it (out/audio), which it plays from wherever one clicks.
Given times are drawn solid, guessed ones hatched and the paler the less sure; weak ones red.
"""

from __future__ import annotations

import base64
import html
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import soundfile
from numpy.typing import NDArray

from distill.audio.spectrogram import height, spectrogram_png
from distill.curation.runner import Row
from distill.curation.steps import _pitch, _salience
from distill.songs import Fact, Line, Section, Song

HERE = Path(__file__).resolve().parent
PICTURE_COLUMNS = 3600  # of all tracks together: some 130 kB ...
PICTURE_COLOURS = 16  # ... in steps of 4 dB; 64 colours take twice that
ENVELOPE_COLUMNS = 1500
EMPHASIS = 0.9  # of what is high, or a band's bass outshines the harmonics of its voice
WEAK = 0.5  # a confidence below it is drawn in red
BREAK_SEMITONES = 2.0  # between frames of 20 ms: the line of the pitch is broken there
LISTED = 12  # values of a list that a table shows
TRACK_NAMES = {
    "audio": "the recording",
    "vocals": "vocals alone",
    "accompaniment": "accompaniment alone",
}
HUES = (262, 150, 28, 200, 330, 60, 100, 0)


def page(row: Row, digest: str = "") -> str:
    """The page of one song, whose tracks it reads."""
    assert row.item is not None
    song = row.item.song
    hues = dict(
        zip(dict.fromkeys(section.tag for section in song.sections), _around(HUES), strict=False)
    )
    return fill(
        "song_page.html",
        digest=digest,
        title=html.escape(song.id),
        summary=html.escape(_summary(row, song)),
        stage=_stage(song, hues) if song.tracks else "<p>There is no recording of this song.</p>",
        lyrics=_lyrics(song, hues),
        remarks=_remarks(row),
        facts=_facts(song.facts),
    )


def _summary(row: Row, song: Song) -> str:
    about = [
        song.credit,
        f"licence {song.licence}",
        song.source,
        song.language,
        song.style,
        song.voice,
    ]
    about += [f"split {song.split}", f"group {song.group}" if song.group else ""]
    timed = [line for line in song.lines if line.start is not None]
    given = sum(line.confidence is None for line in timed)
    words, notes = (
        sum(len(getattr(line, name)) for line in song.lines) for name in ("words", "notes")
    )
    told = f"{clock(row.seconds)}, {many(len(song.lines), 'line')}: "
    told += f"{given} with given times, {len(timed) - given} with guessed ones, {len(song.lines) - len(timed)} with none; "
    told += f"{many(words, 'word')} and {many(notes, 'note')} with times"
    return f"{'; '.join(filter(None, about))}. {told}."


def _stage(song: Song, hues: dict[str, int]) -> str:
    """Players, the whole song at a glance, and the strip that can be widened."""
    waves = {name: _mono(path) for name, path in song.tracks.items()}
    seconds = max(len(wave_W) / rate for wave_W, rate in waves.values()) or 1.0
    columns = PICTURE_COLUMNS // len(waves)
    hop = 0.01 if seconds < 36 else 0.02
    pictures, players = [], []
    for name, (wave_W, rate) in waves.items():
        wave_W = np.pad(wave_W, (0, max(0, round(seconds * rate) - len(wave_W))))
        bright_W = np.append(wave_W[:1], wave_W[1:] - EMPHASIS * wave_W[:-1])
        picture = base64.b64encode(
            spectrogram_png(bright_W, rate, hop, columns, PICTURE_COLOURS)
        ).decode()
        pictures.append(
            f'<img data-track="{name}" src="data:image/png;base64,{picture}" alt="spectrogram of {TRACK_NAMES[name]}">'
        )
        sound = quote(f"../audio/{Path(song.tracks[name]).name}")
        players.append(
            f'<figure data-track="{name}"><figcaption>{TRACK_NAMES[name]}</figcaption>'
            f'<audio controls preload="metadata" src="{sound}"></audio></figure>'
        )
    wave = _envelope(*next(iter(waves.values())), seconds)
    again = re.sub(r"<g.*</g>", '<use href="#wave"/>', wave)
    voice_W, _ = waves.get("vocals", next(iter(waves.values())))
    melody = _melody(song, voice_W, "vocals" in waves, seconds)
    sections = f'<div class="sections">{_sections(song.sections, seconds, hues)}</div>'
    lanes, lines = _lines(song.lines, seconds)
    legend = _legend("vocals" in waves)
    return (
        f'<div class="players">{"".join(players)}</div>'
        f'<div class="all">{wave}{sections}<span class="view"></span><span class="head"></span></div>'
        f'<div class="tools">{legend}<label>wider <input type="range" id="zoom" min="0" max="1" step="any"></label></div>'
        f'<div class="scroll"><div class="song" data-seconds="{seconds:.3f}">'
        f'<div class="ruler">{_ruler(seconds)}{_beats(song, seconds)}</div>{sections}'
        f'<div class="picture">{"".join(pictures)}{melody}</div>'
        f'<div class="lines" style="--lanes:{lanes}">{lines}</div><div class="words">{_words(song.lines, seconds)}</div>'
        f'<div class="waves">{again}</div><span class="head"></span></div></div>'
    )


def _mono(path: str) -> tuple[NDArray[np.float32], int]:
    """A track at the rate that is looked at, channels averaged."""
    wave_WC, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return _pitch.at_rate(wave_WC.mean(1), rate), _pitch.RATE


def _envelope(wave_W: NDArray[np.float32], rate: int, seconds: float) -> str:
    """Peaks, and within them the level (RMS), mirrored about the middle."""
    wave_W = np.pad(wave_W, (0, max(0, round(seconds * rate) - len(wave_W))))
    columns = min(ENVELOPE_COLUMNS, len(wave_W))
    parts = np.array_split(wave_W, columns) if columns else []
    scale = 100 / max(float(np.abs(wave_W).max(initial=0)), 1e-6)
    shapes = []
    for name, size in (
        ("peak", lambda w: np.abs(w).max()),
        ("body", lambda w: np.sqrt(np.mean(w**2))),
    ):
        sizes = [0, *(round(scale * float(size(part))) for part in parts), 0]
        upper = " ".join(f"1 {before - after}" for before, after in itertools.pairwise(sizes))
        lower = " ".join(
            f"-1 {after - before}" for before, after in itertools.pairwise(reversed(sizes))
        )
        # relative and without spaces: a third of the size
        steps = f"{upper} {lower}".replace(" -", "-")
        shapes.append(f'<path class="{name}" d="M-1 100l{steps}z"/>')
    return f'<svg viewBox="0 0 {columns} 200" preserveAspectRatio="none"><g id="wave">{"".join(shapes)}</g></svg>'


def _melody(song: Song, voice_W: NDArray[np.float32], apart: bool, seconds: float) -> str:
    """Notes where their key lies in the spectrogram, and the pitch that is heard; fainter where no
    line is sung."""
    midi_F = _pitch.track(voice_W).midi_F[::2] if apart else _salience.track(voice_W)
    step = _salience.HOP_SECONDS
    sung_F = np.zeros(len(midi_F), dtype=bool)
    timed = [line for line in song.lines if line.start is not None and line.end is not None]
    for line in timed:
        sung_F[max(0, round((line.start or 0) / step)) : max(0, round((line.end or 0) / step))] = (
            True
        )
    sung_F |= not timed
    paths = []
    for name, here_F in (("pitch else", ~sung_F), ("pitch", sung_F)):
        curve = _curve(np.where(here_F, midi_F, np.nan))
        paths.append(
            f'<path class="dark" d="{curve}"/>' * (name == "pitch")
            + f'<path class="{name}" d="{curve}"/>'
        )
    notes = "".join(
        f"M{note.start / step:.0f} {_y(note.midi)}h{max(1, (note.end - note.start) / step - 1):.0f}"
        for line in song.lines
        for note in line.notes
        if note.midi is not None
    )
    paths.insert(1, f'<path class="dark" d="{notes}"/><path class="notes" d="{notes}"/>')
    return f'<svg viewBox="0 0 {seconds / step:.1f} 1000" preserveAspectRatio="none">{"".join(paths)}</svg>'


def _curve(midi_F: NDArray[np.float64]) -> str:
    """A line through the frames that have a pitch, broken where it leaps; relative steps, for they
    are short."""
    told, before = [], None
    for x, midi in enumerate(midi_F.tolist()):
        if midi != midi:
            before = None
            continue
        y = _y(midi)
        if before is None or abs(midi - before[0]) > BREAK_SEMITONES:
            told.append(f"M{x} {y}h1")
        else:
            told.append(f"l1 {y - before[1]}")
        before = midi, y
    return "".join(told)


def _y(midi: float) -> int:
    return round(1000 * (1 - height(440 * 2 ** ((midi - 69) / 12))))


# --- the time axis --------------------------------------------------------------------------------
def _ruler(seconds: float) -> str:
    steps = (0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300)
    step = next((step for step in steps if seconds / step <= 40), 600)
    return "".join(
        f'<span style="left:{100 * n * step / seconds:.3f}%">{clock(n * step, brief=True)}</span>'
        for n in range(int(seconds / step) + 1)
    )


def _beats(song: Song, seconds: float) -> str:
    """A tick a beat, where a step has looked for them; the paler the less sure."""
    beats = song.fact("beats_seconds")
    if beats is None:
        return ""
    ticks = "".join(f"M{100 * beat:.0f} 0v1" for beat in beats.value)
    return (
        f'<svg class="beats" viewBox="0 0 {100 * seconds:.0f} 1" preserveAspectRatio="none" '
        f'style="opacity:{0.25 + 0.75 * _sure(beats.confidence):.2f}"><path d="{ticks}"/></svg>'
    )


def _place(start: float, end: float, seconds: float) -> str:
    return f"left:{100 * start / seconds:.3f}%;width:{100 * max(0.0, end - start) / seconds:.3f}%"


def _sections(sections: Sequence[Section], seconds: float, hues: dict[str, int]) -> str:
    told = []
    for section in sections:
        starts = [line.start for line in section.lines if line.start is not None]
        ends = [line.end for line in section.lines if line.end is not None]
        if starts and ends:
            place = _place(min(starts), max(ends), seconds)
            told.append(
                f'<span style="{place};--hue:{hues[section.tag]}">{html.escape(section.tag)}</span>'
            )
    return "".join(told)


def _lines(lines: Iterable[Line], seconds: float) -> tuple[int, str]:
    """How many lanes there are, and the bars; lines that overlap lie below each other."""
    told, until = [], [0.0]
    for line in lines:
        if line.start is None or line.end is None:
            continue
        lane = next((n for n, end in enumerate(until) if end <= line.start + 0.05), len(until))
        lane = min(lane, 3)
        until[lane : lane + 1] = [line.end]
        title = f"{clock(line.start)} to {clock(line.end)}, {_sure_words(line.confidence)}"
        told.append(
            f'<span class="{_sure_class(line.confidence)}" data-start="{line.start:.3f}" data-end="{line.end:.3f}" '
            f'style="{_place(line.start, line.end, seconds)};top:{2.7 * lane:.1f}rem;--sure:{_sure(line.confidence):.2f}" '
            f'title="{html.escape(title)}">{html.escape(line.text)}</span>'
        )
    return len(until), "".join(told)


def _words(lines: Iterable[Line], seconds: float) -> str:
    return "".join(
        f'<span style="{_place(word.start, word.end, seconds)};opacity:{0.3 + 0.7 * _sure(word.confidence):.2f}" '
        f'title="{_sure_words(word.confidence)}">{html.escape(word.text)}</span>'
        for line in lines
        for word in line.words
    )


def _legend(apart: bool) -> str:
    pitch = (
        "pitch of the voice"
        if apart
        else "pitch that stands out (the voice is not apart: where nobody sings, an instrument's)"
    )
    told = [
        ('class="given" style="border-left:2px solid var(--mark)"', "times given"),
        ('class="guess" style="--sure:.8"', "guessed"),
        ('class="guess weak"', f"guessed, below {WEAK}"),
        ('style="background:#4bffb0;height:4px;vertical-align:.15rem"', "notes"),
        (
            'style="background:#fff;height:2px;vertical-align:.2rem;outline:1px solid #0b0a1e"',
            pitch,
        ),
    ]
    return "".join(f"<span><i {how}></i>{name}</span>" for how, name in told)


# --- tables ---------------------------------------------------------------------------------------
def _lyrics(song: Song, hues: dict[str, int]) -> str:
    rows = []
    for section in song.sections:
        tag = (
            f'<span class="tag" style="--hue:{hues[section.tag]}"></span>{html.escape(section.tag)}'
        )
        rows.append(f'<tr><th colspan="3">{tag}</th></tr>')
        for line in section.lines:
            if line.start is None:
                rows.append(
                    f'<tr><td></td><td>{html.escape(line.text)}</td><td class="noted">no times</td></tr>'
                )
                continue
            sure = f'<meter min="0" max="1" low="{WEAK}" value="{_sure(line.confidence):.2f}"></meter>{_sure(line.confidence):.2f}'
            rows.append(
                f'<tr data-start="{line.start:.3f}" data-end="{line.start if line.end is None else line.end:.3f}">'
                f'<td class="number">{clock(line.start)}</td><td>{html.escape(line.text)}</td>'
                f'<td class="number">{"given" if line.confidence is None else sure}</td></tr>'
            )
    return f'<table class="text"><tbody>{"".join(rows)}</tbody></table>'


def _remarks(row: Row) -> str:
    if not row.remarks:
        return "<p>Nothing: the song is as it was found.</p>"
    rows = [
        [cell(r.step.replace("_", " ")), cell(r.verdict, colour(r.verdict)), cell(r.text)]
        for r in row.remarks
    ]
    return table(["step", "verdict", "remark"], rows)


def _facts(facts: Sequence[Fact]) -> str:
    rows = []
    for fact in facts:
        sure = (
            "given"
            if fact.confidence is None
            else f"{fact.confidence:.2f}" + " (weak)" * (fact.confidence < WEAK)
        )
        rows.append(
            [
                cell(fact.name.replace("_", " ")),
                cell(value(fact), "value"),
                cell(fact.by),
                cell(sure),
            ]
        )
    return (
        table(["fact", "value", "found by", "confidence"], rows)
        if rows
        else "<p>Nothing beside the lyrics.</p>"
    )


def value(fact: Fact) -> str:
    """A fact's value as a person would write it."""
    if fact.name.endswith("_midi") and isinstance(fact.value, (list, tuple)):
        return " to ".join(_key(midi) for midi in fact.value)
    return _plain(fact.value)


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(item)}" for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return " ".join(_plain(item) for item in value[:LISTED]) + " ..." * (len(value) > LISTED)
    return "unknown" if value is None else str(value)


def _key(midi: float) -> str:
    names = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
    return f"{names[round(midi) % 12]}{round(midi) // 12 - 1}"


# --- words and tags -------------------------------------------------------------------------------
def fill(template: str, **parts: str) -> str:
    """A template with its parts; what is put in is not looked at again."""
    parts["style"] = (HERE / "page.css").read_text(encoding="utf-8")
    text = (HERE / template).read_text(encoding="utf-8")
    return re.sub(r"<!-- (\w+) -->", lambda found: parts[found[1]], text)


def table(
    head: Iterable[str | tuple[str, str]], body: str | Iterable[Iterable[str]], id: str = ""
) -> str:
    named = [("", name) if isinstance(name, str) else name for name in head]
    top = "".join(
        f'<th scope="col" class="{kind}">{html.escape(name)}</th>' for kind, name in named
    )
    rows = (
        body if isinstance(body, str) else "".join(f"<tr>{''.join(cells)}</tr>" for cells in body)
    )
    return f"<table{f' id={id}' if id else ''}><thead><tr>{top}</tr></thead><tbody>{rows}</tbody></table>"


def cell(content: object, kind: str = "") -> str:
    return (
        f'<td class="{kind}">{html.escape(str(content))}</td>'
        if kind
        else f"<td>{html.escape(str(content))}</td>"
    )


def colour(verdict: str) -> str:
    return "aside" if verdict == "set aside" else verdict


def _sure(confidence: float | None) -> float:
    return 1.0 if confidence is None else min(1.0, max(0.0, confidence))


def _sure_class(confidence: float | None) -> str:
    return "given" if confidence is None else "guess" if confidence >= WEAK else "guess weak"


def _sure_words(confidence: float | None) -> str:
    return "given" if confidence is None else f"guessed, confidence {confidence:.2f}"


def _around(hues: Sequence[int]) -> Iterator[int]:
    while True:
        yield from hues


def many(number: int, name: str) -> str:
    return f"{number:,} {name}{'' if number == 1 else 's'}"


def clock(seconds: float, brief: bool = False) -> str:
    """63.25 as 1:03.2, 5400 as 1 h 30 min; brief on the axis: 1:03."""
    if seconds >= 3600 and not brief:
        return f"{seconds / 3600:,.1f} h"
    minutes, rest = divmod(round(seconds, 1), 60)
    if brief and rest == int(rest):
        return f"{int(minutes)}:{int(rest):02d}"
    return f"{int(minutes)}:{rest:04.1f}"


__all__ = ["page"]
