"""Who does the work that is done song by song: this machine's processes, or a Ray cluster.

    with engines.using("ray:head:6379"):       # --engine
        ...                                    # curation, encoding and recording go there

An engine changes where jobs are done and nothing else: results are the same byte for byte, and lie
in the same folders. Without one each stage starts as many processes here as pay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol, TypeVar

from distill.errors import SettingsError
from distill.runtime.workers import ONE_THREAD, Died

Job = TypeVar("Job")
Result = TypeVar("Result")


class Engine(Protocol):
    """What curation, encoding and recording ask of whoever does their jobs."""

    def each(
        self,
        work: Callable[[Job], Result],
        jobs: Sequence[Job],
        name: str,
        environment: Mapping[str, str] = ONE_THREAD,
    ) -> Iterator[tuple[int, Result | Died]]:
        """(number of the job, what `work` makes of it), as they are done. Raises a worker's
        DistillError, or one with `name` for another error; a job whose workers die gives Died."""


_chosen: ContextVar[Engine | None] = ContextVar("engine", default=None)


def chosen() -> Engine | None:
    """The engine of `using`; None: each stage starts what pays on this machine."""
    return _chosen.get()


@contextmanager
def using(text: str | None) -> Iterator[None]:
    """Within the block per-song work is done by this engine: "local" (or None), "ray", which begins
    one here, or "ray:ADDRESS" of a cluster. SettingsError for another, or without Ray."""
    kind, _, address = (text or "local").partition(":")
    if kind not in ("local", "ray") or (kind == "local" and address):
        raise SettingsError(f"--engine {text}: unknown; give local, ray, or ray:ADDRESS")
    if kind == "local":
        yield
        return
    from distill.runtime.on_ray import OnRay

    with OnRay.started(address or None) as engine:
        token = _chosen.set(engine)
        try:
            yield
        finally:
            _chosen.reset(token)
