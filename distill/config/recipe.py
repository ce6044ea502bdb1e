"""A recipe: everything that one run depends on, in one short YAML file.

    task: sing                  # distill/tasks/sing.py; its `Settings` says which keys follow
    seed: 1
    songs: {kind: songbook, hours: 2}
    train: {seconds: 300}
    ...

A recipe equals its YAML: `Recipe.yaml()` writes every setting out, defaults included, and reads
back to the equal recipe. That text is saved with a run, and a run folder belongs to it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.config import settings as strict
from distill.errors import SettingsError
from distill.folders import public_name, sha256_bytes

Changes = Mapping[str, str] | None  # YAML by dotted key: {"train.seconds": "60"}
CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Recipe:
    """A name, what is trained, the seed of everything random, and the task's own settings."""

    name: str
    task: str
    seed: int
    settings: Any

    def yaml(self) -> str:
        """The resolved recipe: every setting, as YAML that `parse` reads back."""
        return strict.write(self._plain())

    @property
    def sha256(self) -> str:
        """Of that text: equal where two runs were asked for the same."""
        return sha256_bytes(self.yaml().encode())

    def published(self) -> str:
        """The same for others to read: of a path that leaves the current folder, its last part."""
        return strict.write(_without_folders(self._plain()))

    def _plain(self) -> dict[str, object]:
        return {"task": self.task, "seed": self.seed, **strict.plain(self.settings)}


def _without_folders(value: object) -> object:
    if isinstance(value, dict):
        return {name: _without_folders(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_folders(item) for item in value]
    return public_name(value) if isinstance(value, str) else value


def load(name: str | Path, overrides: Changes = None) -> Recipe:
    """The recipe of a path or a name in recipes/, with `overrides` as {"train.seconds": "60"}."""
    path = find(name)
    return parse(strict.text_of(path), path.stem, str(path), overrides)


def parse(text: str, name: str, where: str = "recipe", overrides: Changes = None) -> Recipe:
    """The recipe in a YAML text."""
    data = strict.override(strict.data(text, where), overrides or {}, where)
    tasks = strict.kinds("tasks")
    task, seed = data.pop("task", None), data.pop("seed", None)
    if not isinstance(task, str) or task not in tasks:
        fault = "is missing" if task is None else f"{task!r} is unknown"
        known = ", ".join(tasks)
        raise SettingsError(f"{where}: task {fault}; give one of {known} (distill/tasks)")
    if type(seed) is not int or not 0 <= seed < 2**63:
        fault = "is missing" if seed is None else f"is {seed!r}"
        raise SettingsError(f"{where}: seed {fault}; give a whole number from 0 up")
    return Recipe(name, task, seed, strict.build(data, strict.settings_class("tasks", task), where))


def find(name: str | Path) -> Path:
    """The file of a recipe: a path, or a name in ./recipes or in the recipes beside the package."""
    text = str(name)
    file = text if text.endswith((".yaml", ".yml")) else text + ".yaml"
    folders = (Path(), Path("recipes"), CHECKOUT, CHECKOUT / "recipes")
    for path in (Path(text), *(folder / file for folder in folders)):
        if path.is_file():
            return path
    known = ", ".join(sorted({path.stem for path in available()})) or "none"
    raise SettingsError(f"recipe {text}: no such file, nor is it in recipes/ (there: {known})")


def available() -> list[Path]:
    """Every recipe on disk: those of ./recipes, then those beside the package, each name once."""
    paths: dict[str, Path] = {}
    for folder in (Path("recipes"), CHECKOUT / "recipes"):
        for path in sorted(folder.glob("*.yaml")):
            paths.setdefault(path.stem, path)
    return list(paths.values())


def with_songs(recipe: Recipe, songs: str | None) -> Recipe:
    """The recipe with its source's folder set. SettingsError where its songs come from none."""
    source = getattr(recipe.settings, "songs", None)
    if songs is None:
        return recipe
    if source is None:
        fault = f"task {recipe.task} takes no songs"
        raise SettingsError(f"{recipe.name}: {fault}; use RECIPE=my-songs")
    if not any(field.name == "folder" for field in dataclasses.fields(source)):
        kind = strict.kind_of(source)
        raise SettingsError(f"{recipe.name}: its songs are of kind {kind}; use RECIPE=my-songs")
    source = dataclasses.replace(source, folder=str(songs))
    return dataclasses.replace(recipe, settings=dataclasses.replace(recipe.settings, songs=source))


def check(recipe: Recipe) -> list[str]:
    """What a recipe means, in lines; nothing is downloaded, trained or loaded for it."""
    lines = [f"{recipe.name}: task {recipe.task}, seed {recipe.seed}"]
    lines.append(f"  sha256: {recipe.sha256}")
    settings = strict.plain(recipe.settings).items()
    lines += [f"  {name}: {_in_words(value)}" for name, value in settings]
    for field in dataclasses.fields(recipe.settings):
        value = getattr(recipe.settings, field.name)
        if field.metadata.get("part") == "codecs" and value is not None:
            form, sizes = value.format, value.format.slot_sizes
            slots = f"{len(sizes)} slots ({', '.join(map(str, sizes))} codes)"
            pace = f"{form.frame_rate:g} frames a second of {slots}"
            lines.append(f"  {field.name} makes {pace} at {form.sample_rate} Hz")
    train = getattr(recipe.settings, "train", None)
    if train is not None:
        ends = [f"{train.steps} steps"] if train.steps else []
        ends += [f"{train.seconds:g} s of training"] if train.seconds else []
        lines.append(f"  training ends after {' or '.join(ends)}")
    return lines


def _in_words(value: object) -> str:
    """A setting in one line."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "; ".join(map(_in_words, value))
    return str(value)
