"""`fleetctl provision batch`: serials of a factory that may enrol."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fleetctl.cli.group import group
from fleetctl.cli.provision import IMPORTED
from fleetctl.cli.session import Session
from fleetctl.cli.verb import verb
from fleetctl.cli.words import duration_option, labels_of
from fleetctl.platforms.device_records import Imported
from fleetctl.present.view import Field, View

if TYPE_CHECKING:
    from fleetctl.platforms.local.batches import BatchEntry, BatchReport

_BATCH = (
    Field("name"),
    Field("state", help="open or closed."),
    Field("profile", help="What its devices are given.", nullable=True),
    Field("type", help="Of its devices; null for that of the profile.", nullable=True, wide=True),
    Field("location", help="Of its devices; null for that of the profile.", nullable=True, wide=True),
    Field("serials", "integer", help="How many it names."),
    Field("used", "integer", help="How many of them have enrolled or were made."),
    Field("quota", "integer", help="How many may; null for all.", nullable=True),
    Field("notBefore", help="When it opens.", nullable=True, wide=True),
    Field("notAfter", help="When it ends.", nullable=True),
    Field("refusal", help="Why nobody may enrol now: batch_closed, not_yet_open or quota.", nullable=True),
    Field("labels", "object", wide=True),
    Field("createdAt", wide=True),
    Field("closedAt", nullable=True, wide=True),
)
BATCH = View("batch", _BATCH, id="name")
REPORT = View(
    "batchReport",
    (
        *_BATCH,
        Field("states", "object", help="How many of its devices are in each state."),
        Field("first", help="When the first of them came further than the factory's list.", nullable=True),
        Field("last", help="When the last of them did.", nullable=True),
        Field("refused", "object", help="How many enrolments were rejected, by their code."),
    ),
    id="name",
)
Name = Annotated[str, typer.Argument(metavar="NAME", help="The batch.", show_default=False)]

app = group("Factory batches: serials that may enrol.")


@verb(
    app,
    BATCH,
    name="create",
    example="""
    fleetctl provision batch create 2026-w48 --profile line-1 --quota 2000 --for 30d
    fleetctl provision batch create proto --type pump --location lab --until 2030-01-01T00:00:00Z --label stage=proto
    """,
)
def create(
    session: Session,
    name: Name,
    profile: Annotated[str | None, typer.Option("--profile", metavar="NAME", help="What its devices are given.")] = None,
    device_type: Annotated[str | None, typer.Option("--type", metavar="TYPE", help="Instead of that of the profile.")] = None,
    location: Annotated[str | None, typer.Option("--location", metavar="PLACE", help="Instead of that of the profile.")] = None,
    quota: Annotated[int | None, typer.Option("--quota", metavar="N", min=1, help="How many devices may enrol.")] = None,
    begin: Annotated[str | None, typer.Option("--from", metavar="TIME", help="Nobody enrols before (RFC 3339).")] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="Nobody enrols after (RFC 3339).")] = None,
    lasts: Annotated[float | None, duration_option("--for", help="Nobody enrols later than so long after its beginning.")] = None,
    label: Annotated[list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="A label; may be repeated.")] = None,
) -> "BatchEntry":
    """Make a batch. Making the same again changes nothing."""
    from fleetctl.model.batch import Batch
    from fleetctl.platforms.local import batches

    batches.check_end(lasts, until)
    window = batches.time_of(begin), batches.time_of(until)
    batch = Batch(name, profile, location, device_type, quota, *window, labels=labels_of(label))
    return batches.create(session.fleet, batch, lasts=lasts)


@verb(
    app,
    IMPORTED,
    name="import",
    example="""
    fleetctl provision batch import 2026-w48 serials.csv
    fleetctl provision batch import 2026-w48 --serials SN0001..SN2000
    """,
)
def import_serials(
    session: Session,
    name: Name,
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="A .csv or .jsonl file: serial, and id or labels where it has them.")
    ] = None,
    serials: Annotated[
        list[str] | None, typer.Option("--serials", metavar="FIRST..LAST", help="A range of serials; may be repeated.")
    ] = None,
    atomic: Annotated[bool, typer.Option("--atomic", help="Add all of them, or none if a line is refused.")] = False,
    errors: Annotated[
        Path | None, typer.Option("--errors", metavar="FILE", help="Write every refused line there, as JSON lines.")
    ] = None,
) -> Imported:
    """Add the devices of a batch, each under its serial unless it has an id. Importing them again adds what is missing."""
    from fleetctl.errors import UsageError
    from fleetctl.platforms.importing import Intake
    from fleetctl.platforms.local import batches
    from fleetctl.present.progress import progress

    if (file is None) == (serials is None):
        raise UsageError("the serials are named by a file or by `--serials`", "name one of them")
    with progress(name, None, session.terminal.stderr) as advance:
        intake = Intake(session.fleet.registry.transaction, atomic, errors, advance)
        return batches.import_serials(session.fleet, name, file if file is not None else serials or [], intake)


@verb(app, BATCH, name="close", example="fleetctl provision batch close 2026-w48")
def close(session: Session, name: Name) -> "BatchEntry":
    """Close a batch for good: none of its devices enrols any more. Those that have stay as they are."""
    from fleetctl.platforms.local import batches

    return batches.close(session.fleet, name)


@verb(app, BATCH, name="list", example="fleetctl provision batch list")
def list_batches(session: Session) -> "list[BatchEntry]":
    """List the batches."""
    from fleetctl.platforms.local import batches

    return batches.listed(session.fleet)


@verb(app, REPORT, name="report", example="fleetctl provision batch report 2026-w48 -o json")
def report(session: Session, name: Name) -> "BatchReport":
    """Show how far a batch is: states, quota, and who was refused."""
    from fleetctl.platforms.local import batches

    return batches.report(session.fleet, name)
