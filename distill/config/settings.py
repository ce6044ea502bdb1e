"""Settings: strict YAML in, frozen dataclasses out, and back.

A recipe means what it says: YAML is read strictly (plain_yaml.py), and every key and type is held
against a dataclass.

    recipes/x.yaml: train.step is unknown; did you mean steps?

Every default lives in the dataclass of its part, and `dump` writes an instance in full, so what is
saved with a run parses back to the equal instance. There are two ways by which data chooses code,
and both choose among the files of this package; a downloaded file never names code to import:

    songs: {kind: songbook, hours: 2}        # the file distill/sources/songbook.py, its dataclass `Settings`
    losses: [{kind: forward_kl, weight: 1}]  # the dataclass `ForwardKl` in distill/lm/losses.py
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import math
import re
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from distill.config.plain_yaml import data, override, shown, write
from distill.errors import DistillError, SettingsError

__all__ = [
    "build",
    "data",
    "dump",
    "kind_of",
    "kinds",
    "override",
    "parse",
    "part",
    "parts",
    "parts_in",
    "plain",
    "read",
]

T = TypeVar("T")

_MISSING = dataclasses.MISSING


def part(folder: str, default: Any = _MISSING) -> Any:
    """A field whose value is the `Settings` of one file of distill/<folder>/, chosen by the YAML's
    `kind`.

    With `default=None` the part may be left out or null."""
    return dataclasses.field(default=default, metadata={"part": folder})


def parts(folder: str, default: Any = _MISSING) -> Any:
    """A field holding a tuple of `Settings`, each of one file of distill/<folder>/, in the YAML's
    order."""
    return dataclasses.field(default=default, metadata={"parts": folder})


def parts_in(module: str, default: Any = _MISSING) -> Any:
    """A field holding a tuple of dataclasses of distill/<module>.py, each with its `kind`
    (snake_case)."""
    return dataclasses.field(default=default, metadata={"parts_in": module})


def read(path: str | Path, cls: type[T]) -> T:
    """The settings in a YAML file. Raises SettingsError naming file, key, value and what is wanted."""
    return parse(text_of(path), cls, where=str(path))


def text_of(path: str | Path) -> str:
    """A settings file's text. Raises SettingsError when it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"{path}: cannot be read ({error}); give a YAML file in UTF-8"
        ) from error


def parse(text: str, cls: type[T], where: str = "settings") -> T:
    """The settings in a YAML text; `where` stands first in every error."""
    return build(data(text, where), cls, where)


def dump(settings: Any) -> str:
    """YAML with every setting of an instance, which `parse` reads back to an equal instance."""
    return write(plain(settings))


def build(given: Mapping[str, Any], cls: type[T], where: str = "settings", path: str = "") -> T:
    """An instance of the dataclass `cls` from plain data; `path` is the dotted key it stands at."""
    if not isinstance(given, Mapping):
        raise SettingsError(f"{where}: {path} is {shown(given)}; it must hold keys and values")
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    for name, value in given.items():
        dotted = f"{path}.{name}" if path else name
        if name not in fields:
            raise SettingsError(f"{where}: {dotted} {_unknown(name, fields)}")
        values[name] = _field(value, fields[name], hints[name], where, dotted)
    for name, field in fields.items():
        if name not in values and field.default is _MISSING and field.default_factory is _MISSING:
            dotted = f"{path}.{name}" if path else name
            raise SettingsError(
                f"{where}: {dotted} is missing; give {_field_words(field, hints[name])}"
            )
    try:
        return cls(**values)
    except (DistillError, ValueError) as error:
        raise SettingsError(f"{where}: {path + ': ' if path else ''}{error}") from error


def _field(value: Any, field: dataclasses.Field[Any], hint: Any, where: str, dotted: str) -> Any:
    """One field's value: a part, a list of parts, or a plain typed value."""
    if "part" in field.metadata:
        if value is None and field.default is None:
            return None
        return _part(value, where, dotted, *_folder(field.metadata["part"]))
    if "parts" in field.metadata or "parts_in" in field.metadata:
        if not isinstance(value, list):
            raise SettingsError(
                f"{where}: {dotted} is {shown(value)}; it must be a list of parts, each with its "
                "kind"
            )
        if "parts" in field.metadata:
            home = _folder(field.metadata["parts"])
        else:
            module = field.metadata["parts_in"]
            classes = classes_in(module)
            home = (f"distill/{module}.py", list(classes), classes.__getitem__)
        return tuple(
            _part(item, where, f"{dotted}.{number}", *home) for number, item in enumerate(value)
        )
    return _typed(value, hint, where, dotted)


def _folder(folder: str) -> tuple[str, list[str], Any]:
    """A folder of parts: its name, what is in it, and how to get at it."""
    return f"distill/{folder}", kinds(folder), lambda kind: settings_class(folder, kind)


def _part(value: Any, where: str, dotted: str, home: str, known: list[str], chosen: Any) -> Any:
    if not isinstance(value, Mapping) or "kind" not in value:
        raise SettingsError(
            f"{where}: {dotted} is {shown(value)}; it needs a kind, one of {', '.join(known)} "
            f"({home})"
        )
    kind = value["kind"]
    if kind not in known:
        raise SettingsError(
            f"{where}: {dotted}.kind {shown(kind)} is unknown; {_meant(str(kind), known)} ({home})"
        )
    return build(
        {name: item for name, item in value.items() if name != "kind"}, chosen(kind), where, dotted
    )


