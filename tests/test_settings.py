"""Settings: YAML says what it means, a mistake is one line that names it, dump reads back to the
equal."""

from __future__ import annotations

import dataclasses
import itertools
import time
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from distill.config import settings
from distill.config.settings import dump, override, parse, parts_in
from distill.errors import SettingsError


@dataclass(frozen=True)
class Inner:
    steps: int = 1
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise SettingsError(f"steps is {self.steps}; it must be at least 1")


@dataclass(frozen=True)
class Outer:
    name: str = "x"
    rate: float = 1.0
    flag: bool = False
    count: int | None = None
    pair: tuple[float, float] = (1.0, 2.0)
    many: tuple[str, ...] = ()
    mode: Literal["cosine", "constant"] = "cosine"
    train: Inner = Inner()
    words: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Needs:
    steps: int


@dataclass(frozen=True)
class WithLosses:
    losses: tuple[Any, ...] = parts_in("writing/losses")


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("rate: 1e-4", "rate", 1e-4),
        ("rate: -1E+3", "rate", -1000.0),
        ("rate: 3", "rate", 3.0),
        ("rate: .5", "rate", 0.5),
        ("name: no", "name", "no"),
        ("name: yes", "name", "yes"),
        ("name: on", "name", "on"),
        ("name: off", "name", "off"),
        ("name: 1:30", "name", "1:30"),
        ("name: 2020-01-01", "name", "2020-01-01"),
        ("name: 1_000", "name", "1_000"),
        ("name: '010'", "name", "010"),
        ("count: 010", "count", 10),
        ("count: 0x10", "count", 16),
        ("count:", "count", None),
        ("flag: true", "flag", True),
        ("pair: [1, 2e0]", "pair", (1.0, 2.0)),
        ("many: [no, off]", "many", ("no", "off")),
        ("train: {steps: 3}", "train", Inner(3)),
        ("words: {a: b}", "words", {"a": "b"}),
    ],
)
def test_yaml_means_what_it_says(text: str, key: str, value: object) -> None:
    found = getattr(parse(text, Outer), key)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rat: 1", "x.yaml: rat is unknown; did you mean rate?"),
        ("train: {step: 1}", "x.yaml: train.step is unknown; did you mean steps?"),
        ("zzz: 1", "x.yaml: zzz is unknown; known: name, rate"),
        ("rate: 1\nflag: true\nrate: 2", "x.yaml: line 3: rate is given twice; keep one"),
        ("train:\n  steps: 1\n  steps: 1", "x.yaml: line 3: steps is given twice"),
        ("rate: '1e-4'", 'x.yaml: rate is "1e-4" (text); it must be a number'),
        ("rate: true", "x.yaml: rate is true; it must be a number"),
        ("rate: .nan", "x.yaml: rate is NaN; it must be a number"),
        ("rate: .inf", "x.yaml: rate is Infinity"),
        ("count: true", "x.yaml: count is true; it must be a whole number or null"),
        ("count: 1.0", "x.yaml: count is 1.0; it must be a whole number"),
        ("flag: yes", 'x.yaml: flag is "yes" (text); it must be true or false'),
        ("flag: 1", "x.yaml: flag is 1; it must be true or false"),
        ("name: 010", "x.yaml: name is 10; it must be text (in quotes"),
        ("name:", "x.yaml: name is null; it must be text"),
        ("pair: [1]", "x.yaml: pair is [1]; it must be a list of 2"),
        ("many: a", 'x.yaml: many is "a" (text); it must be a list'),
        ("many: [a, 1]", "x.yaml: many.1 is 1; it must be text"),
        ("mode: cosin", "did you mean cosine?"),
        ("train: 3", "x.yaml: train is 3; it must hold keys and values"),
        ("train: {steps: 0}", "x.yaml: train: steps is 0; it must be at least 1"),
        ("words: {a: 1}", "x.yaml: words.a is 1; it must be text"),
        ("name: &a b", "x.yaml: line 1 has an anchor"),
        ("name: *a", "x.yaml: line 1 has an anchor"),
        ("name: !!python/object/apply:os.getcwd []", "x.yaml: line 1: the tag"),
        ("name: !!timestamp 2020-01-01", "x.yaml: line 1: the tag"),
        ("name: [", "x.yaml: line 1: not YAML"),
        ("\tname: x", "x.yaml: line 1: not YAML"),
        ("name: a\n---\nname: b", "x.yaml: line 2: not YAML"),
        ("- 1", "x.yaml: holds [1]; it must hold keys and values"),
        ("", "x.yaml: is empty; it must hold keys and values"),
        ("? [a]\n: b", "x.yaml: line 1: a key must be a word"),
        ("a: " + "[" * 5000, "x.yaml: "),
        ("name: " + "a" * 2_000_000, "x.yaml: has 2000006 characters"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(text: str, message: str) -> None:
    with pytest.raises(SettingsError) as error:
        parse(text, Outer, "x.yaml")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_key_says_what_to_give() -> None:
    with pytest.raises(SettingsError, match=r"x\.yaml: steps is missing; give a whole number"):
        parse("{}", Needs, "x.yaml")


def test_aliases_do_not_explode() -> None:
    lines = ["a: &a [x, x]"]
    lines += [
        f"{name}: &{name} [*{before}, *{before}]"
        for before, name in itertools.pairwise("abcdefghijklmnopqrst")
    ]
    bomb = "\n".join(lines)
    started = time.perf_counter()
    with pytest.raises(SettingsError, match="anchor"):
        parse(bomb, Outer)
    assert time.perf_counter() - started < 1


HARD = """1e-4|no|Null|~||010|x: y|# a|a\tb|é|1:30|- a|'q'|"|.5|=|<<| lead|trail |123_4|0x1F|0o7"""
HARD += "|true|off|.inf|.NaN|-|?|*a|&a"


@pytest.mark.parametrize(
    "text", [*HARD.split("|"), "two\nlines", "x" * 300, "a, b", "[a]", "{a}", "%", "@", "`", "!t"]
)
def test_hard_text_survives_the_round_trip(text: str) -> None:
    value = Outer(name=text, many=(text, text), words={text: text})
    assert parse(dump(value), Outer) == value


@pytest.mark.parametrize("number", [1e-12, 1e22, 1 / 3, 0.1, 5e-324, -0.0, 12345678.9])
def test_floats_survive_exactly(number: float) -> None:
    assert parse(dump(Outer(rate=number)), Outer).rate == number


def test_every_default_is_written() -> None:
    assert {field.name for field in dataclasses.fields(Outer)} == set(settings.data(dump(Outer())))


def test_parts_in_a_module_are_chosen_by_kind() -> None:
    given = parse("losses: [{kind: forward_kl, weight: 0.5}, {kind: cross_entropy}]", WithLosses)
    assert [type(loss).__name__ for loss in given.losses] == ["ForwardKl", "CrossEntropy"]
    assert given.losses[0].weight == 0.5
    assert parse(dump(given), WithLosses) == given
    for text, message in [
        (
            "losses: [{kind: forwrd_kl}]",
            r"losses\.0\.kind \"forwrd_kl\" \(text\) is unknown; did you mean forward_kl",
        ),
        ("losses: [{weight: 1}]", r"losses\.0 is .* it needs a kind, one of .*forward_kl"),
        (
            "losses: [{kind: forward_kl, wight: 1}]",
            r"losses\.0\.wight is unknown; did you mean weight",
        ),
        ("losses: {kind: forward_kl}", "losses is .* it must be a list of parts"),
        ("losses: [{kind: [a]}]", "is unknown"),
    ]:
        with pytest.raises(SettingsError, match=message):
            parse(text, WithLosses)


@pytest.mark.parametrize("folder", ["sources", "codecs", "tasks"])
def test_kinds_are_the_files_of_the_folder(folder: str) -> None:
    found = settings.kinds(folder)
    assert found
    assert all(not kind.startswith("_") for kind in found)
    for kind in (f"{found[0]}x", "../errors", "__init__", "os"):
        with pytest.raises(SettingsError, match="is unknown"):
            settings.settings_class(folder, kind)


def test_snake_case() -> None:
    assert [
        settings.snake_case(n) for n in ("ForwardKl", "ForwardKL", "JensenShannon", "CrossEntropy")
    ] == ["forward_kl", "forward_kl", "jensen_shannon", "cross_entropy"]


def test_overrides_are_yaml_at_dotted_keys() -> None:
    given = {"train": {"steps": 3}, "losses": [{"weight": 1}]}
    changed = override(given, {"train.seconds": "60", "losses.0.weight": "1e-3", "new.key": "no"})
    assert changed == {
        "train": {"steps": 3, "seconds": 60},
        "losses": [{"weight": 1e-3}],
        "new": {"key": "no"},
    }
    assert given == {"train": {"steps": 3}, "losses": [{"weight": 1}]}
    for wrong in ({"train.steps.x": "1"}, {"losses.3.weight": "1"}, {"losses.x": "1"}):
        with pytest.raises(SettingsError, match="cannot set"):
            override(given, wrong)
