"""Encoding a data set, beside the codec package's own loop; and memory against duration.

    python bench/encode.py [--files 6] [--seconds 30] [--threads 2] [--repeats 3]
                           [--shapes 16khz,44khz,embedded]
    python bench/encode.py --memory [--shapes embedded,16khz] [--durations 10,30,60,300,600]
                           [--svg bench/encode.svg]
    python bench/encode.py --tiny      # seconds: shows that it runs, and says nothing about speed

The same mono FLAC files (seeded: gliding tones, noise and pauses; at the model's own rate, so that
nobody resamples), the same thread count, the same run; each row in a process of its own, models
with DAC's published shapes and random weights:

    package: its loop      what `python -m dac encode` does: AudioSignal, DAC.compress in windows
                           of 5 s, .dac files
    package: model alone   the least that a user of it would write: AudioSignal, resample,
                           DAC.encode of the whole file
    ours, one process      distill.coded_songs on as many threads
    ours                   distill.coded_songs as it chooses: where it pays, a process of one thread
                           a core

`error` is the equality row: the share of codes that are not those of `model alone` (compress turns
every file to -16 LUFS first, so its codes are of another sound and nothing can be held against
them); above 0.5 %, which rounding does not explain, the script exits with 1. The floor is the
encoder's multiplications, counted, at the rate of one large product.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import soundfile
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from distill import coded_songs
from distill.runtime import torchaudio_standin

torchaudio_standin.install()
warnings.filterwarnings("ignore", category=FutureWarning)  # the package's weight_norm

from distill.audio import files as audio_files
from distill.codecs import Codec, embedded
from distill.codecs import dac as our_dac
from distill.songs import Song

MIB = 2**20
WINDOW_SECONDS = 5.0  # of the package's command
AT_16KHZ = {
    "sample_rate": 16_000, "encoder_rates": [2, 4, 5, 8], "decoder_rates": [8, 5, 4, 2],
}  # fmt: skip
AT_44KHZ = {
    "sample_rate": 44_100, "encoder_rates": [2, 4, 8, 8], "decoder_rates": [8, 8, 4, 2],
}  # fmt: skip
TINY = {"n_codebooks": 2, "encoder_dim": 4, "decoder_dim": 32, "codebook_size": 16}
SHAPES: dict[str, dict[str, Any]] = {  # what dac.DAC is made with
    "16khz": {**AT_16KHZ, "n_codebooks": 12},
    "44khz": {**AT_44KHZ, "n_codebooks": 9},
    "tiny": {**AT_16KHZ, **TINY},
    "embedded": {},
}
LOOP, ALONE, ONE, OURS = "package: its loop", "package: model alone", "ours, one process", "ours"
WRONG_SHARE = 0.005
MEMORY = ("seconds", "wave_mib", "encode_mib", "decode_mib")


@dataclass(frozen=True)
class Row:
    """One measurement, asked of a process of its own."""

    work: str
    shape: str
    folder: str  # holds audio/ and one folder of weights a shape
    threads: int
    repeats: int


class Result(TypedDict):
    """What a row measured; error: the share of codes that are not the package's."""

    seconds_of_audio: float
    seconds: list[float]  # of each run
    error: float | None


# --- what everybody gets --------------------------------------------------------------------------


def prepare(folder: Path, shapes: list[str], files: int, seconds: float) -> None:
    """FLAC files at each shape's own rate, and a model of each shape."""
    for shape in shapes:
        model(shape, folder)
        rate = load(shape, folder).format.sample_rate
        (folder / f"audio-{rate}").mkdir(exist_ok=True)
        soundfile.write(folder / f"warm-{rate}.flac", sound(1.0, rate, 0), rate)
        for number in range(files):
            wave_W = sound(seconds * (0.8 + 0.4 * number / max(1, files - 1)), rate, number)
            soundfile.write(folder / f"audio-{rate}" / f"{number}.flac", wave_W, rate)


