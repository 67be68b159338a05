"""Tables: our own, because a library's would cost more than the command itself."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice

from fleetctl.present.text import cell, cut, safe, width
from fleetctl.present.view import Field, lookup

GAP = 2
LEAST = 8
BARE = 4
MEASURED = 2000


def cells(record: object, columns: Sequence[Field]) -> list[str]:
    """One row, in words."""
    return [_shown(column, lookup(record, column.key)) for column in columns]


def _shown(column: Field, value: object) -> str:
    return safe(column.show(value)) if column.show and value is not None else cell(value)


def table(records: Iterable[object], columns: Sequence[Field], limit: int | None, kept: str = "") -> Iterator[str]:
    """Lines of a table with a header; with `limit`, no line is wider than that many cells.

    The column of the key `kept` and numbers are never narrowed, only the titles over numbers are. Columns are as wide as the
    first rows need.
    """
    found = (cells(record, columns) for record in records)
    rows = [[column.title for column in columns], *islice(found, MEASURED)]
    widths = [max(width(row[index]) for row in rows) for index in range(len(columns))]
    if limit is not None:
        for least in (LEAST, BARE):
            floors = [
                widths[index] if column.key == kept else _floor(column, [width(row[index]) for row in rows[1:]], least)
                for index, column in enumerate(columns)
            ]
            widths = fit(widths, floors, limit)
    for row in chain(rows, found):
        yield line(row, widths, limit)


def _floor(column: Field, seen: Sequence[int], least: int) -> int:
    """How narrow a column may become."""
    return max(BARE, *seen, 0) if column.kind in ("integer", "number") else least


def fit(widths: list[int], floors: Sequence[int], limit: int) -> list[int]:
    """The widths, the widest narrowed first and none below its floor, so that they fit into `limit` cells where they can."""
    fitted = list(widths)
    while sum(fitted) + GAP * (len(fitted) - 1) > limit:
        wide = [index for index, floor in enumerate(floors) if fitted[index] > floor]
        if not wide:
            break
        fitted[max(wide, key=lambda index: fitted[index])] -= 1
    return fitted


def line(row: Sequence[str], widths: Sequence[int], limit: int | None) -> str:
    """One line: columns padded to their widths, the last one not."""
    parts = [cut(text, most) if limit is not None else text for text, most in zip(row, widths, strict=True)]
    padded = [part + " " * max(0, most - width(part)) for part, most in zip(parts[:-1], widths, strict=False)]
    whole = (" " * GAP).join([*padded, *parts[-1:]]).rstrip()
    return cut(whole, limit) if limit is not None else whole


def sheet(record: object, columns: Sequence[Field]) -> Iterator[str]:
    """Lines of one record: a key and its value on each, never cut, and a line for each record within it."""
    margin = max((width(column.title) for column in columns), default=0) + 2
    for column in columns:
        title = f"{column.title.capitalize()}:"
        for text in _texts(column, lookup(record, column.key)):
            yield f"{title}{' ' * (margin - width(title))}{text}"
            title = ""


def _texts(column: Field, value: object) -> list[str]:
    """A value on as many lines as it has records."""
    if isinstance(value, list) and value and all(isinstance(each, Mapping) for each in value):
        return [cell(each) for each in value]
    return [_shown(column, value)]
