"""What stands on what: imports go strictly down, heavy libraries stay where they belong, data stays data.

The floors are those of ARCHITECTURE.md, cut a little finer where one file of a floor stands on another.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "distill"
MIB = 2**20

FLOORS = [
    "errors",
    "folders plain_yaml torchaudio_standin letters pinyin statistics licences mpeg",
    "containers ffmpeg layouts codec_format",
    "decoding",
    "settings devices audio pictures songs vocabulary reading checkpoints runs progress",
    "grammar lyrics families signals losses learn_letters attention stems",
    "prompts graft bases blank proof",
    "sources curation exporters codecs measures batches student trainer",
    "curating vocoders scores merge encoding judging",
    "curation_song",
    "curation_page",
    "gathering",
    "shelf",
    "teachers",
    "tasks singer",
    "recipe",
    "pipeline hub takes",
    "cli serve",
    "__main__ __init__",
]
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names.split()}
FOLDERS = {"sources", "curation", "exporters", "codecs", "vocoders", "teachers", "measures", "tasks", "serve"}

MODELS = {
    "attention",
    "student",
    "merge",
    "bases",
    "blank",
    "teachers",
    "tasks",
    "singer",
    "codecs",
    "vocoders",
    "curation",
}
ALLOWED = {  # a heavy library -> the modules and folders that may import it
    "transformers": MODELS,
    "peft": MODELS,
    "bitsandbytes": MODELS,
    "dac": {"codecs", "vocoders"},
    "vocos": {"codecs", "vocoders"},
    "encodec": set(),  # CC-BY-NC by its metadata: the tests' alone
    "snac": {"codecs", "vocoders"},
    "torchaudio": {"codecs", "vocoders", "torchaudio_standin"},
    "accelerate": {"trainer"},
    "huggingface_hub": {"folders", "hub", "sources"},
    "pocketsphinx": {"measures", "letters", "learn_letters"},
    "pyworld": {"measures", "sources", "curation"},
    "espeakng_loader": {"sources", "curation"},
    "datasets": {"sources", "exporters"},
    "pyarrow": {"sources", "exporters"},
    "demucs": {"curation"},
}
NEEDS_STANDIN = {"transformers", "peft", "dac", "vocos", "encodec", "torchaudio"}
NO_TORCH = {*" ".join(FLOORS[:2]).split(), "settings", "songs", "lyrics", "reading"}


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if "embedded" not in path.relative_to(PACKAGE).parts)


def name_of(path: Path) -> str:
    """The dotted name inside the package: "codecs.dac"; "codecs" for its __init__."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


NAMES = {name_of(path) for path in modules()}


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Every imported module with its line, wherever in the file it is imported; "distill.x" with its x."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: import by the full name"
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            inside = [name for name in whole if name.removeprefix("distill.") in NAMES]
            yield from ((name, node.lineno) for name in inside or [str(node.module)])


