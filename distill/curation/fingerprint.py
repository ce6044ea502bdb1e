"""The fingerprint of the code, weights and libraries that shape a curated song.

It covers the steps and all that they import, directly or round about, and nothing else: a changed
page, trainer or runner leaves everybody's results as they are. Two things of the runner's shape a
result as well, and stand beside this in a result's key: the limits of decoding, and
`one_song.VERSION`, raised by hand when the stages, the way sound is written, or the form of results
changes.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

from distill.folders import package_path, sha256_bytes, sha256_file

PACKAGE = Path(__file__).resolve().parents[1]
WEIGHTS = ("aligner", "lexicon")
LIBRARIES = (
    "numpy scipy soxr soundfile pyloudnorm ftfy py3langid pypinyin espeakng-loader demucs torch "
    "transformers"
).split()


@cache
def of_steps() -> list[str]:
    """One hash of all files that results depend on, and the versions of the libraries."""
    files = code((PACKAGE / "curation" / "steps").rglob("*.py"))
    for folder in map(package_path, WEIGHTS):
        files += sorted(path for path in folder.iterdir() if path.suffix != ".md")
    return [sha256_bytes("".join(map(sha256_file, files)).encode()), *map(_version, LIBRARIES)]


def code(files: Iterable[Path]) -> list[Path]:
    """These files and those of this package that they import, directly or round about, in order."""
    todo, reached = list(files), set[Path]()
    while todo:
        path = todo.pop()
        if path not in reached:
            reached.add(path)
            todo += _imports(path)
    return sorted(reached)


def _imports(path: Path) -> Iterator[Path]:
    """The files of this package that a file imports, wherever in it, but for a type checker's."""
    nodes: list[ast.AST] = [ast.parse(path.read_bytes())]
    while nodes:
        node = nodes.pop()
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif not (isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"):
            nodes += (n for n in ast.iter_child_nodes(node) if not isinstance(n, ast.expr))
        yield from (file for name in names if (file := _file(name)))


def _file(name: str) -> Path | None:
    """The file of a module, or of the module that a name stands in; None outside this package."""
    package, *parts = name.split(".")
    for end in (len(parts), len(parts) - 1) if package == PACKAGE.name else ():
        module = PACKAGE.joinpath(*parts[: max(end, 0)])
        for path in (module.with_suffix(".py"), module / "__init__.py"):
            if path.is_file():
                return path
    return None


def _version(library: str) -> str:
    try:
        return f"{library} {metadata.version(library)}"
    except metadata.PackageNotFoundError:
        return f"no {library}"
