"""Starting on 1,000 hours of synthetic songs, and making shuffled batches of them.

    python bench/data.py [--hours 1000] [--passages 16000000] [--folder FOLDER] [--batches 2000]
    python bench/data.py --tiny        # seconds: shows that it runs, and says nothing about speed

A generator writes the index of passages (distill/writing/passage_index.py) as a run would: random
codes of one slot at 50 frames a second, a short header, a piece a passage. So many passages share
the hours (16 M of 0.2 s are far shorter than a sung line; the default makes the hardest order).
Then a process of its own for each of

    first start     the index opened and checked (its files hashed), epoch 0 shuffled and packed,
                    the first batch built
    second start    the same again: hashes are remembered
    rank 3 of 8     a start at batch 100,000 in every eighth batch
    batches         shuffled batches a second, a second thousand after the first

prints its seconds and its memory, on one thread: `own` is what only the process holds (RssAnon),
`mapped` the part of the index that it has in the page cache (RssFile; libraries' code too), which
the kernel takes back when it needs it.
Reading the songs' own manifest and curating them is not part of it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from distill.audio.codec_format import CodecFormat
from distill.folders import atomic_folder
from distill.writing import passage_index
from distill.writing.batches import PackingSettings, build, schedule
from distill.writing.passage_index import ABOUT, COLUMNS, About
from distill.writing.prompts import HEADER, LENGTH, PIECE, TEXT
from distill.writing.vocabulary import AudioVocabulary

RATE, CODES, HEADER_TOKENS = 50.0, 1024, 12
PACKING = PackingSettings(row_tokens=1024, rows=4)
VOCABULARY = AudioVocabulary(1024, CodecFormat(24_000, RATE, (CODES,)))
AT_ONCE = 100_000  # passages that are written together
TRAINED = 100_000  # tokens a second that a GPU trains a model of 0.6 B at, to compare with


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hours", type=float, default=1000.0)
    parser.add_argument("--passages", type=int, default=16_000_000)
    parser.add_argument("--folder", type=Path, help="kept for another call; else removed again")
    parser.add_argument("--batches", type=int, default=2000)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.tiny:
        options.hours, options.passages, options.batches = 1.0, 70_000, 50
    if options.measure:
        measure(options.measure, options.folder, options.batches)
        return
    home = options.folder or Path(tempfile.mkdtemp(prefix="bench-data-"))
    try:
        written(home / "index", options.hours, options.passages)
        show([measured(name, home, options.batches) for name in STAGES])
    finally:
        if options.folder is None:
            shutil.rmtree(home)


# --- the data -------------------------------------------------------------------------------------
def written(folder: Path, hours: float, passages: int) -> None:
    """An index of so many passages, unless it is there."""
    if folder.exists():
        return
    started = time.perf_counter()
    frames = round(hours * 3600 * RATE)
    chance = np.random.default_rng(0)
    types = passage_index._types((CODES,))
    with atomic_folder(folder) as partial:
        files = {name: (partial / name).open("wb") for name in COLUMNS}
        ends, done = np.zeros(3, np.int64), 0
        while done < passages:
            count = min(AT_ONCE, passages - done)
            mean = (frames - ends[1]) / (passages - done)
            rows = part(chance, count, mean, types)
            rows["ends"] = (ends + rows["ends"]).astype(types["ends"])
            ends, done = rows["ends"][-1].astype(np.int64), done + count
            for name, values in rows.items():
                files[name].write(values.tobytes())
        for file in files.values():
            file.close()
        about = About(passage_index.VERSION, passages, 1, types, "line", (), "synthetic")
        (partial / ABOUT).write_text(json.dumps(asdict(about)), encoding="utf-8")
    size = sum(path.stat().st_size for path in folder.iterdir())
    seconds = time.perf_counter() - started
    print(
        f"{ends[1] / RATE / 3600:.0f} hours, {passages:,} passages, {ends[0] / 1e6:.0f} M tokens,"
    )
    print(f"{size / 1e9:.1f} GB of index ({size / ends[0]:.1f} B a token), made in {seconds:.0f} s")


def part(
    chance: np.random.Generator, count: int, mean: float, types: dict[str, str]
) -> dict[str, np.ndarray]:
    """The columns of some passages: header, `sing`, pitch, length, a frame's code each, `end`."""
    v = VOCABULARY
    half = max(1, int(mean / 2))
    frames_P = chance.integers(half, max(half + 1, round(2 * mean) - half + 1), count)
    lengths_P = HEADER_TOKENS + 4 + frames_P
    stops_P = np.cumsum(lengths_P)
    starts_P = stops_P - lengths_P
    ids_N = chance.integers(v.span(0).start, v.span(0).stop, stops_P[-1])
    kinds_N = np.zeros(stops_P[-1], np.int8)
    for at in range(HEADER_TOKENS):
        ids_N[starts_P + at] = chance.integers(0, v.base_rows, count)
        kinds_N[starts_P + at] = HEADER
    for at, (id, kind) in enumerate(
        ((v.sing, HEADER), (v.pitch(None), TEXT), (v.length(None), LENGTH))
    ):
        ids_N[starts_P + HEADER_TOKENS + at] = id
        kinds_N[starts_P + HEADER_TOKENS + at] = kind
    ids_N[stops_P - 1], kinds_N[stops_P - 1] = v.end, PIECE
    text = passage_index._text(passage_index.Passage("song:0", "style: folk\n", ()))
    texts_P = np.full(count, len(text))
    return {
        "ids": ids_N.astype(types["ids"]),
        "kinds": kinds_N,
        "codes": chance.integers(0, CODES, frames_P.sum()).astype(types["codes"]),
        "texts": np.tile(np.frombuffer(text, np.uint8), count),
        "keys": chance.integers(0, 256, (count, passage_index.KEY_BYTES)).astype(np.uint8),
        "ends": np.cumsum(np.stack([lengths_P, frames_P, texts_P], 1), 0),
    }


