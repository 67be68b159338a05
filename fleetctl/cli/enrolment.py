"""`fleetctl provision serve`, `pending`, `approve`, `reject` and `reset`: devices that enrol, and who decides about them."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from fleetctl.cli.group import group
from fleetctl.cli.session import Session
from fleetctl.cli.verb import verb
from fleetctl.cli.words import DeviceWords, LimitWord, SelectorWord, duration_option
from fleetctl.present.view import Field, View

if TYPE_CHECKING:
    from fleetctl.platforms.local.enrolment.approval import Decision, PendingEnrolment, Reset
    from fleetctl.platforms.local.enrolment.events import ServeEvent
    from fleetctl.registry.enrolments import EnrolmentRow

EVENT = View(
    "serveEvent",
    (
        Field("event", help="listening, issued, repeated, pending, refused, alert, activated, configured, registered, …"),
        Field("timestamp", wide=True),
        Field("serial", help="The maker's serial.", nullable=True),
        Field("deviceId", nullable=True),
        Field("claim", help="The claim with which it asked.", nullable=True),
        Field("code", help="Why, for programs.", nullable=True),
        Field("detail", help="The same for people; the certificate's serial where one was issued.", nullable=True),
    ),
    id="event",
)
PENDING = View(
    "pendingEnrolment",
    (
        Field("id", help="Names it in `approve` and `reject`."),
        Field("serial", nullable=True),
        Field("deviceId", nullable=True),
        Field("method", help="claim, est or jit."),
        Field("claim", nullable=True),
        Field("key", help="SHA-256 of its public key: compare it with what the device shows.", nullable=True),
        Field("requestedAt"),
    ),
)
DECISION = View(
    "enrolmentDecision",
    (
        Field("id"),
        Field("serial", nullable=True),
        Field("deviceId", nullable=True),
        Field("outcome", help="approved, rejected or unchanged."),
    ),
)
RESET = View(
    "deviceReset",
    (
        Field("id"),
        Field("serial", nullable=True),
        Field("outcome", help="reset or unchanged."),
        Field("state", help="manufactured."),
        Field("revoked", "integer", help="How many certificates were revoked."),
        Field("sessionsCut", "boolean", help="Whether the broker has no connection of it; null where none runs.", nullable=True),
    ),
)
EnrolmentWords = Annotated[
    list[str] | None,
    typer.Argument(metavar="[ID|SERIAL]...", help="Ids of enrolments, serials or globs of them; `-` and @FILE."),
]
Why = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it is kept in the device's timeline.")]

app = group("Serve devices that enrol, and decide about them.")


@verb(
    app,
    EVENT,
    name="serve",
    example="""
    fleetctl provision serve
    fleetctl provision serve --no-est -o jsonl
    """,
)
def serve(
    session: Session,
    mqtt: Annotated[bool, typer.Option("--mqtt/--no-mqtt", help="Claims, just in time, activation and configuration.")] = True,
    est: Annotated[bool, typer.Option("--est/--no-est", help="Enrolment over HTTPS (RFC 7030).")] = True,
    pending_for: Annotated[
        float, duration_option("--pending-for", help="How long a certificate waits to be seen.", shown="24h")
    ] = 86400.0,
) -> "Iterator[ServeEvent]":
    """Serve devices that enrol, until Ctrl-C: whatever a device is told is in the registry before."""
    from fleetctl.platforms.local.enrolment.serving import serve as run

    return run(session.fleet, mqtt=mqtt, est=est, pending_for=pending_for)


@verb(
    app,
    PENDING,
    name="pending",
    example="""
    fleetctl provision pending
    fleetctl provision pending -o name | fleetctl provision approve - --yes
    """,
)
def pending(session: Session) -> "list[PendingEnrolment]":
    """List the keys that wait for somebody to decide."""
    from fleetctl.platforms.local.enrolment.approval import pending as waiting

    return list(waiting(session.fleet))


@verb(
    app,
    DECISION,
    name="approve",
    writes=True,
    example="""
    fleetctl provision approve SN00042
    fleetctl provision approve 'SN000*' --yes
    """,
)
def approve(
    session: Session,
    enrolments: EnrolmentWords = None,
    selector: SelectorWord = None,
    reason: Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why; it is kept in the timeline.")] = None,
) -> "list[Decision]":
    """Let devices have their certificate; they fetch it when they ask again."""
    from fleetctl.platforms.local.enrolment import approval

    return approval.approve(session.fleet, _chosen(session, enrolments, selector, "approve"), reason)


@verb(
    app,
    DECISION,
    name="reject",
    writes=True,
    example="fleetctl provision reject SN00042 --reason 'not one of ours'",
)
def reject(session: Session, reason: Why, enrolments: EnrolmentWords = None, selector: SelectorWord = None) -> "list[Decision]":
    """Turn devices away, until `provision reset`."""
    from fleetctl.platforms.local.enrolment import approval

    return approval.reject(session.fleet, _chosen(session, enrolments, selector, "reject"), reason)


@verb(
    app,
    RESET,
    name="reset",
    writes=True,
    example="""
    fleetctl provision reset pump-7 --reason 'board replaced'
    fleetctl provision reset -l 'batch=2026-48' --reason 'line 3 was stopped' --yes
    """,
)
def reset(
    session: Session, reason: Why, devices: DeviceWords = None, selector: SelectorWord = None, limit: LimitWord = None
) -> "list[Reset]":
    """Let devices enrol anew: what they have is revoked, what was decided about them is forgotten."""
    from fleetctl.platforms.local.enrolment import approval

    return approval.reset(session.fleet, session.chosen(session.targets(devices, selector, limit), "reset"), reason)


def _chosen(session: Session, words: list[str] | None, selector: str | None, action: str) -> "list[EnrolmentRow]":
    """The enrolments that are meant, approved by whoever is asked."""
    from fleetctl.cli.targets import expand
    from fleetctl.model.device import printable
    from fleetctl.platforms.local.enrolment import approval
    from fleetctl.platforms.protocol import Targets

    named = expand(words, session.terminal.stdin)
    devices = None if selector is None else session.devices.resolve(Targets((), selector, None))
    rows = approval.choose(session.fleet, named, devices, action)
    shown = [printable(row.serial or row.id).strip("`") for row in rows]
    session.approve(shown, action, [{"id": row.id, "action": f"{action} serial {row.serial}"} for row in rows])
    return rows
