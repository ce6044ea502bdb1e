"""A token's time: our singing loop beside a plain greedy loop on the same merged weights, batch 1.

    python bench/tokens.py [--tokens 96] [--dtype float32] [--device cpu]
    python bench/tokens.py --tiny      # seconds: shows that it runs, and says nothing about speed

Random weights of Qwen3-0.6B's shape, LoRA of rank 32 on every layer. Each row in a process of its
own, ms of one forward (which reads one id, or a few that are forced), after a take that warms up:

    plain, merged      transformers: `model(id, past_key_values=cache)`, argmax over all rows
    ours               distill.singing.generation.generate: LoRA folded, a slot's rows, sampling,
                       grammar and all
    ours, not folded   the same through the LoRA layers, as it was before

`error` is the equality row: the largest difference of last hidden states from the plain row's,
relative. The floor is the body's weights and the rows that are asked for, read once, at the rate at
which a matrix of 256 MiB is read by a product with a vector here. It prints and asserts no time.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from shapes import REAL, TINY, Shape, apart, coded, peak_mib, student
from torch import Tensor
from transformers import AutoModelForCausalLM, DynamicCache

from distill.lm.folding import folded
from distill.lm.merge import stock_model
from distill.lm.student import Student
from distill.singing import generation
from distill.writing.sampling import Sampling

CASES = ("plain, merged", "ours", "ours, not folded")
IDS = 24  # of the equality row


def forwards(model: Any, run: Callable[[], object]) -> tuple[float, int]:
    """(seconds, forwards of the body) of a run."""
    count = 0

    def counted(*_: object) -> None:
        nonlocal count
        count += 1

    handle = model.base_model.register_forward_hook(counted)
    begun = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    seconds = time.perf_counter() - begun
    handle.remove()
    return seconds, count


def plain_of(made: Student, dtype: torch.dtype) -> Any:
    """The merged model as transformers makes it: `stock_model` has parameters alone."""
    merged = stock_model(made, dtype)
    model = AutoModelForCausalLM.from_config(merged.config, dtype=dtype)
    model.load_state_dict(merged.state_dict(), assign=True)
    model.tie_weights()
    return model


@torch.inference_mode()
def plain_loop(model: Any, tokens: int, device: str) -> None:
    """Greedy, one id a step."""
    cache = DynamicCache(config=model.config)
    ids_BT = torch.arange(16, device=device)[None]
    for _ in range(tokens):
        logits_BTV = model(input_ids=ids_BT, past_key_values=cache, use_cache=True).logits
        ids_BT = logits_BTV[:, -1:].argmax(-1)


def our_loop(made: Student, shape: Shape, tokens: int, fold: bool) -> None:
    """Passages sung alone until about `tokens` ids have come."""
    if not fold:  # a process of its own: nobody else is served
        generation.folded = lambda _: nullcontext()  # type: ignore[assignment]
    for item in coded(shape, 1 + tokens // 200)[:1]:
        room = max(1, tokens // shape.slots)
        generation.generate(made, [item.passage], [room], [1], Sampling((0.8,)))


@torch.no_grad()
def hidden(model: Any, rows: int, device: str) -> Tensor:
    ids_BT = (torch.arange(IDS, device=device) * 997 % rows)[None]
    return model.base_model(input_ids=ids_BT, use_cache=False).last_hidden_state.float().cpu()


def measure(name: str, shape: Shape, tokens: int, dtype: str, device: str) -> dict[str, Any]:
    """{ms, peak_mib, hidden} of one row."""
    made = student(shape, lively=0.02)
    rows = made.vocabulary.rows
    if name == "plain, merged":
        model = plain_of(made, getattr(torch, dtype)).to(device).eval()
        del made
        run = lambda count: plain_loop(model, count, device)  # noqa: E731
        states_BTD = hidden(model, rows, device)
    else:
        made.model.to(device, getattr(torch, dtype)).eval()
        model, fold = made.model, name == "ours"
        run = lambda count: our_loop(made, shape, count, fold)  # noqa: E731
        if fold:
            with folded(made):
                states_BTD = hidden(model, rows, device)
        else:
            states_BTD = hidden(model, rows, device)
    run(tokens)
    seconds, count = forwards(model, lambda: run(tokens))
    sampled = states_BTD.flatten()[:: max(1, states_BTD.numel() // 512)].tolist()
    ms = 1e3 * seconds / count
    return {"ms": ms, "count": count, "peak_mib": peak_mib(), "hidden": sampled}


def main() -> int:
    parser = argparse.ArgumentParser(description="A token's time beside a plain loop.")
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    shape = TINY if options.tiny else REAL
    if options.case:
        given = options.tokens, options.dtype, options.device
        print(json.dumps(measure(options.case, shape, *given)))
        return 0
    words = [f"--tokens={options.tokens}", f"--dtype={options.dtype}", f"--device={options.device}"]
    words += ["--tiny"] if options.tiny else []
    threads = torch.get_num_threads()
    print(f"{shape}, LoRA folded or merged, {options.dtype}, {options.device}, {threads} threads")
    print(f"\n{'':20}{'ms a forward':>14}{'beside plain':>14}{'peak':>12}{'error':>10}")
    rows = {name: apart(__file__, words, name) for name in CASES}
    plain = rows[CASES[0]]
    wanted = torch.tensor(plain["hidden"])
    wrong = 0
    for name, row in rows.items():
        error = float((torch.tensor(row["hidden"]) - wanted).abs().max() / wanted.abs().max())
        wrong += not error < (1e-3 if options.dtype == "float32" else 0.1)
        beside = row["ms"] / plain["ms"]
        print(f"{name:20}{row['ms']:14.2f}{beside:13.2f}x{row['peak_mib']:8.0f} MiB{error:10.1e}")
    size = torch.finfo(getattr(torch, options.dtype)).bits // 8
    side = 2**13 if not options.tiny else 2**10
    matrix, vector = torch.randn(side, side, device=options.device), torch.randn(side, 1)
    vector = vector.to(options.device)
    rate = matrix.nbytes / min(_timed(lambda: matrix @ vector) for _ in range(5))
    for name, asked in (("plain", shape.rows), ("ours", shape.codes)):
        read = size * (shape.body + asked * shape.width)
        print(
            f"floor, {name}: {read / 2**20:.0f} MiB read, {1e3 * read / rate:.1f} ms at "
            f"{rate / 1e9:.1f} GB/s"
        )
    if wrong:
        print(f"bench: {wrong} rows are not the plain model's; their times mean nothing")
    return 1 if wrong else 0


def _timed(run: Callable[[], object]) -> float:
    begun = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begun


if __name__ == "__main__":
    sys.exit(main())
