"""How fast codes become sound: a Vocos head beside DAC's decoder, the wait for first sound, memory
against duration.

    python bench/vocoder.py [--seconds 4] [--repeats 3] [--longest 600]
    python bench/vocoder.py --tiny         # seconds: shows that it runs, and says nothing about speed

True 44.1 kHz shapes, random weights: the decoder of `dac.DAC()` as published (1536 wide, strides 8
8 4 2) with its own look-up of codes, and a head of the published 44.1 kHz Vocos' size (512 wide, 8
blocks, window 2048, hop 512), both from the same 9 codes of 1024 a frame. One thread; on a GPU too
where there is one (medians after one run to warm up).

`first sound`: what must have been sung before the first sample can sound (a chunk and the head's
look-ahead), and what is computed until then. `memory`: peak above what the loaded head takes, in a
process of its own for each duration (on Linux); `stream` hands its pieces on, `decode` keeps the
whole wave, whose own size is listed.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from distill.audio.codec_format import CodecFormat
from distill.runtime import torchaudio_standin
from distill.vocoders._network import HeadNetwork, HeadSettings
from distill.vocoders.head import HeadVocoder

torchaudio_standin.install()
warnings.filterwarnings("ignore", category=FutureWarning)  # dac's weight_norm

import dac

MIB = 2**20
DURATIONS = (10, 30, 60, 120, 300, 600)  # seconds
CHUNKS = (10, 43)  # frames: an eighth and half of a second


def format_of(slots: int = 9, size: int = 1024) -> CodecFormat:
    return CodecFormat(44_100, 44_100 / 512, (size,) * slots)


def head(tiny: bool) -> HeadVocoder:
    """A head of the size of Vocos' 44.1 kHz model, random weights."""
    torch.manual_seed(0)
    shape = (
        {"width": 32, "inner": 64, "blocks": 2}
        if tiny
        else {"width": 512, "inner": 1536, "blocks": 8}
    )
    settings = HeadSettings(hop=512, window=2048, coarse_blocks=0, **shape)
    return HeadVocoder(HeadNetwork(settings, format_of(), 1024), format_of(), "random")


def dac_decoder(tiny: bool) -> Any:
    """The package's model; only its look-up and decoder are used."""
    torch.manual_seed(0)
    return dac.DAC(encoder_dim=4, latent_dim=1024, decoder_dim=64 if tiny else 1536).eval()


def codes(seconds: float) -> Tensor:
    frames = max(1, round(seconds * 44_100 / 512))
    return torch.randint(1024, (frames, 9), generator=torch.Generator().manual_seed(1))


def median_s(run: Callable[[], Any], repeats: int, device: str) -> float:
    """Median of the wall time of `run`, after one run to warm up."""
    times = []
    for _ in range(repeats + 1):
        begun = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    return statistics.median(times[1:])


@torch.inference_mode()
def speeds(seconds: float, repeats: int, tiny: bool, device: str) -> list[tuple[str, int, float]]:
    """(name, parameters that decode, seconds of compute) of both, whole waves, on one device."""
    ours, peer = head(tiny), dac_decoder(tiny)
    ours.network.to(device)
    peer.to(device)
    codes_FS = codes(seconds).to(device)

    def by_head() -> Tensor:
        return ours.network(codes_FS[None])

    def by_dac() -> Tensor:
        return peer.decode(peer.quantizer.from_codes(codes_FS.T[None])[0])

    assert by_head().shape[-1] == by_dac().shape[-1] == len(codes_FS) * 512
    lookups = [
        p
        for q in peer.quantizer.quantizers
        for p in (*q.codebook.parameters(), *q.out_proj.parameters())
    ]
    sizes = [
        sum(p.numel() for p in ours.network.parameters()),
        sum(p.numel() for p in (*peer.decoder.parameters(), *lookups)),
    ]
    runs = (("Vocos head", by_head), ("DAC decoder", by_dac))
    return [
        (name, size, median_s(run, repeats, device))
        for (name, run), size in zip(runs, sizes, strict=True)
    ]


