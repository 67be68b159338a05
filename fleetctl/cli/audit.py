"""`fleetctl audit`: who changed what, when and why."""

from typing import Annotated

import typer

from fleetctl.cli.group import single
from fleetctl.cli.session import Session
from fleetctl.cli.verb import verb
from fleetctl.cli.words import complete_device, duration_option
from fleetctl.present.view import Field, Rows, View

CHANGE = View(
    "change",
    (
        Field("id", "integer", help="Rises with every change.", wide=True),
        Field("at", help="When it was made."),
        Field("actor", help="Who made it.", nullable=True),
        Field("action", help="What was done: imported, twin.set, group.created, …"),
        Field("subject", help="What it was done to."),
        Field("deviceId", help="The device, if it was one.", wide=True, nullable=True),
        Field("reason", help="Why, in the words of whoever made it.", nullable=True),
        Field("detail", "object", help="What else is known of it.", wide=True, nullable=True),
    ),
)

app = single("Who changed what, when and why.")


@verb(
    app,
    CHANGE,
    name="audit",
    example="""
    fleetctl audit
    fleetctl audit pump-7 --since 7d
    fleetctl audit --actor op:alice --action twin -o jsonl
    """,
)
def audit(
    session: Session,
    device: Annotated[
        str | None, typer.Argument(metavar="[DEVICE]", help="Changes of one device.", autocompletion=complete_device)
    ] = None,
    since: Annotated[float | None, duration_option("--since", help="Changes of the last time only: 7d.")] = None,
    actor: Annotated[str | None, typer.Option("--actor", metavar="NAME", help="Changes that one actor made.")] = None,
    action: Annotated[
        str | None, typer.Option("--action", metavar="NAME", help="One action, or all that begin with it: twin for twin.set.")
    ] = None,
) -> Rows:
    """Show the trail of changes, oldest first."""
    from fleetctl.platforms.local.trail import trail

    return Rows(trail(session.fleet, device, since=since, actor=actor, action=action))
