"""What a setting may hold beside its type: said at the field, checked whenever one is made.

    @dataclass(frozen=True)
    class TrainSettings(Checked):
        steps: int | None = at_least(1, default=None)
        dropout: float = share(default=0.0)
        schedule: Literal["cosine", "constant"] = "cosine"      # choices are checked by their type

A rule about several settings is a `__post_init__` that calls `super().__post_init__()` first.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from distill.errors import SettingsError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")
_REQUIRED: Any = dataclasses.MISSING


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers that are allowed, and in words what to give."""

    holds: Callable[[float], bool]
    words: str


def at_least(least: float, default: T = _REQUIRED) -> T:
    """A field for numbers from `least` up."""
    return _field(default, lambda value: value >= least, f"{least:g} or more")


def above(bound: float, default: T = _REQUIRED) -> T:
    """A field for numbers above `bound`."""
    return _field(default, lambda value: value > bound, f"a number above {bound:g}")


def below(bound: float, default: T = _REQUIRED) -> T:
    """A field for numbers below `bound`."""
    return _field(default, lambda value: value < bound, f"a number below {bound:g}")


def at_most(most: float, default: T = _REQUIRED) -> T:
    """A field for numbers up to `most`."""
    return _field(default, lambda value: value <= most, f"{most:g} or less")


def between(least: float, most: float, default: T = _REQUIRED) -> T:
    """A field for numbers from `least` to `most`, both included."""
    return _field(default, lambda value: least <= value <= most, f"{least:g} to {most:g}")


def share(default: T = _REQUIRED, zero: bool = True, one: bool = True) -> T:
    """A field for a share from 0 to 1; `zero`, `one`: whether the ends are allowed."""
    ends = {end for end, allowed in ((0, zero), (1, one)) if allowed}
    words = f"a share {'from' if zero else 'above'} 0 {'up to' if one else 'to below'} 1"
    return _field(default, lambda value: 0 < value < 1 or value in ends, words)


def _field(default: T, holds: Callable[[float], bool], words: str) -> T:
    return dataclasses.field(default=default, metadata={"range": Range(holds, words)})


class Checked:
    """A dataclass of settings whose fields hold only what they may. SettingsError by name."""

    def __post_init__(self) -> None:
        cls: Any = type(self)
        for name, (allowed, null) in _ranges(cls).items():
            value = getattr(self, name)
            if value is None and null:
                continue
            numbers = value if isinstance(value, tuple) else (value,)
            if any(number is None or not allowed.holds(number) for number in numbers):
                words = allowed.words + (", or null" if null else "")
                raise SettingsError(f"{name} is {value}; it must be {words}")
        for name, choices in _choices(cls).items():
            value = getattr(self, name)
            if value not in choices:
                known = ", ".join(map(str, choices))
                raise SettingsError(f"{name} is {value!r}; it must be one of {known}")


@functools.cache
def _ranges(cls: type[DataclassInstance]) -> dict[str, tuple[Range, bool]]:
    """The fields with a range, and whether each may be null."""
    hints = typing.get_type_hints(cls)
    return {
        field.name: (field.metadata["range"], type(None) in typing.get_args(hints[field.name]))
        for field in dataclasses.fields(cls)
        if "range" in field.metadata
    }


@functools.cache
def _choices(cls: type[DataclassInstance]) -> dict[str, tuple[object, ...]]:
    """The fields that hold one of a few words, or null where that is among them."""
    hints = typing.get_type_hints(cls)
    choices: dict[str, tuple[object, ...]] = {}
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        parts = [hint] if typing.get_origin(hint) is Literal else [*typing.get_args(hint)]
        null = (None,) if type(None) in parts else ()
        others = [part for part in parts if part is not type(None)]
        if len(others) == 1 and typing.get_origin(others[0]) is Literal:
            choices[field.name] = (*typing.get_args(others[0]), *null)
    return choices
