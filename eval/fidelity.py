"""What a codec keeps of tune, words and spectrum after a round trip, with players to hear it.

    python eval/fidelity.py --songs MANIFEST [--codec CODEC] [--slots 1,2,4] [--judged 2]
                            [--lines N] [--track vocals]
    python eval/fidelity.py FILE [FILE ...] [the same]

MANIFEST: songs with known words and notes, as `python -m distill.sources.songbook --split held-out`
writes them. CODEC: a folder of an embedded codec, a kind, or a recipe's words (`"kind=dac
path=FOLDER"`). Whole songs go through the codec, then each line is heard by itself: notes in tune
and words by dictation and by forced choice (distill/measures; the latter of English lines) at the
`--judged` numbers of slots (those that the codec's settings take by themselves), before and after;
the likeness of both (eval/likeness.py) at every one of `--slots`. A FILE is cut into pieces of
10 s; as nobody knows its notes, its own pitch before is the measure. A codec that hears tracks
apart (`"kind=tracks codec.kind=embedded"`) is given every song's tracks; each line is heard in the
mix of what it gives and in each track alone. Intervals: 95 %, bootstrap over lines.

Writes OUT/report.html (players over spectrograms), report.md (the tables, also printed) and
report.json.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import fidelity_page
import likeness
import torch
from torch import Tensor

from distill import lyrics
from distill.audio import files as audio_files
from distill.audio import stems
from distill.audio.codec_format import CodecFormat
from distill.audio.safe_decode import promise
from distill.codecs import Codec, CodecSettings
from distill.config import settings
from distill.errors import DistillError, SettingsError, SongError
from distill.measures import Performance, _bootstrap, judge
from distill.measures.pitch import in_tune
from distill.singing.evaluate import Asked, lines_of, performance, spread
from distill.songs import Line, Song, read_manifest

VERSION = 1
PIECE_SECONDS = 10.0
SPEED_SECONDS, SPEED_RUNS = 20.0, 3
UNCODED = "uncoded"
ALL, MIX = "all", "mix"
LineReport = dict[str, Any]  # one of the lines of a row, as `judge` returns them


@dataclass(frozen=True)
class Chosen:
    """The codec that is asked about, as a recipe would name it."""

    codec: CodecSettings = settings.part("codecs")


@dataclass
class Heard:
    """One line or piece: its voice, its sound before and after by row, its likeness by slots.

    track: what of it is heard, "mix" or one of the codec's tracks; empty where the codec knows no
    tracks.
    """

    text: str
    voice: str
    track: str
    rows: dict[str, Performance] = field(default_factory=dict)
    likeness: dict[int, dict[str, tuple[float, float]]] = field(default_factory=dict)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 2 and a line on standard error where something is wrong with what was given."""
    options = _options(arguments)
    try:
        report, performances = make(options)
    except DistillError as error:
        print(f"fidelity: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    text = fidelity_page.markdown(report)
    (options.out / "report.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    (options.out / "report.md").write_text(text, encoding="utf-8")
    page = fidelity_page.page(report, performances, options.examples)
    (options.out / "report.html").write_text(page, encoding="utf-8")
    print(text)
    print(f"{options.out / 'report.html'}")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="eval/fidelity.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--songs", type=Path, metavar="MANIFEST")
    parser.add_argument("--codec", default="embedded")
    parser.add_argument("--slots", type=_numbers, help="likeness at these; default: at every one")
    parser.add_argument("--judged", type=_numbers, help="tune and words; default: the codec's own")
    parser.add_argument("--lines", type=int, default=160, help="evenly spread over every voice's")
    parser.add_argument("--track", default="audio", choices=["audio", "vocals", "accompaniment"])
    parser.add_argument("--processes", type=int, help="that judge; default: one a core")
    parser.add_argument("--examples", type=int, default=12, help="lines on the page")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "reports" / "fidelity")
    options = parser.parse_args(arguments)
    if bool(options.files) == bool(options.songs):
        parser.error("give files or --songs MANIFEST, one of both")
    if options.lines < 1 or options.examples < 0:
        parser.error("--lines is 1 or more, --examples 0 or more")
    return options


