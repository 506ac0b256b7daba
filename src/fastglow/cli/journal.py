"""What a run over many files has done, a line a file, from which the same command goes on.

The first line holds the settings; then a line for each file, later ones counting; a run that
ends adds what it did in all. A run that is killed leaves at most its last line torn. Files go by
their paths as they were named, and are done again if they have changed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from fastglow import __version__
from fastglow.errors import InputError, OutputError
from fastglow.job import Done, Task

FORMAT = 1
_FIRST = b'{"journal": '  # how every journal begins

Entry = dict[str, Any]
Stamp = tuple[int, ...]  # bytes, and when it was written, ns


def stamp_of(path: Path) -> Stamp | None:
    """What shows whether a file was changed; None, if it is gone."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def outputs_of(path: Path) -> dict[Path, Stamp]:
    """What a journal says was written, and how it was left; nothing, if it cannot be read."""
    found = {}
    with suppress(OSError), path.open("rb") as file:
        for line in file:
            with suppress(ValueError, TypeError, KeyError):  # damaged, or of no file
                entry = json.loads(line)
                found[Path(entry["target"]).resolve()] = tuple(entry["made"])
    return found


class Journal:
    """A journal, opened and this process's until it is closed.

    Args:
        path: A .jsonl; made if it is not there.
        settings: All that decides what is in the files; a journal of others is refused.

    Raises:
        InputError: It cannot be opened, another run has it, it is damaged, or its settings
            differ.
    """

    def __init__(self, path: Path, settings: Mapping[str, object]) -> None:
        self._path = path
        # By source and target, the size of the output and the stamp of the input
        self._done: dict[tuple[str, str], tuple[int, Stamp | None]] = {}
        self._seen: dict[Path, Stamp | None] = {}  # inputs that are not done
        try:
            self._file: IO[bytes] = path.open("a+b")
        except OSError as error:
            raise InputError(f"{path}: the journal cannot be opened ({error.strerror})") from None
        try:
            self._lock()
            self._resume({"journal": FORMAT, "fastglow": __version__, **settings})
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def has(self, task: Task) -> bool:
        """Whether a task was done, its output is as large as it was and its input as old."""
        now = stamp_of(task.source)
        size, stamp = self._done.get((str(task.source), str(task.target)), (-1, None))
        made = stamp_of(task.target) if size >= 0 else None
        done = made is not None and made[0] == size and (None in (stamp, now) or stamp == now)
        if not done:
            self._seen[task.source] = now  # as it was before it is read
        return done

    def tell(self, outcome: Done) -> None:
        """Append what became of a task.

        Raises:
            OutputError: The journal cannot be written.
        """
        task, written = outcome.task, outcome.written
        entry: Entry = {"source": str(task.source), "target": str(task.target)}
        if written:
            entry |= {
                "samples": written.samples,
                "size": written.size,
                "peak": round(written.peak, 4),
                "clipped": written.clipped,
                "seconds": round(outcome.seconds, 6),
                "worker": outcome.worker,
                "stamp": self._seen.pop(task.source, None),
                "made": stamp_of(task.target),
            }
        else:
            entry["error"] = str(outcome.error)
        self._append(entry)

    def end(self, totals: Entry) -> None:
        """Append what the run did in all.

        Raises:
            OutputError: The journal cannot be written.
        """
        self._append({"run": totals})

    def _append(self, entry: Entry) -> None:
        try:
            self._file.write(json.dumps(entry).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise OutputError(f"{self._path}: cannot be written ({error.strerror})") from None

    def _lock(self) -> None:
        if sys.platform == "win32":
            return
        import fcntl

        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{self._path}: another run is writing this journal; let it end, or name another "
                "journal (each --shard has its own)"
            ) from None
        except OSError:
            pass  # a file system without locks

    def _resume(self, settings: Entry) -> None:
        """Check the settings, take note of what is done, leave the file at its end."""
        self._file.seek(0)
        start = 0
        for number, line in enumerate(self._file, 1):
            whole = line.endswith(b"\n")
            if not line.startswith(_FIRST[: len(line)]) and number == 1:
                raise InputError(f"{self._path}: is no journal of vocode; name another file")
            if not whole:  # killed while it was written
                self._file.truncate(start)
                break
            start += len(line)
            entry = self._parsed(line, number)
            if number == 1:
                self._compare(entry, settings)
            else:
                self._note(entry, number)
        if not start:
            self._append(settings)

    def _parsed(self, line: bytes, number: int) -> Entry:
        try:
            entry = json.loads(line)
        except ValueError:  # no JSON, or no text
            entry = None
        if not isinstance(entry, dict):
            raise self._damaged(number)
        return entry

    def _note(self, entry: Entry, number: int) -> None:
        if "run" in entry:
            return
        source, target, size = (entry.get(name) for name in ("source", "target", "size"))
        failed = "error" in entry
        if not (isinstance(source, str) and isinstance(target, str)):
            raise self._damaged(number)
        if failed:
            self._done.pop((source, target), None)
        elif isinstance(size, int) and isinstance(entry.get("stamp"), list | None):
            stamp = entry.get("stamp")
            self._done[source, target] = size, tuple(stamp) if stamp else None
        else:
            raise self._damaged(number)

    def _damaged(self, number: int) -> InputError:
        return InputError(
            f"{self._path}: line {number} is damaged; mend or remove it (its file is then done "
            "again), or name another journal"
        )

    def _compare(self, found: Entry, settings: Entry) -> None:
        """Raise unless the settings agree; a voice is its checksum, wherever it lies."""
        known = dict.fromkeys([*found, *settings])
        if found.get("sha256") and found.get("sha256") == settings["sha256"]:
            known.pop("voice")
        different = [
            f"{name} was {found.get(name)!r} and is {settings.get(name)!r}"
            for name in known
            if found.get(name) != settings.get(name)
        ]
        if different:
            raise InputError(
                f"{self._path}: the journal is of other settings: {', '.join(different)}; go back "
                "to the old ones or name another journal"
            )
