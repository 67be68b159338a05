"""Reads files of devices line by line: what each line names, or why it cannot be read; the file is never in memory as a whole."""

import csv
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from fleetctl.errors import FleetError, NotFound, UsageError
from fleetctl.model.device import printable
from fleetctl.wire.document import parse_json

LINE_LIMIT = 65_536
_TOO_LONG = "\0"
"""Stands in for a line that is not read: no cell of a good file is that."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The columns of a file: those that each line needs, those that it may have; what is beyond them is a label."""

    needed: tuple[str, ...]
    optional: tuple[str, ...] = ()

    @property
    def known(self) -> tuple[str, ...]:
        return self.needed + self.optional

    @property
    def hint(self) -> str:
        return f"{','.join(self.known)}, and a column for each label"


DEVICES = Shape(("id", "type", "location"))
SERIALS = Shape(("serial",), ("id",))


@dataclass(frozen=True, slots=True)
class Row:
    """One line: the fields it names, or why it is refused."""

    line: int
    fields: Mapping[str, str]
    labels: Mapping[str, str]
    error: str = ""

    @property
    def name(self) -> str | None:
        """What the line calls the device, fit to be shown."""
        text = self.fields.get("id") or self.fields.get("serial")
        return printable(text).strip("`") if text else None


def read_rows(path: Path, shape: Shape) -> Iterator[Row]:
    """The lines of a .csv with a header or of a .jsonl file; a line that lacks a field says so.

    Raises:
        UsageError: the file is neither, or its header lacks a column.
        NotFound: it cannot be read.
    """
    reader = {".csv": _csv_rows, ".jsonl": _jsonl_rows}.get(path.suffix.lower())
    if reader is None:
        raise UsageError(f"file {printable(str(path))} is neither .csv nor .jsonl", "name it after what it holds")
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            for row in reader(file, shape):
                yield row if row.error else _whole(row, shape)
    except OSError as error:
        raise NotFound(f"file {printable(str(path))} cannot be read: {error.strerror}", f"ls -l {path}") from error


def _whole(row: Row, shape: Shape) -> Row:
    missing = [key for key in shape.needed if not row.fields.get(key)]
    return Row(row.line, row.fields, row.labels, f"`{missing[0]}` is missing") if missing else row


def _csv_rows(file: TextIO, shape: Shape) -> Iterator[Row]:
    lines = csv.reader(_lines(file), strict=True)
    header: list[str] | None = None
    while True:
        try:
            cells = next(lines)
        except StopIteration:
            return
        except csv.Error as error:
            yield Row(lines.line_num, {}, {}, f"not CSV: {error}")
            continue
        if cells == [_TOO_LONG]:
            yield Row(lines.line_num, {}, {}, f"longer than {LINE_LIMIT} characters")
        elif header is None:
            header = _check_header([cell.strip() for cell in cells], shape)
        elif len(cells) > len(header):
            yield Row(lines.line_num, {shape.needed[0]: cells[0]}, {}, f"{len(cells)} cells under {len(header)} columns")
        elif any(cells):
            yield _csv_row(lines.line_num, header, cells, shape)


def _csv_row(line: int, header: list[str], cells: list[str], shape: Shape) -> Row:
    named = dict(zip(header, map(str.strip, cells), strict=False))
    fields = {key: named.pop(key, "") for key in shape.known}
    return Row(line, fields, {key.removeprefix("label."): value for key, value in named.items() if value})


def _check_header(header: list[str], shape: Shape) -> list[str]:
    missing = [key for key in shape.needed if key not in header]
    if missing:
        raise UsageError(f"the header has no column `{missing[0]}`", shape.hint)
    if len(set(header)) != len(header) or not all(header):
        raise UsageError("the header has a column twice, or one without a name", shape.hint)
    return header


def _lines(file: TextIO) -> Iterator[str]:
    """Lines of bearable length; each longer one is passed over, and one that is no text of a cell stands for it."""
    while line := file.readline(LINE_LIMIT + 1):
        if len(line) > LINE_LIMIT:
            _skip(file, line)
            line = _TOO_LONG + "\n"
        yield line


def _skip(file: TextIO, line: str) -> None:
    while line and not line.endswith("\n"):
        line = file.readline(LINE_LIMIT)


def _jsonl_rows(file: TextIO, shape: Shape) -> Iterator[Row]:
    for number, line in zip(itertools.count(1), _lines(file), strict=False):
        if line == _TOO_LONG + "\n":
            yield Row(number, {}, {}, f"longer than {LINE_LIMIT} characters")
        elif line.strip():
            yield _json_row(number, line, shape)


def _json_row(number: int, line: str, shape: Shape) -> Row:
    try:
        document = parse_json(line.encode(errors="surrogateescape"), LINE_LIMIT * 4)
    except FleetError as error:
        return Row(number, {}, {}, error.message)
    fields = {key: value for key, value in document.items() if key in shape.known and isinstance(value, str)}
    labels = document.get("labels") or {}
    unknown = [key for key in document if key not in (*shape.known, "labels")]
    if unknown:
        return Row(number, fields, {}, f"unknown key {printable(unknown[0])}")
    if not isinstance(labels, dict):
        return Row(number, fields, {}, "`labels` is not an object")
    texts = {key: value for key, value in labels.items() if isinstance(value, str)}
    if len(texts) != len(labels):
        return Row(number, fields, {}, "a label is not text")
    return Row(number, fields, texts)
