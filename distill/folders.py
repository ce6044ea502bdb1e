"""Folders: where things are, and how they come to be whole or not at all.

Whatever this library leaves on disk appears in one step. A file is written beside its place,
flushed to the disk, and renamed. A folder is filled under a hidden name, gets a `manifest.json`
with the sha256 of every file, is flushed, and is renamed. So a reader finds the old thing or the
new thing, whatever was killed in between, and `whole` can tell a damaged folder from a sound one.

`locate` turns what a recipe says ("embedded/base", a path, "package:name/file", "org/name@main")
into a folder or a file on this disk; nothing else of the library downloads from a hub.
"""

from __future__ import annotations

import glob
import hashlib
import importlib.util
import json
import logging
import os
import re
import shutil
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.errors import CheckpointError, FolderError, first_line

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("distill")

Json = dict[str, Any]  # an object as JSON holds it: what our files, cards and reports say
MANIFEST = "manifest.json"
HASHES = "hashes.sqlite"
RACY_SECONDS = 2.0  # what the coarsest clocks of disks count in
OWN_CODEC = "./codec"  # a path in singer.json: the codec lies in the singer's own folder
_PARTIAL = ".partial-"
_HUB_NAME = re.compile(
    r"(?P<name>[\w.-]+/[\w.-]+)(/(?P<file>[\w./-]+\.gguf))?(@(?P<revision>[\w./-]+))?"
)
_PACKAGE = "package:"
# what a hub's repository may hold beside the weights that are used: other forms of the same
_WEIGHTS = (".safetensors", ".safetensors.index.json")
_PICKLES = (".bin", ".bin.index.json", ".pth", ".pt", ".th", ".ckpt")
_EXPORTS = (".gguf", ".onnx", ".onnx_data", ".h5", ".msgpack", ".ot", ".tflite", ".mlmodel")
_WEIGHT_FORMS = _WEIGHTS + _PICKLES + _EXPORTS
_OTHER_FORMS = {"original", "onnx", "openvino", "coreml", "metal", "gguf", "tflite"}
_SHARD = re.compile(r"model(-\d+-of-\d+\.safetensors|\.safetensors\.index\.json)")
# not model.safetensors itself: shards of it, another dtype's variant, a maker's own layout
_SECOND_COPY = re.compile(r"(model[.-].+|consolidated.*)\.safetensors(\.index\.json)?")


def package_path(name: str) -> Path:
    """The folder (or file) `name` of the package's own data, whether or not it exists."""
    return Path(__file__).resolve().parent / "embedded" / name


def cache_folder() -> Path:
    """$DISTILL_CACHE, else ~/.cache/distill."""
    return Path(os.environ.get("DISTILL_CACHE") or Path.home() / ".cache" / "distill")


def locate(where: str, reads: str = "") -> Path:
    """The folder or file of "embedded/<part>", a path, "package:NAME/FILE" (of an installed Python
    package, which is not imported), "org/name[@revision]", or one file of a hub's repository,
    "org/name/FILE.gguf[@revision]". Of a repository one copy of the weights is fetched (`needed`),
    and what `reads` names. FolderError when it is none of these or cannot be fetched.
    """
    text = str(where)
    if text.startswith("embedded/"):
        inside = package_path(text.removeprefix("embedded/"))
        if inside.exists():
            return inside
        raise FolderError(f"{text}: this part is not in the package; is the install complete?")
    if text.startswith(_PACKAGE):
        return _in_package(text)
    folder = Path(text).expanduser()
    if folder.exists():
        return folder
    if not (match := _HUB_NAME.fullmatch(text)):
        ways = "an existing folder, embedded/<part>, package:NAME/FILE, or org/name of a hub"
        raise FolderError(f"{text}: no such folder; give {ways}")
    try:
        return _fetched(match["name"], match["file"], match["revision"], reads)
    except FolderError:
        raise
    except Exception as error:  # the hub client has many error types; all mean the same here
        reason = first_line(error)
        fault = f"no such folder, and no hub gave it ({reason})"
        raise FolderError(f"{text}: {fault}; check the name and network") from error


