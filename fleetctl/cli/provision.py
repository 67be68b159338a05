"""`fleetctl provision`: the devices of a fleet."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fleetctl.cli.group import group
from fleetctl.cli.session import Session
from fleetctl.cli.verb import verb
from fleetctl.cli.words import DeviceWord, DeviceWords, LimitWord, Refresh, SelectorWord, labels_of
from fleetctl.present.format import Format
from fleetctl.present.view import Field, Rows, View

if TYPE_CHECKING:
    from fleetctl.platforms.device_records import DeviceDetail, Imported, Provisioned, Removed
    from fleetctl.platforms.devices import DeviceEntry

STATES = "manufactured, claimed, active, renewing, suspended, revoked or retired."
DEVICE = View(
    "device",
    (
        Field("id", help="Unique on the broker; also its client id and the CN of its certificate."),
        Field("type", help="The third level of its path."),
        Field("location", help="The second level of its path."),
        Field("labels", "object", help="What you set with `--label`."),
        Field("status", help="online, offline, stale or unknown."),
        Field("firmware", help="The version that runs.", nullable=True),
        Field("lastSeen", help="When its last status was received.", nullable=True),
        Field("drift", "boolean", help="Whether it reports other than desired.", nullable=True),
        Field("state", help=STATES, wide=True),
        Field("createdAt", help="When it was added.", wide=True),
        Field("serial", help="Its maker's.", wide=True, nullable=True),
        Field("batch", help="The factory batch that it is of.", wide=True, nullable=True),
        Field("certificateEnds", help="When the last of its certificates that is not revoked does.", wide=True, nullable=True),
    ),
)
DETAIL = View(
    "deviceDetail",
    (
        Field("id"),
        Field("path", help="tenant/location/type/id: the beginning of its topics."),
        Field("type"),
        Field("location"),
        Field("labels", "object"),
        Field("status", help="online, offline, stale or unknown."),
        Field("session", help="BOOT-COUNT of its current connection.", nullable=True),
        Field("firmware", help="The version that runs.", nullable=True),
        Field("digest", help="The digest of the image that runs.", nullable=True),
        Field("heartbeat", "number", help="Seconds between its statuses.", nullable=True),
        Field("lastSeen", nullable=True),
        Field("drift", "boolean", nullable=True),
        Field("desiredVersion", "integer"),
        Field("reportedVersion", "integer"),
        Field("state", help=STATES),
        Field("createdAt"),
        Field("serial", help="Its maker's.", nullable=True),
        Field("batch", help="The factory batch that it is of.", nullable=True),
        Field("profile", help="What it is given when it enrols.", nullable=True),
        Field("certificateEnds", help="When the last of its certificates that is not revoked does.", nullable=True),
    ),
)
PROVISIONED = View(
    "provisioned",
    (
        Field("id"),
        Field("path", help="tenant/location/type/id: the beginning of its topics."),
        Field("outcome", help="added or unchanged."),
        Field("bundle", help="The folder that was written.", nullable=True),
    ),
)
IMPORTED = View(
    "imported",
    (
        Field("added", "integer"),
        Field("unchanged", "integer"),
        Field("refused", "integer"),
        Field("errors", "array", help="The first hundred refused lines."),
    ),
    id="added",
)
REMOVED = View(
    "removed",
    (
        Field("id"),
        Field("outcome", help="removed or unchanged."),
        Field("revoked", "integer", help="How many certificates were revoked."),
        Field("cleared", "boolean", help="Whether the broker has let go of what it retained; otherwise it is queued."),
        Field("sessionsCut", "boolean", help="Whether no connection of it is left.", nullable=True),
        Field("detail", help="What did not happen to its certificates, and what to do.", nullable=True, wide=True),
    ),
)

app = group(
    "Add, enrol, list, suspend and remove devices; factory batches and claims.",
    also=("fleetctl.cli.lifecycle", "fleetctl.cli.factory", "fleetctl.cli.enrolment"),
    nested={
        "batch": "fleetctl.cli.batch",
        "profile": "fleetctl.cli.profile",
        "claim": "fleetctl.cli.claim",
        "token": "fleetctl.cli.token",
    },
)


@verb(
    app,
    PROVISIONED,
    name="add",
    example="""
    fleetctl provision add pump-7 --type pump --location oslo --label group=canary
    fleetctl provision add pump-7 --type pump --location oslo --bundle ./pump-7
    """,
)
def add(
    session: Session,
    device: DeviceWord,
    device_type: Annotated[str, typer.Option("--type", metavar="TYPE", help="What kind of device; fixed.")],
    location: Annotated[str, typer.Option("--location", metavar="PLACE", help="Where it belongs; fixed.")],
    label: Annotated[list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="A label; may be repeated.")] = None,
    bundle: Annotated[
        Path | None, typer.Option("--bundle", metavar="DIR", help="Write key, certificate, trust and settings there.")
    ] = None,
) -> "Provisioned":
    """Add one device. Adding the same again changes nothing."""
    return session.devices.add(
        session.one(device), device_type=device_type, location=location, labels=labels_of(label), bundle=bundle
    )


@verb(
    app,
    IMPORTED,
    name="import",
    example="""
    fleetctl provision import devices.csv
    fleetctl provision import devices.jsonl --bundles ./bundles
    fleetctl provision import devices.csv --atomic --errors refused.jsonl
    """,
)
def import_file(
    session: Session,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .csv with a header, or a .jsonl file.")],
    bundles: Annotated[
        Path | None, typer.Option("--bundles", metavar="DIR", help="Write a bundle for each device there.")
    ] = None,
    atomic: Annotated[bool, typer.Option("--atomic", help="Add all of them, or none if a line is refused.")] = False,
    errors: Annotated[
        Path | None, typer.Option("--errors", metavar="FILE", help="Write every refused line there, as JSON lines.")
    ] = None,
) -> "Imported":
    """Add the devices that a file names: id, type, location and labels. Importing it again adds what is missing."""
    from fleetctl.present.progress import progress

    with progress(file.name, None, session.terminal.stderr) as advance:
        return session.devices.import_file(file, bundles, atomic=atomic, errors=errors, progress=advance)


@verb(
    app,
    DEVICE,
    name="list",
    example="""
    fleetctl provision list
    fleetctl provision list -l 'type=pump,status=stale' -o name
    fleetctl provision list -l 'firmware<2.1.0' --limit 10% --columns id,firmware
    fleetctl provision list --state suspended --state revoked
    """,
)
def list_devices(
    session: Session,
    devices: DeviceWords = None,
    selector: SelectorWord = None,
    limit: LimitWord = None,
    retired: Annotated[bool, typer.Option("--retired", help="Those that were removed too.")] = False,
    state: Annotated[
        list[str] | None,
        typer.Option("--state", metavar="STATE", help=f"Those in this state: {STATES[:-1]}; may be repeated."),
    ] = None,
    refresh: Refresh = False,
) -> Rows:
    """List devices, as the registry knows them; a table says how old what it shows is."""
    from fleetctl.model.lifecycle import life_cycle

    states = [life_cycle(word) for word in state or ()]
    targets = session.targets(devices, selector, limit)
    if refresh:
        session.refresh(targets)
    found = session.devices.list(targets, retired=retired, states=states)
    is_told = not refresh and session.options.format in (Format.TABLE, Format.WIDE)
    return Rows(_with_age(session, found) if is_told else found)


def _with_age(session: Session, entries: "Iterator[DeviceEntry]") -> "Iterator[DeviceEntry]":
    """The same; at their end stderr says when they were last heard of."""
    seen: list[str] = []
    for entry in entries:
        if entry.last_seen is not None:
            seen = [min([*seen, entry.last_seen]), max([*seen, entry.last_seen])]
        yield entry
    if not seen:
        return
    from fleetctl.wire.document import parse_rfc3339

    oldest, newest = (_span(session.fleet.clock() - parse_rfc3339(at)) for at in seen)
    session.say(f"heard of {newest if newest == oldest else f'{newest} to {oldest}'} ago; --refresh reads the broker first")


def _span(seconds: float) -> str:
    """`40 s`, `5 min`, `3 h` or `9 d`."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


@verb(app, DETAIL, name="show", example="fleetctl provision show pump-7 -o json")
def show(session: Session, device: DeviceWord, refresh: Refresh = False) -> "DeviceDetail":
    """Show all that the registry knows of one device."""
    chosen = session.one(device)
    if refresh:
        session.refresh(session.targets([chosen]))
    return session.devices.show(chosen)


@verb(
    app,
    REMOVED,
    name="remove",
    writes=True,
    example="""
    fleetctl provision remove pump-7
    fleetctl provision remove -l 'location=oslo' --dry-run
    fleetctl provision remove @gone.txt --yes
    """,
)
def remove(
    session: Session, devices: DeviceWords = None, selector: SelectorWord = None, limit: LimitWord = None
) -> "list[Removed]":
    """Remove devices: revoke certificates, clear retained messages, keep the record. The id is never used again.

    `provision decommission` is the same, and takes a reason.
    """
    chosen = session.devices.resolve(session.targets(devices, selector, limit), retired=True)
    session.approve([device.id for device in chosen], "remove")
    return list(session.devices.remove(chosen))
