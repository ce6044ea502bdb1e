"""A training step beside its peers: the same random base, rows, LoRA rank and precision.

    python bench/step.py [--steps 5] [--rows 2] [--row-tokens 512] [--precision fp32]
    python bench/step.py --tiny        # a minute: shows that it runs, and says nothing about speed

A model of Qwen3-0.6B's shape (tied) learns 4 slots of 1,024 codes beside its text, by LoRA of rank
32 on every linear layer and by the new rows. Rows of the table, each in a process of its own:

    ours               distill.training.trainer on task sing, all its terms
    ours, checkpointed the same with train.gradient_checkpointing
    HF Trainer + PEFT  resized table, `trainable_token_indices` for the new rows, labels on every
                       token, song borders by position_ids
    TRL SFT            SFTTrainer with the same PEFT settings; where trl is installed. Its loss is
                       chunked; it is given no song borders

tokens/s: median of the steps after the first, padding included for all. `peak`: of the process, on
CUDA of the device. `above`: the same less what stood there when the model was made. The floor:
operations of body (forward and backward through frozen weights), slots and terms at the rate of one
large product measured here; bytes of the weights, which every step reads twice. It asserts no time.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from shapes import (
    ALPHA,
    RANK,
    REAL,
    TINY,
    Shape,
    apart,
    coded,
    peak_mib,
    plain_model,
    student,
    tokenizer,
)

from distill.tasks import sing
from distill.tasks._singing_task import SingingTask
from distill.training.trainer import TrainSettings, train
from distill.writing.batches import PackingSettings

CASES = ("ours", "ours, checkpointed", "HF Trainer + PEFT", "TRL SFT")
RATE = 1e-4


def task_of(shape: Shape, options: argparse.Namespace, checkpointed: bool) -> SingingTask:
    """Task sing on random songs, enough for the steps."""
    settings = sing.Settings(
        songs=None,
        codec=None,
        train=TrainSettings(
            steps=options.steps,
            learning_rate=RATE,
            warmup_steps=0,
            precision=options.precision,
            checkpoint_every_seconds=1e9,
            gradient_checkpointing=checkpointed,
        ),
        packing=PackingSettings(options.row_tokens, options.rows),
    )
    songs = coded(shape, 2 + options.steps * options.rows * options.row_tokens // 100)
    return SingingTask(student(shape), songs, settings, seed=1)


def ours(shape: Shape, options: argparse.Namespace, checkpointed: bool) -> dict[str, Any]:
    task = task_of(shape, options, checkpointed)
    before = peak_mib()
    with tempfile.TemporaryDirectory(prefix="distill-bench-") as folder:
        steps = []
        for step in train(task, task.settings.train, folder, seed=1):
            steps.append(step)
            peak = peak_mib()  # the last step's is taken with its checkpoint: see `peaks`
    rates = [step.tokens_per_second for step in steps]
    return {"rates": rates, "before": before, "peak": peak, "losses": [s.loss for s in steps]}


def rows_of_ids(shape: Shape, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The same batches, a row each: input_ids, labels and position_ids."""
    task = task_of(shape, options, False)
    stream = task.batches(torch.Generator().manual_seed(1), 0)
    made: list[dict[str, Any]] = []
    while len(made) < options.steps * options.rows:
        batch = next(stream)
        for ids_T, positions_T in zip(batch.ids_BT, batch.positions_BT, strict=True):
            made.append({"input_ids": ids_T, "labels": ids_T, "position_ids": positions_T})
    return made


def peer(name: str, shape: Shape, options: argparse.Namespace) -> dict[str, Any]:
    """HF's Trainer or TRL's, on the resized model with PEFT's trainable rows."""
    rows = apart_rows(options)
    total = max(int(row["input_ids"].max()) for row in rows) + 1
    from peft import LoraConfig, get_peft_model
    from transformers import Trainer, TrainerCallback, TrainingArguments

    model = plain_model(shape)
    words = tokenizer()
    size = student_rows(shape)
    assert total <= size
    model.resize_token_embeddings(size)
    new_ids = list(range(shape.rows, size))
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    indices = {"embed_tokens": new_ids}
    lora = LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules=targets, trainable_token_indices=indices
    )
    before, seconds, losses = peak_mib(), list[float](), list[float]()

    class Watch(TrainerCallback):
        begun = 0.0

        def on_step_begin(self, *given: Any, **named: Any) -> None:
            Watch.begun = time.perf_counter()

        def on_step_end(self, *given: Any, **named: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - Watch.begun)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any, **named: Any) -> None:
            if "loss" in logs:
                losses.append(float(logs["loss"]))

    with tempfile.TemporaryDirectory(prefix="distill-bench-") as folder:
        common: dict[str, Any] = {
            "output_dir": folder,
            "max_steps": options.steps,
            "per_device_train_batch_size": options.rows,
            "learning_rate": RATE,
            "optim": "adamw_torch_fused",
            "weight_decay": 0.05,
            "bf16": options.precision == "bf16",
            "use_cpu": not torch.cuda.is_available(),
            "report_to": [],
            "save_strategy": "no",
            "logging_steps": 1,
            "disable_tqdm": True,
            "dataloader_pin_memory": False,
            "gradient_checkpointing": False,
        }
        if name == "TRL SFT":
            from datasets import Dataset
            from datasets.table import InMemoryTable
            from trl import SFTConfig, SFTTrainer

            plain = [{"input_ids": row["input_ids"].tolist()} for row in rows]
            ready = {"skip_prepare_dataset": True}  # they are ids already
            trainer: Any = SFTTrainer(
                model=model,
                args=SFTConfig(**common, max_length=None, packing=False, dataset_kwargs=ready),
                # named, or `datasets` would pickle pyarrow where that lies outside of sys.prefix
                train_dataset=Dataset(InMemoryTable.from_pylist(plain), fingerprint="bench"),
                processing_class=words,
                peft_config=lora,
                callbacks=[Watch()],
            )
            # its loss asks the head for a bias; PEFT's wrapper of a tied head has no such attribute
            trainer.accelerator.unwrap_model(trainer.model).get_output_embeddings().bias = None
        else:
            args = TrainingArguments(**common, remove_unused_columns=False)
            adapted = get_peft_model(model, lora)
            trainer = Trainer(model=adapted, args=args, train_dataset=rows, callbacks=[Watch()])
        trainer.train()
    tokens = options.rows * options.row_tokens
    rates = [tokens / second for second in seconds]
    return {"rates": rates, "before": before, "peak": peak_mib(), "losses": losses}


