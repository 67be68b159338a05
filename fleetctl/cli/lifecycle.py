"""`fleetctl provision`: where a device is in its life, and what is done about it."""

from typing import Annotated

import typer

from fleetctl.cli.group import group
from fleetctl.cli.provision import REMOVED, STATES
from fleetctl.cli.session import Session
from fleetctl.cli.verb import verb
from fleetctl.cli.words import DeviceWord, DeviceWords, LimitWord, SelectorWord
from fleetctl.platforms.device_records import DeviceStatus, Removed, Replaced, Transition
from fleetctl.present.view import Field, View

STATUS = View(
    "deviceStatus",
    (
        Field("id"),
        Field("path", help="tenant/location/type/id: the beginning of its topics."),
        Field("serial", help="Its maker's.", nullable=True),
        Field("batch", help="The factory batch that it is of.", nullable=True),
        Field("profile", help="What it is given when it enrols.", nullable=True),
        Field("state", help=STATES),
        Field("status", help="online, offline, stale or unknown, as far as the registry knows."),
        Field("lastSeen", help="When its last status was received.", nullable=True),
        Field("idle", "number", help="Seconds since then: how old this knowledge is.", nullable=True),
        Field("certificates", "array", help="serial, authority, state, notAfter, provenAt and reason of each."),
        Field("timeline", "array", help="at, event, before, after, reason and actor of each step, the first one first."),
    ),
)
TRANSITION = View(
    "transition",
    (
        Field("id"),
        Field("outcome", help="suspended, resumed or unchanged."),
        Field("state", help="That of now."),
        Field("certificates", "integer", help="How many were put on hold or released."),
        Field("sessionsCut", "boolean", help="Whether no connection of it is left.", nullable=True),
        Field("detail", help="What did not happen, and what to do.", nullable=True, wide=True),
    ),
)
REPLACED = View(
    "replaced",
    (
        Field("id"),
        Field("outcome", help="replaced or unchanged."),
        Field("serial", help="That of the new unit."),
        Field("was", help="That of the old unit.", nullable=True),
        Field("state", help="manufactured: the new unit may enrol."),
        Field("revoked", "integer", help="How many certificates of the old unit were revoked."),
        Field("cleared", "boolean", help="Whether the broker has let go of what the old unit said; otherwise it is queued."),
    ),
)
Why = Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why, for the timeline.")]

app = group("The life of a device.")


@verb(app, STATUS, name="status", example="fleetctl provision status pump-7 -o json")
def status(session: Session, device: DeviceWord) -> DeviceStatus:
    """Show where a device is in its life, how it came there and why."""
    return session.devices.status(session.one(device))


@verb(
    app,
    TRANSITION,
    name="suspend",
    writes=True,
    example="""
    fleetctl provision suspend pump-7 --reason 'stolen?'
    fleetctl provision suspend -l 'location=oslo' --yes
    """,
)
def suspend(
    session: Session, devices: DeviceWords = None, selector: SelectorWord = None, limit: LimitWord = None, reason: Why = None
) -> list[Transition]:
    """Put devices on hold: certificates do not count, sessions are cut, nothing is believed, until they are resumed."""
    chosen = session.chosen(session.targets(devices, selector, limit), "suspend")
    return list(session.devices.suspend(chosen, why=_checked(reason)))


@verb(app, TRANSITION, name="resume", writes=True, example="fleetctl provision resume pump-7 --reason 'found again'")
def resume(
    session: Session, devices: DeviceWords = None, selector: SelectorWord = None, limit: LimitWord = None, reason: Why = None
) -> list[Transition]:
    """Let devices that were suspended come back, each in the state that it had."""
    chosen = session.chosen(session.targets(devices, selector, limit), "resume")
    return list(session.devices.resume(chosen, why=_checked(reason)))


@verb(
    app,
    REMOVED,
    name="decommission",
    writes=True,
    example="""
    fleetctl provision decommission pump-7 --reason 'scrapped'
    fleetctl provision decommission @gone.txt --yes
    """,
)
def decommission(
    session: Session, devices: DeviceWords = None, selector: SelectorWord = None, limit: LimitWord = None, reason: Why = None
) -> list[Removed]:
    """Retire devices for ever: revoke, cut, clear retained messages, keep the record. The id is never used again."""
    chosen = session.devices.resolve(session.targets(devices, selector, limit), retired=True)
    session.approve([device.id for device in chosen], "decommission")
    return list(session.devices.remove(chosen, why=_checked(reason)))


@verb(
    app,
    REPLACED,
    name="replace",
    writes=True,
    example="""
    fleetctl provision replace pump-7 --serial SN0815
    fleetctl provision replace pump-7 --serial SN0815 --compromised --reason 'stolen from the site'
    """,
)
def replace(
    session: Session,
    device: DeviceWord,
    serial: Annotated[str, typer.Option("--serial", metavar="SERIAL", help="That of the new unit.")],
    compromised: Annotated[
        bool, typer.Option("--compromised", help="The key of the old unit is in foreign hands; otherwise it is superseded.")
    ] = False,
    reason: Why = None,
) -> Replaced:
    """Swap the unit behind an id: the old certificates are revoked, the new unit may enrol; id, path, labels and twin stay."""
    name = session.one(device)
    session.approve([name], f"replace by {serial}")
    revocation = "keyCompromise" if compromised else "superseded"
    return session.devices.replace(name, serial, reason=revocation, why=_checked(reason))


def _checked(reason: str | None) -> str | None:
    from fleetctl.model.lifecycle import check_reason

    return None if reason is None else check_reason(reason)
