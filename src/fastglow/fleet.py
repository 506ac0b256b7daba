"""Several devices of one host, a process each; one that dies loses no work.

The parent hands out tasks a few at a time, each process over a pipe of its own: a queue that they
shared would stay locked for all if one were killed while it reads.
"""

from __future__ import annotations

import multiprocessing
import re
import signal
import sys
import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, cast

from fastglow.corpus import AHEAD
from fastglow.engines.cuda import probe
from fastglow.errors import EngineError, FastglowError, InputError
from fastglow.job import Done, Outcomes, Recipe, Task, Warn

BUNCH = 4  # tasks handed out at once
CPU_AHEAD = 4  # files read ahead on a CPU, where what a slow process holds delays the end
RESTARTS = 3  # in all
GRACE = 10  # seconds in which a process that is told to end writes what it has computed

MORE, OUTCOME, WARNING, ERROR, CRASH = range(5)  # what a process tells


def parse_devices(text: str) -> list[str]:
    """The devices that ``--device`` names.

    Args:
        text: One of :meth:`Vocoder.load`'s, several with commas between, or "cuda:all".

    Raises:
        InputError: One of several is none, or they are of two kinds.
        EngineError: There is no GPU.
    """
    if text == "cuda:all":
        try:
            return [f"cuda:{index}" for index in range(len(probe.visible()))]
        except probe.NoGpuError as error:
            raise EngineError(f"device={text!r}: {error}; device='cpu' needs no GPU") from None
    names = [name.strip() for name in text.split(",")]
    if len(names) == 1:
        return names
    for name in names:
        if not re.fullmatch(r"cpu|cuda(:\d{1,4})?", name):
            raise InputError(f"device={text!r}: expected cpu, cuda or cuda:N between the commas")
    if len({name.partition(":")[0] for name in names}) > 1:
        raise InputError(f"device={text!r}: rounding differs between CPUs and GPUs; use one kind")
    return names


@dataclass
class _Process:
    """A process as the parent sees it.

    Attributes:
        tasks: Handed out and not done, by their targets.
        idle: Whether it waits for tasks.
    """

    name: str
    recipe: Recipe
    process: BaseProcess
    connection: Connection[Any, Any]
    tasks: dict[Path, Task] = field(default_factory=dict)
    idle: bool = False
    reason: str = ""


