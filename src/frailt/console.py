"""Progress of long work, for a person or for a log file. Whose work it is says in words where it stands."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

LOG_SECONDS = 20.0
"""Time between lines where the output is no terminal."""


class ProgressLine:
    """A bar and a state in words on a terminal; else a plain line now and then. Writes to stderr."""

    def __init__(self, *, hidden: bool = False) -> None:
        self.console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[state]}"),
        )
        self.bar = Bar(*columns, console=self.console, disable=hidden or not self.console.is_terminal)
        self.name: str | None = None
        self.state = ""
        self.logged = time.monotonic()

    def __enter__(self) -> "ProgressLine":
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def show(self, name: str, done: float, total: float, state: str) -> None:
        """Show that ``done`` of ``total`` of the work ``name`` is done, and its state in words."""
        if name != self.name:
            self.task = self.bar.add_task(name, total=total, state=state)
            self.name = name
        self.bar.update(self.task, completed=done, state=state)
        at_end = done == total and state != self.state
        self.state = state
        if self.bar.disable and (at_end or time.monotonic() - self.logged > LOG_SECONDS):
            self.logged = time.monotonic()
            print(f"{name}: {state}", file=self.console.file, flush=True)


def clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
