"""A board of bars that is redrawn in place on stderr, where that is a terminal; rich is imported when it is drawn."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from fleetctl.present.text import safe

if TYPE_CHECKING:
    from rich.console import RenderableType

WIDTH = 30
STYLES = {"good": "green", "bad": "red", "busy": "yellow", "rest": "bright_black"}
MARKS = {"good": "█", "bad": "▓", "busy": "▒", "rest": "░"}


@dataclass(frozen=True, slots=True)
class Bar:
    """One line: shares of a whole by how they go, and words after them. Marks differ too, colour is never the only carrier."""

    label: str
    good: int = 0
    bad: int = 0
    busy: int = 0
    total: int = 0
    note: str = ""

    def shares(self, cells: int = WIDTH) -> dict[str, int]:
        """How many cells each kind fills; what is there at all fills at least one."""
        if self.total <= 0:
            return {"rest": cells}
        counts = {"good": self.good, "bad": self.bad, "busy": self.busy}
        filled = {kind: max(1, count * cells // self.total) if count else 0 for kind, count in counts.items()}
        filled["good"] = max(0, min(filled["good"], cells - filled["bad"] - filled["busy"]))
        return {**filled, "rest": max(0, cells - sum(filled.values()))}


Draw = Callable[[Sequence[Bar], str], None]


@contextmanager
def board(out: TextIO) -> Iterator[Draw]:
    """While the block runs, what it yields shows bars and a line of words below them."""
    if not out.isatty():
        yield lambda _bars, _words: None
        return
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(file=out), refresh_per_second=8) as live:
        yield lambda bars, words: live.update(_picture(bars, words))


def _picture(bars: Sequence[Bar], words: str) -> "RenderableType":
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 1))
    for bar in bars:
        line = Text()
        for kind, cells in bar.shares().items():
            line.append(MARKS[kind] * cells, STYLES[kind])
        count = f"{bar.good + bar.bad}/{bar.total}" if bar.total else ""
        grid.add_row(Text(safe(bar.label)), line, Text(count), Text(safe(bar.note)))
    return Group(grid, Text(safe(words), "dim", no_wrap=True, overflow="ellipsis")) if words else grid
