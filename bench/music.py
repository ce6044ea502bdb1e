"""Notes, pitch, tempo, beats, key and range that the steps `notes` and `music` find, and the truth.

    python bench/music.py --songs MANIFEST [--count 200] [--hear voice mix] [--seconds 60] [--peers]

The songs' notes and facts are taken away, the steps run, and what they find is compared with what
was taken away. Heard is the voice alone (`voice`: the vocals stem, or the recording where there is
no stem) or the recording as it is (`mix`).

    notes     F of notes by onset (within 50 and 100 ms) and pitch (within 50 cents), and with ends
              too (within 20 % of the length or 50 ms), as mir_eval.transcription defines them;
              found with the given word times, with word times that are off by up to 0.1 and 0.2 s
              as an aligner's are, and without words. "kept" are the lines whose notes were trusted;
              those left out count as missed. Calibration: right notes by their line's confidence.
    pitch     raw pitch accuracy: frames of given notes where the tracker is within 50 cents.
              Consonants and slides lie inside notes, so no tracker gets all; "middles" looks only
              at 30 to 80 % of each note.
    tempo     within 4 %; the same with its double, triple, half and third allowed.
    beats     F within 70 ms (mir_eval.beat).
    key       exactly, and MIREX-weighted (fifth 0.5, relative 0.3, parallel 0.2).
    range     lowest and highest key, each within a semitone; of the voice alone.

With --peers the same rows for librosa's beat tracker and pYIN, and for WORLD's DIO (pyworld), where
they are installed. Speed is audio seconds per second of one core, of the step alone. Needs `pip
install mir_eval`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import soundfile
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from distill.curation.steps import Item, Sound, music, notes
from distill.curation.steps import _melody as melody
from distill.curation.steps import _pitch as pitch
from distill.songs import Line, Note, Song, Word, read_manifest

try:
    import mir_eval
except ImportError:
    sys.exit("bench: mir_eval is not installed; pip install mir_eval")

OFF_SECONDS = (0.0, 0.1, 0.2)
OCTAVES = (1, 2, 3, 1 / 2, 1 / 3)
Figures = dict[str, list[float]]  # a number of every song, by the name of the figure
Trust = list[tuple[float, float]]  # confidence, share of right notes: of every line
Array = NDArray[np.floating]
Tracker = Callable[[], Array]  # pitch as MIDI numbers, frame by frame, NaN where unvoiced
Result = TypeVar("Result")


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Notes, pitch, tempo, key and range against their truth."
    )
    parser.add_argument("--songs", required=True, help="a manifest of songs with notes or facts")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--hear", nargs="+", choices=("voice", "mix"), default=("voice", "mix"))
    parser.add_argument("--seconds", type=float, help="of each song; default: all of it")
    parser.add_argument("--peers", action="store_true")
    options = parser.parse_args()
    songs, count = read_manifest(options.songs), options.count
    if len(songs) > count:
        songs = [songs[number * len(songs) // count] for number in range(count)]
    for how in options.hear:
        figures: Figures = defaultdict(list)
        trust: Trust = []
        for song in songs:
            sound = sound_of(song, how, options.seconds)
            if sound is not None:
                measure(cut(song, sound.seconds), sound, how, figures, trust, options.peers)
        show(how, figures, trust)
    return 0


def sound_of(song: Song, how: str, seconds: float | None) -> Sound | None:
    """The sound of a song; None for the mix of a song without accompaniment."""
    if how == "mix" and song.accompaniment is None:
        return None
    path = song.audio if how == "mix" else song.vocals or song.audio
    if path is None:
        return None
    rate = soundfile.info(path).samplerate
    frames = -1 if seconds is None else round(seconds * rate)
    wave_WC, rate = soundfile.read(path, frames, dtype="float32", always_2d=True)
    return Sound(np.ascontiguousarray(wave_WC.T), rate)


def cut(song: Song, seconds: float) -> Song:
    """Without the lines that lie outside of the sound."""
    sections = tuple(
        replace(section, lines=tuple(line for line in section.lines if (line.end or 0) <= seconds))
        for section in song.sections
    )
    return replace(song, sections=sections)


def measure(
    song: Song, sound: Sound, how: str, figures: Figures, trust: Trust, peers: bool
) -> None:
    """All figures of one song."""
    track = "vocals" if how == "voice" else "audio"
    if any(line.notes for line in song.lines):
        of_notes(song, Item(song, {track: sound}), how, figures, trust)
        of_pitch(song, sound, figures, peers)
    of_music(song, Item(replace(song, facts=(), sections=()), {track: sound}), figures, peers)


def clocked(figures: Figures, name: str, seconds: float, run: Callable[[], Result]) -> Result:
    before = time.process_time()
    result = run()
    figures[f"clock, {name}"].append(time.process_time() - before)
    figures[f"length, {name}"].append(seconds)
    return result


# --- notes ----------------------------------------------------------------------------------------
def of_notes(song: Song, item: Item, how: str, figures: Figures, trust: Trust) -> None:
    sound = item.voice
    assert sound is not None
    true = [note for line in song.lines for note in line.notes if note.midi is not None]
    generator = np.random.default_rng(len(true))
    least = notes.Settings().least_confidence * (notes.MIX_FACTOR if how == "mix" else 1)
    step = notes.Settings(on_mix=True, least_confidence=0.0)
    for off in OFF_SECONDS:
        bare = [
            replace(line, notes=(), words=moved(line.words, off, generator)) if line.notes else line
            for line in song.lines
        ]
        bare_item = replace(item, song=with_lines(song, bare))
        curated = clocked(figures, "notes", sound.seconds, partial(step.curate, bare_item)).song
        fact = curated.fact("notes_confidence")
        sures = fact.value if fact is not None else [None] * len(song.lines)
        guesses = [
            (guess, 0.0 if sure is None else sure, line)
            for guess, sure, line in zip(curated.lines, sures, song.lines, strict=True)
            if line.notes
        ]
        name = f"notes, words off by {off:g} s"
        trusted = [note for guess, sure, _ in guesses if sure >= least for note in guess.notes]
        of_transcription(figures, name, true, trusted)
        figures[f"{name}, kept"].append(float(np.mean([sure >= least for _, sure, _ in guesses])))
        if off:
            trust += [(sure, right(guess, line)) for guess, sure, line in guesses if guess.notes]
    blind = melody.transcribe(melody.listen(sound))
    rows = [Note(melody.seconds(note.first), melody.seconds(note.stop), note.key) for note in blind]
    of_transcription(figures, "notes, without words", true, rows)


def with_lines(song: Song, lines: Sequence[Line]) -> Song:
    rest = iter(lines)
    sections = [
        replace(section, lines=tuple(next(rest) for _ in section.lines))
        for section in song.sections
    ]
    return replace(song, sections=tuple(sections))


def moved(words: Sequence[Word], off: float, generator: np.random.Generator) -> tuple[Word, ...]:
    """Words whose starts and ends are off by up to `off` seconds, in order still."""
    off_words: list[Word] = []
    for word in words:
        start, end = (float(at + generator.uniform(-off, off)) for at in (word.start, word.end))
        start = max(start, off_words[-1].start + 0.05 if off_words else 0.0)
        off_words.append(replace(word, start=start, end=max(end, start + 0.05)))
    return tuple(off_words)


def right(guess: Line, true: Line) -> float:
    """The share of syllables whose onset is within 0.1 s and whose key is right."""
    guessed, sung = ([note for note in line.notes if note.text] for line in (guess, true))
    pairs = zip(guessed, sung, strict=False)
    hits = [abs(a.start - b.start) <= 0.1 and a.midi == b.midi for a, b in pairs]
    return float(np.mean(hits)) if hits else 0.0


def spans(rows: Sequence[Note]) -> tuple[Array, Array]:
    """([N, 2] start and end in seconds, [N] Hz), as mir_eval wants notes."""
    times_N2 = np.array([(note.start, note.end) for note in rows]).reshape(-1, 2)
    return times_N2, np.array([440 * 2 ** (((note.midi or 0) - 69) / 12) for note in rows])


def of_transcription(
    figures: Figures, name: str, true: Sequence[Note], guessed: Sequence[Note]
) -> None:
    for label, onset, offset in (
        ("F 50 ms", 0.05, None),
        ("F 100 ms", 0.1, None),
        ("F with ends", 0.05, 0.2),
    ):
        f = 0.0
        if guessed:
            f = mir_eval.transcription.precision_recall_f1_overlap(
                *spans(true), *spans(guessed), onset_tolerance=onset, offset_ratio=offset
            )[2]
        figures[f"{name}, {label}"].append(f)


# --- pitch ----------------------------------------------------------------------------------------
def of_pitch(song: Song, sound: Sound, figures: Figures, peers: bool) -> None:
    wave_W = pitch.at_rate(sound.mono(), sound.sample_rate)
    trackers: dict[str, Tracker | None] = {"ours": lambda: pitch.track(wave_W).midi_F}
    if peers:
        trackers |= {"DIO": dio(wave_W), "pYIN": pyin(wave_W)}
    sung = [note for line in song.lines for note in line.notes if note.midi is not None]
    for name, run in trackers.items():
        if run is None:
            continue
        midi_F = clocked(figures, f"pitch, {name}", sound.seconds, run)
        for label, part in (("", (0.0, 1.0)), (" middles", (0.3, 0.8))):
            true_F = np.full(len(midi_F), np.nan)
            for note in sung:
                times = [note.start + share * (note.end - note.start) for share in part]
                first, last = (round(time / pitch.HOP_SECONDS) for time in times)
                true_F[first:last] = note.midi
            inside_F = ~np.isnan(true_F)
            hit_F = np.abs(np.nan_to_num(midi_F, nan=-99.0) - true_F)[inside_F] <= 0.5
            figures[f"pitch{label}, {name}"].append(float(hit_F.mean()))


def dio(wave_W: Array) -> Tracker | None:
    """WORLD's; None where it is not installed."""
    try:
        import pyworld
    except ImportError:
        return None

    def run() -> Array:
        wave = wave_W.astype(np.float64)
        span: dict[str, Any] = {
            "f0_floor": pitch.LOWEST_HZ,
            "f0_ceil": pitch.HIGHEST_HZ,
            "frame_period": 1000 * pitch.HOP_SECONDS,
        }
        hertz_F, at_F = pyworld.dio(wave, pitch.RATE, **span)
        return midi(pyworld.stonemask(wave, hertz_F, at_F, pitch.RATE))

    return run


