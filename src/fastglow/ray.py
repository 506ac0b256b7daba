"""A corpus on a Ray cluster: Ray Data hands bunches of files to vocoders on any machines.

Workers read mels and write audio themselves, so every machine must see the files under the
same paths. A worker or machine that dies loses nothing: Ray gives its bunches to another.

>>> from fastglow import ray
>>> for outcome in ray.vocode(tasks, Recipe(sigma=0.6), address="auto"):
...     print(outcome.task.target, outcome.error)
"""

from __future__ import annotations

import importlib
import logging
import os
import pickle
import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from fastglow.arguments import choose
from fastglow.errors import EngineError, FastglowError, InputError
from fastglow.job import Facts, Job, Outcomes, Recipe, Task, Warn

BUNCH = {"cpu": 16, "cuda": 512}  # files: one pipeline's, and what a death repeats
RETRIES = 3  # of a bunch whose worker died

_LOG = logging.getLogger(__name__)
Column = dict[str, Any]  # of a batch: object arrays


def vocode(
    tasks: Sequence[Task],
    recipe: Recipe,
    *,
    address: str | None = None,
    workers: int | None = None,
    gpus_per_worker: float = 1.0,
    warn: Warn = _LOG.warning,
) -> Outcomes:
    """Vocode files on a Ray cluster; each is bit for bit what a plain run makes.

    Args:
        tasks: Which file is made from which; no two with one target.
        recipe: How each file is treated. ``threads`` (1 if left out) are the CPUs of a worker.
        address: Of a cluster; by default one of this machine's, started and ended here.
        workers: How many vocoders; by default as many as the cluster has room for.
        gpus_per_worker: Part of a GPU for each, where the device is one.
        warn: Is told of mels that look wrong.

    Yields:
        Every task's outcome as it becomes known.

    Raises:
        InputError: Ray is not installed, or the cluster cannot be used.
        OutputError: The outputs' place takes no more; what was written before is whole.
        EngineError: A bunch of files killed every worker that tried it.
    """
    with joined(recipe, address, workers, gpus_per_worker) as cluster:
        yield from cluster.run(tasks, warn)


