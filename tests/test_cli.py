"""The command line: every verb reaches its call; every refusal is one line and status 2."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import distill
from distill import cli
from distill.errors import FolderError

RECIPE = "task: sing\nseed: 1\n"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """A pipeline, hub, singer and recipe reader that only write down how they were called."""
    made: list[tuple[Any, ...]] = []

    def note(name: str, result: Any = None) -> Any:
        def call(*args: Any, **keys: Any) -> Any:
            made.append((name, args, keys))
            return result

        return call

    stages = {
        name: note(name) for name in ("run", "estimate", "encode", "record", "train", "merge")
    }
    fakes = {
        "pipeline": SimpleNamespace(**stages, parts=note("parts", {"codecs": ["a", "b"]})),
        "hub": SimpleNamespace(push=note("push", "pushed")),
        "config.recipe": SimpleNamespace(
            load=lambda name, changes: (name, changes), check=note("check", ["fine", "so far"])
        ),
        "singing.singer": SimpleNamespace(
            load_singer=note(
                "load_singer",
                SimpleNamespace(
                    sing=note(
                        "sing", SimpleNamespace(save=note("save"), save_stems=note("save_stems"))
                    ),
                    codec=SimpleNamespace(format=SimpleNamespace(tracks=("vocals",))),
                ),
            )
        ),
    }
    for name, fake in fakes.items():
        monkeypatch.setitem(sys.modules, f"distill.{name}", fake)  # type: ignore[arg-type]
        room, _, last = name.rpartition(".")
        holder = importlib.import_module(f"distill.{room}" if room else "distill")
        monkeypatch.setitem(vars(holder), last, fake)
    return made


@pytest.mark.parametrize(
    ("typed", "called"),
    [
        ("run quick", ("run", (("quick", {}),), {"engine": "local", "songs": None, "out": None})),
        (
            "run quick --songs mine --out here --set train.seconds=60 --set seed=2",
            (
                "run",
                (("quick", {"train.seconds": "60", "seed": "2"}),),
                {"engine": "local", "songs": "mine", "out": Path("here")},
            ),
        ),
        ("check quick", ("check", (("quick", {}),), {})),
        ("check quick --estimate --songs mine", ("estimate", (("quick", {}),), {"songs": "mine"})),
        ("encode quick", ("encode", (("quick", {}),), {"engine": "local", "songs": None})),
        ("record quick", ("record", (("quick", {}),), {"engine": "local", "songs": None})),
        (
            "encode quick --songs mine --engine ray:head:6379",
            ("encode", (("quick", {}),), {"engine": "ray:head:6379", "songs": "mine"}),
        ),
        (
            "train quick --set a.b=c=d --out here",
            (
                "train",
                (("quick", {"a.b": "c=d"}),),
                {"engine": "local", "songs": None, "out": Path("here")},
            ),
        ),
        ("merge run out", ("merge", (Path("run"), Path("out")), {"dtype": None})),
        (
            "push folder org/name",
            ("push", (Path("folder"), "org/name"), {"private": True, "dry_run": False}),
        ),
        (
            "push folder org/name --public --dry-run",
            ("push", (Path("folder"), "org/name"), {"private": False, "dry_run": True}),
        ),
        ("parts", ("parts", (), {})),
    ],
)
def test_a_verb_is_one_call(
    calls: list[tuple[Any, ...]], typed: str, called: tuple[Any, ...]
) -> None:
    assert cli.main(typed.split()) == 0
    assert calls == [called]


def test_sing_sings_and_saves(calls: list[tuple[Any, ...]]) -> None:
    command = ["sing", "embedded", r"row\nrow", "--save", "a.wav", "--seed", "7", "--style", "folk"]
    assert cli.main(command) == 0
    sampling = {"style": "folk", "voice": None, "seed": 7, "temperature": None}
    sampling["language"] = None
    assert calls == [
        ("load_singer", (None,), {"device": None, "vocoder": None}),
        ("sing", ("row\nrow",), sampling),
        ("save", (Path("a.wav"),), {}),
    ]


def test_stems_are_saved_where_asked(calls: list[tuple[Any, ...]]) -> None:
    assert cli.main("sing embedded row --save a.wav --stems apart".split()) == 0
    assert calls[2:] == [("save", (Path("a.wav"),), {}), ("save_stems", (Path("apart"),), {})]
    cli.main("sing embedded row --save a.wav".split())
    distill.singing.singer.load_singer().codec.format.tracks = ()
    del calls[:]
    assert cli.main("sing embedded row --save a.wav --stems apart".split()) == 2
    assert [call[0] for call in calls] == ["load_singer"]  # refused before anything is sung


def test_what_verbs_return_is_printed(
    calls: list[tuple[Any, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    for typed in ("check quick", "parts", "push f org/name"):
        assert cli.main(typed.split()) == 0
    assert capsys.readouterr().out == "fine\nso far\ncodecs: a, b\npushed\n"


def test_lines_go_to_takes(calls: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    from distill.singing import takes

    monkeypatch.setattr(
        takes, "sing_lines", lambda singer, *args, **keys: calls.append(("takes", args, keys))
    )
    command = "sing here --lines l.txt --out d --score s.jsonl --temperature 0.5"
    assert cli.main(command.split()) == 0
    sampling = {"style": None, "voice": None, "seed": None, "temperature": 0.5}
    sampling["language"] = None
    assert calls[0] == ("load_singer", ("here",), {"device": None, "vocoder": None})
    assert calls[1] == (
        "takes",
        (Path("l.txt"), Path("d")),
        {"score": Path("s.jsonl"), "stems": None, **sampling},
    )


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("sing embedded", "either lyrics or --lines"),
        ("sing embedded row --lines f --out d", "either lyrics or --lines"),
        ("sing embedded --lines f", "--out DIR"),
        ("sing embedded row", "--save"),
        ("sing embedded row --save a.wav --score s", "--score gives notes"),
        ("run quick --set seed", "write it as key=value"),
        ("score quick", "score is called record now"),
    ],
)
def test_what_cannot_be_meant_is_one_line(
    calls: list[tuple[Any, ...]], capsys: pytest.CaptureFixture[str], typed: str, says: str
) -> None:
    assert cli.main(typed.split()) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert says in printed.err
    assert calls == []


def test_a_refusal_of_the_library_is_one_line(
    calls: list[tuple[Any, ...]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise FolderError("there:\n  no such folder; give another")

    monkeypatch.setattr(sys.modules["distill.pipeline"], "merge", refuse)
    assert cli.main(["merge", "there", "out"]) == 2
    assert capsys.readouterr().err == "distill: there: no such folder; give another\n"


def distill_says(*arguments: str, **keys: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "distill", *arguments], capture_output=True, text=True, **keys
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (RECIPE.replace("sing", "swim"), "task 'swim' is unknown"),
        ("task: text\nseed: 1\nseed: 2\n", "seed"),
        ("task: text\nseed: no\n", "seed"),
        ("task: text\nseed: 1\nstepz: 3\n", "stepz"),
    ],
)
def test_a_wrong_recipe_ends_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    done = distill_says("check", "mine.yaml", cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("distill: ") and done.stderr.count("\n") == 1
    assert "mine.yaml" in done.stderr and says in done.stderr


def test_help_names_every_verb_and_loads_nothing() -> None:
    code = """
import sys
from distill import cli
try:
    cli.main(["--help"])
except SystemExit:
    print(sorted({"torch", "numpy", "transformers"} & set(sys.modules)))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for verb in ("run", "check", "encode", "record", "train", "merge", "sing", "push", "parts"):
        assert f"\n    {verb} " in done.stdout
    assert done.stdout.endswith("[]\n")
