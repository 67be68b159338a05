"""Devices by what a selector asks: ids only, in pages, so that a fleet of any size costs the same memory."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fleetctl.model.device import LifeCycle
from fleetctl.registry.database import PAGE, Database

if TYPE_CHECKING:
    from fleetctl.model.selector import Selector

LARGEST = 32_000


class Selecting(Database):
    """Reads ids only, in pages, so that a fleet of any size costs the same memory."""

    def selected(self, asked: "Selector | None", now: float, *, retired: bool = False) -> Iterator[list[str]]:
        """Pages of the ids, in their order, of devices that may match: exactly those where the condition is exact.

        They grow to a size that costs little memory, because a database may look for the whole of a label for each of them.
        """
        source, where, parameters = _question(asked, now, retired)
        key = "k.device_id" if source.startswith("labels") else "d.id"
        statement = f"SELECT d.id FROM {source} WHERE {where} AND {key} > ? ORDER BY {key} LIMIT ?"  # noqa: S608
        after, size = "", PAGE
        while page := [row[0] for row in self.read(statement, (*parameters, after, size))]:
            yield page
            after, size = page[-1], min(size * 4, LARGEST)

    def first_selected(self, asked: "Selector | None", now: float, size: int, *, retired: bool = False) -> list[str]:
        """The `size` ids that a limit keeps, where the condition is exact."""
        source, where, parameters = _question(asked, now, retired)
        order = "k.rank, k.device_id" if source.startswith("labels") else "d.rank, d.id"
        statement = f"SELECT d.id FROM {source} WHERE {where} ORDER BY {order} LIMIT ?"  # noqa: S608
        return [row[0] for row in self.read(statement, (*parameters, size))]

    def count_selected(self, asked: "Selector | None", now: float, *, retired: bool = False) -> int:
        source, where, parameters = _question(asked, now, retired)
        return int(self.read(f"SELECT count(*) FROM {source} WHERE {where}", parameters)[0][0])  # noqa: S608


def _question(asked: "Selector | None", now: float, retired: bool) -> tuple[str, str, tuple[str | float, ...]]:
    present = f"d.state <> '{LifeCycle.RETIRED}'"
    if asked is None:
        return "devices d", "1 = 1" if retired else present, ()
    from fleetctl.registry.selecting import question  # late: `provision list` without -l starts sooner

    source, condition = question(asked, now)
    return source, condition.sql if retired else f"{present} AND ({condition.sql})", condition.parameters
