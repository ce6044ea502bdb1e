"""A singer on disk: its weights in a stock form, and `singer.json` with all that a stock form cannot say.

run folder      holds singer/ (and merged/)
adapter         adapter_config.json, adapter_model.safetensors (stock PEFT), distill.json, singer.json
merged          config.json, model.safetensors, tokenizer files (stock transformers), distill.json, singer.json
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from distill import settings as strict
from distill.errors import AdapterError, FolderError, SettingsError
from distill.folders import MANIFEST, damage, locate, write_atomic
from distill.merge import load_merged
from distill.prompts import Grain, WritingSettings
from distill.student import Student, load

VERSION = 1


@dataclass(frozen=True)
class SamplingSettings:
    """How a singer samples when not told otherwise: by slot (the last one repeats), and for the score it makes up."""

    temperatures: tuple[float, ...] = (0.0, 0.5)
    score_temperature: float = 0.9
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if not self.temperatures or min(*self.temperatures, self.score_temperature) < 0:
            raise SettingsError(
                f"temperatures are {self.temperatures}, {self.score_temperature}; give 0 or more, at least one"
            )
        if self.top_k is not None and self.top_k < 1:
            raise SettingsError(f"top_k is {self.top_k}; give 1 or more, or null for all")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise SettingsError(f"top_p is {self.top_p}; give a share above 0 and up to 1, or null for all")


@dataclass(frozen=True)
class About:
    """What singer.json says. grain: how finely its songs were written. licences: of base, songs, ..., by name.

    credits: whom the songs' licences ask to be named.
    """

    codec: dict[str, Any]
    codec_fingerprint: str
    slot_sizes: tuple[int, ...]
    base: str
    tokens: int
    writing: WritingSettings = field(default_factory=WritingSettings)
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    styles: tuple[str, ...] = ()
    voices: tuple[str, ...] = ()
    grain: Grain = "note"
    licences: dict[str, str] = field(default_factory=dict)
    credits: tuple[str, ...] = ()
    recipe: str = ""


def write_about(folder: Path, about: About) -> None:
    """Write singer.json."""
    text = json.dumps({"version": VERSION, **asdict(about)}, indent=1, ensure_ascii=False)
    write_atomic(folder / "singer.json", (text + "\n").encode())


def about_singer(folder: Path) -> dict[str, Any]:
    """singer.json as plain data. Raises FolderError when the folder holds no singer."""
    path = singer_folder(folder) / "singer.json"
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FolderError(
            f"{folder}: holds no singer ({error}); give a run folder, a merged folder or a hub id"
        ) from None
    if row.get("version") != VERSION:
        raise FolderError(
            f"{path}: version {row.get('version')} is not {VERSION}; use the distill that wrote it"
        )
    return row


def read_about(folder: Path) -> About:
    """singer.json, checked like a recipe."""
    row = about_singer(folder)
    row.pop("version")
    codec = row.pop("codec")
    about = strict.build({**row, "codec": {}}, About, str(folder / "singer.json"))
    return About(**{**about.__dict__, "codec": codec})


def singer_folder(folder: Path) -> Path:
    """The folder that holds singer.json: the folder itself, or its singer/."""
    inner = folder / "singer"
    return inner if not (folder / "singer.json").exists() and (inner / "singer.json").exists() else folder


def open_singer(where: str | Path) -> tuple[Student, dict[str, Any], Path]:
    """(student, singer.json, folder) of a run folder, adapter, merged folder or hub id.

    Raises FolderError where there is none or a file is not what the folder's manifest says, AdapterError for
    another base.
    """
    folder = singer_folder(locate(str(where)))
    about = about_singer(folder)
    if (folder / MANIFEST).is_file() and (wrong := damage(folder)):
        raise FolderError(f"{folder}: damaged: {wrong}; fetch it again, or train or merge again")
    if not (folder / "adapter_config.json").exists():
        return load_merged(folder), about, folder
    try:
        return load(about["base"], folder), about, folder
    except FolderError as error:
        raise AdapterError(
            f"{where}: its base cannot be opened ({error}); put it there, or load merged"
        ) from None