def public_name(where: str) -> str:
    """What may be published of where something lies: of a path that leaves the current folder, its
    last part; a hub id or a package's file as it stands."""
    return Path(where).name if where.startswith(("/", "~", "..")) else where


def _in_package(text: str) -> Path:
    """What "package:NAME/INSIDE" names, without running any of the package's code."""
    name, _, inside = text.removeprefix(_PACKAGE).partition("/")
    if not name.isidentifier() or not inside or ".." in Path(inside).parts:
        raise FolderError(f"{text}: names no file of a package; write it as package:NAME/FILE")
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        missing = "this Python package is not installed"
        raise FolderError(f"{text}: {missing}; pip install {name.replace('_', '-')}")
    homes = [Path(home) for home in spec.submodule_search_locations]
    for home in homes:
        if (home / inside).exists():
            return home / inside
    names = sorted(path.name for home in homes for path in home.iterdir() if path.is_file())
    weights = [path for path in names if not path.endswith((".py", ".pyi", ".typed"))]
    has = ", ".join(weights[:5]) or "no data"
    raise FolderError(f"{text}: the package holds no such file; it has {has}")


# --- from a hub -----------------------------------------------------------------------------------
def _fetched(name: str, file: str | None, revision: str | None, reads: str) -> Path:
    """A repository's needed files, or the one that is named, in the hub client's cache."""
    from huggingface_hub import hf_hub_download, snapshot_download

    if file is not None:
        return Path(hf_hub_download(name, file, revision=revision))
    try:
        names = _listed(name, revision)
    except Exception:
        with suppress(Exception):  # an older client has fetched it and kept no list
            return Path(snapshot_download(name, revision=revision, local_files_only=True))
        raise
    ggufs = [path for path in names if path.endswith(".gguf")]
    if ggufs and not any(path.endswith(_WEIGHTS + _PICKLES) for path in names):
        ways = f"name the file that is meant, {name}/{ggufs[0]}"
        raise FolderError(f"{name}: holds {len(ggufs)} GGUF files and no other weights; {ways}")
    patterns = [glob.escape(path) for path in (*needed(names), *filter(None, [reads]))]
    return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))


def _listed(name: str, revision: str | None) -> list[str]:
    """The files of a repository, as the hub says now, or said when they were fetched."""
    from huggingface_hub import HfApi, get_cached_repo_tree

    try:
        siblings = HfApi().model_info(name, revision=revision).siblings or []
        return [sibling.rfilename for sibling in siblings]
    except Exception:
        with suppress(Exception):
            return [entry.path for entry in get_cached_repo_tree(name, revision=revision)]
        raise


def needed(names: Sequence[str]) -> list[str]:
    """Of a repository's files those that are used: one copy of the weights, in safetensors where
    there are any, else in PyTorch's own form. What this library has pushed is whole."""
    forms = [form for form in (_WEIGHTS, _PICKLES) if any(_is_at_top(name, form) for name in names)]
    if "singer.json" in names or not forms:
        return list(names)
    others = tuple(form for form in _WEIGHT_FORMS if form not in forms[0])
    whole_model = "model.safetensors" in names
    kept = []
    for name in names:
        folder = name.partition("/")[0] if "/" in name else ""
        is_shard = bool(_SHARD.fullmatch(name))
        second = (_SECOND_COPY.fullmatch(name) or is_shard) and (whole_model or not is_shard)
        if folder not in _OTHER_FORMS and not name.endswith(others) and not second:
            kept.append(name)
    return kept


def _is_at_top(name: str, endings: tuple[str, ...]) -> bool:
    return "/" not in name and name.endswith(endings)


