"""A `datasets` dataset: Parquet with the sound inside, as `load_dataset(folder)` reads it.

    folder/README.md                    which file is which split
    folder/data/train-00000.parquet     a row a song: id, audio and stems, lyrics, sections, ...

`lyrics` is the text alone; `sections` and `facts` are JSON in our own form, with all times, notes
and confidences. The source kind `hub` reads it back to equal songs. Needs `pip install
"distill[hub-data]"`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from distill.errors import SettingsError
from distill.exporters import LeftOut
from distill.exporters._files import Shards, each, new_folder
from distill.songs import TRACKS, Song, to_json

TEXTS = ("style", "voice", "language", "licence", "source", "credit", "split", "group")


def export(
    songs: Iterable[Song], folder: str | Path, shard_bytes: int = 400_000_000
) -> list[LeftOut]:
    """Write songs as Parquet shards of about `shard_bytes`, each of one split, holding one song at
    a time. Songs without sound are left out. Raises SettingsError where `datasets` is not
    installed, FolderError as every exporter."""
    try:
        import pyarrow
        import pyarrow.parquet
        from datasets import Audio, Features, Value
    except ImportError:
        install = 'run pip install "distill[hub-data]"'
        raise SettingsError(f"writing datasets needs `datasets`; {install}") from None
    if shard_bytes < 1:
        raise SettingsError(f"shard_bytes is {shard_bytes}; give 1 or more")
    text = {name: Value("string") for name in ("id", "lyrics", "sections", "facts", *TEXTS)}
    schema = Features({**{name: Audio() for name in TRACKS}, **text}).arrow_schema
    left: list[LeftOut] = []
    with new_folder(folder) as filling:
        (filling / "data").mkdir()

        def create(split: str, number: int) -> pyarrow.parquet.ParquetWriter:
            path = filling / "data" / f"{split}-{number:05d}.parquet"
            return pyarrow.parquet.ParquetWriter(path, schema)

        with Shards(create, shard_bytes) as shards:
            for key, song in each(songs):
                if song.audio is None:
                    left.append(LeftOut(song.id, "has no sound, which the dataset needs"))
                    continue
                row, size = _row(song, key)
                table = pyarrow.Table.from_pylist([row], schema=schema)
                shards.room(split_name(song.split), size).write_table(table)
        (filling / "README.md").write_text(_readme(shards.counts), encoding="utf-8")
    return left


def split_name(split: str) -> str:
    """A split as `datasets` takes it: held-out -> held_out."""
    return "".join(letter if letter.isalnum() else "_" for letter in split) or "train"


def _row(song: Song, key: str) -> tuple[dict[str, object], int]:
    """A song as a row, its sound as bytes, and how many those are."""
    plain = to_json(song)
    row: dict[str, object] = {name: str(plain[name]) for name in ("id", *TEXTS)}
    row |= {name: json.dumps(plain[name], ensure_ascii=False) for name in ("sections", "facts")}
    row |= {"lyrics": song.text, **dict.fromkeys(TRACKS)}
    size = 0
    for track, path in song.tracks.items():
        content = Path(path).read_bytes()
        size += len(content)
        row[track] = {"bytes": content, "path": f"{key}.{track}{Path(path).suffix.lower()}"}
    return row, size


def _readme(splits: Iterable[str]) -> str:
    """The head that tells `datasets` which file is which split."""
    files = [f"  - split: {split}\n    path: data/{split}-*.parquet\n" for split in sorted(splits)]
    return (
        f"---\nconfigs:\n- config_name: default\n  data_files:\n{''.join(files)}---\n\n"
        "Songs written by distill. Each row names its own licence, source and credit; keep to "
        "them.\n"
    )