def sound(seconds: float, rate: int, seed: int) -> np.ndarray:
    """Gliding tones with pauses over a little noise."""
    generator = np.random.default_rng(seed)
    clock_W = np.arange(round(seconds * rate)) / rate
    hertz_W = 200 * 2 ** (0.5 * np.sin(clock_W * generator.uniform(1, 3)))
    tones_W = sum(np.sin(2 * np.pi * np.cumsum(k * hertz_W) / rate) / k for k in range(1, 8))
    sung_W = 0.1 * tones_W * (np.sin(clock_W * 2) > -0.7)
    return (sung_W + 0.01 * generator.normal(size=len(clock_W))).astype("f4")


def package(shape: str) -> Any:
    """The package's own DAC of this shape, with seeded weights."""
    import dac

    torch.manual_seed(0)
    return dac.DAC(**SHAPES[shape]).eval()


def model(shape: str, folder: Path) -> None:
    """The same in the folder that distill.codecs.dac reads."""
    if SHAPES[shape]:
        our_dac.export(package(shape), folder / shape)


def load(shape: str, folder: Path) -> Codec:
    """Our codec of a shape; `embedded` is the one in the package."""
    if SHAPES[shape]:
        return our_dac.Settings(str(folder / shape)).load()
    return embedded.Settings().load()


# --- one row, in a process of its own -------------------------------------------------------------


def measure(row: Row) -> Result:
    """One row, in this process."""
    torch.set_num_threads(row.threads)
    folder = Path(row.folder)
    codec = load(row.shape, folder)
    theirs = package(row.shape) if SHAPES[row.shape] else None
    files = sorted((folder / f"audio-{codec.format.sample_rate}").glob("*.flac"))
    work: Callable[[list[Path], Path], list[Tensor] | None] = {
        LOOP: lambda files, out: package_loop(theirs, files, out),
        ALONE: lambda files, _: package_alone(theirs, files),
        ONE: lambda files, out: ours(codec, files, out, 0),
        OURS: lambda files, out: ours(codec, files, out, None),
    }[row.work]
    with tempfile.TemporaryDirectory(dir=folder) as out:
        # everybody's first call is slow
        work([folder / f"warm-{codec.format.sample_rate}.flac"], Path(out))
    seconds, codes = [], None
    for _ in range(row.repeats):
        with tempfile.TemporaryDirectory(dir=folder) as out:
            began = time.perf_counter()
            codes = work(files, Path(out))
            seconds.append(time.perf_counter() - began)
    error = None
    if codes is not None and row.work != ALONE and SHAPES[row.shape]:
        wanted = package_alone(theirs, files[:2])
        wrong = [(a != b).float().mean() for a, b in zip(codes, wanted, strict=False)]
        error = float(torch.stack(wrong).mean())
    return {
        "seconds_of_audio": sum(map(audio_files.seconds, files)),
        "seconds": seconds,
        "error": error,
    }


def package_loop(model: Any, files: list[Path], out: Path) -> None:
    """The loop of dac/utils/encode.py, without its progress bar."""
    from audiotools import AudioSignal

    with torch.inference_mode():
        for file in files:
            model.compress(AudioSignal(file), WINDOW_SECONDS).save(out / f"{file.stem}.dac")


def package_alone(model: Any, files: list[Path]) -> list[Tensor]:
    """codes_FS by the package's network, a whole file at once."""
    from audiotools import AudioSignal

    codes = []
    with torch.inference_mode():
        for file in files:
            signal = AudioSignal(file).resample(model.sample_rate)
            wave_BCW = model.preprocess(signal.audio_data, model.sample_rate)
            codes.append(model.encode(wave_BCW)[1][0].T)
    return codes


def ours(codec: Codec, files: list[Path], cache: Path, processes: int | None) -> list[Tensor]:
    """The data set through distill.coded_songs, into an empty cache."""
    os.environ["DISTILL_CACHE"] = str(cache)
    songs = [Song(file.stem, (), audio=str(file)) for file in files]
    return list(coded_songs.codes_of_all(songs, codec, processes))


# --- memory ---------------------------------------------------------------------------------------


