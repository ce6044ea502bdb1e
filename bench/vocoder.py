"""Codes to sound: a Vocos head beside DAC's decoder, the wait for first sound, memory.

    python bench/vocoder.py [--seconds 4] [--repeats 3] [--longest 600]
    python bench/vocoder.py --tiny     # seconds: shows that it runs, and says nothing about speed

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
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

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


SAMPLE_RATE, HOP = 44_100, 512  # Hz; samples of a frame
SLOTS, CODES = 9, 1024


def format_of() -> CodecFormat:
    return CodecFormat(SAMPLE_RATE, SAMPLE_RATE / HOP, (CODES,) * SLOTS)


def head(tiny: bool) -> HeadVocoder:
    """A head of the size of Vocos' 44.1 kHz model, random weights."""
    torch.manual_seed(0)
    width, inner, blocks = (32, 64, 2) if tiny else (512, 1536, 8)
    settings = HeadSettings(
        hop=HOP, window=2048, coarse_blocks=0, width=width, inner=inner, blocks=blocks
    )
    return HeadVocoder(HeadNetwork(settings, format_of(), CODES), format_of(), "random")


def dac_decoder(tiny: bool) -> dac.DAC:
    """The package's model; only its look-up and decoder are used."""
    torch.manual_seed(0)
    return dac.DAC(encoder_dim=4, latent_dim=1024, decoder_dim=64 if tiny else 1536).eval()


def codes(seconds: float) -> Tensor:
    frames = max(1, round(seconds * SAMPLE_RATE / HOP))
    return torch.randint(CODES, (frames, SLOTS), generator=torch.Generator().manual_seed(1))


def median_s(run: Callable[[], object], repeats: int, device: str) -> float:
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

    assert by_head().shape[-1] == by_dac().shape[-1] == len(codes_FS) * HOP
    lookups = [part for q in peer.quantizer.quantizers for part in (q.codebook, q.out_proj)]
    return [
        ("Vocos head", size_of(ours.network), median_s(by_head, repeats, device)),
        ("DAC decoder", size_of(peer.decoder, *lookups), median_s(by_dac, repeats, device)),
    ]


def size_of(*networks: nn.Module) -> int:
    """Their parameters, counted."""
    return sum(p.numel() for network in networks for p in network.parameters())


def waits(repeats: int, tiny: bool) -> list[tuple[int, float, float]]:
    """(frames in a chunk, seconds of song needed, seconds of compute) until the first sound."""
    vocoder, rows = head(tiny), []
    for frames in CHUNKS:
        taken: list[int] = []  # frames of each chunk that the vocoder asked for

        def first(frames: int = frames, taken: list[int] = taken) -> Tensor:
            taken.clear()
            return next(iter(vocoder.stream(counted(codes(20).split(frames), taken))))

        spent = median_s(first, repeats, "cpu")
        rows.append((frames, sum(taken) * HOP / SAMPLE_RATE, spent))
    return rows


def counted(chunks: Iterable[Tensor], taken: list[int]) -> Iterator[Tensor]:
    """The chunks; the number of frames of each goes to `taken` when it is taken."""
    for chunk_FS in chunks:
        taken.append(len(chunk_FS))
        yield chunk_FS


def memory(seconds: float, way: str, tiny: bool) -> float:
    """Peak MiB above the loaded head, by Linux' high-water mark; in a process of its own."""
    vocoder, codes_FS = head(tiny), codes(seconds)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the mark falls back to what is held now
    if way == "stream":
        samples = sum(piece_CW.shape[1] for piece_CW in vocoder.stream(codes_FS.split(43)))
    else:
        samples = vocoder.decode(codes_FS).shape[1]
    assert samples == len(codes_FS) * HOP
    return resident("VmHWM") - before


def resident(name: str) -> float:
    """VmRSS or VmHWM of this process in MiB (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def memory_apart(seconds: float, way: str, tiny: bool) -> float:
    command = [sys.executable, __file__, "--memory", way, "--seconds", str(seconds)]
    done = subprocess.run(command + ["--tiny"] * tiny, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def report(seconds: float, repeats: int, longest: float, tiny: bool) -> None:
    print(f"\n## Codes to sound: {seconds:g} s at 44.1 kHz, {torch.__version__}\n", flush=True)
    print("| on | decoder | parameters | seconds | times real time | against DAC |")
    print("|---|---|---|---|---|---|")
    for device in ["cpu"] + ["cuda"] * torch.cuda.is_available():
        rows = speeds(seconds, repeats, tiny, device)
        machine = torch.cuda.get_device_name() if device == "cuda" else "CPU, one thread"
        for name, size, spent in rows:
            print(
                f"| {machine} | {name} | {size / 1e6:.1f} M | {spent:.4f} | "
                f"{seconds / spent:.1f} | {rows[1][2] / spent:.1f}x |",
                flush=True,
            )
    ahead = head(tiny).context_frames
    print(
        f"\n## First sound (look-ahead {ahead} frames, {1000 * ahead * HOP / SAMPLE_RATE:.0f} ms)"
    )
    print("\n| frames in a chunk | song needed, ms | computed until then, ms |\n|---|---|---|")
    for frames, needed, spent in waits(repeats, tiny):
        print(f"| {frames} | {1000 * needed:.0f} | {1000 * spent:.1f} |", flush=True)
    print("\n## Memory against duration, MiB above the loaded head\n")
    print("| song, s | the wave itself | decode | stream | stream, 10 MiB a mark |")
    print("|---|---|---|---|---|")
    on_linux = Path("/proc/self/clear_refs").exists()
    for duration in DURATIONS if on_linux else ():
        if duration <= longest:
            decoded, streamed = (memory_apart(duration, way, tiny) for way in ("decode", "stream"))
            cells = [4 * len(codes(duration)) * HOP / MIB, decoded, streamed]
            marks = "#" * round(streamed / 10)
            row = " | ".join(f"{cell:.1f}" for cell in cells)
            print(f"| {duration} | {row} | {marks} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=4.0, help="of song to decode")
    parser.add_argument("--repeats", type=int, default=3)
    longest = "seconds of the longest song of the memory table"
    parser.add_argument("--longest", type=float, default=600.0, help=longest)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--memory", choices=("stream", "decode"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory:
        print(memory(options.seconds, options.memory, options.tiny))
        return
    if options.tiny:
        options.seconds, options.repeats, options.longest = 0.5, 1, min(options.longest, 30.0)
    report(options.seconds, options.repeats, options.longest, options.tiny)


if __name__ == "__main__":
    main()
