"""`fleetctl publish`: a command to devices, or a message to a topic."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from json import JSONDecodeError
from typing import Annotated

import typer

from fleetctl.cli.group import single
from fleetctl.cli.session import Planned, Session, gather
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
SHOWN = 200
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
        message = f"the payload is not a JSON object{_reason(error)}"
        raise UsageError(message, """the payload of a command is one, as in '{"after":5}'""") from error


def _reason(error: Malformed) -> str:
    """Where JSON ends to be JSON, or what is wrong with it."""
    cause = error.__cause__
    if isinstance(cause, JSONDecodeError):
        return f" (line {cause.lineno}, column {cause.colno})"
    reason = error.message.removeprefix("the document is not a JSON object").removeprefix("the document is not JSON: ")
    return f": {reason}" if reason else ""


@verb(
    app,
    RESULT,
    name="publish",
    writes=True,
    other=PUBLISHED,
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
            help="The payload is text, @FILE or - for stdin; {} by default. A command's is a JSON object.",
            autocompletion=complete_device,
        ),
    ] = None,
    selector: SelectorWord = None,
    limit: LimitWord = None,
    topic: Annotated[str | None, typer.Option("--topic", "-t", metavar="TOPIC", help="Publish to this topic as it is.")] = None,
    retain: Annotated[bool, typer.Option("--retain", help="With -t: let the broker keep it.")] = False,
    qos: Annotated[int | None, typer.Option("--qos", min=0, max=1, help="With -t: 0 or 1.", show_default="1")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the answers.")] = False,
    timeout: Annotated[float | None, duration_option("--timeout", help="How long to wait.", shown="5s")] = None,
) -> list[CommandResult] | As:
    """Send a command to devices, or a message to a topic."""
    if topic is not None:
        refuse({"-l": selector is not None, "--limit": limit, "--wait": wait, "--timeout": timeout is not None}, "with `-t`")
        return _raw(session, topic, words or [], retain, 1 if qos is None else qos)
    refuse({"--retain": retain, "--qos": qos is not None}, "without `-t`: a command is never retained, and sent at QoS 1")
    order = parse_order(words or [])
    args = parse_args(payload_of(order.payload, session.terminal.stdin, PAYLOAD_LIMIT)) if order.payload is not None else {}
    devices = session.chosen(session.targets(order.devices, selector, limit), f"send `{order.command}`")
    results = session.messages.publish(devices, order.command, args, wait=wait, timeout=5.0 if timeout is None else timeout)
    return gather(counted(results, order.command, len(devices), session.terminal.stderr))


def refuse(given: Mapping[str, object], where: str) -> None:
    """Raises `UsageError` for the first option that is given where it means nothing."""
    for option, value in given.items():
        if value:
            raise UsageError(f"`{option}` means nothing {where}", f"leave out {option}")


def _raw(session: Session, topic: str, words: Sequence[str], retain: bool, qos: int) -> As:
    payload = payload_of(raw_payload(words), session.terminal.stdin, PAYLOAD_LIMIT)
    if not is_topic(topic):
        raise UsageError(f"{printable(topic)} is not a topic", "a topic is not empty and has no +, # or NUL")
    if session.options.dry_run:
        raise Planned([{"id": topic, "action": _planned(payload, retain, qos)}])
    return As(PUBLISHED, session.messages.publish_raw(topic, payload, retain=retain, qos=qos))


def raw_payload(words: Sequence[str]) -> str:
    """The one word that is sent to a topic, `{}` without any; raises `UsageError` where devices are named too."""
    if len(words) > 1:
        raise UsageError(
            f"devices and `-t` do not go together, and one payload is sent, not {len(words)} words: {printable(' '.join(words))}",
            "name devices or a topic, not both, and put quotation marks around the payload",
        )
    return words[0] if words else "{}"


def _planned(payload: bytes, retain: bool, qos: int) -> str:
    text = payload[:SHOWN].decode(errors="backslashreplace") + ("…" if len(payload) > SHOWN else "")
    return f"publish {len(payload)} bytes at QoS {qos}{', retained' if retain else ''}{f': {text}' if text else ''}"
