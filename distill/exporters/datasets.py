"""A `datasets` dataset: Parquet with the sound inside, as hubs take it and `load_dataset(folder)`
reads it.

    folder/README.md                    which file is which split
    folder/data/train-00000.parquet     a row a song: id, audio, vocals, accompaniment, lyrics, sections, style, ...

`lyrics` is the text alone; `sections` and `facts` are JSON in our own form, with all times, notes
and confidences. The source kind `hub` reads it back to equal songs. Needs `pip install
"distill[hub-data]"`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from distill.errors import SettingsError
from distill.exporters import LeftOut
from distill.exporters._files import each, new_folder
from distill.songs import TRACKS, Song, to_json

TEXTS = ("style", "voice", "language", "licence", "source", "credit", "split", "group")


def export(
    songs: Iterable[Song], folder: str | Path, shard_bytes: int = 400_000_000
) -> list[LeftOut]:
    """Write songs as Parquet shards of about `shard_bytes`, those of each split apart. Songs
    without sound are left out.

    Raises SettingsError where `datasets` is not installed, FolderError as every exporter. One song
    at a time is held.
    """
    try:
        import pyarrow
        import pyarrow.parquet
        from datasets import Audio, Features, Value
    except ImportError:
        raise SettingsError(
            'writing datasets needs `datasets`; run pip install "distill[hub-data]"'
        ) from None
    if shard_bytes < 1:
        raise SettingsError(f"shard_bytes is {shard_bytes}; give 1 or more")
    text = {name: Value("string") for name in ("id", "lyrics", "sections", "facts", *TEXTS)}
    schema = Features({**{name: Audio() for name in TRACKS}, **text}).arrow_schema
    left: list[LeftOut] = []
    counts: Counter[str] = Counter()
    writers: dict[str, Any] = {}
    sizes: Counter[str] = Counter()
    with new_folder(folder) as place:
        (place / "data").mkdir()
        try:
            for key, song in each(songs):
                if song.audio is None:
                    left.append(LeftOut(song.id, "has no sound, which the dataset needs"))
                    continue
                split = split_name(song.split)
                row, size = _row(song, key)
                if split in writers and sizes[split] + size > shard_bytes:
                    writers.pop(split).close()
                if split not in writers:
                    path = place / "data" / f"{split}-{counts[split]:05d}.parquet"
                    writers[split] = pyarrow.parquet.ParquetWriter(path, schema)
                    counts[split] += 1
                    sizes[split] = 0
                sizes[split] += size
                writers[split].write_table(pyarrow.Table.from_pylist([row], schema=schema))
        finally:
            for writer in writers.values():
                writer.close()
        (place / "README.md").write_text("\n".join(_readme(counts)), encoding="utf-8")
    return left


def split_name(split: str) -> str:
    """A split as `datasets` takes it: held-out -> held_out."""
    return "".join(letter if letter.isalnum() else "_" for letter in split) or "train"


def _row(song: Song, key: str) -> tuple[dict[str, Any], int]:
    """A song as a row, its sound as bytes, and how many those are."""
    plain = to_json(song)
    row: dict[str, Any] = {name: str(plain[name]) for name in ("id", *TEXTS)}
    row |= {
        "lyrics": song.text,
        "sections": _json(plain["sections"]),
        "facts": _json(plain["facts"]),
    }
    size = 0
    for name in TRACKS:
        path = getattr(song, name)
        content = Path(path).read_bytes() if path is not None else None
        size += len(content or b"")
        row[name] = (
            None
            if content is None
            else {"bytes": content, "path": f"{key}.{name}{Path(path).suffix.lower()}"}
        )
    return row, size


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _readme(counts: Counter[str]) -> Iterator[str]:
    """The head that tells `datasets` which file is which split."""
    yield "---"
    yield "configs:"
    yield "- config_name: default"
    yield "  data_files:"
    for split in sorted(counts):
        yield f"  - split: {split}"
        yield f"    path: data/{split}-*.parquet"
    yield "---"
    yield ""
    yield "Songs written by distill. Each row names its own licence, source and credit; keep to them."
    yield ""
