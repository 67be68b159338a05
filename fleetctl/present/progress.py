"""How far a long piece of work is, on stderr, where that is a terminal; rich is imported when it is drawn."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TextIO, TypeVar

from fleetctl.present.text import safe

T = TypeVar("T")


@contextmanager
def progress(what: str, total: int | None, out: TextIO) -> Iterator[Callable[[int], None]]:
    """A bar while the block runs; what it yields is told how much more is done."""
    if not out.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(file=out), transient=True) as drawn:
        task = drawn.add_task(safe(what), total=total)
        yield lambda more: drawn.advance(task, more)


def counted(items: Iterable[T], what: str, total: int | None, out: TextIO) -> Iterator[T]:
    """The same items, with a bar while they are taken."""
    with progress(what, total, out) as advance:
        for each in items:
            yield each
            advance(1)
