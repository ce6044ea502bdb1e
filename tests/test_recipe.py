"""Recipes: every one on disk reads, and reads back from its resolved form."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill.config import recipe
from distill.errors import SettingsError

RECIPES = Path(__file__).resolve().parent.parent / "recipes"


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_law_a_recipe_equals_its_resolved_yaml(path: Path) -> None:
    loaded = recipe.load(path)
    again = recipe.parse(loaded.yaml(), loaded.name)
    assert again == loaded
    assert again.yaml() == loaded.yaml()
    assert recipe.load(path.stem) == loaded


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_law_a_recipe_names_no_path_of_a_machine(path: Path) -> None:
    assert not any(
        word.startswith(("/", "~", "C:")) for word in path.read_text(encoding="utf-8").split()
    )


def test_a_key_of_an_earlier_version_is_refused_by_name() -> None:
    text = (
        "task: sing\nseed: 1\nsongs: {kind: embedded}\ncodec: {kind: embedded}\nbase: {blank: {}}\n"
    )
    with pytest.raises(SettingsError, match=r"x\.yaml: base\.blank is called from_scratch now"):
        recipe.parse(text, "x", "x.yaml")


def test_names_and_paths_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = sorted(RECIPES.glob("*.yaml"))[0]
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "mine.yaml").write_text(
        source.read_text(encoding="utf-8"), encoding="utf-8"
    )
    monkeypatch.chdir(tmp_path)
    names = [
        "mine",
        "mine.yaml",
        "recipes/mine.yaml",
        "recipes/mine",
        tmp_path / "recipes" / "mine.yaml",
    ]
    assert len({recipe.load(name).yaml() for name in names}) == 1
    assert recipe.load("mine").name == "mine"
    # those beside the package are found from anywhere
    assert recipe.load(source.stem).name == source.stem


def test_overrides_are_in_what_is_saved() -> None:
    path = sorted(RECIPES.glob("*.yaml"))[0]
    changed = recipe.load(path, {"seed": "99", "train.learning_rate": "2e-4"})
    assert changed.seed == 99
    assert changed.settings.train.learning_rate == 2e-4
    assert recipe.parse(changed.yaml(), changed.name) == changed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train.step": "3"}, "train.step is unknown; did you mean steps?"),
        ({"task": "singg"}, "task 'singg' is unknown; give one of"),
        ({"seed": "1.5"}, "seed is 1.5; give a whole number"),
        ({"seed": "true"}, "seed is True; give a whole number"),
        ({"seed": "-1"}, "seed is -1"),
        (
            {"train.learning_rate": "fast"},
            'train.learning_rate is "fast" (text); it must be a number',
        ),
    ],
)
def test_mistakes_name_the_file(change: dict[str, str], message: str) -> None:
    path = sorted(RECIPES.glob("*.yaml"))[0]
    with pytest.raises(SettingsError) as error:
        recipe.load(path, change)
    assert message in str(error.value)
    assert str(error.value).startswith(str(path))


def test_an_unknown_recipe_lists_what_there_is() -> None:
    with pytest.raises(
        SettingsError,
        match=rf"recipe nowhere: no such file.*{sorted(RECIPES.glob('*.yaml'))[0].stem}",
    ):
        recipe.load("nowhere")


def test_check_says_task_parts_and_end() -> None:
    loaded = recipe.load(sorted(RECIPES.glob("*.yaml"))[0])
    lines = recipe.check(loaded)
    assert lines[0] == f"{loaded.name}: task {loaded.task}, seed {loaded.seed}"
    assert any("training ends after" in line for line in lines)
    assert all("\n" not in line for line in lines)