@contextmanager
def joined(
    recipe: Recipe, address: str | None, workers: int | None, gpus_per_worker: float = 1.0
) -> Iterator[Cluster]:
    """A cluster that the recipe fits, left at the end; arguments as for :func:`vocode`.

    Raises:
        InputError: Ray is not installed, or the cluster cannot be used.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent home
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # which it would warn of
    ray = _library()
    ours = not ray.is_initialized()
    if ours:
        _connect(ray, address)
    try:
        yield Cluster(ray, recipe, workers, gpus_per_worker)
    finally:
        if ours:
            ray.shutdown()


def _library() -> Any:
    try:
        importlib.import_module("ray.data")
        return importlib.import_module("ray")
    except ImportError as error:
        raise InputError(f"this needs Ray ({error}): pip install 'fastglow[ray]'") from None


def _connect(ray: Any, address: str | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    if address is None:
        ray.init("local", include_dashboard=False, **quiet)
        return
    try:
        ray.init(address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"--ray-address {address}: cannot join this cluster ({reason}); check with `ray "
            "status` that it runs, and set RAY_AUTH_MODE=token if it was started with a token, "
            "as new versions of Ray do by themselves"
        ) from None


class Cluster:
    """Ray, joined, and what a worker takes of it.

    Attributes:
        facts: What the workers run.
    """

    def __init__(
        self, ray: Any, recipe: Recipe, workers: int | None, gpus_per_worker: float
    ) -> None:
        """Look at the cluster; arguments as for :func:`vocode`.

        Raises:
            InputError: It has no room for such workers.
            FastglowError: They cannot load the model.
        """
        self._ray = ray
        gpus = ray.cluster_resources().get("GPU", 0) > 0
        device = ("cuda" if gpus else "cpu") if recipe.device == "auto" else recipe.device
        choose("device", device, ("auto", "cpu", "cuda"))  # Ray says which GPU
        recipe = replace(recipe, device=device, threads=recipe.threads or 1)
        self._takes: dict[str, float] = {"num_cpus": recipe.threads or 1}
        if device == "cuda":
            self._takes |= {"num_gpus": gpus_per_worker}
        room = self._room()
        self._workers = room if workers is None else workers
        if not 1 <= self._workers <= room:
            each = " and ".join(f"{n:g} {key[4:].upper()}" for key, n in self._takes.items())
            raise InputError(
                f"workers={self._workers}: the cluster has room for {room}, of {each} each"
            )
        ask = ray.remote(**self._takes)(_facts)
        found = ray.get(ask.remote(recipe, os.getcwd()))
        if isinstance(found, FastglowError):
            raise found
        self.facts: Facts = found
        self._recipe = recipe.fixed(found)

    def _room(self) -> int:
        """How many workers the machines of the cluster hold."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        names = {"num_cpus": "CPU", "num_gpus": "GPU"}
        return sum(
            min(int(node.get(names[key], 0) / needed) for key, needed in self._takes.items())
            for node in nodes
        )

    def run(self, tasks: Sequence[Task], warn: Warn) -> Outcomes:
        """Every task's outcome as it becomes known; arguments and errors as of :func:`vocode`."""
        if not tasks:
            return
        tries = self._ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Tries).remote()
        bunch = max(1, min(BUNCH[self._recipe.device], len(tasks) // (4 * self._workers)))
        dataset = self._ray.data.from_items(
            [{"name": os.fsencode(task.source), "item": pickle.dumps(task)} for task in tasks],
            override_num_blocks=-(-len(tasks) // bunch),  # what Ray tries again is a block
        ).map_batches(
            _Worker,
            fn_constructor_args=(self._recipe, os.getcwd(), tries),
            compute=self._ray.data.ActorPoolStrategy(size=self._workers),
            batch_size=bunch,
            **self._takes,
        )
        dataset.context.enable_progress_bars = False
        dataset.context.print_on_execution_start = False
        try:
            for row in dataset.iter_rows():
                found: object = pickle.loads(row["item"])  # from our own workers
                if isinstance(found, FastglowError):
                    raise found
                if isinstance(found, str):
                    warn(found)
                else:
                    yield found  # type: ignore[misc]
        except self._ray.exceptions.RayError as error:
            reason = " ".join(str(error).split())[-300:]
            raise EngineError(f"Ray gave up ({reason}); what was written before is whole") from None


def _enter(folder: str) -> None:
    """Relative paths mean the driver's folder, where this machine has it."""
    with suppress(OSError):
        os.chdir(folder)


def _facts(recipe: Recipe, folder: str) -> Facts | FastglowError:
    _enter(folder)
    try:
        return recipe.facts()
    except FastglowError as error:
        return error  # raised here it would arrive wrapped


class _Tries:
    """How often each bunch, by its first file, was begun: Ray Data alone would try for ever."""

    def __init__(self) -> None:
        self._counts: Counter[bytes] = Counter()
        self._reasons: dict[bytes, str] = {}

    def begin(self, bunch: bytes) -> tuple[int, str]:
        """How often the bunch was begun before, and what is known of how that ended."""
        count = self._counts[bunch]
        self._counts[bunch] += 1
        return count, self._reasons.get(bunch, "process killed or crashed")

    def blame(self, bunch: bytes, reason: str) -> None:
        """Remember why a worker will die."""
        self._reasons[bunch] = reason


class _Worker:
    """A vocoder in a process of the cluster."""

    def __init__(self, recipe: Recipe, folder: str, tries: Any) -> None:
        _enter(folder)
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._tries, self._get = tries, _library().get
        self._job: Job | FastglowError
        try:
            self._job = recipe.load()
        except FastglowError as error:
            self._job = error

    def __call__(self, batch: Column) -> Column:
        """Outcomes and warnings of a batch of tasks; an error ends the run."""
        found: list[object] = []
        first = batch["name"][0]
        try:
            found.extend(self._outcomes(first, list(batch["item"]), found.append))
        except FastglowError as error:
            found.append(error)
        except Exception as error:  # CUDA's errors stay: Ray starts another process for this one
            self._get(self._tries.blame.remote(first, f"{type(error).__name__}: {error}"))
            os._exit(1)
        return {"item": [pickle.dumps(item) for item in found]}

    def _outcomes(self, first: bytes, items: list[bytes], warn: Warn) -> Iterator[object]:
        if isinstance(self._job, FastglowError):
            raise self._job
        died, reason = self._get(self._tries.begin.remote(first))
        if died > RETRIES:
            raise EngineError(
                f"{os.fsdecode(first)} or one of the {len(items) - 1} files after it: {died} "
                f"workers died over them ({reason}); what was written before is whole"
            )
        tasks: list[Task] = [pickle.loads(item) for item in items]  # from our own driver
        yield from self._job.run(tasks, warn, worker=self._name)