def pyin(wave_W: Array) -> Tracker | None:
    """librosa's; None where it is not installed."""
    try:
        import librosa
    except ImportError:
        return None
    span: dict[str, Any] = {
        "fmin": pitch.LOWEST_HZ,
        "fmax": pitch.HIGHEST_HZ,
        "hop_length": pitch.HOP,
        "frame_length": 1024,
    }
    return lambda: midi(np.nan_to_num(librosa.pyin(wave_W, sr=pitch.RATE, **span)[0]))


def midi(hertz_F: Array) -> Array:
    return np.where(hertz_F > 0, 69 + 12 * np.log2(np.maximum(hertz_F, 1) / 440), np.nan)


# --- key, tempo, beats, range ---------------------------------------------------------------------
def of_music(song: Song, item: Item, figures: Figures, peers: bool) -> None:
    sound = item.voice
    assert sound is not None
    curated = clocked(figures, "music", sound.seconds, lambda: music.Settings().curate(item)).song
    guess = {fact.name: fact.value for fact in curated.facts}
    true = {fact.name: fact.value for fact in song.facts}
    true.setdefault("beats_seconds", true.get("beats"))  # the songbook's first name for them
    if "key" in true:
        key = str(guess.get("key", "X"))
        figures["key, exact"].append(float(key == true["key"]))
        figures["key, weighted"].append(mir_eval.key.weighted_score(str(true["key"]), key))
    if "vocal_range_midi" in true and "vocals" in item.tracks:
        for end, name in ((0, "lowest"), (1, "highest")):
            off = abs(guess.get("vocal_range_midi", (0, 0))[end] - true["vocal_range_midi"][end])
            figures[f"range, {name} within 1"].append(float(off <= 1))
    if "tempo_bpm" in true:
        of_tempo(figures, "", true, guess.get("tempo_bpm", 0.0), guess.get("beats_seconds", []))
        if peers and (other := librosa_beats(sound, figures)):
            of_tempo(figures, ", librosa", true, *other)


