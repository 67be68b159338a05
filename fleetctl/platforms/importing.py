"""Reads a file of devices line by line, adds the good ones, and says which lines were refused and why."""

import csv
import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TextIO

from fleetctl.errors import FleetError, NotFound, Partial, UsageError
from fleetctl.model.device import printable
from fleetctl.platforms.devices import Devices, Imported, RefusedRow
from fleetctl.wire.document import parse_json

BATCH = 500
ERRORS_SHOWN = 100
LINE_LIMIT = 65_536
_NEEDED = ("id", "type", "location")


class _Row:
    """One line: the fields it names, or why it cannot be read."""

    __slots__ = ("error", "fields", "labels", "line")

    def __init__(self, line: int, fields: Mapping[str, str], labels: Mapping[str, str], error: str = "") -> None:
        self.line, self.fields, self.labels, self.error = line, fields, labels, error


def import_file(
    devices: Devices, path: Path, bundles: Path | None, transaction: Callable[[], AbstractContextManager[None]]
) -> Imported:
    """Add the devices of a file in batches, each in one `transaction`; importing the file again continues it.

    Raises:
        UsageError: the file is neither .csv nor .jsonl, or its header lacks a column.
        Partial, FleetError: some or all lines were refused; the report is in the error.
    """
    readers = {".csv": _csv_rows, ".jsonl": _jsonl_rows}
    read = readers.get(path.suffix.lower())
    if read is None:
        raise UsageError(f"file {printable(str(path))} is neither .csv nor .jsonl", "name it after what it holds")
    counts = {"added": 0, "unchanged": 0}
    errors: list[RefusedRow] = []
    refused = 0
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            rows = read(file)
            while batch := list(itertools.islice(rows, BATCH)):
                with transaction():
                    for row in batch:
                        outcome, error = _take(devices, row, bundles)
                        if error is None:
                            counts[outcome] += 1
                            continue
                        refused += 1
                        if len(errors) < ERRORS_SHOWN:
                            errors.append(error)
    except OSError as error:
        raise NotFound(f"file {printable(str(path))} cannot be read: {error.strerror}", f"ls -l {path}") from error
    return _judged(Imported(counts["added"], counts["unchanged"], refused, tuple(errors)), path)


def _take(devices: Devices, row: _Row, bundles: Path | None) -> tuple[str, RefusedRow | None]:
    name = row.fields.get("id") or None
    shown = None if name is None else printable(name).strip("`")
    if row.error:
        return "", RefusedRow(row.line, shown, row.error)
    missing = [key for key in _NEEDED if not row.fields.get(key)]
    if missing:
        return "", RefusedRow(row.line, shown, f"`{missing[0]}` is missing")
    fields = row.fields
    try:
        done = devices.add(
            fields["id"],
            device_type=fields["type"],
            location=fields["location"],
            labels=row.labels,
            bundle=None if bundles is None else bundles / fields["id"],
        )
    except FleetError as error:
        if type(error) is FleetError or error.status > 5:
            raise
        return "", RefusedRow(row.line, shown, error.message)
    return done.outcome, None


def _csv_rows(file: TextIO) -> Iterator[_Row]:
    lines = csv.reader(file, strict=True)
    header: list[str] | None = None
    while True:
        try:
            cells = next(lines)
        except StopIteration:
            return
        except csv.Error as error:
            yield _Row(lines.line_num, {}, {}, f"not CSV: {error}")
            continue
        if header is None:
            header = _check_header([cell.strip() for cell in cells])
        elif len(cells) > len(header):
            yield _Row(lines.line_num, {"id": cells[0]}, {}, f"{len(cells)} cells under {len(header)} columns")
        elif any(cells):
            named = dict(zip(header, (cell.strip() for cell in cells), strict=False))
            labels = {key.removeprefix("label."): value for key, value in named.items() if key not in _NEEDED and value}
            yield _Row(lines.line_num, {key: named.get(key, "") for key in _NEEDED}, labels)


def _check_header(header: list[str]) -> list[str]:
    missing = [key for key in _NEEDED if key not in header]
    if missing:
        raise UsageError(f"the header has no column `{missing[0]}`", "id,type,location, and a column for each label")
    if len(set(header)) != len(header) or not all(header):
        raise UsageError("the header has a column twice, or one without a name", "id,type,location, and a column for each label")
    return header


def _jsonl_rows(file: TextIO) -> Iterator[_Row]:
    for number in itertools.count(1):
        line = file.readline(LINE_LIMIT + 1)
        if not line:
            return
        if len(line) > LINE_LIMIT:
            while line and not line.endswith("\n"):
                line = file.readline(LINE_LIMIT)
            yield _Row(number, {}, {}, f"longer than {LINE_LIMIT} characters")
        elif line.strip():
            yield _json_row(number, line)


def _json_row(number: int, line: str) -> _Row:
    try:
        document = parse_json(line.encode(errors="surrogateescape"), LINE_LIMIT * 4)
    except FleetError as error:
        return _Row(number, {}, {}, error.message)
    fields = {key: value for key, value in document.items() if key in _NEEDED and isinstance(value, str)}
    labels = document.get("labels") or {}
    unknown = [key for key in document if key not in (*_NEEDED, "labels")]
    if unknown:
        return _Row(number, fields, {}, f"unknown key {printable(unknown[0])}")
    if not isinstance(labels, dict):
        return _Row(number, fields, {}, "`labels` is not an object")
    texts = {key: value for key, value in labels.items() if isinstance(value, str)}
    if len(texts) != len(labels):
        return _Row(number, fields, {}, "a label is not text")
    return _Row(number, fields, texts)


def _judged(report: Imported, path: Path) -> Imported:
    if not report.refused:
        return report
    kind = Partial if report.added + report.unchanged else FleetError
    record = {
        "added": report.added,
        "unchanged": report.unchanged,
        "refused": report.refused,
        "errors": [{"line": row.line, "id": row.id, "error": row.error} for row in report.errors],
    }
    first = report.errors[0]
    name = printable(str(path))
    raise kind(
        f"1 line of {name} was refused, line {first.line}: {first.error}"
        if report.refused == 1
        else f"{report.refused} lines of {name} were refused, the first at line {first.line}: {first.error}",
        "mend them and import the file again: what is there already stays as it is",
        record=record,
    )