def type_checking_lines(path: Path) -> set[int]:
    """Lines that only a type checker reads: they load nothing."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    blocks = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    return {line for node in blocks for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)}


def outer(name: str) -> str:
    return name.partition(".")[0]


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_imports_go_strictly_down(path: Path) -> None:
    name = name_of(path)
    assert outer(name) in FLOOR, f"{name}: give it a floor, here and in ARCHITECTURE.md"
    for wanted, line in imports(path):
        if outer(wanted) != "distill" or wanted == "distill" or line in type_checking_lines(path):
            continue
        below = wanted.removeprefix("distill.")
        assert outer(below) in FLOOR, f"{path.relative_to(ROOT)}:{line}: there is no distill/{below}"
        where = f"{path.relative_to(ROOT)}:{line}: imports {below}"
        if outer(below) == outer(name) and outer(name) in FOLDERS:
            mine, other = name.split("."), below.split(".")
            private = len(other) > 1 and other[1].startswith("_")
            assert len(mine) == 1 or len(other) == 1 or private or mine[1] == other[1], (
                f"{where}, a part beside it"
            )
        else:
            assert FLOOR[outer(below)] < FLOOR[outer(name)], f"{where}, which is not below it"


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_heavy_libraries_stay_where_they_belong(path: Path) -> None:
    name = outer(name_of(path))
    for wanted, line in imports(path):
        library = outer(wanted)
        where = f"{path.relative_to(ROOT)}:{line}: {library}"
        assert name in ALLOWED.get(library, {name}), (
            f"{where} may be imported in {sorted(ALLOWED[library])} only"
        )
        assert library != "torch" or name not in NO_TORCH, f"{where} is not for the lowest floors"


def installs(name: str, seen: set[str]) -> bool:
    """Whether importing this module of ours puts the stand-in in place, itself or by what it imports."""
    if name in seen:
        return False
    seen.add(name)
    path = next(path for path in modules() if name_of(path) == name)
    if re.search(r"^(torchaudio_standin\.)?install\(\)", path.read_text(encoding="utf-8"), re.MULTILINE):
        return True
    ours = [wanted.removeprefix("distill.") for wanted, _ in imports(path) if wanted.startswith("distill.")]
    return any(installs(other, seen) for other in ours if other in NAMES)


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_torchaudio_is_made_importable_first(path: Path) -> None:
    """Before a library that imports torchaudio, a file calls the stand-in or imports a file that does."""
    first = min((line for wanted, line in imports(path) if outer(wanted) in NEEDS_STANDIN), default=None)
    if first is None or path.stem == "torchaudio_standin" or first in type_checking_lines(path):
        return
    before = path.read_text(encoding="utf-8").splitlines()[: first - 1]
    called = any(re.match(r"\s*(torchaudio_standin\.)?install\(\)", line) for line in before)
    ours = [wanted.removeprefix("distill.") for wanted, line in imports(path) if line < first]
    called = called or any(installs(name, set()) for name in ours if name in NAMES)
    assert called, f"{path.relative_to(ROOT)}:{first}: call torchaudio_standin.install() before this import"


def test_importing_distill_takes_milliseconds_and_loads_nothing() -> None:
    code = (
        "import time, sys\nstart = time.perf_counter()\nimport distill\n"
        "seconds = time.perf_counter() - start\n"
        "print(seconds, *sorted(n for n in sys.modules if n.startswith('distill.') or n in "
        "{'torch', 'numpy', 'transformers', 'peft', 'yaml', 'huggingface_hub', 'soundfile'}))"
    )
    told = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(3)
    ]
    assert all(words[1:] == [] for words in told), told
    assert min(float(words[0]) for words in told) <= 0.1


def test_names_of_distill_are_there_and_others_are_refused() -> None:
    import distill

    assert set(distill.__all__) == {*distill._HOME, "__version__"}
    assert distill.Song is __import__("distill.songs").songs.Song
    with pytest.raises(AttributeError, match="no attribute 'Sung'"):
        _ = distill.Sung


def kept_files() -> list[Path]:
    """What git keeps or would keep; without git, everything outside .venv."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode == 0:
        paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:
        paths = [path for path in ROOT.rglob("*") if not {".venv", ".git", "__pycache__"} & set(path.parts)]
    return [path for path in paths if path.is_file()]


def test_files_are_small_enough_to_clone() -> None:
    large = [str(path.relative_to(ROOT)) for path in kept_files() if path.stat().st_size > 16 * MIB]
    assert large == []
    embedded = [path for path in (PACKAGE / "embedded").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in embedded) <= 36 * MIB


def test_nothing_kept_is_a_pickle() -> None:
    suffixes = {".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt", ".npy", ".npz", ".joblib"}
    for path in kept_files():
        assert path.suffix not in suffixes, path
        if PACKAGE / "embedded" in path.parents:
            head = path.read_bytes()[:2]
            assert not (head[:1] == b"\x80" and head[1:] in (b"\x02", b"\x03", b"\x04", b"\x05")), (
                f"{path}: is a pickle"
            )


def test_data_folders_are_not_packages() -> None:
    for folder in ("adapters", "recipes", "eval", "bench"):
        assert not list((ROOT / folder).rglob("__init__.py")), f"{folder}/ must not be importable"


def test_no_make_target_is_taken_for_a_folder() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):(?!=)", text, re.MULTILINE))
    phony = set(re.search(r"^\.PHONY:([^#\n]*)", text, re.MULTILINE).group(1).split())  # type: ignore[union-attr]
    assert targets == phony
    assert {
        "distill",
        "sing",
        "eval",
        "push",
        "test",
        "test-all",
        "check",
        "bench",
        "setup",
        "clean",
    } <= targets
