"""The device bundle: the folder that is all a device needs to join its fleet."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

import yaml

from fleetctl.errors import Malformed, UsageError
from fleetctl.model import topic
from fleetctl.model.device import DevicePath
from fleetctl.model.topic import Channel
from fleetctl.wire.fields import Fields, object_fields
from fleetctl.wire.presence import LONGEST_HEARTBEAT, SHORTEST_HEARTBEAT

KEY = "device.key"
CERTIFICATE = "device.pem"
AUTHORITY = "ca.pem"
"""The CA that issued the certificates of the broker and of the artifact server."""
TRUST = "trust.cose"
ROOT = "root.pub"
CONFIG = "device.yaml"
FILES = (KEY, CERTIFICATE, AUTHORITY, TRUST, ROOT, CONFIG)

CONFIG_LIMIT = 16384


def topics_of(path: DevicePath) -> dict[str, str]:
    """Every topic of a device by the name that `device.yaml` gives it."""
    return {
        "status": topic.of(path, Channel.STATUS),
        "telemetry": topic.of(path, Channel.TELEMETRY),
        "alerts": topic.of(path, Channel.ALERTS),
        "twinDesired": topic.of(path, Channel.TWIN_DESIRED),
        "twinReported": topic.of(path, Channel.TWIN_REPORTED),
        "otaDesired": topic.of(path, Channel.OTA_DESIRED),
        "otaStatus": topic.of(path, Channel.OTA_STATUS),
        "commands": topic.command(path, "+"),
        "trust": topic.trust(path.tenant),
    }


@dataclass(frozen=True, slots=True)
class BundleConfig:
    """What `device.yaml` says: who the device is, the base addresses it dials, its heartbeat in seconds and its topics."""

    device: DevicePath
    broker: str
    artifacts: str
    heartbeat: float
    topics: Mapping[str, str]

    @classmethod
    def of(cls, path: DevicePath, broker: str, artifacts: str, heartbeat: float) -> Self:
        return cls(path, broker, artifacts, heartbeat, topics_of(path))


def render_yaml(config: BundleConfig) -> str:
    return yaml.safe_dump(
        {
            "device": str(config.device),
            "broker": config.broker,
            "artifacts": config.artifacts,
            "heartbeat": config.heartbeat,
            "topics": dict(config.topics),
        },
        sort_keys=False,
        allow_unicode=True,
    )


def parse_yaml(text: str) -> BundleConfig:
    """Read `device.yaml`; raises `Malformed`, also where the topics are not those of the device."""
    if len(text) > CONFIG_LIMIT:
        raise Malformed(f"`{CONFIG}` has more than {CONFIG_LIMIT} characters")
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
        raise Malformed(f"`{CONFIG}` is not YAML") from error
    if not isinstance(document, dict):
        raise Malformed(f"`{CONFIG}` is not a mapping")
    fields = object_fields(f"`{CONFIG}`", document)
    try:
        path = DevicePath.parse(fields.text("device", limit=300))
    except UsageError as error:
        raise Malformed(f"`{CONFIG}` names no device: {error.message}", error.hint) from error
    config = BundleConfig.of(
        path,
        _url(fields, "broker", ("mqtt", "mqtts")),
        _url(fields, "artifacts", ("http", "https")),
        fields.number("heartbeat", SHORTEST_HEARTBEAT, LONGEST_HEARTBEAT),
    )
    if not fields.absent("topics") and fields.mapping("topics") != config.topics:
        raise Malformed(f"the topics in `{CONFIG}` are not those of `{path}`")
    return config


def _url(fields: Fields, key: str, schemes: tuple[str, ...]) -> str:
    text = fields.text(key)
    try:
        parts = urlsplit(text)
        sound = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0 and parts.username is None
    except ValueError as error:
        raise Malformed(f"the `{key}` of `{CONFIG}` is not an address") from error
    if not sound:
        raise Malformed(f"the `{key}` of `{CONFIG}` is not an address that begins with {' or '.join(schemes)}")
    return text
