"""Progress of long work on stderr: a bar with a rate and the time left, silent where nobody watches."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from fulcrum.cli.output import err


class _Rate(ProgressColumn):
    """Things per second."""

    def render(self, task: Task) -> Text:
        """Empty until something was done."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s", style="progress.data.speed")


@contextmanager
def bar(what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A callback (done, total) that moves one bar; the bar appears with the first call."""
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f} " + unit),
        _Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        tasks: dict[str, object] = {}

        def update(done: int, total: int) -> None:
            if "bar" not in tasks:
                tasks["bar"] = progress.add_task(what, total=total)
            progress.update(tasks["bar"], completed=done, total=total)  # type: ignore[arg-type]  # a TaskID

        yield update


@contextmanager
def phases() -> Iterator[Callable[[str, str, float, float], None]]:
    """A callback (phrase, unit, done, total) with one bar for whatever goes on now."""
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f} {task.fields[unit]}"),
        _Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        shown: list[tuple[str, TaskID]] = []

        def update(what: str, unit: str, done: float, total: float) -> None:
            if not shown or shown[-1][0] != what:
                for _, task in shown:
                    progress.remove_task(task)
                shown[:] = [(what, progress.add_task(what, total=total, unit=unit))]
            progress.update(shown[-1][1], completed=done, total=total)

        yield update
