"""Make `import torchaudio` work where its compiled part cannot load.

dac, vocos, encodec, and (when torchaudio is installed) peft and transformers' model classes import
torchaudio. The only wheel of torchaudio 2.11 carries a shared object linked to CUDA libraries, so
on a computer without CUDA the import ends in an OSError, and on one with another CUDA version in a
RuntimeError. Everything that this project needs of torchaudio is pure Python (resampling, mel
filters). So: when its compiled part is imported and refuses, an empty one takes its place. What
needs the compiled part then says so when it is called.

Within this library it must be in place before the first import of peft, transformers' models, dac,
vocos or encodec, hence:

    from distill.runtime import torchaudio_standin
    torchaudio_standin.install()
    import peft

That helps nobody who imports transformers without this library, say to use what it has made. For
them the environment itself is mended, once:

    python -m distill.runtime.torchaudio_standin            # or: ... remove

puts a copy of this file into the environment's site-packages, and beside it a `.pth` file, by which
Python runs `watch` at every start. That costs a millisecond, loads nothing, and does nothing until
torchaudio is imported. `setup.sh` calls it. This file therefore imports nothing of this library.
"""

from __future__ import annotations

import functools
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

EXTENSION = "torchaudio._extension"
HOOK = "torchaudio_cpu_standin"  # the copy's name in site-packages


def install() -> str:
    """Makes torchaudio importable and imports it; what is in place: "native", "stand-in" or
    "absent"."""
    if "torchaudio" not in sys.modules:
        if importlib.util.find_spec("torchaudio") is None:
            return "absent"
        watch()
        # deprecation notices of torchaudio about itself: nothing a user could act on
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module("torchaudio")
    return "stand-in" if getattr(sys.modules.get(EXTENSION), "is_standin", False) else "native"


def watch() -> None:
    """From now on in this process an extension of torchaudio that cannot load is replaced."""
    if not any(type(finder).__name__ == Watcher.__name__ for finder in sys.meta_path):
        sys.meta_path.insert(0, Watcher())


class Watcher(importlib.abc.MetaPathFinder):
    """Finds torchaudio's compiled part where it lies, and minds how it is loaded."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != EXTENSION:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Minded(spec.loader)
        return spec


class _Minded(importlib.abc.Loader):
    """A loader that leaves an empty extension where the real one cannot load."""

    def __init__(self, real: importlib.abc.Loader) -> None:
        self.real = real

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self.real.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        try:
            self.real.exec_module(module)
        except (OSError, RuntimeError):  # a CUDA library is missing | built for another version
            _empty(module)


def _empty(extension: Any) -> None:
    """The four names that torchaudio's Python code reads from its compiled part."""
    extension.is_standin = True
    extension._IS_TORCHAUDIO_EXT_AVAILABLE = False
    extension._IS_ALIGN_AVAILABLE = False
    extension._check_cuda_version = lambda: None
    extension.fail_if_no_align = _refuse_when_called


def _refuse_when_called(function: Callable[..., object]) -> Callable[..., NoReturn]:
    name = f"torchaudio.{function.__name__}"

    @functools.wraps(function)
    def refuse(*_: object, **__: object) -> NoReturn:
        raise RuntimeError(f"{name} needs torchaudio's compiled extension, which cannot load here")

    return refuse


# --- the environment ------------------------------------------------------------------------------
def into(site: Path) -> None:
    """Puts the hook into a site-packages folder: a copy of this file, and the line that calls it.

    The line is silent where the copy is gone: nothing may stop an interpreter from starting.
    """
    site.joinpath(f"{HOOK}.py").write_bytes(Path(__file__).read_bytes())
    line = f"import importlib.util as u; u.find_spec('{HOOK}') and __import__('{HOOK}').watch()\n"
    site.joinpath(f"{HOOK}.pth").write_text(line, encoding="utf-8")


def out_of(site: Path) -> None:
    """Takes the hook out again."""
    for ending in (".py", ".pth"):
        site.joinpath(HOOK + ending).unlink(missing_ok=True)


def main(arguments: Sequence[str]) -> str:
    """Mends this environment where it needs it, or with "remove" leaves it as it was."""
    import sysconfig

    site = Path(sysconfig.get_path("purelib"))
    if list(arguments) == ["remove"]:
        out_of(site)
        return f"torchaudio: nothing of ours is left in {site}"
    state = install()
    if state != "stand-in":
        return f"torchaudio: {state}, nothing to mend"
    into(site)
    return f"torchaudio: an empty extension stands in for the one that cannot load ({site})"


if __name__ == "__main__":
    print(main(sys.argv[1:]))
