"""Views: which keys a record has, and how a table shows them. One view gives columns, header, help and schema.

Here and in the rest of what every command loads, values are named tuples: making a frozen dataclass costs six times as much.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import PurePath
from typing import Literal, NamedTuple

Kind = Literal["string", "integer", "number", "boolean", "object", "array", "any"]


class Field(NamedTuple):
    """One key of a record: `wide` shows it with `-o wide` only, `hidden` never in a table; `show` puts a value in words.

    `brief` puts it in fewer words where the table has its usual columns. `least` is the width that its column has from the
    start where rows come one by one.
    """

    key: str
    kind: Kind = "string"
    help: str = ""
    wide: bool = False
    hidden: bool = False
    nullable: bool = False
    header: str = ""
    show: Callable[[object], str] | None = None
    least: int = 0
    brief: Callable[[object], str] | None = None

    @property
    def title(self) -> str:
        return self.header or "".join(f" {c}" if c.isupper() else c for c in self.key).upper()


class View(NamedTuple):
    """The records of one kind: `name` names its schema, `id` the key that `-o name` prints: of records within it, their ids.

    `open` records are events: they have keys beyond these, and those that may be null may be absent.
    """

    name: str
    fields: tuple[Field, ...]
    id: str = "id"
    open: bool = False

    def keys(self) -> tuple[str, ...]:
        return tuple(each.key for each in self.fields)

    def chosen(self, names: tuple[str, ...], wide: bool) -> tuple[Field, ...]:
        """The columns that `--columns` names, or those of the table."""
        if names:
            return tuple(next((each for each in self.fields if each.key == name), Field(name)) for name in names)
        shown = (each for each in self.fields if not each.hidden and (wide or not each.wide))
        return tuple(each if wide or each.brief is None else each._replace(show=each.brief) for each in shown)


class As(NamedTuple):
    """A result of another kind than its verb's usual one; the last one of a stream is what the stream comes to."""

    view: View
    value: object


class Rows(NamedTuple):
    """A list whose records come one by one, so that memory does not grow with it where its format allows that."""

    records: Iterator[object]


def camel(name: str) -> str:
    """`createdAt` for `created_at`."""
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def plain(value: object) -> object:
    """A value made of JSON's types only: dataclasses become mappings with camelCase keys."""
    if value is None or isinstance(value, str | int | float | bool):
        return value.value if isinstance(value, Enum) else value
    if is_dataclass(value) and not isinstance(value, type):
        return {camel(each.name): plain(getattr(value, each.name)) for each in fields(value) if not each.name.startswith("_")}
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, bytes | PurePath):
        return value.hex() if isinstance(value, bytes) else str(value)
    return [plain(each) for each in _elements(value)]


def _elements(value: object) -> Iterator[object]:
    if isinstance(value, list | tuple):
        return iter(value)
    if isinstance(value, set | frozenset):
        return iter(sorted(value, key=str))
    raise TypeError(f"no record can hold a {type(value).__name__}")


def lookup(record: object, path: str) -> object:
    """The value at a dotted path, the record itself at `*`; None where there is none."""
    if path == "*":
        return record
    if isinstance(record, Mapping) and path in record:
        return record[path]
    for key in path.split("."):
        if not isinstance(record, Mapping):
            return None
        record = record.get(key)
    return record