def sha256_bytes(content: bytes) -> str:
    """The sha256 of `content`, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def sha256_file(path: str | Path) -> str:
    """The sha256 of a file's content, in hexadecimal, read in pieces."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_files(paths: Iterable[str | Path]) -> list[str]:
    """The sha256 of each file, remembered in the cache by path, size, times and inode.

    A changed file is hashed again. One that changed less than RACY_SECONDS before it was hashed is
    not remembered: it could change once more within the grain of the disk's clock. Without a cache
    that can be written every file is hashed.
    """
    try:
        with closing(_hashes_kept()) as kept:
            return [_sha256_kept(kept, Path(path).absolute()) for path in paths]
    except sqlite3.Error as error:  # a full disk, a cache for reading only, a damaged one
        log.info("%s: %s; files are hashed again", cache_folder() / HASHES, error)
        return [sha256_file(path) for path in paths]


def _hashes_kept() -> sqlite3.Connection:
    """The table of remembered hashes; one that is damaged, or of another form, is begun again."""
    path = cache_folder() / HASHES
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise sqlite3.OperationalError(str(error)) from error
    columns = "path BLOB PRIMARY KEY, stat TEXT NOT NULL, sha256 TEXT NOT NULL"
    for attempt in (1, 2):
        kept = sqlite3.connect(path, timeout=60, isolation_level=None)
        try:
            kept.execute("PRAGMA journal_mode=WAL")  # readers and a writer do not wait
            kept.execute("PRAGMA synchronous=NORMAL")
            kept.execute(f"CREATE TABLE IF NOT EXISTS files ({columns})")
            kept.execute("SELECT path, stat, sha256 FROM files LIMIT 1")
            return kept
        except sqlite3.DatabaseError as error:
            kept.close()
            if attempt == 2 or isinstance(error, sqlite3.OperationalError):
                raise
            log.warning("%s: %s; begun again", path, error)
            for left in path.parent.glob(HASHES + "*"):
                left.unlink(missing_ok=True)
    raise AssertionError("unreachable")


def _sha256_kept(kept: sqlite3.Connection, path: Path) -> str:
    before, name = _stat_of(path), os.fsencode(path)
    row = kept.execute("SELECT stat, sha256 FROM files WHERE path = ?", (name,)).fetchone()
    if row is not None and row[0] == before:
        return str(row[1])
    began = time.time()
    digest = sha256_file(path)
    status = path.stat()
    if max(status.st_mtime, status.st_ctime) + RACY_SECONDS < began and _stat_of(path) == before:
        kept.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", (name, before, digest))
    return digest


def _stat_of(path: Path) -> str:
    """What changes when a file does: size, inode, and both times; ctime cannot be set back."""
    status = path.stat()
    times = (status.st_mtime_ns, status.st_ctime_ns)
    return " ".join(map(str, (status.st_size, *times, status.st_ino)))


def fingerprint(thing: str | Path | Mapping[str, Tensor]) -> str:
    """One sha256 of a folder's names and contents (not manifest, *.md), or of named tensors: name,
    dtype, shape and values, in the order of their names, never strides or device."""
    digest = hashlib.sha256()
    if isinstance(thing, Mapping):
        for name in sorted(thing):
            tensor = thing[name].detach().cpu()
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            if "float8" in str(tensor.dtype) or "bfloat16" in str(tensor.dtype):
                tensor = tensor.float()  # exact, and numpy knows neither type
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()
    files = _files_but_cards(Path(thing))
    for path, content in zip(files, sha256_files(files), strict=True):
        digest.update(f"{path.relative_to(thing).as_posix()} {content}\n".encode())
    return digest.hexdigest()


