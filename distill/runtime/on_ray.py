"""Jobs done by Ray: on this machine, or on every machine of a cluster.

Ray schedules, restarts what was killed, and brings results back; here is only what makes a worker
elsewhere the same as one here. It does a job only if

- it stands in the caller's folder and sees `cache_folder()`, the caller's and no other: sound is
  read and results are written there, where the next stage looks. So both lie on a disk that all
  machines share, under the same path;
- it runs the caller's versions of Python, distill and the libraries that make numbers.

Otherwise the run ends with one line that names the machine.
"""

from __future__ import annotations

import functools
import logging
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from distill import __version__
from distill.errors import DistillError, FolderError, SettingsError, first_line
from distill.folders import cache_folder, sha256_bytes
from distill.runtime.workers import ONE_THREAD, Died, Failed, answered, result_of

Job = TypeVar("Job")
Result = TypeVar("Result")
TRIES = 2  # again, after the first, for a job whose worker was killed
AHEAD = 2  # jobs that wait in the cluster, for each that runs
LIBRARIES = ("torch", "numpy", "scipy", "soundfile", "soxr")


def versions() -> dict[str, str]:
    """What makes results the same on two machines."""
    numbers = {"distill": __version__, "python": platform.python_version()}
    for library in LIBRARIES:
        with suppress(PackageNotFoundError):
            numbers[library] = version(library)
    return numbers


@dataclass(frozen=True)
class Meeting:
    """Where a job must be done, and by what: the caller's folder, cache, versions, and a file in
    the cache whose content proves that it is the same one."""

    folder: str
    cache: str
    probe: str
    content: bytes
    versions: Mapping[str, str]
    modules: tuple[str, ...]  # where the caller's own steps of curation are imported from

    def fault(self) -> str | None:
        """What is different here; None where nothing is."""
        for name, wanted in self.versions.items():
            if (here := versions().get(name)) != wanted:
                return f"has {name} {here or 'not at all'}, not {wanted}; install the same"
        shared = "share it between the machines, under the same path"
        try:
            os.chdir(self.folder)
        except OSError:
            return f"does not see the folder {self.folder}; {shared}"
        try:
            same = Path(self.probe).read_bytes() == self.content
        except OSError:
            same = False
        if not same:
            return f"does not see the cache {self.cache}; {shared} (DISTILL_CACHE names it)"
        sys.path += [path for path in self.modules if path not in sys.path]
        return None


class OnRay:
    """A Ray that is connected to; `started` makes one."""

    def __init__(self, ray: Any) -> None:
        self.ray = ray

    @classmethod
    @contextmanager
    def started(cls, address: str | None, workers: int | None = None) -> Iterator[OnRay]:
        """Connected until the block ends: to `address`, to the cluster that RAY_ADDRESS names, or
        to a Ray of this machine alone, of `workers` (its cores). SettingsError for none there."""
        # its usage reports would go to a stranger
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError as error:
            words = 'is not installed; pip install "distill[ray]"'
            raise SettingsError(f"--engine ray: Ray {words}") from error
        address = address or os.environ.get("RAY_ADDRESS")
        options: dict[str, Any] = {"address": address}
        if address is None:  # begun here, heard here alone
            options = {"address": "local", "include_dashboard": False, "num_cpus": workers}
            # any of 127.0.0.0/8; of 127.0.0.1 it makes the address that others reach
            options |= {"_node_ip_address": "127.0.0.2"} if sys.platform == "linux" else {}
        try:
            ray.init(**options, logging_level=logging.WARNING, configure_logging=False)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            reason = first_line(error)
            ways = "give ray:ADDRESS of a running head, or ray alone"
            raise SettingsError(
                f"--engine ray: no cluster at {address} ({reason}); {ways}"
            ) from None
        try:
            yield cls(ray)
        finally:
            ray.shutdown()

    def each(
        self,
        work: Callable[[Job], Result],
        jobs: Sequence[Job],
        name: str,
        environment: Mapping[str, str] = ONE_THREAD,
    ) -> Iterator[tuple[int, Result | Died]]:
        """(number of the job, what `work` makes of it), as they are done; jobs begin in order."""
        with _meeting() as meeting:
            task = self._task(environment)
            shared = self.ray.put(work)  # sent to a machine once
            todo = iter(enumerate(jobs))
            running: dict[Any, int] = {}
            try:
                while True:
                    most = AHEAD * max(1, int(self.ray.cluster_resources().get("CPU", 1)))
                    for number, job in todo:
                        running[task.remote(meeting, [shared], job)] = number
                        if len(running) >= most:
                            break
                    if not running:
                        return
                    for done in self.ray.wait(list(running))[0]:
                        yield running.pop(done), self._result(done, name)
            finally:
                for left in running:
                    self.ray.cancel(left, force=True)

    def _task(self, environment: Mapping[str, str]) -> Any:
        package = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        variables = {**environment, "DISTILL_CACHE": str(cache_folder().resolve())}
        variables["PYTHONPATH"] = path
        options = {"num_cpus": 1, "max_retries": TRIES, "runtime_env": {"env_vars": variables}}
        return self.ray.remote(**options)(_done_there)

    def _result(self, done: Any, name: str) -> Any:
        """A task's answer; Died where its workers were killed, time and again."""
        from ray.exceptions import RayError, RayTaskError, RuntimeEnvSetupError

        try:
            return result_of(self.ray.get(done), name)
        except (RayTaskError, RuntimeEnvSetupError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            ways = "is distill installed on every machine of the cluster?"
            raise DistillError(f"{name}: a Ray worker failed ({reason}); {ways}") from error
        except RayError as error:
            return Died(first_line(error))


@contextmanager
def _meeting() -> Iterator[Meeting]:
    """A file in the cache, as long as jobs are done."""
    cache = cache_folder().resolve()
    content = os.urandom(16)
    probe = cache / f".partial-engine-{sha256_bytes(content)[:8]}-{os.getpid()}"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(content)
    except OSError as error:
        raise FolderError(f"{cache}: cannot be written ({error.strerror}); make room") from error
    try:
        here, modules = str(Path.cwd()), tuple(sys.path)
        yield Meeting(here, str(cache), str(probe), content, versions(), modules)
    finally:
        probe.unlink(missing_ok=True)


# --- in a worker ----------------------------------------------------------------------------------
def _done_there(meeting: Meeting, work: list[Any], job: Any) -> object:
    """One job, where the meeting finds everything as at the caller's; the answer, as a value."""
    if fault := meeting.fault():
        return SettingsError(f"--engine ray: the machine {platform.node()} {fault}")
    try:
        opened = _opened(work[0])
    except Exception as error:
        return Failed(" ".join(f"{type(error).__name__}: {error}".split()))
    return answered(opened, job)


@functools.lru_cache(maxsize=1)
def _opened(work: Any) -> Callable[[Any], Any]:
    """What is to be done, unpacked once in each worker process."""
    import ray

    return ray.get(work)