def waits(repeats: int, tiny: bool) -> list[tuple[int, float, float]]:
    """(frames in a chunk, seconds of song needed, seconds of compute) until the first sound."""
    vocoder, rows = head(tiny), []
    for frames in CHUNKS:
        asked = 0

        def chunks(frames: int = frames) -> Any:
            nonlocal asked
            asked = 0
            for chunk_FS in codes(20).split(frames):
                asked += len(chunk_FS)
                yield chunk_FS

        def first(chunks: Any = chunks) -> Tensor:
            return next(iter(vocoder.stream(chunks())))

        spent = median_s(first, repeats, "cpu")
        rows.append((frames, asked * 512 / 44_100, spent))
    return rows


def memory(seconds: float, way: str, tiny: bool) -> float:
    """Peak MiB above the loaded head, by Linux' own high-water mark. Runs in a process of its own."""
    vocoder, codes_FS = head(tiny), codes(seconds)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the mark falls back to what is held now
    if way == "stream":
        samples = sum(piece_CW.shape[1] for piece_CW in vocoder.stream(codes_FS.split(43)))
    else:
        samples = vocoder.decode(codes_FS).shape[1]
    assert samples == len(codes_FS) * 512
    return resident("VmHWM") - before


def resident(what: str) -> float:
    """A line of /proc/self/status in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024


def memory_apart(seconds: float, way: str, tiny: bool) -> float:
    command = [sys.executable, __file__, "--memory", way, "--seconds", str(seconds)]
    told = subprocess.run(command + ["--tiny"] * tiny, capture_output=True, text=True, check=True)
    return float(told.stdout.split()[-1])


def report(said: argparse.Namespace) -> None:
    devices = ["cpu"] + ["cuda"] * torch.cuda.is_available()
    print(f"\n## Codes to sound: {said.seconds:g} s at 44.1 kHz, {torch.__version__}\n", flush=True)
    print(
        "| on | decoder | parameters | seconds | times real time | against DAC "
        "|\n|---|---|---|---|---|---|"
    )
    for device in devices:
        rows = speeds(said.seconds, said.repeats, said.tiny, device)
        name_of = torch.cuda.get_device_name() if device == "cuda" else "CPU, one thread"
        for name, size, spent in rows:
            print(
                f"| {name_of} | {name} | {size / 1e6:.1f} M | {spent:.4f} | "
                f"{said.seconds / spent:.1f} |"
                f" {rows[1][2] / spent:.1f}x |",
                flush=True,
            )
    ahead = head(said.tiny).context_frames
    print(f"\n## First sound (look-ahead {ahead} frames, {ahead * 512 / 44.1:.0f} ms)\n")
    print("| frames in a chunk | song needed, ms | computed until then, ms |\n|---|---|---|")
    for frames, needed, spent in waits(said.repeats, said.tiny):
        print(f"| {frames} | {1000 * needed:.0f} | {1000 * spent:.1f} |", flush=True)
    print("\n## Memory against duration, MiB above the loaded head\n")
    print(
        "| song, s | the wave itself | decode | stream | stream, 10 MiB a mark "
        "|\n|---|---|---|---|---|"
    )
    durations = (
        [s for s in DURATIONS if s <= said.longest]
        if Path("/proc/self/clear_refs").exists()
        else []
    )
    for seconds in durations:
        decoded, streamed = (memory_apart(seconds, way, said.tiny) for way in ("decode", "stream"))
        wave = 4 * len(codes(seconds)) * 512 / MIB
        print(
            f"| {seconds} | {wave:.1f} | {decoded:.1f} | {streamed:.1f} | "
            f"{'#' * round(streamed / 10)} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=4.0, help="of song to decode")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--longest",
        type=float,
        default=600.0,
        help="seconds of the longest song of the memory table",
    )
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--memory", choices=("stream", "decode"), help=argparse.SUPPRESS)
    said = parser.parse_args()
    torch.set_num_threads(1)
    if said.memory:
        print(memory(said.seconds, said.memory, said.tiny))
        return
    if said.tiny:
        said.seconds, said.repeats, said.longest = 0.5, 1, min(said.longest, 30.0)
    report(said)


if __name__ == "__main__":
    main()
