"""Settings: strict YAML in, frozen dataclasses out, and back.

A recipe means what it says: YAML is read strictly (plain_yaml.py), and every key and type is held
against a dataclass.

    recipes/x.yaml: train.step is unknown; did you mean steps?

Every default lives in the dataclass of its part, and `dump` writes an instance in full, so what is
saved with a run parses back to the equal instance. There are two ways by which data chooses code,
and both choose among the files of this package; a downloaded file never names code to import:

    songs: {kind: songbook, hours: 2}        # `Settings` of distill/sources/songbook.py
    losses: [{kind: forward_kl, weight: 1}]  # dataclass `ForwardKl` of distill/writing/losses.py
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import importlib
import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar, Union

from distill.config.plain_yaml import data, shown, write
from distill.config.plain_yaml import override as override
from distill.errors import DistillError, SettingsError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

D = TypeVar("D", bound="DataclassInstance")
T = TypeVar("T")
_REQUIRED: Any = dataclasses.MISSING


def part(folder: str, default: T = _REQUIRED) -> T:
    """A field for one file's `Settings` of distill/<folder>/, by the YAML's `kind`."""
    return dataclasses.field(default=default, metadata={"part": folder})


def parts(folder: str, default: T = _REQUIRED) -> T:
    """A field for a tuple of `Settings` of files of distill/<folder>/, in the YAML's order."""
    return dataclasses.field(default=default, metadata={"parts": folder})


def parts_in(module: str, default: T = _REQUIRED) -> T:
    """A field for a tuple of dataclasses of distill/<module>.py, their names as `kind`."""
    return dataclasses.field(default=default, metadata={"parts_in": module})


def read(path: str | Path, cls: type[D]) -> D:
    """The settings in a YAML file. SettingsError names file, key, value and what is wanted."""
    return parse(text_of(path), cls, where=str(path))


def text_of(path: str | Path) -> str:
    """A settings file's text. Raises SettingsError when it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        wanted = "give a YAML file in UTF-8"
        raise SettingsError(f"{path}: cannot be read ({error}); {wanted}") from error


def parse(text: str, cls: type[D], where: str = "settings") -> D:
    """The settings in a YAML text; `where` stands first in every error."""
    return build(data(text, where), cls, where)


def dump(settings: object) -> str:
    """YAML with every setting of an instance, which `parse` reads back to an equal instance."""
    return write(plain(settings))


def build(given: object, cls: type[D], where: str = "settings", path: str = "") -> D:
    """An instance of the dataclass `cls` from plain data; `path` is the dotted key it stands at."""
    if not isinstance(given, Mapping):
        raise SettingsError(f"{where}: {path} is {shown(given)}; it must hold keys and values")
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    hints = typing.get_type_hints(cls)
    prefix = f"{path}." if path else ""
    values: dict[str, object] = {}
    for name, value in given.items():
        if name not in fields:
            raise SettingsError(f"{where}: {prefix}{name} {_unknown(name, fields)}")
        values[name] = _field(value, fields[name], hints[name], where, prefix + name)
    for name, field in fields.items():
        if name not in values and field.default is field.default_factory is dataclasses.MISSING:
            wanted = _field_words(field, hints[name])
            raise SettingsError(f"{where}: {prefix}{name} is missing; give {wanted}")
    try:
        return cls(**values)
    except (DistillError, ValueError) as error:
        raise SettingsError(f"{where}: {path + ': ' if path else ''}{error}") from error


class _Choice(NamedTuple):
    """What a part is chosen from: where it lies, the kinds there are, the dataclass of a kind."""

    home: str
    kinds: list[str]
    settings: Callable[[str], type[DataclassInstance]]


def _choice(field: dataclasses.Field[object]) -> _Choice | None:
    """What a field's parts are chosen from; None for a field of plain values."""
    if module := field.metadata.get("parts_in"):
        classes = classes_in(module)
        return _Choice(f"distill/{module}.py", list(classes), classes.__getitem__)
    if folder := field.metadata.get("part") or field.metadata.get("parts"):
        home = f"distill/{folder}"
        return _Choice(home, kinds(folder), functools.partial(settings_class, folder))
    return None


def _field(
    value: object, field: dataclasses.Field[object], hint: object, where: str, dotted: str
) -> object:
    """One field's value: a part, a tuple of parts, or a plain typed value."""
    choice = _choice(field)
    if choice is None:
        return _typed(value, hint, where, dotted)
    if "part" in field.metadata:
        optional = value is None and field.default is None
        return None if optional else _part(value, choice, where, dotted)
    if not isinstance(value, list):
        wanted = "it must be a list of parts, each with its kind"
        raise SettingsError(f"{where}: {dotted} is {shown(value)}; {wanted}")
    return tuple(_part(item, choice, where, f"{dotted}.{n}") for n, item in enumerate(value))


def _part(value: object, choice: _Choice, where: str, dotted: str) -> DataclassInstance:
    if not isinstance(value, Mapping) or "kind" not in value:
        known = f"{', '.join(choice.kinds)} ({choice.home})"
        raise SettingsError(f"{where}: {dotted} is {shown(value)}; it needs a kind, one of {known}")
    kind = value["kind"]
    if kind not in choice.kinds:
        meant = f"{_meant(str(kind), choice.kinds)} ({choice.home})"
        raise SettingsError(f"{where}: {dotted}.kind {shown(kind)} is unknown; {meant}")
    given = {name: item for name, item in value.items() if name != "kind"}
    return build(given, choice.settings(kind), where, dotted)