def memory(shape: str, folder: Path, seconds: float, threads: int) -> dict[str, float]:
    """MiB at the peak of encode and decode above what was in use before, and of the wave itself."""
    torch.set_num_threads(threads)
    codec = load(shape, folder)
    rate = codec.format.sample_rate
    wave_CW = torch.from_numpy(sound(seconds, rate, 0))[None]
    codec.decode(codec.encode(wave_CW[:, :rate]))
    codes_FS, encode_mib = peak_above(lambda: codec.encode(wave_CW))
    _, decode_mib = peak_above(lambda: codec.decode(codes_FS))
    return {
        "seconds": seconds,
        "wave_mib": wave_CW.numel() * 4 / MIB,
        "encode_mib": encode_mib,
        "decode_mib": decode_mib,
    }


def peak_above(run: Callable[[], Tensor]) -> tuple[Tensor, float]:
    """What a run gives, and MiB at its peak above what was in use before (Linux with glibc)."""
    ctypes.CDLL(None).malloc_trim(0)  # what was freed before is not in use
    Path("/proc/self/clear_refs").write_text("5")  # the highest mark is where we stand
    before = _resident("VmRSS")
    result = run()
    return result, max(0.0, _resident("VmHWM") - before)


def _resident(name: str) -> float:
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(next(line for line in text.splitlines() if line.startswith(name)).split()[1]) / 1024


def svg(rows: dict[str, list[dict[str, float]]]) -> str:
    """Peak memory over duration, both axes from 0, a line for each shape and direction."""
    points = [
        (f"{shape}, {work}", [(of["seconds"], of[f"{work}_mib"]) for of in of_shape])
        for shape, of_shape in rows.items()
        for work in ("encode", "decode")
    ]
    right = max(x for _, line in points for x, _ in line)
    top = max(y for _, line in points for _, y in line) or 1.0
    drawn = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 300" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="640" height="300" fill="white"/>'
        '<path d="M50 20V260H470" fill="none" stroke="gray"/>',
    ]
    for number, (name, line) in enumerate(points):
        colour = f"hsl({360 * number // len(points)} 70% 40%)"
        way = " ".join(f"{50 + 420 * x / right:.1f},{260 - 240 * y / top:.1f}" for x, y in line)
        drawn.append(f'<polyline points="{way}" fill="none" stroke="{colour}" stroke-width="2"/>')
        drawn.append(f'<text x="480" y="{30 + 18 * number}" fill="{colour}">{name}</text>')
    drawn.append(f'<text x="50" y="14">MiB above what was in use; top {top:.0f}</text>')
    drawn.append(f'<text x="470" y="278" text-anchor="end">{right:g} s of sound</text></svg>')
    return "\n".join(drawn) + "\n"


# --- floor and tables -----------------------------------------------------------------------------


def floor(shape: str, folder: Path, threads: int) -> str:
    """The encoder's multiplications for a second of sound, and their time at the rate of a large
    product."""
    torch.set_num_threads(threads)
    codec, operations = our_dac.Settings(str(folder / shape)).load(), 0
    network = codec.model.encoder

    def count(layer: torch.nn.Conv1d, _: object, output: Tensor) -> None:
        nonlocal operations
        weights = layer.in_channels // layer.groups * layer.kernel_size[0]
        operations += 2 * output.numel() * weights

    convolutions = [layer for layer in network.modules() if isinstance(layer, torch.nn.Conv1d)]
    hooks = [layer.register_forward_hook(count) for layer in convolutions]
    frames = round(codec.format.frame_rate)
    with torch.inference_mode():
        network(torch.zeros(1, 1, frames * codec.hop))
    for hook in hooks:
        hook.remove()
    left, spent = torch.randn(1024, 1024), []
    for _ in range(5):
        began = time.perf_counter()
        left @ left
        spent.append(time.perf_counter() - began)
    rate, needed = 2 * 1024**3 / min(spent), operations * codec.format.frame_rate / frames
    window = package_window(codec.model)
    return (
        f"floor, {shape}: {needed / 1e9:.1f} G operations a second of sound, "
        f"{rate / 1e9:.0f} G a second in one product on {threads} threads: "
        f"{rate / needed:.0f} x real time. The package's windows of 5 s give "
        f"{100 * window:.0f} % of what they are given, "
        "and the last one of a file is filled up to 5 s."
    )


