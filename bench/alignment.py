"""Errors of lyric alignment in seconds, and the calibration of its confidences.

    python bench/alignment.py --songs MANIFEST [--count 200] [--track vocals|audio] [--wrong]
    python bench/alignment.py --folder FOLDER
    python bench/alignment.py --songs MANIFEST --fit

FOLDER holds NAME.mp3 (wav, flac, ogg), NAME.lines.csv and perhaps NAME.words.csv for each song.
`--fit` prints new weights for distill/curation/steps/_alignment/confidence.py.

All times are taken away and looked for anew with the offline method. A line's truth is its first
word's start and its last word's end. Errors are in seconds, absolute. `uniform` spreads the
syllables evenly over the song: what knowing nothing gives. Generated songs count a word from its
first vowel, people from its first sound: `--starts`. `--wrong` gives each song the next one's
lyrics: all confidences should be low. Calibration: of the words with a confidence of 0.6 to 0.8,
60 to 80 % should be right (0.2 s; lines 0.3 s); ECE is the mean gap, Brier the mean squared one (a
constant guess at the base rate gives share * (1 - share)).
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import soundfile
import soxr

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import aligner_bands

from distill import lyrics
from distill.curation.steps import Item, Sound
from distill.curation.steps import alignment as step
from distill.curation.steps._alignment import confidence, hearing, phones, placing
from distill.songs import Line, Section, Song, Word, read_manifest


@dataclass
class Errors:
    """Errors (seconds) and confidences over all songs."""

    line_start: list[float] = field(default_factory=list)
    line_end: list[float] = field(default_factory=list)
    word_start: list[float] = field(default_factory=list)
    uniform: list[float] = field(default_factory=list)
    uniform_words: list[float] = field(default_factory=list)
    line_sure: list[float] = field(default_factory=list)
    word_sure: list[float] = field(default_factory=list)
    skipped_lines: int = 0
    lost_lines: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    if options.songs:
        kept = slice(options.skip, options.skip + options.count)
        songs = [song for manifest in options.songs for song in read_manifest(manifest)[kept]]
    else:
        songs = list(timed_folder(options.folder, options.language))
    settings = step.Settings(
        method="synthesis",
        starts=options.starts or ("vowel" if options.songs else "sound"),
        least_confidence=0.0,
        least_line_confidence=0.0,
    )
    if options.fit:
        fit(songs, settings)
        return
    errors = Errors()
    for number, song in enumerate(songs):
        other = songs[(number + 1) % len(songs)] if options.wrong else None
        measure(song, settings, options, errors, other)
    show(errors, len(songs), options)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--songs", type=Path, nargs="+")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--skip", type=int, default=0, help="first songs (those fitted on)")
    parser.add_argument("--track", choices=("vocals", "audio"), default="vocals")
    parser.add_argument("--starts", choices=("sound", "vowel"))
    parser.add_argument("--language", default="es", help="of --folder")
    parser.add_argument("--inside", action="store_true", help="keep line times, look for words")
    parser.add_argument("--wrong", action="store_true")
    parser.add_argument("--fit", action="store_true")
    options = parser.parse_args(arguments)
    if (options.songs is None) == (options.folder is None):
        parser.error("give --songs MANIFEST or --folder FOLDER")
    return options


def timed_folder(folder: Path, language: str) -> Iterator[Song]:
    """Songs as JamendoLyrics has them: lines with start_time, end_time and lyrics_line, words with
    word_start, word_end and line_end."""
    for lines_csv in sorted(folder.glob("*.lines.csv")):
        name = lines_csv.name.removesuffix(".lines.csv")
        recordings = [folder / f"{name}.{suffix}" for suffix in ("mp3", "wav", "flac", "ogg")]
        recording = next(filter(Path.is_file, recordings), None)
        if recording is None:
            continue
        rows = list(csv.DictReader(lines_csv.open(encoding="utf-8")))
        lines = [Line(r["lyrics_line"], float(r["start_time"]), float(r["end_time"])) for r in rows]
        words_csv = folder / f"{name}.words.csv"
        if words_csv.is_file():
            rows = list(csv.DictReader(words_csv.open()))
            spans = [(float(row["word_start"]), float(row["word_end"])) for row in rows]
            lines = with_words(lines, spans)
        yield Song(name, (Section("verse", tuple(lines)),), language=language, audio=str(recording))


def with_words(lines: list[Line], spans: list[tuple[float, float]]) -> list[Line]:
    """Lines whose words have these spans; without words where the numbers do not agree."""
    words = [phones.units(line.text) for line in lines]
    if sum(map(len, words)) != len(spans):
        return lines
    rest = iter(spans)
    return [
        replace(line, words=tuple(Word(word, *next(rest)) for word in units))
        for line, units in zip(lines, words, strict=True)
    ]


def sound_of(song: Song, track: str) -> Sound:
    file = song.tracks.get(track) or song.tracks["audio"]
    wave_WC, rate = soundfile.read(file, dtype="float32", always_2d=True)
    return Sound(np.ascontiguousarray(wave_WC.T), rate)


def with_lines(song: Song, change: Callable[[Line], Line]) -> Song:
    sections = [Section(s.tag, tuple(map(change, s.lines))) for s in song.sections]
    return replace(song, sections=tuple(sections))


def truth(line: Line) -> tuple[float, float]:
    if line.words:
        return line.words[0].start, line.words[-1].end
    return float(line.start or 0.0), float(line.end or 0.0)


def measure(
    song: Song,
    settings: step.Settings,
    options: argparse.Namespace,
    errors: Errors,
    other: Song | None,
) -> None:
    """Add one song's errors; `other` is the song whose lyrics are aligned in place of its own."""
    sound = sound_of(song, options.track)
    if options.inside:
        bare = with_lines(song, lambda line: Line(line.text, *truth(line)))
    else:
        bare = with_lines(other or song, lambda line: Line(line.text))
    clock = time.process_time()
    aligned = settings.curate(Item(bare, {"audio": sound})).song
    errors.cpu_seconds += time.process_time() - clock
    errors.seconds += sound.seconds
    if other:
        words = [word for line in aligned.lines for word in line.words]
        errors.line_sure += sureness(aligned.lines)
        errors.word_sure += sureness(words)
        return
    evenly = uniform(song, sound.seconds)
    for line, new, guess in zip(song.lines, aligned.lines, evenly, strict=True):
        start, end = truth(line)
        if new.start is None or new.end is None:
            errors.lost_lines += 1
            continue
        errors.line_start.append(abs(new.start - start))
        errors.line_end.append(abs(new.end - end))
        errors.uniform.append(abs(guess[0] - start))
        errors.line_sure += sureness([new])
        if not line.words:
            continue
        if len(new.words) != len(line.words):
            errors.skipped_lines += 1
            continue
        starts = [word.start for word in line.words]
        errors.uniform_words += [abs(g - at) for g, at in zip(guess, starts, strict=True)]
        errors.word_start += [abs(w.start - at) for w, at in zip(new.words, starts, strict=True)]
        errors.word_sure += sureness(new.words)


