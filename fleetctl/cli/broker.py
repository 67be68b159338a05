"""`fleetctl broker`: the local broker of a context."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from fleetctl.cli.group import group
from fleetctl.cli.session import Session
from fleetctl.cli.verb import verb
from fleetctl.present.view import Field, View

if TYPE_CHECKING:
    from fleetctl.platforms.local.broker import BrokerEvent

ENGINES = ("mosquitto", "builtin")
EVENT = View(
    "brokerEvent",
    (
        Field(
            "event", help="listening, restored, restoreFailed, reloaded, reloadFailed, refreshFailed, restartNeeded or stopped."
        ),
        Field("engine", help="mosquitto or builtin."),
        Field("deviceUrl", help="Where devices dial."),
        Field("fleetUrl", help="Where fleetctl dials."),
        Field("claimsUrl", help="Where devices with a claim dial.", nullable=True),
        Field("crlNumbers", "object", help="The revocation lists that it obeys.", wide=True),
        Field("inMemory", "boolean", help="Whether retained messages and sessions end with it.", wide=True),
        Field("error", nullable=True, wide=True),
        Field("twins", "integer", help="How many desired twins were put back.", nullable=True, wide=True),
        Field("trust", "boolean", help="Whether the trust document was put back.", nullable=True, wide=True),
    ),
    id="event",
)

app = group("Run the local broker of a context.")


def _engines(incomplete: str) -> list[str]:
    return [each for each in ENGINES if each.startswith(incomplete)]


@verb(
    app,
    EVENT,
    name="run",
    example="""
    fleetctl broker run
    fleetctl broker run --engine builtin -o jsonl
    """,
)
def run(
    session: Session,
    engine: Annotated[
        str | None,
        typer.Option(
            "--engine", metavar="NAME", help="mosquitto or builtin; mosquitto where it is installed.", autocompletion=_engines
        ),
    ] = None,
    listen: Annotated[
        str | None, typer.Option("--listen", metavar="ADDRESS", help="An address of this machine; loopback by default.")
    ] = None,
) -> "Iterator[BrokerEvent]":
    """Run the broker until Ctrl-C: TLS 1.3, client certificates, the rules of the contract."""
    from fleetctl.platforms.local.broker import run_broker

    for event in run_broker(session.context, engine, listen=listen):
        if event.event == "listening" and event.engine == "builtin":
            from fleetctl.mqtt.builtin import NOTICE

            session.say(NOTICE)
        yield event
