"""The documents hold: links, paths, commands and recipes are there, and the notebook runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
NOTEBOOK = DOCS / "sing.ipynb"
FOLDERS = ("adapters", "bench", "eval", "recipes")
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted(DOCS.glob("*.md")),
    *sorted(path for name in FOLDERS for path in (ROOT / name).glob("*.md")),
]
ASKED = "## I want to"
MOST_WORDS = 900
MOST_TAKE_BYTES = 300_000
MOST_PICTURE_BYTES = 60_000


def code_of(text: str) -> Iterator[str]:
    """What stands in backticks, in fences and in indented blocks."""
    fences = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
    yield from (fence.group() for fence in fences.finditer(text))
    prose = fences.sub("", text)
    yield from re.findall(r"`([^`]+)`", prose)
    yield from re.findall(r"^    .+", prose, re.MULTILINE)


def links_of(text: str) -> list[str]:
    """Targets of links and pictures that lie in this repository."""
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    return [target.partition("#")[0] for target in targets if not re.match(r"\w+:|#", target)]


def cells(kind: str) -> list[str]:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == kind]


def texts() -> Iterator[tuple[Path, str]]:
    yield from ((page, page.read_text(encoding="utf-8")) for page in PAGES)
    yield NOTEBOOK, "\n\n".join(cells("markdown"))


TEXTS = dict(texts())
CODE = {page: "\n".join(code_of(text)) for page, text in TEXTS.items()}
pages = pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.relative_to(ROOT).as_posix())


def test_the_readme_is_short() -> None:
    assert len(TEXTS[ROOT / "README.md"].split()) <= MOST_WORDS


def test_the_readme_answers_at_least_ten_questions() -> None:
    table = TEXTS[ROOT / "README.md"].partition(ASKED)[2].partition("\n\n`distill parts`")[0]
    rows = [row for row in table.splitlines() if row.startswith("| ")][1:]
    assert len(rows) >= 10
    assert all(links_of(row) for row in rows), "each row opens a file"


@pages
def test_links_lead_somewhere(page: Path) -> None:
    missing = [target for target in links_of(TEXTS[page]) if not (page.parent / target).exists()]
    assert missing == []


@pages
def test_make_targets_are_there(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):(?!=)", makefile, re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z][a-z-]*)", CODE[page])) <= targets


@pages
def test_scripts_and_modules_are_there(page: Path) -> None:
    scripts = re.findall(r"\bpython3? ([\w/.-]+\.py)\b", CODE[page])
    assert [script for script in scripts if not (ROOT / script).is_file()] == []
    modules = re.findall(r"\bpython3? -m (distill[\w.]*)", CODE[page])
    paths = [ROOT / module.replace(".", "/") for module in modules]
    assert [p for p in paths if not (p.is_dir() or p.with_suffix(".py").is_file())] == []


@pages
def test_python_files_in_code_are_there(page: Path) -> None:
    """`bench/loss.py`, or `writing/losses.py` of the package, or a file beside the page."""
    homes = (ROOT, ROOT / "distill", page.parent)
    named = {name for name in re.findall(r"[\w./-]*\w\.py\b", CODE[page]) if "/" in name}
    assert [name for name in named if not any((home / name).is_file() for home in homes)] == []


@pages
def test_recipes_are_there(page: Path) -> None:
    """By name or by path; `name` stands for any."""
    recipes = ROOT / "recipes"
    names = set(re.findall(r"\bRECIPE=([\w./-]*\w)", CODE[page])) - {"name"}
    homes = {name: (recipes / f"{name}.yaml", ROOT / name) for name in names}
    assert [name for name, places in homes.items() if not any(p.is_file() for p in places)] == []


def test_the_pages_name_what_is_looked_for() -> None:
    """The patterns above find something to look for."""
    code = "\n".join(CODE.values())
    for pattern in (r"\bmake distill\b", r"\bpython docs/takes\.py", r"python -m distill\.sources",
                    r"writing/losses\.py", r"RECIPE=quickstart\b"):  # fmt: skip
        assert re.search(pattern, code), pattern


def test_the_chain_is_a_picture_that_needs_no_background() -> None:
    tree = ElementTree.parse(DOCS / "chain.svg").getroot()
    assert tree.tag == "{http://www.w3.org/2000/svg}svg" and "viewBox" in tree.attrib
    width = float(tree.attrib["viewBox"].split()[2])
    boxes = [float(node.attrib["width"]) for node in tree.iter() if node.tag.endswith("}rect")]
    assert boxes and max(boxes) < width / 2


def test_takes_are_small_and_seen() -> None:
    import soundfile

    takes = sorted((DOCS / "takes").glob("*.flac"))
    assert 2 <= len(takes) <= 3
    assert sum(take.stat().st_size for take in takes) < MOST_TAKE_BYTES
    readme = links_of(TEXTS[ROOT / "README.md"])
    for take in takes:
        sound, picture = soundfile.info(take), take.with_suffix(".png")
        assert (sound.samplerate, sound.channels) == (24_000, 1)
        assert picture.stat().st_size < MOST_PICTURE_BYTES
        assert {f"docs/takes/{take.name}", f"docs/takes/{picture.name}"} <= set(readme)


def test_the_notebook_is_kept_without_outputs() -> None:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert code and all(not cell["outputs"] and cell["execution_count"] is None for cell in code)


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path) -> None:
    """Every code cell in one namespace, in a process and a folder of its own."""
    script = tmp_path / "cells.py"
    script.write_text("\n\n".join(cells("code")), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "boat.wav").stat().st_size > 0
    assert re.search(r"^singer +in_tune|^not measured:", done.stdout, re.MULTILINE), done.stdout
