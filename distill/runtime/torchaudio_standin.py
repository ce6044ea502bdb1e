"""Make `import torchaudio` work where its compiled part cannot load.

dac, vocos, encodec, and (when torchaudio is installed) peft and transformers' model classes import
torchaudio. The only wheel of torchaudio 2.11 carries a shared object linked to CUDA libraries, so
on a computer without CUDA the import ends in an OSError, and on one with another CUDA version in a
RuntimeError. Everything that this project needs of torchaudio is pure Python (resampling, mel
filters). So: try the real import; if its compiled part refuses, put an empty module in the place of
that part, and import again. What needs the compiled part then says so when it is called.

It must run before the first import of peft, transformers' models, dac, vocos or encodec, hence:

    from distill.runtime import torchaudio_standin
    torchaudio_standin.install()
    import peft
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any, NoReturn

EXTENSION = "torchaudio._extension"


def install() -> str:
    """Makes torchaudio importable; what is in place: "native", "stand-in" or "absent"."""
    if "torchaudio" in sys.modules:
        return "stand-in" if getattr(sys.modules.get(EXTENSION), "is_standin", False) else "native"
    if importlib.util.find_spec("torchaudio") is None:
        return "absent"
    try:
        _import_torchaudio()
        return "native"
    except (OSError, RuntimeError):  # a CUDA library is missing | built for another CUDA version
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchaudio"]:
            del sys.modules[name]
    sys.modules[EXTENSION] = _empty_extension()
    _import_torchaudio()
    return "stand-in"


def _import_torchaudio() -> None:
    # deprecation notices of torchaudio about itself: nothing a user could act on
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("torchaudio")


def _empty_extension() -> ModuleType:
    """The four names that torchaudio's Python code reads from its compiled part."""
    extension: Any = ModuleType(EXTENSION)
    extension.is_standin = True
    extension._IS_TORCHAUDIO_EXT_AVAILABLE = False
    extension._IS_ALIGN_AVAILABLE = False
    extension._check_cuda_version = lambda: None
    extension.fail_if_no_align = _refuse_when_called
    return extension


def _refuse_when_called(function: Callable[..., object]) -> Callable[..., NoReturn]:
    name = f"torchaudio.{function.__name__}"

    @functools.wraps(function)
    def refuse(*_: object, **__: object) -> NoReturn:
        raise RuntimeError(f"{name} needs torchaudio's compiled extension, which cannot load here")

    return refuse
