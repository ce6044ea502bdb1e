"""distill: graft audio-codec tokens onto an open LLM and distil a singer into it.

    import distill
    singer = distill.load_singer()
    take = singer.sing("row row row your boat", style="folk, calm", seed=7)
    take.save("boat.wav")

Importing this package loads nothing else: a name is fetched from its module when it is first asked
for. So `import distill` takes milliseconds, although torch and transformers take seconds.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what a type checker and an editor see; never run
    from distill.errors import DistillError
    from distill.singing.singer import Singer, Take, load_singer
    from distill.songs import Line, Note, Section, Song, Word

__version__ = "0.1.0"

_HOME = {
    "DistillError": "errors",
    "Line": "songs",
    "Note": "songs",
    "Section": "songs",
    "Singer": "singing.singer",
    "Song": "songs",
    "Take": "singing.singer",
    "Word": "songs",
    "load_singer": "singing.singer",
}

__all__ = [
    "DistillError",
    "Line",
    "Note",
    "Section",
    "Singer",
    "Song",
    "Take",
    "Word",
    "__version__",
    "load_singer",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(
            f"module 'distill' has no attribute {name!r}; its names are {', '.join(__all__)}"
        )
    value = getattr(importlib.import_module(f"distill.{_HOME[name]}"), name)
    globals()[name] = value  # found once; the next use costs nothing
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