class Fleet:
    """Processes that share a corpus.

    Args:
        recipe: How each file is treated; its device is not looked at.
        devices: One for each process.
    """

    def __init__(self, recipe: Recipe, devices: Sequence[str]) -> None:
        threads = recipe.threads
        if devices[0] == "cpu":
            from fastglow.engines.cpu.threads import available_threads  # LLVM: 0.1 s

            threads = threads or max(1, available_threads() // len(devices))
        self._recipe, self._devices = replace(recipe, threads=threads), devices
        self._pending: deque[Task] = deque()
        self._processes: list[_Process] = []
        self._restarts = 0
        self._error: FastglowError | None = None

    def run(self, tasks: Sequence[Task], warn: Warn) -> Outcomes:
        """Every task's outcome as it becomes known; returns once the processes have loaded.

        Args:
            tasks: No two with one target.
            warn: Is told of mels that look wrong.

        Raises:
            OutputError: The outputs' place takes no more; what was written before is whole.
            FastglowError: A process cannot load the vocoder.
            EngineError: Processes died again and again.
        """
        outcomes = self._run(tasks, warn)
        next(outcomes)
        return cast(Outcomes, outcomes)

    def _run(self, tasks: Sequence[Task], warn: Warn) -> Generator[Done | None, None, None]:
        """None when all processes have loaded or died, then the outcomes."""
        self._pending.extend(tasks)
        count = len(self._devices)
        try:
            for number, device in enumerate(self._devices[: len(tasks)]):
                name = device if count == len(set(self._devices)) else f"{device}#{number}"
                self._start(name, replace(self._recipe, device=device))
            for process in self._processes:
                process.connection.poll(None)  # what it tells stays there to be read
            yield None
            while self._processes:
                yield from self._heard(warn)
                for process in self._processes:
                    if process.idle and (self._pending or self._finished):
                        self._serve(process)
        finally:
            self._end()
        if self._error:
            raise self._error

    @property
    def _finished(self) -> bool:
        return not self._pending and not any(process.tasks for process in self._processes)

    def _start(self, name: str, recipe: Recipe) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would take CUDA's state along
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, recipe, name), daemon=True)
        with _without_interrupts():
            process.start()
        theirs.close()  # so that the pipe ends when the process does
        self._processes.append(_Process(name, recipe, process, ours))

    def _heard(self, warn: Warn) -> Iterator[Done]:
        """Wait for processes to tell something; the outcomes among it."""
        ready = wait([process.connection for process in self._processes])
        for process in [one for one in self._processes if one.connection in ready]:
            try:
                kind, what = process.connection.recv()
            except (EOFError, OSError):
                self._lost(process, warn)
                continue
            if kind == OUTCOME:
                process.tasks.pop(what.task.target, None)
                yield what
            elif kind == MORE:
                process.idle = True
                if process.tasks or self._pending:
                    self._serve(process)
            elif kind == WARNING:
                warn(what)
            elif kind == ERROR:
                self._stop(what)
                process.tasks.clear()
            else:
                process.reason = what

    def _serve(self, process: _Process) -> None:
        """Hand out tasks; none tells a process to finish what it has, then to end."""
        share = len(self._pending) // (2 * len(self._processes))
        bunch = [self._pending.popleft() for _ in range(min(max(share, 1), BUNCH)) if self._pending]
        process.tasks |= {task.target: task for task in bunch}
        process.idle = False
        with suppress(OSError):  # it died, which its end of the pipe tells as well
            process.connection.send(bunch)

    def _lost(self, process: _Process, warn: Warn) -> None:
        """A process has ended; if not because it was done, another takes its place."""
        self._processes.remove(process)
        process.connection.close()
        process.process.join()
        code = process.process.exitcode
        if not code or self._error or (self._finished and not process.tasks):
            return
        reason = process.reason or (f"signal {-code}" if code < 0 else f"exit status {code}")
        if self._restarts == RESTARTS:
            self._stop(
                EngineError(
                    f"{RESTARTS + 1} processes died, the last on {process.name} ({reason}); "
                    "what was written before is whole"
                )
            )
            return
        self._restarts += 1
        self._pending.extendleft(reversed(process.tasks.values()))
        warn(f"the process on {process.name} died ({reason}); another does its files")
        self._start(process.name, process.recipe)

    def _stop(self, error: FastglowError) -> None:
        """Hand out no more tasks."""
        self._error = self._error or error
        self._pending.clear()

    def _end(self) -> None:
        for process in self._processes:
            process.process.terminate()
        for process in self._processes:
            process.process.join(GRACE)
            process.process.kill()
            process.process.join()
            process.connection.close()
        self._processes.clear()


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """What is started within ignores Ctrl-C from its first instruction on: the parent ends it."""
    if threading.current_thread() is not threading.main_thread():
        yield  # which is where Python allows it
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _work(connection: Connection[Any, Any], recipe: Recipe, name: str) -> None:
    """What a process does: ask for tasks, tell outcomes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what is computed is written
    warnings: deque[str] = deque()  # from other threads

    def tell(kind: int, what: object = None) -> None:
        while warnings:
            connection.send((WARNING, warnings.popleft()))
        connection.send((kind, what))

    def more() -> list[Task]:
        tell(MORE)
        bunch: list[Task] = connection.recv()
        return bunch

    try:
        job = recipe.load()
        ahead = CPU_AHEAD if recipe.device == "cpu" else AHEAD
        while bunch := more():
            tasks = chain(bunch, chain.from_iterable(iter(more, [])))
            for outcome in job.run(tasks, warnings.append, worker=name, ahead=ahead):
                tell(OUTCOME, outcome)
    except FastglowError as error:
        tell(ERROR, error)
    except (EOFError, OSError):
        sys.exit(1)  # the parent is gone
    except Exception as error:  # CUDA's errors stay: a new process can go on, this one cannot
        tell(CRASH, f"{type(error).__name__}: {error}")
        sys.exit(1)
