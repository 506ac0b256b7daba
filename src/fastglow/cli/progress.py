"""A progress bar that lets messages through; a line a minute where nobody watches."""

from __future__ import annotations

import time
from datetime import timedelta
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

EVERY = 60.0  # seconds between lines in a log


class Progress:
    """One bar over ``total`` files, on stderr; where that is no terminal, lines now and then."""

    def __init__(self, total: int, *, hidden: bool = False) -> None:
        self._console = Console(stderr=True, soft_wrap=True)
        self._bar = RichProgress(
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console,
            disable=hidden or not self._console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task("", total=total, note="")
        self._lines = not hidden and not self._console.is_terminal
        self._done, self._total = 0, total
        self._began = self._told = time.monotonic()

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def advance(self, note: str) -> None:
        """One more file is done."""
        self._bar.update(self._task, advance=1, note=note)
        self._done += 1
        now = time.monotonic()
        if self._lines and now - self._told >= EVERY and self._done < self._total:
            self._told = now
            left = (now - self._began) * (self._total / self._done - 1)
            told = f"{self._done} of {self._total}, {note}, {timedelta(seconds=round(left))} left"
            self._console.print(Text(told))

    def warn(self, message: str) -> None:
        """Print a warning above the bar."""
        self._console.print(Text(f"warning: {message}", style="yellow"))

    def error(self, message: str) -> None:
        """Print an error above the bar."""
        self._console.print(Text(f"error: {message}", style="red"))
