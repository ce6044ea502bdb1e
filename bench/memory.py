"""Peak memory of the loss terms that need whole rows of logits, against the number of positions.

    python bench/memory.py [--rows 151936] [--width 1024]
    python bench/memory.py --tiny      # seconds: shows that it runs, and says nothing about memory

Terms pieces, opens and format of `distill.lm.logits`, each over all positions, forward and
backward, in a process of its own for each figure: MiB at the peak above what the model, the hidden
states and their gradient need. Beside them the same terms as one graph, as autograd keeps it.
With the base's rows frozen (LoRA) and with all rows trained (the table's own gradient is not
counted: every way of training has it). The script exits with 1 unless ours is flat within 10 %.
"""

from __future__ import annotations

import argparse
import sys
from typing import cast

import torch
from loss import BareStudent, peak_above
from shapes import apart

from distill.audio.codec_format import CodecFormat
from distill.lm import chunks, logits
from distill.lm.student import Student
from distill.writing.batches import Batch, Targets
from distill.writing.vocabulary import AudioVocabulary

POSITIONS = (220, 440, 880, 1760)
WAYS = {
    "ours": (False, False),
    "one graph": (False, True),
    "ours, all rows train": (True, False),
    "one graph, all rows train": (True, True),
}
FLAT = 1.1
TINY_ROWS = 2048


def batch_of(v: AudioVocabulary, positions: int, device: str) -> Batch:
    """Every position a text token, a boundary and a place of the format term."""
    at_N = torch.arange(positions, device=device)
    none = Targets(at_N[:0], at_N[:0])
    text = Targets(at_N, at_N % v.base_rows)
    sung = Targets(at_N, v.span(0).start + at_N % len(v.span(0)))
    kind_N = at_N % v.format.slots
    rows = at_N[None]
    return Batch(rows, rows, (none,), text, none, sung, none, at_N, kind_N, 0.0)


def measure(way: str, positions: int, rows: int, width: int, device: str) -> float:
    """MiB."""
    all_rows, one_graph = WAYS[way]
    if rows <= TINY_ROWS:
        chunks.CHUNK_LOGITS = 2**18  # or no position would be one too many
    vocabulary = AudioVocabulary(rows, CodecFormat(16_000, 50.0, (1024,) * 4))
    torch.manual_seed(0)
    student = BareStudent(vocabulary, torch.randn(vocabulary.rows, width, device=device) / width)
    student.head.old.weight.requires_grad_(all_rows)
    hidden_ND = torch.randn(max(POSITIONS), width, device=device, requires_grad=True)

    def run(count: int = positions) -> None:
        batch = batch_of(vocabulary, count, device)
        given = cast(Student, student), hidden_ND, batch
        terms = logits.piece_nats, logits.open_nats, logits.format_nats
        torch.stack([term(*given) for term in terms]).sum().backward()

    run(8)  # every gradient has its place now, and the products their workspace
    if one_graph:
        chunks.CHUNK_LOGITS = 2**62
    return peak_above(run, device)


def peak_of(way: str, positions: int, options: argparse.Namespace) -> float:
    """In a fresh process, which gives every larger block back as soon as it is freed: what glibc
    keeps for later is no need of the loss."""
    words = [f"--rows={options.rows}", f"--width={options.width}", f"--device={options.device}"]
    return float(apart(__file__, words, way, str(positions), MALLOC_MMAP_THRESHOLD_=str(2**16)))


def main() -> int:
    parser = argparse.ArgumentParser(description="Peak memory of the loss against positions.")
    parser.add_argument("--rows", type=int, default=151_936)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--tiny", action="store_true", help="2,048 rows, 64 wide")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--case", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.tiny:
        options.rows, options.width = TINY_ROWS, 64
        chunks.CHUNK_LOGITS = 2**18
    if options.case:
        way, positions = options.case
        print(measure(way, int(positions), options.rows, options.width, options.device))
        return 0
    chunk = (
        chunks.CHUNK_LOGITS // AudioVocabulary(options.rows, CodecFormat(1, 1.0, (1024,) * 4)).rows
    )
    print(
        f"{options.rows} rows, {options.width} wide, float32, {options.device}, torch "
        f"{torch.__version__}; chunks of {chunk} positions"
    )
    print(f"\n{'MiB at positions':28}" + "".join(f"{n:9,}" for n in POSITIONS) + "   most / least")
    uneven = 0
    for way in WAYS:
        peaks = [peak_of(way, positions, options) for positions in POSITIONS]
        ratio = max(peaks) / max(min(peaks), 1e-9)
        print(
            f"{way:28}" + "".join(f"{peak:9.0f}" for peak in peaks) + f"{ratio:14.2f}", flush=True
        )
        uneven += way.startswith("ours") and ratio > FLAT
    logits_mib = chunk * options.rows * 4 / 2**20
    print(f"\nfloor: one chunk's logits and their gradient, {2 * logits_mib:.0f} MiB")
    if uneven and not options.tiny:
        print(f"bench: not flat within {FLAT}", file=sys.stderr)
    return 1 if uneven and not options.tiny else 0


if __name__ == "__main__":
    sys.exit(main())