def _numbers(text: str) -> list[int]:
    numbers = sorted({int(part) for part in text.split(",")})
    if numbers[0] < 1:
        raise argparse.ArgumentTypeError("numbers of slots, as in 1,2,4")
    return numbers


def codec_settings(text: str) -> CodecSettings:
    """A codec's settings from a kind, a recipe's words, or the folder of an embedded codec.

    Raises SettingsError.
    """
    if text in settings.kinds("codecs"):
        given = settings.override({"codec": {}}, {"codec.kind": text})
    elif "=" in text:
        words = [word.split("=", 1) for word in text.split() if "=" in word]
        given = settings.override({"codec": {}}, {f"codec.{name}": value for name, value in words})
    else:
        given = {"codec": {"kind": "embedded", "path": text}}
    return settings.build(given, Chosen, "--codec").codec


def codecs(chosen: Any, wanted: Sequence[int] | None) -> dict[int, Codec]:
    """The codec at each wanted number of slots, by number; at every number where none is wanted.

    chosen: CodecSettings, a dataclass."""
    if "slots" not in {field.name for field in fields(chosen)}:
        own: int = chosen.format.slots
        if wanted not in (None, [own]):
            raise SettingsError(f"--slots: this codec has {own} and no fewer; leave it out")
        return {own: chosen.load()}
    numbers = wanted or range(1, replace(chosen, slots=None).format.slots + 1)
    codec = replace(chosen, slots=max(numbers)).load()
    return {slots: _cut(codec, slots) for slots in numbers}


def _cut(codec: Codec, slots: int) -> Codec:
    """The codec with its first slots alone, on the same weights, which are held only once."""
    fewer = object.__new__(type(codec))
    sizes = codec.format.slot_sizes[:slots]
    vars(fewer).update(vars(codec), format=replace(codec.format, slot_sizes=sizes))
    return fewer


# --- what is heard --------------------------------------------------------------------------------


def make(options: argparse.Namespace) -> tuple[dict[str, Any], dict[str, list[Performance]]]:
    """(report, performances by row) of everything asked for."""
    chosen = codec_settings(options.codec)
    judged = options.judged or [chosen.format.slots]
    by_slots = codecs(chosen, options.slots and sorted({*options.slots, *judged}))
    if missing := [slots for slots in judged if slots not in by_slots]:
        raise SettingsError(f"--judged {missing[0]}: this codec has 1 to {max(by_slots)} slots")
    if chosen.format.tracks and (options.files or options.track != "audio"):
        named = ", ".join(chosen.format.tracks)
        raise SettingsError(
            f"--codec: hears {named} apart; give --songs that have them, and no --track"
        )
    asked = _asked(options, chosen.format.tracks) if options.songs else _pieces(options.files)
    heard, codes, excerpt_CW = hear(asked, options.track, by_slots, judged)
    rows = {row: [line.rows[row] for line in heard] for row in heard[0].rows}
    judgeable = any(sung.notes or sung.words for sung in rows[UNCODED])
    format = by_slots[max(by_slots)].format
    words = [word for sung in rows[UNCODED] for word in sung.words]
    report: dict[str, Any] = {
        "version": VERSION,
        "codec": settings.plain(chosen) | {"kind": settings.kind_of(chosen)},
        "fingerprint": by_slots[max(by_slots)].fingerprint,
        "format": asdict(format),
        "songs": [file.name for file in options.files] or [options.songs.resolve().parent.name],
        "track": " + ".join(format.tracks) or options.track,
        "lines": len(heard),
        "judged": judged,
        "words": {"asked": len(words), "distinct": len(set(words))},
        "seconds": sum(sung.seconds for sung in rows[UNCODED]),
        "voice_of_line": [line.voice for line in heard],
        "track_of_line": [line.track for line in heard],
        **(judge(rows, UNCODED, options.processes) if judgeable else {"rows": {}, "paired": {}}),
        "likeness": likeness_by_voice(heard),
        "codebooks": likeness.codebook_use(codes, format.slot_sizes),
        "speed": [speed(by_slots[slots], excerpt_CW) for slots in judged],
        "rates": {slots: likeness.rates(codec.format) for slots, codec in by_slots.items()},
        "published": likeness.published(),
    }
    report["voices"] = shares_by_voice(report)
    return report, rows