def package_window(model: Any) -> float:
    """The share of a window that the package keeps; the next window computes the rest again."""
    model.padding = False
    samples = -(-int(WINDOW_SECONDS * model.sample_rate) // model.hop_length) * model.hop_length
    kept = model.get_output_length(samples) / samples
    model.padding = True
    return float(kept)


def table(rows: list[tuple[Row, Result]]) -> str:
    """Markdown: seconds of sound a second, median of the runs, and against the package's loop."""
    lines = [
        "| shape | row | x real time | least .. most | against its loop | error |",
        "|---|---|---|---|---|---|",
    ]
    loops: dict[str, float] = {}
    for row, result in rows:
        speeds = sorted(result["seconds_of_audio"] / seconds for seconds in result["seconds"])
        median = statistics.median(speeds)
        if row.work == LOOP:
            loops[row.shape] = median
        against = f"{median / loops[row.shape]:.2f}" if row.shape in loops else ""
        error = "" if result["error"] is None else f"{100 * result['error']:.3f} %"
        span = f"{speeds[0]:.2f} .. {speeds[-1]:.2f}"
        cells = (row.shape, row.work, f"{median:.2f}", span, against, error)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    options = _options()
    if options.row:
        print(json.dumps(measure(Row(**json.loads(options.row)))))
        return 0
    if options.weigh:
        shape, folder = options.shapes[0], Path(options.folder)
        print(json.dumps(memory(shape, folder, options.weigh, options.threads)))
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder, cores = Path(temporary), os.cpu_count()
        print(f"torch {torch.__version__}, {options.threads} threads, {cores} cores\n", flush=True)
        if options.memory:
            return _memory(options, folder)
        prepare(folder, options.shapes, options.files, options.seconds)
        rows: list[tuple[Row, Result]] = []
        for shape in options.shapes:
            for work in (LOOP, ALONE, ONE, OURS) if SHAPES[shape] else (ONE, OURS):
                row = Row(work, shape, temporary, options.threads, options.repeats)
                rows.append((row, _apart("--row", json.dumps(vars(row)))))
        print(table(rows) + "\n")
        for shape in filter(SHAPES.get, options.shapes):
            print(floor(shape, folder, options.threads))
        wrong = [row.work for row, result in rows if (result["error"] or 0) > WRONG_SHARE]
        if wrong:
            print(f"bench: {wrong[0]} gives other codes; its time means nothing", file=sys.stderr)
        return 1 if wrong else 0


def _memory(options: argparse.Namespace, folder: Path) -> int:
    rows: dict[str, list[dict[str, float]]] = {}
    print("| shape | seconds | the wave itself, MiB | encode, MiB above it | decode, MiB |")
    print("|---|---|---|---|---|")
    for shape in options.shapes:
        model(shape, folder)
        for seconds in options.durations:
            arguments = ("--weigh", str(seconds), "--shapes", shape, "--folder", str(folder))
            figures = _apart(*arguments, "--threads", str(options.threads))
            rows.setdefault(shape, []).append(figures)
            cells = (f"{figures[name]:.0f}" for name in MEMORY)
            print(f"| {shape} | {' | '.join(cells)} |", flush=True)
    if options.svg:
        options.svg.write_text(svg(rows), encoding="utf-8")
    return 0


def _apart(*arguments: str) -> Any:
    """The JSON that this script prints in a fresh process."""
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"bench: {' '.join(arguments)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Encoding a data set, beside the codec package's own loop."
    )
    parser.add_argument("--files", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=30.0, help="of a file, a fifth up or down")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=3)
    shapes = ["16khz", "44khz", "embedded"]
    parser.add_argument("--shapes", type=lambda text: text.split(","), default=shapes)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--durations", type=lambda text: [float(part) for part in text.split(",")])
    parser.add_argument("--svg", type=Path)
    parser.add_argument("--tiny", action="store_true", help="two short files, a small network")
    for hidden in ("--row", "--folder"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--weigh", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.durations = options.durations or [10.0, 30.0, 60.0, 300.0, 600.0]
    if options.tiny:
        options.files, options.seconds, options.repeats, options.shapes = 2, 1.0, 1, ["tiny"]
        options.durations = [1.0, 2.0]
    if unknown := [shape for shape in options.shapes if shape not in SHAPES]:
        parser.error(f"--shapes {unknown[0]}: one of {', '.join(SHAPES)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
