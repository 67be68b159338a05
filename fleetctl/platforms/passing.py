"""What passes through a broker: which filters a `tail` means, how a message is shown, what may be published by hand."""

import base64
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from fleetctl.errors import Malformed, UsageError
from fleetctl.model import topic as topics
from fleetctl.model.device import Device, printable
from fleetctl.model.topic import Channel
from fleetctl.platforms.messages import TailRecord
from fleetctl.wire.document import PAYLOAD_LIMIT, parse_json, rfc3339

CHANNELS = {**{str(channel): str(channel) for channel in Channel}, "commands": "commands/#"}
"""What `tail` can be narrowed to, and the rest of the topic below the device's path."""


def check_command_name(name: str) -> str:
    """The same; raises `UsageError` unless a topic level may be called so."""
    if not topics.is_command_name(name):
        raise UsageError(f"{printable(name)} is not a command's name", "at most 32 letters, digits, `.`, `_`, `-`")
    return name


def check_raw(topic: str, payload: bytes, qos: int) -> None:
    """Raises `UsageError` for what no broker takes, or no device."""
    if not topics.is_topic(topic):
        raise UsageError(f"{printable(topic)} is not a topic", "a topic has no +, # or NUL")
    if qos not in (0, 1):
        raise UsageError(f"QoS {qos} is not 0 or 1", "use --qos 1")
    if len(payload) > PAYLOAD_LIMIT:
        raise UsageError(f"the payload has {len(payload)} bytes, {PAYLOAD_LIMIT} are allowed", "send less, or an artifact")


def tail_filters(tenant: str, devices: Sequence[Device] | None, filters: Iterable[str], channel: str | None) -> list[str]:
    """The filters to subscribe to, each once: exact topics for devices where a channel is named."""
    return list(dict.fromkeys(_filters(tenant, devices, list(filters), channel)))


def tail_record(topic: str, payload: bytes, received_at: float) -> TailRecord:
    said = readable(payload)
    found = topics.split(topic)
    timestamp = said.get("timestamp") if isinstance(said, dict) else None
    return TailRecord(
        topic,
        None if found is None else found[0].device_id,
        timestamp if isinstance(timestamp, str) else None,
        rfc3339(received_at),
        said,
    )


def readable(payload: bytes) -> Any:
    """What the payload says in JSON, else its text, else base64; None if there is none."""
    if not payload:
        return None
    try:
        document = parse_json(b'{"payload":' + payload + b"}", len(payload) + 12)
        if document.keys() == {"payload"}:
            return document["payload"]
    except Malformed:
        pass
    try:
        return payload.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(payload).decode()}


def _filters(tenant: str, devices: Sequence[Device] | None, filters: list[str], channel: str | None) -> Iterator[str]:
    for text in filters:
        if not topics.is_filter(text):
            raise UsageError(f"{printable(text)} is not a topic filter", "+ fills one level, # the last one")
    if filters and (devices is not None or channel is not None):
        raise UsageError("a filter and devices or a channel exclude each other", "use -t FILTER alone")
    if channel is not None and channel not in CHANNELS:
        raise UsageError(f"{printable(channel)} is no channel", f"one of {', '.join(CHANNELS)}")
    yield from filters
    rest = CHANNELS[channel] if channel is not None else "#"
    if devices is not None:
        yield from (f"{device.path}/{rest}" for device in devices)
    elif not filters:
        yield f"{tenant}/+/+/+/{rest}"
