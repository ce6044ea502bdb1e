"""How well lyrics are placed, and whether the aligner knows it.

    python bench/alignment.py --songs MANIFEST [--count 200] [--track vocals|audio] [--wrong]
    python bench/alignment.py --folder FOLDER          # NAME.mp3 (wav, flac, ogg) + NAME.lines.csv (+ NAME.words.csv)
    python bench/alignment.py --songs MANIFEST --fit   # the weights of distill/curation/_alignment/confidence.py

All times are taken away and looked for anew with the offline method. A line's truth is its first
word's start and its last word's end. Errors are in seconds, absolute. `uniform` spreads the
syllables evenly over the song: what knowing nothing gives. Generated songs count a word from its
first vowel, people from its first sound: `--starts`. `--wrong` gives each song the next one's
lyrics: all confidences should be low. Calibration: of the words said to be sure to between 0.6 and
0.8, 60 to 80 % should be right (0.2 s; lines 0.3 s); ECE is the mean gap, Brier the mean squared
one (a constant guess at the base rate scores share * (1 - share)).
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Iterator, Sequence
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
class Found:
    """Errors (seconds) and confidences over all songs, and what confidences were made from."""

    line_start: list[float] = field(default_factory=list)
    line_end: list[float] = field(default_factory=list)
    word_start: list[float] = field(default_factory=list)
    uniform: list[float] = field(default_factory=list)
    uniform_words: list[float] = field(default_factory=list)
    line_sure: list[float] = field(default_factory=list)
    word_sure: list[float] = field(default_factory=list)
    line_seen: list[np.ndarray] = field(default_factory=list)
    word_seen: list[np.ndarray] = field(default_factory=list)
    skipped_lines: int = 0
    lost_lines: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--songs", type=Path, nargs="+")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument(
        "--skip", type=int, default=0, help="leave out the first songs (those fitted on)"
    )
    parser.add_argument("--track", choices=("vocals", "audio"), default="vocals")
    parser.add_argument("--starts", choices=("sound", "vowel"))
    parser.add_argument("--language", default="es", help="of --folder")
    parser.add_argument(
        "--inside", action="store_true", help="keep line times, look for words only"
    )
    parser.add_argument("--wrong", action="store_true")
    parser.add_argument("--fit", action="store_true")
    options = parser.parse_args(arguments)
    if (options.songs is None) == (options.folder is None):
        parser.error("give --songs MANIFEST or --folder FOLDER")
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
    found = Found()
    for number, song in enumerate(songs):
        other = songs[(number + 1) % len(songs)] if options.wrong else None
        measure(song, settings, options, found, other)
    show(found, len(songs), options)


def timed_folder(folder: Path, language: str) -> Iterator[Song]:
    """Songs as JamendoLyrics has them: start_time,end_time,lyrics_line and
    word_start,word_end,line_end."""
    for lines_csv in sorted(folder.glob("*.lines.csv")):
        name = lines_csv.name.removesuffix(".lines.csv")
        recording = next(
            (p for s in ("mp3", "wav", "flac", "ogg") if (p := folder / f"{name}.{s}").is_file()),
            None,
        )
        if recording is None:
            continue
        rows = list(csv.DictReader(lines_csv.open(encoding="utf-8")))
        lines = [Line(r["lyrics_line"], float(r["start_time"]), float(r["end_time"])) for r in rows]
        words_csv = folder / f"{name}.words.csv"
        if words_csv.is_file():
            spans = [
                (float(r["word_start"]), float(r["word_end"]))
                for r in csv.DictReader(words_csv.open())
            ]
            counts = [len(phones.units(line.text)) for line in lines]
            if sum(counts) == len(spans):
                rest = iter(spans)
                lines = [
                    replace(
                        line, words=tuple(Word(u, *next(rest)) for u in phones.units(line.text))
                    )
                    for line in lines
                ]
        yield Song(name, (Section("verse", tuple(lines)),), language=language, audio=str(recording))


def sound_of(song: Song, track: str) -> Sound:
    file = song.tracks.get(track) or song.tracks["audio"]
    wave_WC, rate = soundfile.read(file, dtype="float32", always_2d=True)
    return Sound(np.ascontiguousarray(wave_WC.T), rate)


def without_times(song: Song) -> Song:
    sections = tuple(
        Section(s.tag, tuple(Line(line.text) for line in s.lines)) for s in song.sections
    )
    return replace(song, sections=sections)


def line_times_only(song: Song) -> Song:
    def bare(line: Line) -> Line:
        start, end = truth(line)
        return Line(line.text, start, end)

    return replace(
        song, sections=tuple(Section(s.tag, tuple(map(bare, s.lines))) for s in song.sections)
    )


def truth(line: Line) -> tuple[float, float]:
    if line.words:
        return line.words[0].start, line.words[-1].end
    return float(line.start or 0.0), float(line.end or 0.0)


def measure(
    song: Song,
    settings: step.Settings,
    options: argparse.Namespace,
    found: Found,
    other: Song | None,
) -> None:
    sound = sound_of(song, options.track)
    bare = line_times_only(song) if options.inside else without_times(other or song)
    clock = time.process_time()
    placed = settings.curate(Item(bare, {"audio": sound})).song
    found.cpu_seconds += time.process_time() - clock
    found.seconds += sound.seconds
    if other:
        found.line_sure += [line.confidence for line in placed.lines if line.confidence is not None]
        found.word_sure += [
            w.confidence for line in placed.lines for w in line.words if w.confidence is not None
        ]
        return
    evenly = uniform(song, sound.seconds)
    for line, new, guess in zip(song.lines, placed.lines, evenly, strict=True):
        start, end = truth(line)
        if new.start is None or new.end is None:
            found.lost_lines += 1
            continue
        found.line_start.append(abs(new.start - start))
        found.line_end.append(abs(new.end - end))
        found.uniform.append(abs(guess[0] - start))
        if new.confidence is not None:
            found.line_sure.append(new.confidence)
        if not line.words:
            continue
        if len(new.words) != len(line.words):
            found.skipped_lines += 1
            continue
        found.uniform_words += [abs(g - w.start) for g, w in zip(guess, line.words, strict=True)]
        found.word_start += [
            abs(n.start - w.start) for n, w in zip(new.words, line.words, strict=True)
        ]
        found.word_sure += [w.confidence for w in new.words if w.confidence is not None]


def uniform(song: Song, seconds: float) -> list[list[float]]:
    """Start of every word if every syllable of the song were equally long."""
    counts = [
        [max(1, len(lyrics.syllables(unit, song.language))) for unit in phones.units(line.text)]
        for line in song.lines
    ]
    total, at, out = sum(map(sum, counts)), 0, []
    for line in counts:
        out.append(
            [(at + sum(line[:place])) * seconds / total for place in range(len(line))] or [0.0]
        )
        at += sum(line)
    return out


def show(found: Found, songs: int, options: argparse.Namespace) -> None:
    print(
        f"{songs} songs, {found.seconds:.0f} s of sound; {found.seconds / found.cpu_seconds:.0f} "
        "s a CPU second"
    )
    if options.wrong:
        for name, sure in (("line", found.line_sure), ("word", found.word_sure)):
            low, mid, high = np.percentile(sure, [10, 50, 90])
            print(
                f"wrong lyrics, {name} confidence: {low:.2f} {mid:.2f} {high:.2f} (10 %, median, "
                "90 %)"
            )
        return
    print(
        "| error in seconds | n | median | 90 % | within 0.2 | 0.5 | 1.0 "
        "|\n|---|---|---|---|---|---|---|"
    )
    rows = {
        "line start": found.line_start,
        "line end": found.line_end,
        "word start": found.word_start,
        "uniform: line start": found.uniform,
        "uniform: word start": found.uniform_words,
    }
    for name, errors in rows.items():
        if errors:
            error = np.array(errors)
            shares = " | ".join(
                f"{100 * (error <= limit).mean():.1f} %" for limit in (0.2, 0.5, 1.0)
            )
            print(
                f"| {name} | {len(error)} | {np.median(error):.3f} | "
                f"{np.percentile(error, 90):.3f} | {shares} |"
            )
    if found.lost_lines or found.skipped_lines:
        print(
            f"{found.lost_lines} lines not placed, {found.skipped_lines} with other words than "
            "the truth's"
        )
    for name, sure, errors, limit in (
        ("lines", found.line_sure, found.line_start, confidence.LINE_SECONDS),
        ("words", found.word_sure, found.word_start, confidence.WORD_SECONDS),
    ):
        if sure and len(sure) == len(errors):
            calibration(name, np.array(sure), np.array(errors) <= limit)


def calibration(name: str, sure_N: np.ndarray, right_N: np.ndarray) -> None:
    """A reliability table, the mean gap between said and seen, and the Brier score."""
    gap = 0.0
    print(f"| {name} said to be sure | n | mean said | right |\n|---|---|---|---|")
    for low in np.arange(0.0, 1.0, 0.2):
        inside = (sure_N >= low) & (sure_N < low + 0.2 + (low > 0.7))
        if inside.any():
            said, right = sure_N[inside].mean(), right_N[inside].mean()
            gap += inside.mean() * abs(said - right)
            print(f"| {low:.1f} to {low + 0.2:.1f} | {inside.sum()} | {said:.2f} | {right:.2f} |")
    brier, base = ((sure_N - right_N) ** 2).mean(), right_N.mean()
    print(
        f"ECE {gap:.3f}, Brier {brier:.3f} (constant: {base * (1 - base):.3f}), right "
        f"{100 * base:.1f} %"
    )


def fit(songs: Sequence[Song], settings: step.Settings) -> None:
    """Weights of both grains: every fourth song alone, the others under a band 12 dB softer to 12
    dB louder than the voice, their own where they have a stem of it."""
    rng = np.random.default_rng(0)
    seen: dict[str, list[np.ndarray]] = {"words": [], "lines": []}
    right: dict[str, list[np.ndarray]] = {"words": [], "lines": []}
    for number, song in enumerate(songs):
        vocals = sound_of(song, "vocals")
        loud = 0.0 if number % 4 == 0 else 10 ** (rng.uniform(-12, 12) / 20)
        mixed = (vocals.mono() + loud * under(song, vocals, rng))[None].astype(np.float32)
        ear = placing.Singing(hearing.hear(Sound(mixed, vocals.sample_rate)))
        for lines in texts(song, songs[(number + 1) % len(songs)], rng):
            found = ear.place(
                [phones.units(line.text) for line in lines], song.language, 0.0, vocals.seconds
            )
            if found is None:
                continue
            for name, placed, real, within in (
                (
                    "words",
                    found.words,
                    [t for line in lines for t in word_truth(line)],
                    confidence.WORD_SECONDS,
                ),
                (
                    "lines",
                    found.lines,
                    [word_truth(line)[0] for line in lines],
                    confidence.LINE_SECONDS,
                ),
            ):
                starts = placed.start_N if settings.starts == "sound" else placed.vowel_N
                seen[name].append(placed.seen_NX)
                right[name].append(np.abs(starts - np.array(real)) <= within)
    for name in ("words", "lines"):
        inputs, hits = np.concatenate(seen[name]), np.concatenate(right[name])
        shipped = confidence.WORD_WEIGHTS if name == "words" else confidence.LINE_WEIGHTS
        calibration(f"{name} (as shipped)", confidence.sure(inputs, shipped), hits)
        weights = confidence.fit(inputs, hits)
        print(f"{name}: {weights}   ({', '.join(('constant', *confidence.SEEN))})")
        calibration(f"{name} (fitted)", confidence.sure(inputs, weights), hits)


def under(song: Song, vocals: Sound, rng: np.random.Generator) -> np.ndarray:
    """A band as loud as the voice: the song's own, else one of those that the network was taught
    with."""
    size = vocals.wave_CW.shape[1]
    if "accompaniment" in song.tracks:
        band = sound_of(song, "accompaniment").mono()
    else:
        band = soxr.resample(aligner_bands.band(rng), hearing.RATE, vocals.sample_rate)
    band = np.resize(band, size)
    return band * np.sqrt((vocals.wave_CW**2).mean() / ((band**2).mean() + 1e-12)).astype(
        np.float32
    )


def texts(song: Song, other: Song, rng: np.random.Generator) -> Iterator[list[Line]]:
    """Lyrics as people send them: right, with lines left out, with lines that nobody sings, and
    another song's."""
    lines = [line for line in song.lines if len(phones.units(line.text)) == len(line.words)]
    strange = [Line(line.text) for line in other.lines]
    if lines:
        yield lines
        yield [line for line in lines if rng.random() > 0.35] or lines[:1]
        mixed = [
            (line, strange[rng.integers(len(strange))] if rng.random() < 0.3 else None)
            for line in lines
        ]
        yield [one for pair in mixed for one in pair if one is not None]
    yield strange


def word_truth(line: Line) -> list[float]:
    """Where each unit starts; infinity for a line that is not sung."""
    return [word.start for word in line.words] or [np.inf] * len(phones.units(line.text))


if __name__ == "__main__":
    main()
