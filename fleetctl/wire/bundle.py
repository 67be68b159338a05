"""The device bundle and the claim bundle: the folder that is all a device needs to join its fleet, or to ask to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

import yaml

from fleetctl.errors import Malformed, UsageError
from fleetctl.model import topic
from fleetctl.model.device import DevicePath, check_level
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

CLAIM_KEY = "claim.key"
CLAIM_CERTIFICATE = "claim.pem"
CLAIM_CONFIG = "claim.yaml"
CLAIM_FILES = (CLAIM_KEY, CLAIM_CERTIFICATE, AUTHORITY, TRUST, ROOT, CLAIM_CONFIG)
CLAIM_PREFIX = "claim:"
"""What begins the common name of a claim's certificate: with the colon it is the name of no device."""
CLAIM_LIMIT = 64 - len(CLAIM_PREFIX)

CONFIG_LIMIT = 16384
SHORTEST_REPORTING, LONGEST_REPORTING = 0.1, 86400.0
_BROKER = ("mqtt", "mqtts")
_WEB = ("http", "https")


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
    """What `device.yaml` says: who the device is, the base addresses it dials, its intervals in seconds and its topics.

    `enrol` is the base address where it renews its certificate (EST); None where it cannot.
    """

    device: DevicePath
    broker: str
    artifacts: str
    heartbeat: float
    topics: Mapping[str, str]
    enrol: str | None = None
    reporting_interval: float | None = None

    @classmethod
    def of(
        cls,
        path: DevicePath,
        broker: str,
        artifacts: str,
        heartbeat: float,
        *,
        enrol: str | None = None,
        reporting_interval: float | None = None,
    ) -> Self:
        return cls(path, broker, artifacts, heartbeat, topics_of(path), enrol, reporting_interval)


@dataclass(frozen=True, slots=True)
class ClaimConfig:
    """What `claim.yaml` says: which claim of which tenant, where to enrol (`broker`), and what the device dials afterwards."""

    tenant: str
    claim: str
    broker: str
    device_broker: str
    artifacts: str
    heartbeat: float
    enrol: str | None = None

    @property
    def common_name(self) -> str:
        """The claim as its broker has authenticated it."""
        return f"{CLAIM_PREFIX}{self.claim}"

    def device(self, path: DevicePath) -> BundleConfig:
        """The configuration of a device that the fleet has put at `path`."""
        return BundleConfig.of(path, self.device_broker, self.artifacts, self.heartbeat, enrol=self.enrol)


def render_yaml(config: BundleConfig) -> str:
    return _dump(
        {
            "device": str(config.device),
            "broker": config.broker,
            "artifacts": config.artifacts,
            "enrol": config.enrol,
            "heartbeat": config.heartbeat,
            "reportingInterval": config.reporting_interval,
            "topics": dict(config.topics),
        }
    )


def render_claim_yaml(config: ClaimConfig) -> str:
    return _dump(
        {
            "tenant": config.tenant,
            "claim": config.claim,
            "broker": config.broker,
            "deviceBroker": config.device_broker,
            "artifacts": config.artifacts,
            "enrol": config.enrol,
            "heartbeat": config.heartbeat,
        }
    )


def _dump(members: Mapping[str, object]) -> str:
    """Without what is not known, so that devices made before it was a member read the same as ever."""
    known = {key: value for key, value in members.items() if value is not None}
    return yaml.safe_dump(known, sort_keys=False, allow_unicode=True)


def parse_yaml(text: str) -> BundleConfig:
    """Read `device.yaml`; raises `Malformed`, also where the topics are not those of the device."""
    fields = _members(text, CONFIG)
    try:
        path = DevicePath.parse(fields.text("device", limit=300))
    except UsageError as error:
        raise Malformed(f"`{CONFIG}` names no device: {error.message}", error.hint) from error
    return config_of(path, fields)


def config_of(path: DevicePath, fields: Fields) -> BundleConfig:
    """The configuration of a device from a document that has its members; raises `Malformed`."""
    config = BundleConfig.of(
        path,
        _url(fields, "broker", _BROKER),
        _url(fields, "artifacts", _WEB),
        fields.number("heartbeat", SHORTEST_HEARTBEAT, LONGEST_HEARTBEAT),
        enrol=_enrol(fields),
        reporting_interval=None
        if fields.absent("reportingInterval")
        else fields.number("reportingInterval", SHORTEST_REPORTING, LONGEST_REPORTING),
    )
    if not fields.absent("topics") and fields.mapping("topics") != config.topics:
        raise Malformed(f"the topics in {fields.what} are not those of `{path}`")
    return config


def parse_claim_yaml(text: str) -> ClaimConfig:
    """Read `claim.yaml`; raises `Malformed`."""
    fields = _members(text, CLAIM_CONFIG)
    try:
        tenant = check_level("tenant", fields.text("tenant"))
        claim = check_level("claim", fields.text("claim", limit=CLAIM_LIMIT))
    except UsageError as error:
        raise Malformed(f"`{CLAIM_CONFIG}` names no claim: {error.message}", error.hint) from error
    return ClaimConfig(
        tenant,
        claim,
        _url(fields, "broker", _BROKER),
        _url(fields, "deviceBroker", _BROKER),
        _url(fields, "artifacts", _WEB),
        fields.number("heartbeat", SHORTEST_HEARTBEAT, LONGEST_HEARTBEAT),
        _enrol(fields),
    )


def _members(text: str, name: str) -> Fields:
    if len(text) > CONFIG_LIMIT:
        raise Malformed(f"`{name}` has more than {CONFIG_LIMIT} characters")
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
        raise Malformed(f"`{name}` is not YAML") from error
    if not isinstance(document, dict):
        raise Malformed(f"`{name}` is not a mapping")
    return object_fields(f"`{name}`", document)


def _enrol(fields: Fields) -> str | None:
    """Over TLS only: a certificate is proven there."""
    return None if fields.absent("enrol") else _url(fields, "enrol", ("https",))


def _url(fields: Fields, key: str, schemes: tuple[str, ...]) -> str:
    text = fields.text(key)
    try:
        parts = urlsplit(text)
        sound = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0 and parts.username is None
    except ValueError as error:
        raise Malformed(f"the `{key}` of {fields.what} is not an address") from error
    if not sound or not text.isprintable() or " " in text:
        raise Malformed(f"the `{key}` of {fields.what} is not an address that begins with {' or '.join(schemes)}")
    return text
