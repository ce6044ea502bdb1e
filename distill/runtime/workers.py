"""Plain child processes that do jobs, each the next that nobody has begun: the local engine.

    for number, answer in Local(4).each(work, jobs, "encoding"):
        ...                                # in the order in which they are done

Not `multiprocessing`: forking is unsafe beside torch's threads, and spawning would run the caller's
script again (a notebook, a pipe and an unguarded script have none to run). Not loky, which keeps
every other promise made here: when a parent is killed, its workers stay for ever.

A child that dies (out of memory, a crash in a library) takes nothing with it but its job. Such jobs
are done again when all others are done, one at a time, so that none is blamed for its neighbour.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from distill.errors import DistillError, SettingsError

Job = TypeVar("Job")
Result = TypeVar("Result")
# as many workers as there are cores
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
READY = "ready"


@dataclass(frozen=True)
class Died:
    """Stands where a result would: every process that tried this job died, as `how` says."""

    how: str


@dataclass(frozen=True)
class Failed:
    """An error that is not ours, of a worker; `words` name it in one line."""

    words: str


def answered(work: Callable[[Job], Result], job: Job) -> Result | DistillError | Failed:
    """What `work` makes of a job, or what went wrong: as a value, which travels."""
    try:
        return work(job)
    except DistillError as error:
        return error
    except Exception as error:
        return Failed(" ".join(f"{type(error).__name__}: {error}".split()))


def result_of(answer: Result | DistillError | Failed, name: str) -> Result:
    """The result in an answer. Raises the DistillError that it is, or one with `name`."""
    if isinstance(answer, DistillError):
        raise answer
    if isinstance(answer, Failed):
        raise DistillError(f"{name}: a worker failed ({answer.words}); run it with one worker")
    return answer


@dataclass(frozen=True)
class Local:
    """So many processes of this machine."""

    workers: int

    def each(
        self,
        work: Callable[[Job], Result],
        jobs: Sequence[Job],
        name: str,
        environment: Mapping[str, str] = ONE_THREAD,
    ) -> Iterator[tuple[int, Result | Died]]:
        """(number of the job, what `work` makes of it), as they are done; jobs begin in order.

        `work` is sent to a worker once. Pickled: `work`, jobs, results. Raises a worker's
        DistillError, or one with `name`.
        """
        order = pickle.dumps((sys.path, _bytes_of(work, name)))
        crew = _Crew(order, {**os.environ, **environment}, name)
        doubtful: list[tuple[int, Job]] = []
        for number, answer in crew.round(enumerate(jobs), min(self.workers, len(jobs))):
            if isinstance(answer, Died):
                doubtful.append((number, jobs[number]))
            else:
                yield number, answer
        yield from crew.round(doubtful, 1)


def _bytes_of(work: object, name: str) -> bytes:
    try:
        return pickle.dumps(work)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        fault = f"what its workers shall do cannot be sent to them ({error})"
        raise SettingsError(f"{name}: {fault}; put it into a module, or use one worker") from error


class _Crew:
    """Children at work, each served by a thread of the parent."""

    def __init__(self, order: bytes, environment: Mapping[str, str], name: str) -> None:
        self.order, self.environment, self.name = order, environment, name

    def round(
        self, jobs: Iterable[tuple[int, Any]], workers: int
    ) -> Iterator[tuple[int, Any | Died]]:
        """The answers, as they come. No child outlives it, however it ends."""
        left, answers = queue.SimpleQueue[tuple[int, Any]](), queue.SimpleQueue[Any]()
        count = 0
        for job in jobs:
            left.put(job)
            count += 1
        children: list[_Child] = []
        ended = threading.Event()

        def serve() -> None:
            try:
                self._serve(left, answers, children, ended)
            except BaseException as error:  # the caller's to raise
                answers.put(error)

        threads = [threading.Thread(target=serve, daemon=True) for _ in range(min(workers, count))]
        try:
            for thread in threads:
                thread.start()
            for _ in range(count):
                answer = answers.get()
                if isinstance(answer, BaseException):
                    raise answer
                number, value = answer
                yield number, value if isinstance(value, Died) else result_of(value, self.name)
        finally:
            ended.set()
            for child in [*children]:
                child.kill()
            for thread in threads:
                thread.join()
            for child in children:  # those that a thread started meanwhile
                child.kill()

    def _serve(
        self,
        left: queue.SimpleQueue[tuple[int, Any]],
        answers: queue.SimpleQueue[Any],
        children: list[_Child],
        ended: threading.Event,
    ) -> None:
        """Gives one child job after job, and a new child where one has died."""
        child: _Child | None = None
        while not ended.is_set():
            try:
                number, job = left.get_nowait()
            except queue.Empty:
                return
            if child is None:
                child = _Child(self.order, self.environment)
                children.append(child)
                if ended.is_set():
                    return
                self._greet(child)
            answer = child.ask(job)
            if isinstance(answer, Died):
                child = None
            answers.put((number, answer))

    def _greet(self, child: _Child) -> None:
        """Before a job is blamed: workers that cannot even start are not its doing."""
        greeting = child.answer()
        if isinstance(greeting, Died):
            fault = f"worker processes cannot start (a process ended with {greeting.how})"
            raise SettingsError(f"{self.name}: {fault}; see above, or use one worker")
        result_of(greeting, self.name)


class _Child:
    """A process that answers: first READY, then once for every job."""

    def __init__(self, order: bytes, environment: Mapping[str, str]) -> None:
        package = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, [package, environment.get("PYTHONPATH")]))
        command = [sys.executable, "-c", "from distill.runtime.workers import _child; _child()"]
        pipe, variables = subprocess.PIPE, {**environment, "PYTHONPATH": path}
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=variables)
        self._send(order)

    def ask(self, job: object) -> Any:
        self._send(pickle.dumps(job))
        return self.answer()

    def _send(self, content: bytes) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # one that died says so by its status
            self.process.stdin.write(content)
            self.process.stdin.flush()

    def answer(self) -> Any:
        """The next answer; Died when the process has ended instead."""
        assert self.process.stdout is not None
        try:
            return pickle.load(self.process.stdout)
        except (EOFError, OSError, ValueError, pickle.UnpicklingError):
            self.process.kill()
            return Died(f"status {self.process.wait()}")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            with contextlib.suppress(OSError):  # what it was still sent
                stream.close()


def _child() -> None:
    """What a child runs: orders from standard input, answers to standard output."""
    orders, output = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)  # a decoder must not read our orders
    os.dup2(2, 1)  # what a library prints must not stand between answers
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that called
    path, content = pickle.load(orders)
    sys.path[:] = path
    work: Any = answered(pickle.loads, content)
    if isinstance(work, DistillError | Failed):
        _say(work, output)
        return
    _say(READY, output)
    jobs = queue.SimpleQueue[Any]()
    threading.Thread(target=_listen, args=(orders, jobs), daemon=True).start()
    while True:
        _say(answered(work, jobs.get()), output)


def _listen(orders: BinaryIO, jobs: queue.SimpleQueue[Any]) -> None:
    """Passes orders on, and ends the process at once when the parent is gone."""
    while True:
        try:
            jobs.put(pickle.load(orders))
        except (EOFError, pickle.UnpicklingError):
            os._exit(0)


def _say(answer: object, output: BinaryIO) -> None:
    content = pickle.dumps(answer)  # whole before a byte goes out
    output.write(content)
    output.flush()