def _asked(options: argparse.Namespace, tracks: Sequence[str]) -> list[Asked]:
    """Lines of every voice, as evenly as their number allows."""
    by_voice: dict[str, list[Asked]] = {}
    for each in lines_of(read_manifest(options.songs)):
        if not tracks and options.track not in each.song.tracks:
            raise SongError(
                f"song {each.song.id}: has no {options.track}; name a track that it has"
            )
        by_voice.setdefault(_voice(each.song), []).append(each)
    share = -(-options.lines // len(by_voice))
    return [each for lines in by_voice.values() for each in spread(lines, share)]


def _voice(song: Song) -> str:
    return song.voice.partition(",")[0] or "voice"


def _pieces(files: Sequence[Path]) -> list[Asked]:
    """Files in pieces of 10 s, each a line without words.

    A last piece of less than a second is left out.
    """
    pieces = []
    for file in files:
        song = Song(file.name, (), voice=file.stem, audio=str(file))
        seconds = audio_files.seconds(file)
        starts = [k * PIECE_SECONDS for k in range(int((seconds - 1) // PIECE_SECONDS) + 1)]
        for start in starts or [0.0]:
            end = min(start + PIECE_SECONDS, seconds)
            line = Line(f"{file.stem} at {start:.0f} s", 0.0, end - start)
            pieces.append(Asked(line, song, start, end))
    return pieces


def hear(
    asked: Sequence[Asked], track: str, by_slots: dict[int, Codec], judged: Sequence[int]
) -> tuple[list[Heard], list[Tensor], Tensor]:
    """Every line before and after; every song's codes_FS at most slots; an excerpt for `speed`."""
    format = by_slots[max(by_slots)].format
    by_files: dict[tuple[str, ...], list[Asked]] = {}
    for each in asked:
        files = stems.files(each.song, format) if format.tracks else (each.song.tracks[track],)
        by_files.setdefault(files, []).append(each)
    heard, all_codes = [], []
    excerpts: list[Tensor] = []
    for number, (files, lines) in enumerate(by_files.items(), 1):
        end = "\n" * (number == len(by_files))
        print(f"\r{number} of {len(by_files)} songs", end=end, file=sys.stderr)
        rate = max(promise(file).sample_rate for file in files)
        before_CW = stems.read(files, replace(format, sample_rate=rate))
        asked_CW = audio_files.resample(before_CW, rate, format.sample_rate)
        if sum(part.shape[1] for part in excerpts) < SPEED_SECONDS * format.sample_rate:
            excerpts.append(asked_CW)
        heard_here = [
            _line(each, name, track, part_CW, rate)
            for name, part_CW in _parts(before_CW, format).items()
            for each in lines
        ]
        for slots, codec in by_slots.items():
            codes_FS = codec.encode(asked_CW)
            after_CW = codec.decode(codes_FS, asked_CW.shape[1])
            if slots == max(by_slots):
                all_codes.append(codes_FS)
            row, parts = f"{slots} slots", _parts(after_CW, codec.format)
            for each, line in zip(lines * len(parts), heard_here, strict=True):
                of_line_CW, sung_on = parts[line.track], line.track or track
                line.rows[row] = _sung(each, sung_on, of_line_CW, format.sample_rate)
                line.likeness[slots] = _likeness(line, row, slots in judged)
                if slots not in judged:
                    del line.rows[row]
        heard += heard_here
    excerpt_CW = torch.cat(excerpts, 1)[:, : round(SPEED_SECONDS * format.sample_rate)]
    return heard, all_codes, excerpt_CW


def _parts(wave_CW: Tensor, format: CodecFormat) -> dict[str, Tensor]:
    """What is listened to: the sound as it is, or the tracks' mix and each of them, by name."""
    if not format.tracks:
        return {"": wave_CW}
    mix = {MIX: stems.mixed(wave_CW, format)} if len(format.tracks) > 1 else {}
    return mix | stems.apart(wave_CW, format)


def _line(each: Asked, name: str, track: str, wave_CW: Tensor, rate: int) -> Heard:
    voice = f"{name}: {_voice(each.song)}" if name else _voice(each.song)
    return Heard(each.line.text, voice, name, {UNCODED: _sung(each, name or track, wave_CW, rate)})


def _sung(each: Asked, track: str, wave_CW: Tensor, rate: int) -> Performance:
    """The line's part of a song's sound; its words if they are English; of a band neither words
    nor notes."""
    last = None if each.last is None else round(each.last * rate)
    line_CW = wave_CW[:, round(each.first * rate) : last]
    sung = performance(each.line, line_CW, rate, each.song.language)
    by_voice = track != "accompaniment"
    worded = by_voice and each.song.sections
    words = tuple(lyrics.words(each.line.text)) if worded else ()
    notes = sung.notes if by_voice else ()
    return Performance(sung.text, words, notes, sung.wave_W, rate, language=sung.language)


def _likeness(line: Heard, row: str, judged: bool) -> dict[str, tuple[float, float]]:
    """Every figure of likeness.py, (sum, count) each, at its own rate."""
    rate = line.rows[row].sample_rate
    speech = _pair(line, row, likeness.SPEECH_RATE)
    figures = {"mel": likeness.mel(*speech, likeness.SPEECH_RATE), "stoi": likeness.stoi(*speech)}
    if rate != likeness.SPEECH_RATE:
        figures["mel, whole"] = likeness.mel(*_pair(line, row, rate), rate)
    if likeness.has_pesq():
        figures["pesq"] = likeness.pesq(*speech)
    if judged and not line.rows[UNCODED].notes:
        figures["pitch"] = likeness.pitch(*speech, likeness.SPEECH_RATE)
    return figures


def _pair(line: Heard, row: str, rate: int) -> tuple[Tensor, Tensor]:
    """The line before and after at this sample rate, equally long."""
    before_W, after_W = (
        audio_files.resample(torch.from_numpy(sung.wave_W)[None], sung.sample_rate, rate)[0]
        for sung in (line.rows[UNCODED], line.rows[row])
    )
    samples = min(len(before_W), len(after_W))  # resampling may round up or down
    return before_W[:samples], after_W[:samples]


# --- figures --------------------------------------------------------------------------------------


def _line_numbers(voices: Sequence[str], tracks: Sequence[str]) -> dict[str, list[int]]:
    """Lines by voice, and before them all of a track where there is more than one voice."""

    def by_name(names: Sequence[str]) -> dict[str, list[int]]:
        return {
            name: [n for n, other in enumerate(names) if other == name]
            for name in dict.fromkeys(names)
        }

    by_track, by_voice = by_name([track or ALL for track in tracks]), by_name(voices)
    return (by_track if len(by_voice) > len(by_track) else {}) | by_voice


def likeness_by_voice(heard: Sequence[Heard]) -> dict[str, dict[int, dict[str, Any]]]:
    """voice -> slots -> figure -> its mean with the interval over lines, and how many lines it was
    taken from."""
    figures: dict[str, dict[int, dict[str, Any]]] = {}
    numbers = _line_numbers([line.voice for line in heard], [line.track for line in heard])
    for voice, lines in numbers.items():
        for slots in heard[0].likeness:
            for name in heard[0].likeness[slots]:
                pairs = [heard[n].likeness[slots].get(name, (0.0, 0.0)) for n in lines]
                sums, counts = zip(*pairs, strict=True)
                figure = asdict(_bootstrap.share(sums, counts)) if sum(counts) else None
                counted = figure and figure | {"lines": sum(count > 0 for count in counts)}
                figures.setdefault(voice, {}).setdefault(slots, {})[name] = counted
    return figures


def shares_by_voice(report: dict[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """voice -> row -> notes in tune before, after, their quotient, of those in tune before the
    share still in tune, and words wrong before, after and the difference, by both judges of words.

    None where nothing was counted.
    """
    if not report["rows"]:
        return {}
    before = report["rows"][UNCODED]["per_line"]
    shares: dict[str, dict[str, dict[str, Any]]] = {}
    for voice, lines in _line_numbers(report["voice_of_line"], report["track_of_line"]).items():
        for row in report["rows"].keys() - {UNCODED}:
            after = report["rows"][row]["per_line"]
            pairs = [(before[n], after[n]) for n in lines]
            shares.setdefault(voice, {})[row] = {
                "lines": len(lines),
                **_compared(pairs, "in_tune", _bootstrap.quotient),
                "still_in_tune": _share([_still(*pair) for pair in pairs]),
                **_compared(pairs, "word_error", _bootstrap.difference),
                **_compared(pairs, "dictation_error", _bootstrap.difference),
            }
    return shares


def _compared(
    pairs: Sequence[tuple[LineReport, LineReport]],
    figure: str,
    compare: Callable[..., _bootstrap.Interval | None],
) -> dict[str, Any]:
    sides = zip(*pairs, strict=True)
    old, new = ([line["figures"].get(figure, (0, 0)) for line in side] for side in sides)
    four = [[pair[part] for pair in side] for side in (new, old) for part in (0, 1)]
    compared = compare(*four) if sum(count for _, count in old) else None
    return {
        f"{figure}_before": _share(old),
        f"{figure}_after": _share(new),
        f"{figure}_{compare.__name__}": asdict(compared) if compared else None,
    }


def _share(pairs: Sequence[Sequence[float]]) -> dict[str, Any] | None:
    hits, counts = zip(*pairs, strict=True)
    return asdict(_bootstrap.share(hits, counts)) | {"count": sum(counts)} if sum(counts) else None


def _still(before: LineReport, after: LineReport) -> tuple[int, int]:
    """Notes in tune both before and after, and notes in tune before."""
    cents = zip(before["pitch"]["cents"], after["pitch"]["cents"], strict=True)
    kept = [in_tune(new) for old, new in cents if in_tune(old)]
    return sum(kept), len(kept)


def speed(codec: Codec, wave_CW: Tensor) -> dict[str, float]:
    """Seconds of sound a second on one thread, by the clock and by the processor's time.

    The median of three runs."""
    threads, seconds = torch.get_num_threads(), wave_CW.shape[1] / codec.format.sample_rate
    torch.set_num_threads(1)
    spent: dict[str, list[float]] = {}
    try:
        codes_FS = codec.encode(wave_CW)
        for _ in range(SPEED_RUNS):
            for name, work in (
                ("encode", lambda: codec.encode(wave_CW)),
                ("decode", lambda: codec.decode(codes_FS)),
            ):
                wall, processor = time.perf_counter(), time.process_time()
                work()
                spent.setdefault(f"{name}_processor", []).append(time.process_time() - processor)
                spent.setdefault(f"{name}_wall", []).append(time.perf_counter() - wall)
    finally:
        torch.set_num_threads(threads)
    medians = {name: seconds / sorted(times)[len(times) // 2] for name, times in spent.items()}
    return {"slots": codec.format.slots, "seconds": seconds, **medians}


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(main())
