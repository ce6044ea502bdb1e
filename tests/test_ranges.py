"""distill/config/ranges.py: a setting holds what its field allows, however it is made."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import pytest

from distill.config import ranges, settings
from distill.errors import SettingsError


@dataclass(frozen=True)
class Sizes(ranges.Checked):
    rows: int | None = ranges.at_least(1, default=None)
    rate: float = ranges.above(0, default=0.5)
    level: float = ranges.below(0, default=-40.0)
    sure: float = ranges.between(0, 1, default=1.0)
    kept: float = ranges.share(default=0.5, zero=False, one=False)
    shares: tuple[float, ...] = ranges.share(default=(0.0, 1.0))
    kind: Literal["flat", "late"] = "flat"
    maybe: Literal["on", "off"] | None = None
    ways: tuple[Literal["a", "b"], ...] = ("a",)
    workers: Literal["auto"] | int = "auto"


RIGHT = [{}, {"rows": 1}, {"rate": 1e-9}, {"sure": 0.0}, {"shares": (1.0, 0.0)}, {"maybe": "on"}]
RIGHT += [{"workers": 3}]
WRONG = [
    ("rows", 0, "rows is 0; it must be 1 or more, or null"),
    ("sure", None, "sure is None; it must be 0 to 1"),
    ("rate", 0.0, "rate is 0.0; it must be a number above 0"),
    ("rate", math.nan, "rate is nan"),
    ("level", 0.0, "a number below 0"),
    ("sure", 1.1, "0 to 1"),
    ("kept", 0.0, "a share above 0 to below 1"),
    ("kept", 1.0, "a share above 0 to below 1"),
    ("shares", (0.5, 2.0), "a share from 0 up to 1"),
    ("kind", "early", "one of flat, late"),
    ("maybe", "", "one of on, off, None"),
]


@pytest.mark.parametrize("given", RIGHT)
def test_what_is_allowed_stands(given: dict[str, Any]) -> None:
    assert {name: getattr(Sizes(**given), name) for name in given} == given


@pytest.mark.parametrize(("name", "value", "words"), WRONG)
def test_what_is_not_allowed_is_refused_by_name(name: str, value: Any, words: str) -> None:
    for make in (lambda: Sizes(**{name: value}), lambda: replace(Sizes(), **{name: value})):
        with pytest.raises(SettingsError, match=words):
            make()


def test_a_recipe_is_refused_with_its_place() -> None:
    with pytest.raises(SettingsError, match=r"x\.yaml: rows is 0; it must be 1 or more, or null"):
        settings.parse("rows: 0", Sizes, "x.yaml")