def _typed(value: Any, hint: object, where: str, dotted: str) -> object:
    """`value` as the type `hint` wants it; an int serves for a float, nothing else is converted."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    wrong = SettingsError(f"{where}: {dotted} is {shown(value)}; it must be {_words(hint)}")
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint):
        return build(value, typing.cast("type[DataclassInstance]", hint), where, dotted)
    if origin in (Union, types.UnionType):
        return _one_of(value, arguments, where, dotted, wrong)
    if origin is Literal:
        if any(value == choice and type(value) is type(choice) for choice in arguments):
            return value
        words = [choice for choice in arguments if isinstance(choice, str)]
        near = difflib.get_close_matches(str(value), words, n=1)
        raise SettingsError(f"{wrong}; did you mean {near[0]}?") if near else wrong
    if origin is tuple and isinstance(value, list):
        wanted = [arguments[0]] * len(value) if arguments[1:] == (...,) else list(arguments)
        if len(wanted) != len(value):
            raise wrong
        pairs = enumerate(zip(value, wanted, strict=True))
        return tuple(_typed(item, of_item, where, f"{dotted}.{n}") for n, (item, of_item) in pairs)
    if origin is dict and isinstance(value, dict):
        items, of_item = value.items(), arguments[1]
        return {name: _typed(item, of_item, where, f"{dotted}.{name}") for name, item in items}
    if hint is float and type(value) in (int, float):
        if not math.isfinite(value):
            raise wrong
        return float(value)
    if hint in (str, int, bool) and type(value) is hint:
        return value
    raise wrong


def _one_of(
    value: object, hints: tuple[object, ...], where: str, dotted: str, wrong: SettingsError
) -> object:
    """`value` as the first of several types that takes it; raises `wrong` where none does."""
    if value is None:
        if types.NoneType in hints:
            return None
        raise wrong
    choices = [hint for hint in hints if hint is not types.NoneType]
    if len(choices) == 1 and choices[0] not in (str, int, float, bool):
        return _typed(value, choices[0], where, dotted)
    for choice in choices:
        try:
            return _typed(value, choice, where, dotted)
        except SettingsError:
            continue
    raise wrong


def kinds(folder: str) -> list[str]:
    """The kinds of a folder of parts: its files distill/<folder>/<kind>.py, but _<name>.py."""
    home = Path(__file__).resolve().parents[1] / folder
    return sorted(path.stem for path in home.glob("*.py") if not path.stem.startswith("_"))


def settings_class(folder: str, kind: str) -> type[Any]:
    """The dataclass `Settings` of one part. Raises SettingsError when there is no such part."""
    if kind not in (known := kinds(folder)):
        raise SettingsError(f"distill/{folder}: {kind!r} is unknown; {_meant(str(kind), known)}")
    return importlib.import_module(f"distill.{folder.replace('/', '.')}.{kind}").Settings


def classes_in(module: str) -> dict[str, type[DataclassInstance]]:
    """The public dataclasses that distill/<module>.py defines, by snake_case name."""
    home = importlib.import_module(f"distill.{module.replace('/', '.')}")
    return {
        snake_case(name): cls
        for name, cls in vars(home).items()
        if isinstance(cls, type)
        and dataclasses.is_dataclass(cls)
        and cls.__module__ == home.__name__
        and not name.startswith("_")
    }


def kind_of(settings: object) -> str:
    """The `kind` by which a recipe chose this part."""
    cls = type(settings)
    if cls.__name__ == "Settings":
        return cls.__module__.rpartition(".")[2]
    return snake_case(cls.__name__)


def snake_case(name: str) -> str:
    """ForwardKL and ForwardKl -> forward_kl."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _unknown(name: str, fields: Mapping[str, dataclasses.Field[object]]) -> str:
    """A key has another name now (a field's metadata "was"), or never existed."""
    for field in fields.values():
        if field.metadata.get("was") == name:
            return f"is called {field.name} now; rename it"
    return f"is unknown; {_meant(name, list(fields))}"


def _meant(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(known) or 'none'}"


def _field_words(field: dataclasses.Field[object], hint: object) -> str:
    if "part" in field.metadata:
        return f"a part with its kind, one of {', '.join(kinds(field.metadata['part']))}"
    return "a list of parts" if field.metadata.keys() & {"parts", "parts_in"} else _words(hint)


_WORDS: dict[object, str] = {
    str: "text (in quotes if it looks like a number)",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    types.NoneType: "null",
    Any: "a value",
}


def _words(hint: object) -> str:
    """A type in words."""
    if hint in _WORDS:
        return _WORDS[hint]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(map(_words, arguments))
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin is tuple and arguments[1:] == (...,):
        return f"a list, each {_words(arguments[0])}"
    if origin is tuple:
        return f"a list of {len(arguments)}: {', '.join(map(_words, arguments))}"
    return "keys and values"


def plain(settings: object) -> Any:
    """An instance as plain data, every default written out, parts with their kind."""
    if isinstance(settings, (list, tuple)):
        return [plain(item) for item in settings]
    if isinstance(settings, Mapping):
        return {name: plain(item) for name, item in settings.items()}
    if not dataclasses.is_dataclass(settings) or isinstance(settings, type):
        return settings
    values: dict[str, object] = {}
    for field in (field for field in dataclasses.fields(settings) if field.init):
        value = getattr(settings, field.name)
        if "part" in field.metadata and value is not None:
            values[field.name] = {"kind": kind_of(value), **plain(value)}
        elif field.metadata.keys() & {"parts", "parts_in"}:
            values[field.name] = [{"kind": kind_of(item), **plain(item)} for item in value]
        else:
            values[field.name] = plain(value)
    return values