def sureness(parts: Sequence[Line] | Sequence[Word]) -> list[float]:
    """Confidences of those that have one."""
    return [part.confidence for part in parts if part.confidence is not None]


def uniform(song: Song, seconds: float) -> list[list[float]]:
    """Start of every word if every syllable of the song were equally long."""
    counts = [
        [max(1, len(lyrics.syllables(unit, song.language))) for unit in phones.units(line.text)]
        for line in song.lines
    ]
    total, at, starts = sum(map(sum, counts)), 0, []
    for line in counts:
        before = [at + sum(line[:word]) for word in range(len(line))]
        starts.append([syllables * seconds / total for syllables in before] or [0.0])
        at += sum(line)
    return starts


def show(errors: Errors, songs: int, options: argparse.Namespace) -> None:
    speed = errors.seconds / errors.cpu_seconds
    print(f"{songs} songs, {errors.seconds:.0f} s of sound; {speed:.0f} s a CPU second")
    if options.wrong:
        for name, sure in (("line", errors.line_sure), ("word", errors.word_sure)):
            shares = " ".join(f"{share:.2f}" for share in np.percentile(sure, [10, 50, 90]))
            print(f"wrong lyrics, {name} confidence: {shares} (10 %, median, 90 %)")
        return
    print("| error in seconds | n | median | 90 % | within 0.2 | 0.5 | 1.0 |")
    print("|---|---|---|---|---|---|---|")
    rows = {
        "line start": errors.line_start,
        "line end": errors.line_end,
        "word start": errors.word_start,
        "uniform: line start": errors.uniform,
        "uniform: word start": errors.uniform_words,
    }
    for name, row in rows.items():
        if row:
            error_N = np.array(row)
            within = [f"{100 * (error_N <= limit).mean():.1f} %" for limit in (0.2, 0.5, 1.0)]
            high = f"{np.percentile(error_N, 90):.3f}"
            cells = (name, str(len(row)), f"{np.median(error_N):.3f}", high, *within)
            print(f"| {' | '.join(cells)} |")
    if errors.lost_lines or errors.skipped_lines:
        lost, skipped = errors.lost_lines, errors.skipped_lines
        print(f"{lost} lines not placed, {skipped} with other words than the truth's")
    for name, sure, row, limit in (
        ("lines", errors.line_sure, errors.line_start, confidence.LINE_SECONDS),
        ("words", errors.word_sure, errors.word_start, confidence.WORD_SECONDS),
    ):
        if sure and len(sure) == len(row):
            calibration(name, np.array(sure), np.array(row) <= limit)