def of_tempo(
    figures: Figures, who: str, true: dict[str, Any], bpm: float, beats: Sequence[float]
) -> None:
    ratio = bpm / true["tempo_bpm"]
    octave = any(abs(ratio * factor - 1) <= 0.04 for factor in OCTAVES)
    figures[f"tempo{who}, within 4 %"].append(float(abs(ratio - 1) <= 0.04))
    figures[f"tempo{who}, or an octave"].append(float(octave))
    if true["beats_seconds"]:
        # mir_eval leaves out the first 5 seconds
        true_N, beats_N = (
            np.array([at for at in row if at >= 5.0]) for row in (true["beats_seconds"], beats)
        )
        f = mir_eval.beat.f_measure(true_N, beats_N) if len(beats_N) else 0.0
        figures[f"beats{who}, F"].append(f)


def librosa_beats(sound: Sound, figures: Figures) -> tuple[float, Sequence[float]] | None:
    try:
        import librosa
    except ImportError:
        return None

    def run() -> Any:
        wave_W = librosa.resample(sound.mono(), orig_sr=sound.sample_rate, target_sr=22_050)
        return librosa.beat.beat_track(y=wave_W, sr=22_050, units="time")

    bpm, beats = clocked(figures, "music, librosa's beats alone", sound.seconds, run)
    return float(np.atleast_1d(bpm)[0]), [float(at) for at in beats]


# --- the table ------------------------------------------------------------------------------------
def show(how: str, figures: Figures, trust: Trust) -> None:
    lengths = figures.get("length, music", [])
    print(f"\nheard: {how}; {len(lengths)} songs, {sum(lengths) / 60:.0f} minutes")
    for name, values in figures.items():
        if not name.startswith(("clock", "length")):
            mean, n = float(np.mean(values)), len(values)
            half = 196 * float(np.std(values)) / max(1, n) ** 0.5
            print(f"  {name:42} {100 * mean:6.1f} %   +- {half:3.1f}   ({n} songs)")
    for edge in (0.0, 0.2, 0.4, 0.6, 0.8):
        inside = [share for sure, share in trust if edge <= sure < edge + 0.2 + (edge == 0.8)]
        if inside:
            percent, between = 100 * np.mean(inside), f"{edge:.1f} to {edge + 0.2:.1f}"
            print(
                f"  lines with confidence {between}: {percent:5.1f} % right ({len(inside)} lines)"
            )
    for name in [name.removeprefix("clock, ") for name in figures if name.startswith("clock")]:
        speed = sum(figures[f"length, {name}"]) / max(1e-9, sum(figures[f"clock, {name}"]))
        print(f"  speed, {name:36} {speed:6.0f} x real time")


if __name__ == "__main__":
    sys.exit(main())