def kinds(folder: str) -> list[str]:
    """The kinds of a folder of parts: its files distill/<folder>/<kind>.py without a leading
    underscore."""
    home = Path(__file__).resolve().parents[1] / folder
    return sorted(path.stem for path in home.glob("*.py") if not path.stem.startswith("_"))


def settings_class(folder: str, kind: str) -> type[Any]:
    """The dataclass `Settings` of one part. Raises SettingsError when there is no such part."""
    if kind not in kinds(folder):
        raise SettingsError(
            f"distill/{folder}: {kind!r} is unknown; {_meant(str(kind), kinds(folder))}"
        )
    return importlib.import_module(f"distill.{_import_name(folder)}.{kind}").Settings


def _import_name(place: str) -> str:
    """A folder or file of the package as imports name it: "lm/losses" -> "lm.losses"."""
    return place.replace("/", ".")


def classes_in(module: str) -> dict[str, type[Any]]:
    """The public dataclasses that distill/<module>.py defines, by snake_case name."""
    home = importlib.import_module(f"distill.{_import_name(module)}")
    return {
        snake_case(name): thing
        for name, thing in vars(home).items()
        if isinstance(thing, type)
        and dataclasses.is_dataclass(thing)
        and thing.__module__ == home.__name__
        and not name.startswith("_")
    }


def kind_of(settings: Any) -> str:
    """The `kind` by which a recipe chose this part."""
    cls = type(settings)
    return (
        cls.__module__.rpartition(".")[2]
        if cls.__name__ == "Settings"
        else snake_case(cls.__name__)
    )


def snake_case(name: str) -> str:
    """ForwardKL and ForwardKl -> forward_kl."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _typed(value: Any, hint: Any, where: str, dotted: str) -> Any:
    """`value` as the type `hint` wants it; an int serves for a float, nothing else is converted."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    wrong = SettingsError(f"{where}: {dotted} is {shown(value)}; it must be {_words(hint)}")
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint):
        return build(value, typing.cast(type, hint), where, dotted)
    if origin in (Union, types.UnionType):
        if value is None:
            if types.NoneType in arguments:
                return None
            raise wrong
        choices = [choice for choice in arguments if choice is not types.NoneType]
        if len(choices) == 1 and choices[0] not in (str, int, float, bool):
            return _typed(value, choices[0], where, dotted)
        for choice in choices:
            try:
                return _typed(value, choice, where, dotted)
            except SettingsError:
                continue
        raise wrong
    if origin is Literal:
        if any(value == choice and type(value) is type(choice) for choice in arguments):
            return value
        texts = [a for a in arguments if isinstance(a, str)]
        near = difflib.get_close_matches(str(value), texts, n=1)
        raise SettingsError(f"{wrong}; did you mean {near[0]}?") if near else wrong
    if origin is tuple and isinstance(value, list):
        wanted = [arguments[0]] * len(value) if arguments[1:] == (...,) else list(arguments)
        if len(wanted) != len(value):
            raise wrong
        return tuple(
            _typed(v, h, where, f"{dotted}.{n}")
            for n, (v, h) in enumerate(zip(value, wanted, strict=True))
        )
    if origin is dict and isinstance(value, dict):
        return {
            name: _typed(item, arguments[1], where, f"{dotted}.{name}")
            for name, item in value.items()
        }
    if hint is float and type(value) in (int, float):
        if not math.isfinite(value):
            raise wrong
        return float(value)
    if hint in (str, int, bool) and type(value) is hint:
        return value
    raise wrong


def _unknown(name: str, fields: Mapping[str, dataclasses.Field[Any]]) -> str:
    """What is wrong with a key: it has another name now (a field's metadata "was"), or never
    existed."""
    for field in fields.values():
        if field.metadata.get("was") == name:
            return f"is called {field.name} now; rename it"
    return f"is unknown; {_meant(name, list(fields))}"


def _meant(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(known) or 'none'}"


def _field_words(field: dataclasses.Field[Any], hint: Any) -> str:
    if "part" in field.metadata:
        return f"a part with its kind, one of {', '.join(kinds(field.metadata['part']))}"
    listed = "parts" in field.metadata or "parts_in" in field.metadata
    return "a list of parts" if listed else _words(hint)


def _words(hint: Any) -> str:
    """A type in words."""
    simple = {
        str: "text (in quotes if it looks like a number)",
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        types.NoneType: "null",
        Any: "a value",
    }
    if hint in simple:
        return simple[hint]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_words(choice) for choice in arguments)
    if origin is Literal:
        return "one of " + ", ".join(str(choice) for choice in arguments)
    if origin is tuple:
        return (
            f"a list, each {_words(arguments[0])}"
            if arguments[1:] == (...,)
            else (
                f"a list of {len(arguments)}: " + ", ".join(_words(choice) for choice in arguments)
            )
        )
    return "keys and values"


def plain(settings: Any) -> Any:
    """An instance as plain data, every default written out, parts with their kind."""
    if dataclasses.is_dataclass(settings) and not isinstance(settings, type):
        found: dict[str, Any] = {}
        for field in (f for f in dataclasses.fields(settings) if f.init):
            value = getattr(settings, field.name)
            if "part" in field.metadata and value is not None:
                found[field.name] = {"kind": kind_of(value), **plain(value)}
            elif "parts" in field.metadata or "parts_in" in field.metadata:
                found[field.name] = [{"kind": kind_of(item), **plain(item)} for item in value]
            else:
                found[field.name] = plain(value)
        return found
    if isinstance(settings, (list, tuple)):
        return [plain(item) for item in settings]
    if isinstance(settings, Mapping):
        return {name: plain(item) for name, item in settings.items()}
    return settings
