"""`fleetctl publish`: a command to devices, or a message to a topic."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from fleetctl.cli.group import single
from fleetctl.cli.session import Session, gather
from fleetctl.cli.targets import payload_of
from fleetctl.cli.verb import verb
from fleetctl.cli.words import LimitWord, SelectorWord, complete_device, duration_option
from fleetctl.errors import Malformed, UsageError
from fleetctl.model.device import printable
from fleetctl.model.topic import is_command_name, is_topic
from fleetctl.platforms.messages import CommandResult
from fleetctl.present.progress import counted
from fleetctl.present.view import As, Field, View
from fleetctl.wire.document import PAYLOAD_LIMIT, Json, parse_json

PREFIX = "commands/"
RESULT = View(
    "commandResult",
    (
        Field("id", help="The device."),
        Field("command"),
        Field("status", help="sent, accepted, succeeded, failed, rejected, timedOut, offline or unknown."),
        Field("session", help="The session that the command was meant for.", wide=True, nullable=True),
        Field("result", "any", help="What the device answered.", nullable=True),
    ),
)
PUBLISHED = View(
    "published",
    (Field("topic"), Field("bytes", "integer"), Field("qos", "integer"), Field("retain", "boolean")),
    id="topic",
)

app = single("Send a command to devices, or a message to a topic.")


@dataclass(frozen=True, slots=True)
class Order:
    """What the words ask for: `payload` is None where none is given."""

    devices: tuple[str, ...]
    command: str
    payload: str | None


def parse_order(words: Sequence[str]) -> Order:
    """Devices, then `commands/NAME`, then at most one payload; raises `UsageError`."""
    at = next((index for index, word in enumerate(words) if word.startswith(PREFIX)), None)
    if at is None:
        raise UsageError(
            "no command is named", "fleetctl publish DEVICE commands/ping, or a raw message: fleetctl publish -t TOPIC PAYLOAD"
        )
    name = words[at].removeprefix(PREFIX)
    if not is_command_name(name):
        raise UsageError(
            f"{printable(words[at])} names no command", "as in commands/ping: letters, digits, `.`, `_`, `-`, at most 32"
        )
    return Order(tuple(words[:at]), name, _payload(words[at + 1 :]))


def _payload(words: Sequence[str]) -> str | None:
    if len(words) > 1:
        raise UsageError(f"one payload, not {len(words)}: {printable(' '.join(words))}", "put quotation marks around it")
    return words[0] if words else None


def parse_args(payload: bytes) -> dict[str, Json]:
    """The arguments of a command; raises `UsageError` for what is not a JSON object."""
    try:
        return parse_json(payload)
    except Malformed as error:
        raise UsageError(f"the payload of a command is a JSON object: {error.message}", """as in '{"after":5}'""") from error


@verb(
    app,
    RESULT,
    name="publish",
    writes=True,
    example="""
    fleetctl publish pump-7 commands/ping --wait
    fleetctl publish -l 'type=pump' commands/reboot '{"after":5}' --yes
    fleetctl publish -t acme/oslo/pump/pump-7/telemetry @message.json
    """,
)
def publish(
    session: Session,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[DEVICE]... commands/NAME [PAYLOAD]",
            help="The payload is text, @FILE or - for stdin; a JSON object, {} by default.",
            autocompletion=complete_device,
        ),
    ] = None,
    selector: SelectorWord = None,
    limit: LimitWord = None,
    topic: Annotated[str | None, typer.Option("--topic", "-t", metavar="TOPIC", help="Publish to this topic as it is.")] = None,
    retain: Annotated[bool, typer.Option("--retain", help="With -t: let the broker keep it.")] = False,
    qos: Annotated[int, typer.Option("--qos", min=0, max=1, help="With -t: 0 or 1.")] = 1,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the answers.")] = False,
    timeout: Annotated[float, duration_option("--timeout", help="How long to wait.", shown="5s")] = 5.0,
) -> list[CommandResult] | As:
    """Send a command to devices, or a message to a topic."""
    if topic is not None:
        return _raw(session, topic, words or [], selector, retain, qos)
    order = parse_order(words or [])
    args = parse_args(payload_of(order.payload, session.terminal.stdin, PAYLOAD_LIMIT)) if order.payload is not None else {}
    devices = session.chosen(session.targets(order.devices, selector, limit), f"send `{order.command}`")
    results = session.messages.publish(devices, order.command, args, wait=wait, timeout=timeout)
    return gather(counted(results, order.command, len(devices), session.terminal.stderr))


def _raw(session: Session, topic: str, words: Sequence[str], selector: str | None, retain: bool, qos: int) -> As:
    if selector is not None:
        raise UsageError("`-t` names a topic, not devices", "leave out -l")
    if not is_topic(topic):
        raise UsageError(f"{printable(topic)} is not a topic", "a topic is not empty and has no +, # or NUL")
    payload = payload_of(_payload(words) or "", session.terminal.stdin, PAYLOAD_LIMIT)
    return As(PUBLISHED, session.messages.publish_raw(topic, payload, retain=retain, qos=qos))
