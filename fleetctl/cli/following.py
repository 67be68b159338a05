"""`fleetctl twin`: following devices until they are what they should be, or for as long as somebody looks."""

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from fleetctl.cli.group import group
from fleetctl.cli.session import Session, gather
from fleetctl.cli.verb import verb
from fleetctl.cli.words import DeviceWords, LimitWord, SelectorWord, duration_option
from fleetctl.errors import UsageError
from fleetctl.model.device import printable
from fleetctl.present.format import Format
from fleetctl.present.view import Field, View

if TYPE_CHECKING:
    from fleetctl.platforms.twins import TwinConvergence, TwinEvent

CONVERGENCE = View(
    "twinConvergence",
    (
        Field("id", least=12),
        Field("outcome", help="converged, refused where the device reports errors, or waiting.", least=9),
        Field("version", "integer", help="The version of what is desired."),
        Field("reportedVersion", "integer", help="The desired version that the device answers."),
        Field("detail", help="What is between the two.", nullable=True),
    ),
)
EVENT = View(
    "twinEvent",
    (
        Field("receivedAt", least=24),
        Field("id", least=12),
        Field("half", help="desired or reported.", least=8),
        Field("version", "integer"),
        Field("document", "object", help="All that is desired, or reported."),
    ),
)
TIMEOUT = 60.0

app = group("Follow twins.")


@verb(
    app,
    CONVERGENCE,
    name="wait",
    example="""
    fleetctl twin wait pump-7
    fleetctl twin wait -l 'type=pump' --for converged --timeout 10m -o json
    """,
)
def wait(
    session: Session,
    devices: DeviceWords = None,
    selector: SelectorWord = None,
    limit: LimitWord = None,
    goal: Annotated[
        str, typer.Option("--for", metavar="converged", help="Until they answer the version that is desired with all its values.")
    ] = "converged",
    timeout: Annotated[float | None, duration_option("--timeout", help="How long to wait.", shown="60s")] = None,
) -> "Iterator[TwinConvergence] | list[TwinConvergence]":
    """Wait for devices to converge; exits 8 where some refuse, 10 where some have not answered in time."""
    if goal != "converged":
        raise UsageError(f"{printable(goal)} is nothing to wait for", "fleetctl twin wait DEVICE --for converged")
    chosen = session.devices.resolve(session.targets(devices, selector, limit))
    found = session.twins.wait(chosen, TIMEOUT if timeout is None else timeout)
    return gather(found) if session.options.format is Format.JSON else found


@verb(
    app,
    EVENT,
    name="watch",
    example="""
    fleetctl twin watch pump-7
    fleetctl twin watch -l 'type=pump' -o jsonl | jq 'select(.half == "reported") | .document'
    """,
)
def watch(
    session: Session,
    devices: DeviceWords = None,
    selector: SelectorWord = None,
    limit: LimitWord = None,
    count: Annotated[int | None, typer.Option("--count", "-n", metavar="N", min=1, help="End after so many.")] = None,
) -> "Iterator[TwinEvent]":
    """Show each change of desired and reported state as it arrives, until Ctrl-C."""
    chosen = session.devices.resolve(session.targets(devices, selector, limit))
    yield from itertools.islice(session.twins.watch(chosen), count)