def write_atomic(path: str | Path, content: bytes) -> None:
    """Writes a file, whole or not at all. Raises FolderError (a full disk, no permission)."""
    path = Path(path)
    partial = path.with_name(f"{_PARTIAL}{path.name}-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        _sync(path.parent)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise _unwritten(path, error) from error


def _unwritten(path: Path, error: OSError) -> FolderError:
    fault = f"cannot be written ({error.strerror or error})"
    return FolderError(f"{path}: {fault}; what stood there before is untouched")


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """An empty folder to fill; when the block ends well it becomes `path`, with a manifest.

    When the block raises, nothing of it remains and what stood at `path` is untouched. A kill
    between the two renames leaves the old one beside, never a mixture. FolderError when the disk
    refuses.
    """
    path = Path(path)
    partial = path.parent / f"{_PARTIAL}{path.name}-{os.getpid()}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        yield partial
        seal(partial)
        if path.exists():
            discard(path)
        partial.rename(path)
        _sync(path.parent)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError) and not isinstance(error, FolderError):
            raise _unwritten(path, error) from error
        raise


def discard(path: Path) -> None:
    """Removes a folder, renamed first: a half-removed one is never taken for a damaged one."""
    aside = path.parent / f"{_PARTIAL}old-{path.name}-{os.getpid()}"
    shutil.rmtree(aside, ignore_errors=True)
    path.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def damage(folder: str | Path) -> str | None:
    """What is wrong with a folder that should match its manifest; None when it is whole."""
    folder = Path(folder)
    try:
        listed = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if not isinstance(listed, dict) or not listed:
            return f"{MANIFEST} lists nothing"
        for name, expected in listed.items():
            if not (folder / name).is_file():
                return f"{name} is missing"
            if sha256_file(folder / name) != expected:
                return f"{name} is not what its manifest says"
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (OSError, ValueError) as error:
        return f"what {MANIFEST} lists cannot be read ({error})"
    return None


def whole(folder: str | Path) -> bool:
    """Whether every file that the folder's manifest lists is there, unchanged."""
    return damage(folder) is None


def newest_whole(parent: str | Path, prefix: str = "step-") -> Path | None:
    """The newest (by name) whole folder `parent/prefix*`, or None; damaged newer ones are logged.
    CheckpointError when all are damaged: starting afresh would throw work away."""
    damaged: list[str] = []
    for folder in sorted((p for p in Path(parent).glob(prefix + "*") if p.is_dir()), reverse=True):
        reason = damage(folder)
        if reason is None:
            for words in damaged:
                log.warning("%s; going on from %s", words, folder.name)
            return folder
        damaged.append(f"{folder}: damaged: {reason}")
    if damaged:
        ways = "restore one, or remove that folder to begin again"
        raise CheckpointError(f"{damaged[0]}; no whole one is left in {parent}: {ways}")
    return None


def seal(folder: Path) -> None:
    """Writes the manifest and flushes all below. Cards are not in it: words may be mended."""
    files = _files_but_cards(folder)
    hashes = {path.relative_to(folder).as_posix(): sha256_file(path) for path in files}
    (folder / MANIFEST).write_text(json.dumps(hashes, indent=1), encoding="utf-8")
    for path in (*folder.rglob("*"), folder):
        if path.is_file() or path.is_dir():
            _sync(path)


def _files_but_cards(folder: Path) -> list[Path]:
    """Every file below a folder, in the order of their names, but its manifest and cards (.md)."""
    if not folder.is_dir():
        raise FolderError(f"{folder}: no such folder")
    files = (p for p in folder.rglob("*") if p.is_file() and p.suffix != ".md")
    return sorted(path for path in files if path != folder / MANIFEST)


def _sync(path: Path) -> None:
    """Flushes a file or a folder's list of names to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep(parent: Path) -> None:
    """Removes what killed processes left half-written here."""
    for left in parent.glob(_PARTIAL + "*"):
        pid = left.name.rpartition("-")[2]
        if pid.isdigit() and _alive(int(pid)):
            continue
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    """Whether a process still runs; one that has ended and waits for its parent does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        pass
    with suppress(OSError, IndexError):  # where there is /proc
        state = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
        return state not in ("Z", "X")
    return True
