"""Takes in what a file names, the good lines or none, and says which lines were refused and why."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from fleetctl.errors import ConfigError, FleetError, Partial
from fleetctl.model.device import printable
from fleetctl.platforms.device_records import Imported, RefusedRow
from fleetctl.platforms.devices import Devices
from fleetctl.platforms.rows import DEVICES, Row, read_rows
from fleetctl.wire.document import dump_json

BATCH = 500
ERRORS_SHOWN = 100

PAGE = 5000
"""How many lines a registry takes in at once where nothing else is made for them."""

Taken = str | RefusedRow
Transaction = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True)
class Intake:
    """How a file is taken in: `atomic` is all or nothing, `errors` a file for every refused line, `progress` is told of lines."""

    transaction: Transaction
    atomic: bool = False
    errors: Path | None = None
    progress: Callable[[int], None] = lambda _: None


class _NotAll(Exception):
    """Takes back what an atomic import has added."""


def import_file(
    devices: Devices,
    path: Path,
    bundles: Path | None,
    intake: Intake,
    page: Callable[[Sequence[Row]], Sequence[Taken]] | None = None,
) -> Imported:
    """Add the devices of a file; importing the file again continues it. `page` adds many at once, where a platform can.

    Raises:
        UsageError: the file is neither .csv nor .jsonl, or its header lacks a column.
        Partial, FleetError: some or all lines were refused; the report is in the error.
    """

    def add(row: Row, bundle: Path | None) -> str:
        fields = row.fields
        done = devices.add(
            fields["id"], device_type=fields["type"], location=fields["location"], labels=row.labels, bundle=bundle
        )
        return done.outcome

    if bundles is None and page is not None:
        return take_pages(read_rows(path, DEVICES), page, path, intake)
    if bundles is None or not intake.atomic:
        return take_in(read_rows(path, DEVICES), lambda row: add(row, bundles and bundles / row.fields["id"]), path, intake)
    report = take_in(read_rows(path, DEVICES), lambda row: add(row, None), path, intake)
    take_in(read_rows(path, DEVICES), lambda row: add(row, bundles / row.fields["id"]), path, Intake(intake.transaction))
    return report


def take_in(rows: Iterator[Row], take: Callable[[Row], str], path: Path, intake: Intake) -> Imported:
    """Let `take` have each row, which says `added` or `unchanged`, or raises why it refuses it.

    Raises:
        Partial, FleetError: some or all were refused, or one where all had to be taken; the report is in the error.
    """
    return _counted(lambda: _outcomes(rows, lambda page: [_taken(row, take) for row in page], intake, BATCH), path, intake)


def take_pages(rows: Iterator[Row], take: Callable[[Sequence[Row]], Sequence[Taken]], path: Path, intake: Intake) -> Imported:
    """The same with a `take` that is given many rows that can be read, and says of each what became of it."""

    def taken(page: Sequence[Row]) -> Iterator[Taken]:
        done = iter(take([row for row in page if not row.error]))
        return (refused(row, row.error) if row.error else next(done) for row in page)

    return _counted(lambda: _outcomes(rows, taken, intake, PAGE), path, intake)


def refused(row: Row, why: str) -> RefusedRow:
    return RefusedRow(row.line, row.name, why)


def _counted(outcomes: Callable[[], Iterator[Taken]], path: Path, intake: Intake) -> Imported:
    counts = {"added": 0, "unchanged": 0}
    errors: list[RefusedRow] = []
    lost = 0
    with _written(intake.errors) as keep:
        try:
            with intake.transaction() if intake.atomic else nullcontext():
                for outcome in outcomes():
                    if isinstance(outcome, str):
                        counts[outcome] += 1
                        continue
                    lost += 1
                    keep(outcome)
                    errors += [outcome] if len(errors) < ERRORS_SHOWN else []
                if lost and intake.atomic:
                    raise _NotAll
        except _NotAll:
            counts["added"] = 0
    return _judged(Imported(counts["added"], counts["unchanged"], lost, tuple(errors)), path, intake)


def _outcomes(
    rows: Iterator[Row], take: Callable[[Sequence[Row]], Iterable[Taken]], intake: Intake, size: int
) -> Iterator[Taken]:
    """Each page is one transaction: the lines before one that stops everything stay."""
    while page := list(itertools.islice(rows, size)):
        with intake.transaction():
            done = list(take(page))
        yield from done
        intake.progress(len(page))


def _taken(row: Row, take: Callable[[Row], str]) -> Taken:
    if row.error:
        return refused(row, row.error)
    try:
        return take(row)
    except FleetError as error:
        if type(error) is FleetError or error.status > 5:
            raise
        return refused(row, error.message)


@contextmanager
def _written(path: Path | None) -> Iterator[Callable[[RefusedRow], None]]:
    """A file that gets a line of JSON for each refused row."""
    if path is None:
        yield lambda _: None
        return
    try:
        with path.open("wb") as file:
            yield lambda row: _write(file.write, row)
    except OSError as error:
        raise ConfigError(f"cannot write {printable(str(path))}: {error.strerror}", f"ls -ld {path.parent}") from error


def _write(write: Callable[[bytes], object], row: RefusedRow) -> None:
    write(dump_json({"line": row.line, "id": row.id, "error": row.error}) + b"\n")


def _judged(report: Imported, path: Path, intake: Intake) -> Imported:
    if not report.refused:
        return report
    first, name = report.errors[0], printable(str(path))
    words = (
        f"1 line of {name} was refused, line {first.line}: {first.error}"
        if report.refused == 1
        else f"{report.refused} lines of {name} were refused, the first at line {first.line}: {first.error}"
    )
    kind = FleetError if intake.atomic or not report.added + report.unchanged else Partial
    hint = "mend them and import the file again: what is there already stays as it is"
    raise kind(
        f"{words}; nothing was added" if intake.atomic else words,
        "mend them and import the file again" if intake.atomic else hint,
        record=_record(report),
    )


def _record(report: Imported) -> dict[str, object]:
    return {
        "added": report.added,
        "unchanged": report.unchanged,
        "refused": report.refused,
        "errors": [{"line": row.line, "id": row.id, "error": row.error} for row in report.errors],
    }
