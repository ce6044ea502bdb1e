"""One run by several processes, as `accelerate launch` or torchrun begins them.

    with ranks.together():                     # an error of one ends all, and one of them says it
        songs = ranks.from_first(load)         # the first makes it, all get it
        for song in ranks.share(songs): ...    # each does its part
        ranks.meet()                           # and waits for the others

They wait by asking a small store again and again, not inside a collective: so waiting has no limit
as long as everybody lives, an error elsewhere is heard within seconds, and a process that was
killed is missed within SILENCE seconds. Alone all of this does nothing.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from distill.errors import DistillError, ElsewhereError, SettingsError, TrainingError, first_line

if TYPE_CHECKING:
    import torch
    from torch.distributed import ProcessGroup, Store

T = TypeVar("T")
log = logging.getLogger("distill")
PULSE = 2.0  # seconds between two signs of life
SILENCE = 120.0  # seconds without one, after which a process counts as gone
GRACE = 20.0  # seconds that a process has to end by itself once another has
MEETS = timedelta(minutes=10)  # to find each other at the start

_inside = threading.Event()  # of `together`
_numbers = itertools.count()  # of meetings: every process counts the same


def processes() -> int:
    """How many processes do this run."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def number() -> int:
    """Which of them this one is, from 0."""
    return int(os.environ.get("RANK", "0")) if processes() > 1 else 0


def is_first() -> bool:
    """Whether this is the one that curates, evaluates, merges and writes."""
    return number() == 0


def speaks() -> bool:
    """Whether an error of this process is to be printed. Before the processes have met, what is
    wrong is wrong with the command that all were given: one of each machine says it."""
    return processes() == 1 or bool(join.cache_info().currsize) or not _number_here()


def _number_here() -> int:
    return int(os.environ.get("LOCAL_RANK", "0"))


def share(items: Sequence[T]) -> Sequence[T]:
    """What of these is for this process."""
    return items[number() :: processes()]