def student_rows(shape: Shape) -> int:
    from distill.writing.vocabulary import AudioVocabulary

    return AudioVocabulary(shape.rows, shape.format).rows


def apart_rows(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows that another process wrote, so that this one never held our student."""
    return torch.load(options.data)


def measure(name: str, shape: Shape, options: argparse.Namespace) -> dict[str, Any]:
    if name == "data":
        torch.save(rows_of_ids(shape, options), options.data)
        return {}
    if name.startswith("ours"):
        return ours(shape, options, name != "ours")
    return peer(name, shape, options)


def is_here(name: str) -> bool:
    """Whether a peer is installed."""
    return name != "TRL SFT" or importlib.util.find_spec("trl") is not None


def floor(shape: Shape, options: argparse.Namespace) -> list[str]:
    """What a step cannot do without."""
    tokens = options.rows * options.row_tokens
    lora = RANK * shape.layers * (
        2 * shape.width + shape.head_dim * (3 * shape.heads + 2 * shape.kv_heads)
        + 3 * (shape.width + shape.inner)
    )  # fmt: skip
    whole_rows = tokens / 16  # the format term's positions; text comes on top
    operations = tokens * (4 * shape.body + 6 * lora + 6 * shape.width * shape.codes)
    operations += whole_rows * 4 * shape.rows * shape.width
    side = 2048 if shape is REAL else 128
    device = "cuda" if torch.cuda.is_available() else "cpu"
    half = options.precision == "bf16" and device == "cuda"
    left = torch.randn(side, side, device=device, dtype=torch.bfloat16 if half else torch.float32)
    rate = 2 * side**3 / min(_timed(lambda: left @ left) for _ in range(5))
    read = 4 * (2 * shape.body + shape.rows * shape.width)
    return [
        f"floor: {operations / 1e12:.2f} T operations a step, {operations / rate:.2f} s at "
        f"{rate / 1e9:.0f} G operations/s: {tokens * rate / operations:.0f} tokens/s",
        f"floor: {read / 2**20:.0f} MiB of weights read a step; weights alone hold "
        f"{4 * (shape.body + student_rows(shape) * shape.width) / 2**20:.0f} MiB",
    ]


def _timed(run: Callable[[], object]) -> float:
    begun = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def main() -> int:
    parser = argparse.ArgumentParser(description="A training step beside its peers.")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--row-tokens", type=int, default=512)
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--data", help=argparse.SUPPRESS)
    parser.add_argument("--case", choices=["data", *CASES], help=argparse.SUPPRESS)
    options = parser.parse_args()
    shape = TINY if options.tiny else REAL
    if options.tiny:
        options.row_tokens = min(options.row_tokens, 256)
    if options.case:
        print(json.dumps(measure(options.case, shape, options)))
        return 0
    words = [f"--steps={options.steps}", f"--rows={options.rows}"]
    words += [f"--row-tokens={options.row_tokens}", f"--precision={options.precision}"]
    words += ["--tiny"] if options.tiny else []
    batch = f"{options.rows} x {options.row_tokens} tokens"
    print(f"{shape}, {batch}, {options.precision}, {torch.get_num_threads()} threads")
    print(f"\n{'':20}{'tokens/s':>10}{'ours is':>9}{'peak':>12}{'above':>12}{'losses':>18}")
    ours_rate = 0.0
    with tempfile.NamedTemporaryFile(suffix=".pt") as data:
        words.append(f"--data={data.name}")
        apart(__file__, words, "data")
        for name in CASES:
            row = apart(__file__, words, name) if is_here(name) else None
            if row is None:
                print(f"{name:20}  not installed (pip install trl)")
                continue
            rate = statistics.median(row["rates"][1:] or row["rates"])
            ours_rate = ours_rate or rate
            above = row["peak"] - row["before"]
            ends = f"{row['losses'][0]:.3f} .. {row['losses'][-1]:.3f}"
            print(
                f"{name:20}{rate:10.1f}{ours_rate / rate:8.2f}x{row['peak']:8.0f} MiB"
                f"{above:8.0f} MiB{ends:>18}",
                flush=True,
            )
    print("\n" + "\n".join(floor(shape, options)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
