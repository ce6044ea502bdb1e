"""What stands on what: imports go strictly down, heavy libraries stay where they belong, data stays
data.

The floors are read from ARCHITECTURE.md.
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

MODELS = {"lm", "singing", "codecs", "vocoders", "curation/steps"}
ALLOWED = {  # a heavy library -> the rooms and files that may import it
    "transformers": MODELS,
    "peft": MODELS | {"runtime/torchaudio_standin"},
    "bitsandbytes": MODELS | {"training/trainer"},  # an optimiser of 8 bits
    "gguf": {"lm"},
    "dac": {"codecs", "vocoders"},
    "vocos": {"codecs", "vocoders"},
    "encodec": set(),  # CC-BY-NC by its metadata: the tests' alone
    "snac": {"codecs", "vocoders"},
    "torchaudio": {"codecs", "vocoders", "runtime/torchaudio_standin"},
    "accelerate": {"training/trainer", "training/trackers"},
    "wandb": {"training/trackers"},
    "huggingface_hub": {"folders", "hub", "sources"},
    "pocketsphinx": {"measures"},
    "pyworld": {"measures", "songbook"},
    "faster_whisper": {"measures"},
    "whisper_normalizer": {"measures"},
    "jiwer": {"measures"},
    "swift_f0": {"measures"},
    "espeakng_loader": {"songbook"},
    "datasets": {"sources", "exporters"},
    "pyarrow": {"sources", "exporters"},
    "demucs": {"curation/steps"},
    "ray": {"runtime/on_ray"},
}
NEEDS_STANDIN = {"transformers", "peft", "dac", "vocos", "encodec", "torchaudio"}
NO_TORCH = {
    "errors", "folders", "licences", "config", "songs", "lyrics", "measures", "songbook",
    "sources", "exporters", "runtime/torchaudio_standin", "runtime/workers", "runtime/engines",
    "runtime/on_ray", "runtime/threads", "audio/safe_decode",
    "audio/codec_format", "audio/spectrogram", "audio/resampling",
    "curation/runner", "curation/rows", "curation/one_song", "curation/fingerprint",
    "curation/report", "curation/curated_songs", "singing/evaluate", "singing/takes",
}  # fmt: skip


def floors() -> Iterator[tuple[str, int, bool]]:
    """(room, floor, whether it is one of parts) of ARCHITECTURE.md's table."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    table = text.partition("floor  room")[2].partition("```")[0]
    number = None
    for floor, rooms in re.findall(r"^(\d+| )\s+((?:[\w/]+\*? )+) ", table, re.MULTILINE):
        number = int(floor) if floor.strip() else number
        assert number is not None
        yield from ((room.strip("*"), number, room.endswith("*")) for room in rooms.split())


FLOOR = {room: floor for room, floor, _ in floors()}
PARTS = {room for room, _, parts in floors() if parts}


def modules() -> list[Path]:
    return sorted(
        path for path in PACKAGE.rglob("*.py") if "embedded" not in path.relative_to(PACKAGE).parts
    )


def name_of(path: Path) -> str:
    """The dotted name inside the package: "codecs.dac"; "codecs" for its __init__."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


NAMES = {name_of(path) for path in modules()}


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Every imported module with its line, wherever in the file it is imported; "distill.x" with
    its x."""
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
    return {
        line for node in blocks for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }


def outer(name: str) -> str:
    return name.partition(".")[0]


def room_of(name: str) -> str:
    """The room of the table that a module lies in: "curation.steps._tags" -> "curation/steps"; ""
    for none."""
    path = name.replace(".", "/")
    return max(
        (room for room in FLOOR if path == room or path.startswith(f"{room}/")), key=len, default=""
    )


def ours(path: Path) -> Iterator[tuple[str, int]]:
    """The modules of this package that a module loads, with the line."""
    for wanted, line in imports(path):
        if (
            outer(wanted) == "distill"
            and wanted != "distill"
            and line not in type_checking_lines(path)
        ):
            yield wanted.removeprefix("distill."), line


def within(name: str, places: set[str]) -> bool:
    path = name.replace(".", "/")
    return any(path == place or path.startswith(f"{place}/") for place in places)


def test_every_room_is_there() -> None:
    assert len(FLOOR) > 20 and {"codecs", "curation/steps", "tasks"} <= PARTS
    assert [room for room in FLOOR if not any(room_of(name) == room for name in NAMES)] == []


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_imports_go_strictly_down(path: Path) -> None:
    name, room = name_of(path), room_of(name_of(path))
    assert room, f"{name}: give its room a floor in ARCHITECTURE.md"
    for below, line in ours(path):
        other, where = room_of(below), f"{path.relative_to(ROOT)}:{line}: imports {below}"
        assert other, f"{where}, which is in no room"
        if other != room:
            assert FLOOR[other] < FLOOR[room], f"{where}, which is not below it"
        elif room in PARTS:
            mine, theirs = (
                n.removeprefix(room.replace("/", ".")).split(".") for n in (name, below)
            )
            private = len(theirs) > 1 and theirs[1].startswith("_")
            face = len(mine) == 1 or len(theirs) == 1
            assert face or private or mine[1] == theirs[1], f"{where}, a part beside it"


def test_no_file_imports_itself_round_about() -> None:
    wants = {name_of(path): {name for name, _ in ours(path) if name in NAMES} for path in modules()}
    while free := {name for name, wanted in wants.items() if not wanted & wants.keys()}:
        wants = {name: wanted for name, wanted in wants.items() if name not in free}
    assert not wants, f"these import each other in a circle, or stand on one: {sorted(wants)}"


def test_few_files_stand_at_the_top() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 12


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_heavy_libraries_stay_where_they_belong(path: Path) -> None:
    name = name_of(path)
    for wanted, line in imports(path):
        library = outer(wanted)
        where = f"{path.relative_to(ROOT)}:{line}: {library}"
        if library in ALLOWED:
            assert within(name, ALLOWED[library]), (
                f"{where} may be imported in {sorted(ALLOWED[library])}"
            )
        loads_torch = library == "torch" and line not in type_checking_lines(path)
        assert not (loads_torch and within(name, NO_TORCH)), f"{where} is not for this room"


def installs(name: str, seen: set[str]) -> bool:
    """Whether importing this module of ours puts the stand-in in place, itself or by what it
    imports."""
    if name in seen:
        return False
    seen.add(name)
    path = next(path for path in modules() if name_of(path) == name)
    if re.search(
        r"^(torchaudio_standin\.)?install\(\)", path.read_text(encoding="utf-8"), re.MULTILINE
    ):
        return True
    return any(installs(other, seen) for other, _ in ours(path) if other in NAMES)


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_torchaudio_is_made_importable_first(path: Path) -> None:
    """Before a library that imports torchaudio, a file calls the stand-in or imports a file that
    does."""
    first = min(
        (line for wanted, line in imports(path) if outer(wanted) in NEEDS_STANDIN), default=None
    )
    if first is None or path.stem == "torchaudio_standin" or first in type_checking_lines(path):
        return
    before = path.read_text(encoding="utf-8").splitlines()[: first - 1]
    called = any(re.match(r"\s*(torchaudio_standin\.)?install\(\)", line) for line in before)
    called = called or any(
        installs(name, set()) for name, line in ours(path) if line < first and name in NAMES
    )
    assert called, (
        f"{path.relative_to(ROOT)}:{first}: call torchaudio_standin.install() before this import"
    )


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
        paths = [
            path
            for path in ROOT.rglob("*")
            if not {".venv", ".git", "__pycache__"} & set(path.parts)
        ]
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