@functools.cache
def join() -> Store | None:
    """Meets the others and begins torch's process group; their store. None when alone."""
    if processes() == 1:
        return None
    import torch
    from torch import distributed

    gpu, here = torch.cuda.is_available(), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if gpu and here > (there := torch.cuda.device_count()):
        fault = f"{here} processes for the {there} GPUs of this machine"
        raise SettingsError(f"{fault}; start one for each (GPUS=, or --num_processes)")
    try:
        store, number, count = next(distributed.rendezvous("env://", timeout=MEETS))
        if gpu:
            torch.cuda.set_device(_number_here())
        else:  # else accelerate takes every process for one alone
            os.environ["ACCELERATE_USE_CPU"] = "1"
        own = distributed.PrefixStore("group", store)
        backend = "cuda:nccl,cpu:gloo" if gpu else "gloo"
        distributed.init_process_group(backend, store=own, rank=number, world_size=count)
    except (RuntimeError, ValueError) as error:
        reason = first_line(error)
        ways = "start them all with accelerate launch or torchrun"
        raise TrainingError(f"the processes did not find each other ({reason}); {ways}") from error
    store = distributed.PrefixStore("distill", store)
    threading.Thread(target=_live, args=(store,), daemon=True).start()
    return store


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Within the block an error of one process ends all. The one that it happened to raises it, the
    others ElsewhereError; only the first prints to standard output."""
    store = join()
    if store is None:
        yield
        return
    _inside.set()
    silent = Path(os.devnull).open("w") if not is_first() else None  # noqa: SIM115 - below
    try:
        with contextlib.redirect_stdout(silent) if silent else contextlib.nullcontext():
            yield
        meet()
    except BaseException as error:
        told = _told(store, error)
        if told is error:
            raise
        raise told from error
    finally:
        _inside.clear()
        if silent is not None:
            silent.close()


def _told(store: Store, error: BaseException) -> BaseException:
    """The error that this process ends with, once the others know that it does."""
    if isinstance(error, ElsewhereError):
        return error
    try:
        if int(store.add("errors", 1)) > 1 or store.check(["error"]):
            return _elsewhere(store)
        lost = isinstance(error, RuntimeError) and not isinstance(error, DistillError)
        if lost and any(word in str(error) for word in ("Gloo", "gloo", "NCCL", "closed by peer")):
            reason = str(error).splitlines()[0]
            fault = f"process {number()} of {processes()} has lost another one ({reason})"
            error = TrainingError(f"{fault}; look for what ended it, then run the same again")
        store.set("error", f"{number()}")
        began = time.monotonic()  # the first holds the store: until all have heard
        while int(store.add("heard", 0)) < processes() - 1 and time.monotonic() - began < GRACE:
            time.sleep(0.1)
    except RuntimeError:  # the store is gone, and so is the first process
        if not isinstance(error, DistillError):
            return _elsewhere(None)
    return error


def _elsewhere(store: Store | None) -> ElsewhereError:
    try:
        who = store.get("error").decode() if store is not None else "0"
    except RuntimeError:
        who = "0"
    return ElsewhereError(f"process {who} of {processes()} ended this run; it says why")


def meet() -> None:
    """Waits until every process has come here. ElsewhereError when one has failed instead,
    TrainingError when one is gone."""
    store = join()
    if store is None:
        return
    key = f"meeting {next(_numbers)}"
    _asked(store, lambda: store.add(key, 1))
    _wait(store, lambda: int(store.add(key, 0)) >= processes())


def from_first(make: Callable[[], T]) -> T:
    """What the first process makes, on every process; pickled."""
    store = join()
    if store is None:
        return make()
    from torch import distributed

    key, box = f"made {next(_numbers)}", [make() if is_first() else None]
    if is_first():
        _asked(store, lambda: store.set(key, "yes"))
    else:
        _wait(store, lambda: store.check([key]))
    distributed.broadcast_object_list(box, src=0, device=_cpu())
    made: T = box[0]  # type: ignore[assignment]
    return made


def all_of(value: T) -> list[T]:
    """This process's value and everybody else's, by their numbers; pickled."""
    if join() is None:
        return [value]
    from torch import distributed

    meet()
    values: list[T] = [value] * processes()
    distributed.all_gather_object(values, value, group=_by_gloo())
    return values


def _cpu() -> torch.device:
    import torch

    return torch.device("cpu")


@functools.cache
def _by_gloo() -> ProcessGroup | None:
    from torch import distributed

    return distributed.new_group(backend="gloo")


def _asked(store: Store, ask: Callable[[], T]) -> T:
    """The store's answer. ElsewhereError when the first process took it along."""
    try:
        return ask()
    except RuntimeError:
        raise _elsewhere(None) from None


def _wait(store: Store, is_done: Callable[[], bool]) -> None:
    pulses, heard = [0] * processes(), [time.monotonic()] * processes()
    pause = 0.01
    while not _asked(store, is_done):
        if _asked(store, lambda: store.check(["error"])):
            raise _elsewhere(store)
        for other in range(processes()):
            pulse = int(_asked(store, functools.partial(store.add, f"pulse {other}", 0)))
            if pulse != pulses[other]:
                pulses[other], heard[other] = pulse, time.monotonic()
            elif time.monotonic() - heard[other] > SILENCE:
                fault = f"process {other} of {processes()} gave no sign of life"
                ways = "it was killed (out of memory?); run the same again"
                raise TrainingError(f"{fault} for {SILENCE:.0f} s; {ways}")
        time.sleep(pause)
        pause = min(1.0, 1.5 * pause)


def _live(store: Store) -> None:
    """Signs of life, until the process ends; and its end, when it sleeps through another's error
    (in a collective that nobody will complete)."""
    try:
        while not store.check(["error"]):
            store.add(f"pulse {number()}", 1)
            time.sleep(PULSE)
        if store.get("error").decode() == str(number()):
            return
        store.add("heard", 1)
    except RuntimeError:  # the store is gone: the first process has ended
        pass
    time.sleep(GRACE)
    if _inside.is_set():
        os._exit(2)
