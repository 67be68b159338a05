"""`fleetctl tail`: messages as they arrive."""

from collections.abc import Iterator
from typing import Annotated

import typer

from fleetctl.cli.group import single
from fleetctl.cli.session import Session
from fleetctl.cli.verb import verb
from fleetctl.cli.words import DeviceWords, SelectorWord, duration_option
from fleetctl.errors import UsageError
from fleetctl.model.device import printable
from fleetctl.model.topic import Channel, is_filter, split
from fleetctl.platforms.messages import Dropped, TailRecord
from fleetctl.present.view import Field, View


def _channel(topic: object) -> str:
    """A topic without the device that it begins with: that has a column of its own."""
    found = split(str(topic))
    return str(topic) if found is None else found[1]


MESSAGE = View(
    "message",
    (
        Field("receivedAt", least=24),
        Field("deviceId", nullable=True, header="DEVICE", least=8),
        Field("topic", brief=_channel, least=13),
        Field("timestamp", help="When the device says that it sent it.", nullable=True, wide=True),
        Field("payload", "any", help='JSON where it parses, else text, else {"base64": …}.', nullable=True),
    ),
    id="deviceId",
)
CHANNELS = (*Channel, "commands")

app = single("Show messages as they arrive.")


def _channels(incomplete: str) -> list[str]:
    return [each for each in CHANNELS if each.startswith(incomplete)]


@verb(
    app,
    MESSAGE,
    name="tail",
    example="""
    fleetctl tail
    fleetctl tail -l 'type=pump' --channel telemetry -o jsonl | jq .payload.readings
    fleetctl tail -t 'acme/+/+/+/status' --duration 10s
    """,
)
def tail(
    session: Session,
    devices: DeviceWords = None,
    selector: SelectorWord = None,
    topic: Annotated[
        list[str] | None, typer.Option("--topic", "-t", metavar="FILTER", help="Topics to show instead; may be repeated.")
    ] = None,
    channel: Annotated[
        str | None, typer.Option("--channel", metavar="NAME", help=f"One of {', '.join(CHANNELS)}.", autocompletion=_channels)
    ] = None,
    count: Annotated[int | None, typer.Option("--count", "-n", metavar="N", min=1, help="End after so many.")] = None,
    duration: Annotated[float | None, duration_option("--duration", help="End after so long.")] = None,
) -> Iterator[TailRecord]:
    """Show messages as they arrive, until Ctrl-C."""
    targets = session.targets(devices, selector)
    filters = tuple(topic or ())
    _check(filters, channel, targets.is_everything)
    chosen = None if targets.is_everything else session.devices.resolve(targets)
    dropped = Dropped()
    try:
        yield from session.messages.tail(chosen, filters, channel=channel, count=count, duration=duration, dropped=dropped)
    finally:
        if dropped.malformed or dropped.overflow:
            session.say(f"left out: {dropped.malformed} malformed, {dropped.overflow} that came too fast")


def _check(filters: tuple[str, ...], channel: str | None, is_everything: bool) -> None:
    for each in filters:
        if not is_filter(each):
            raise UsageError(f"{printable(each)} is not a topic filter", "as in acme/+/+/+/status or acme/#")
    if filters and (channel or not is_everything):
        raise UsageError("`-t` names topics, so no device and no channel can be named too", "leave one of them out")
    if channel is not None and channel not in CHANNELS:
        raise UsageError(f"{printable(channel)} is not a channel", f"one of {', '.join(CHANNELS)}")