def calibration(name: str, sure_N: np.ndarray, right_N: np.ndarray) -> None:
    """A reliability table, the mean gap between confidence and share right, the Brier figure."""
    gap = 0.0
    print(f"| {name} said to be sure | n | mean said | right |\n|---|---|---|---|")
    for low in np.arange(0.0, 1.0, 0.2):
        inside = (sure_N >= low) & (sure_N < low + 0.2 + (low > 0.7))
        if inside.any():
            sure, right = sure_N[inside].mean(), right_N[inside].mean()
            gap += inside.mean() * abs(sure - right)
            print(f"| {low:.1f} to {low + 0.2:.1f} | {inside.sum()} | {sure:.2f} | {right:.2f} |")
    brier, base = ((sure_N - right_N) ** 2).mean(), right_N.mean()
    constant, percent = base * (1 - base), 100 * base
    print(f"ECE {gap:.3f}, Brier {brier:.3f} (constant: {constant:.3f}), right {percent:.1f} %")


def fit(songs: Sequence[Song], settings: step.Settings) -> None:
    """New weights of both grains.

    Every fourth song is heard alone, the others under a band 12 dB softer to 12 dB louder than the
    voice, their own where they have a stem of it.
    """
    rng = np.random.default_rng(0)
    seen: dict[str, list[np.ndarray]] = {"words": [], "lines": []}
    right: dict[str, list[np.ndarray]] = {"words": [], "lines": []}
    for number, song in enumerate(songs):
        vocals = sound_of(song, "vocals")
        loud = 0.0 if number % 4 == 0 else 10 ** (rng.uniform(-12, 12) / 20)
        mixed = (vocals.mono() + loud * under(song, vocals, rng))[None].astype(np.float32)
        ear = placing.Singing(hearing.hear(Sound(mixed, vocals.sample_rate)))
        for lines in texts(song, songs[(number + 1) % len(songs)], rng):
            units = [phones.units(line.text) for line in lines]
            aligned = ear.place(units, song.language, 0.0, vocals.seconds)
            if aligned is None:
                continue
            of_words = [start for line in lines for start in word_truth(line)]
            of_lines = [word_truth(line)[0] for line in lines]
            for name, grain, true, within in (
                ("words", aligned.words, of_words, confidence.WORD_SECONDS),
                ("lines", aligned.lines, of_lines, confidence.LINE_SECONDS),
            ):
                starts = grain.start_N if settings.starts == "sound" else grain.vowel_N
                seen[name].append(grain.seen_NX)
                right[name].append(np.abs(starts - np.array(true)) <= within)
    for name in ("words", "lines"):
        inputs, hits = np.concatenate(seen[name]), np.concatenate(right[name])
        shipped = confidence.WORD_WEIGHTS if name == "words" else confidence.LINE_WEIGHTS
        calibration(f"{name} (as shipped)", confidence.sure(inputs, shipped), hits)
        weights = confidence.fit(inputs, hits)
        print(f"{name}: {weights}   ({', '.join(('constant', *confidence.SEEN))})")
        calibration(f"{name} (fitted)", confidence.sure(inputs, weights), hits)


def under(song: Song, vocals: Sound, rng: np.random.Generator) -> np.ndarray:
    """A band as loud as the voice: the song's, else one of those that the network learnt with."""
    size = vocals.wave_CW.shape[1]
    if "accompaniment" in song.tracks:
        band = sound_of(song, "accompaniment").mono()
    else:
        band = soxr.resample(aligner_bands.band(rng), hearing.RATE, vocals.sample_rate)
    band = np.resize(band, size)
    gain = np.sqrt((vocals.wave_CW**2).mean() / ((band**2).mean() + 1e-12))
    return band * gain.astype(np.float32)


def texts(song: Song, other: Song, rng: np.random.Generator) -> Iterator[list[Line]]:
    """Lyrics as people send them: right, with lines left out, with lines that nobody sings, and
    another song's."""
    lines = [line for line in song.lines if len(phones.units(line.text)) == len(line.words)]
    strange = [Line(line.text) for line in other.lines]
    if lines:
        yield lines
        yield [line for line in lines if rng.random() > 0.35] or lines[:1]
        mixed: list[Line] = []
        for line in lines:
            unsung = [strange[rng.integers(len(strange))]] if rng.random() < 0.3 else []
            mixed += [line, *unsung]
        yield mixed
    yield strange


def word_truth(line: Line) -> list[float]:
    """Where each unit starts; infinity for a line that is not sung."""
    return [word.start for word in line.words] or [np.inf] * len(phones.units(line.text))


if __name__ == "__main__":
    main()