# --- a process of its own -------------------------------------------------------------------------
STAGES = ("first start", "second start", "rank 3 of 8", "batches")


def measured(name: str, home: Path, batches: int) -> dict[str, object]:
    """What a stage took, in a fresh process."""
    environment = os.environ | {"DISTILL_CACHE": str(home / "cache")}
    command = [sys.executable, __file__, "--measure", name, "--folder", str(home)]
    answer = subprocess.run(
        [*command, "--batches", str(batches)],
        check=True, capture_output=True, text=True, env=environment,
    )  # fmt: skip
    row: dict[str, object] = json.loads(answer.stdout.splitlines()[-1])
    return row


def measure(name: str, home: Path, batches: int) -> None:
    """The last line that it prints: what a stage took, in this process, on one thread."""
    torch.set_num_threads(1)
    imported = memory()["own"]
    started = time.perf_counter()
    index = passage_index.opened(home / "index")
    assert index is not None
    opened = time.perf_counter() - started
    start, stride = (100_003, 8) if name == "rank 3 of 8" else (0, 1)
    order = schedule(index.lengths, PACKING, 1, start, stride)

    def batch() -> int:
        rows = [[index.tokens(number) for number in row] for row in next(order)]
        return build(rows, VOCABULARY, PACKING.row_tokens).tokens

    tokens = batch()
    row: dict[str, object] = {"name": name, "opened": opened}
    row["start"] = time.perf_counter() - started
    if name == "batches":
        for _ in range(batches // 2):  # as it comes from the disk, then as it goes on
            batch()
        started = time.perf_counter()
        for _ in range(batches):
            tokens += batch()
        seconds = time.perf_counter() - started
        row |= {"a second": batches / seconds, "tokens": batches * PACKING.row_tokens * 4 / seconds}
    print(json.dumps(row | memory() | {"imported": imported}))


def memory() -> dict[str, float]:
    """MiB of this process: its own now and at its peak, and of mapped files."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    names = {"own": "RssAnon", "mapped": "RssFile", "peak": "VmHWM"}
    return {name: int(fields[field].split()[0]) / 1024 for name, field in names.items()}


def show(rows: Sequence[dict[str, object]]) -> None:
    table = Table(title="start and batches; memory in MiB")
    columns = ("opened", "start", "a second", "tokens", "own", "mapped", "peak", "imported")
    table.add_column("")
    for name in ("opened, s", "to the first batch, s", "batches/s", "tokens/s", *columns[4:]):
        table.add_column(name, justify="right")
    for row in rows:
        values = (row.get(name) for name in columns)
        table.add_row(
            str(row["name"]), *("" if v is None else f"{float(str(v)):,.1f}" for v in values)
        )
    Console(width=120).print(table)
    print(f"a GPU that trains 0.6 B parameters reads about {TRAINED:,} tokens a second")


if __name__ == "__main__":
    main()
