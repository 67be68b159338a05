"""`fleetctl demo`: the whole of it on one machine, with nothing left behind."""

from collections.abc import Iterator, Mapping
from typing import Annotated

import typer

from fleetctl.cli.board import watched
from fleetctl.cli.group import single
from fleetctl.cli.session import Session
from fleetctl.cli.verb import verb
from fleetctl.present.text import cell
from fleetctl.present.view import As, Field, View

COMMON = ("event", "timestamp", "rolloutId", "deviceId")


def _rest(event: object) -> str:
    if not isinstance(event, Mapping):
        return "-"
    return cell({key: value for key, value in event.items() if key not in COMMON and value is not None})


EVENT = View(
    "demoEvent",
    (
        Field("event", help="began, initialized, broker, provisioned, online, published, planned, ended, …, or a rollout's."),
        Field("rolloutId", header="ROLLOUT", nullable=True),
        Field("deviceId", header="DEVICE", nullable=True),
        Field("*", header="DETAILS", show=_rest),
    ),
    id="event",
    open=True,
)
SUMMARY = View(
    "demo",
    (
        Field("broker", "object", help="Its engine and where devices dial."),
        Field("devices", "integer"),
        Field("rollouts", "array", help="Each with id, release, state and the counts that sum to the devices."),
        Field("seconds", "number", help="How long it took."),
    ),
    id="rollouts",
)

app = single("Make a fleet of simulated devices and roll two releases out to it.")


@verb(
    app,
    EVENT,
    name="demo",
    final=True,
    example="""
    fleetctl demo
    fleetctl demo -o json | jq .rollouts
    fleetctl demo --keep
    """,
)
def demo(
    session: Session,
    devices: Annotated[int, typer.Option("--devices", "-n", metavar="N", min=3, max=500, help="How many devices.")] = 30,
    engine: Annotated[
        str | None, typer.Option("--engine", metavar="NAME", help="mosquitto or builtin; mosquitto where it is installed.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Stay until Ctrl-C, and say how to talk to it.")] = False,
) -> Iterator[object]:
    """Make a fleet of simulated devices on this machine, roll out a good release, then a bad one that stops itself.

    Broker, certificates, devices and signatures are real; nothing is left behind.
    """
    from fleetctl.demo import run

    yield from watched(session, _told(session, run.run(devices, engine=engine, keep=keep)))


def _told(session: Session, events: Iterator[Mapping[str, object]]) -> Iterator[object]:
    """The same; the summary as what they come to, and what a person should know said on stderr."""
    for event in events:
        lines = event.get("lines")
        if event.get("event") == "kept" and isinstance(lines, list):
            session.say("\n".join(["it stays until Ctrl-C; in another terminal:", *(f"  {line}" for line in lines)]))
        yield event if "event" in event else As(SUMMARY, event)
