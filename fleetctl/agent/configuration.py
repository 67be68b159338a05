"""What the fleet has told a device to use: stored before it counts, with a way back to the broker that worked."""

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

from fleetctl.agent.identity import Identity
from fleetctl.agent.storage import Storage
from fleetctl.errors import FleetError, Malformed, UsageError
from fleetctl.mqtt.endpoint import Endpoint
from fleetctl.wire.bundle import CONFIG_LIMIT, BundleConfig, config_of
from fleetctl.wire.document import Json, dump_json, parse_json
from fleetctl.wire.fields import object_fields

FILE = "configuration.json"
SHORTEST_HEARTBEAT = 0.1
"""Shorter ones would leave a device no time for anything else."""


class Configuration:
    """The configuration in force: the fleet's where it gave one, else the bundle's.

    A new broker is on trial until it has been reached once. `fallback` is the one before; when the new one cannot be
    reached for `patience` seconds, both are tried in turn, and the one that answers is kept.
    """

    def __init__(self, storage: Storage, identity: Identity, patience: float) -> None:
        self._storage, self._base, self._patience = storage, identity, patience
        self.config = identity.config
        self.fallback: str | None = None
        self._load()
        self._failing_since: float | None = None
        self._back = False
        self.identity = self.applied(identity)

    def applied(self, identity: Identity) -> Identity:
        """The identity with the addresses that the next connection uses."""
        config = self.config
        if self._back and self.fallback is not None:
            config = replace(config, broker=self.fallback)
        try:
            return identity.configured(config)
        except FleetError:
            return identity

    def check(self, args: Mapping[str, Json]) -> BundleConfig:
        """The configuration that a command asks for; what it does not name stays as it is.

        Raises:
            Malformed: it is none, or one that a device must not take.
        """
        held = self.config
        members = _members(held) | {key: value for key, value in args.items() if key in _NAMES}
        config = config_of(held.device, object_fields("the configuration", members))
        for key, old, new in (("broker", held.broker, config.broker), ("artifacts", held.artifacts, config.artifacts)):
            if _is_secure(old) and not _is_secure(new):
                raise Malformed(f"the `{key}` of the configuration would do without TLS")
        if not _is_broker(config.broker):
            raise Malformed("the `broker` of the configuration is more than a host and a port")
        if config.heartbeat < SHORTEST_HEARTBEAT:
            raise Malformed(f"the `heartbeat` of the configuration is below {SHORTEST_HEARTBEAT:g} s")
        return config

    def take(self, config: BundleConfig) -> None:
        """Store it, then let it count; its addresses from the next connection on."""
        working = self.identity.config.broker
        fallback = working if config.broker != working else None
        self._store(config, fallback)
        self.config, self.fallback = config, fallback
        self._failing_since, self._back = None, False

    def begin_session(self) -> None:
        self.identity = self.applied(self._base)

    def renew(self, identity: Identity) -> None:
        """The device has another certificate."""
        self._base = identity
        self.identity = self.applied(identity)

    def connected(self) -> str | None:
        """The broker in use answers: it is the one that is kept. What is to be told of that."""
        self._failing_since = None
        if self.fallback is None:
            return None
        lost = self.config.broker if self._back else None
        config = replace(self.config, broker=self.identity.config.broker)
        self._store(config, None)
        self.config, self.fallback, self._back = config, None, False
        return lost

    def missed(self, now: float) -> str | None:
        """The broker did not answer. The other one, when it is time to try that for the first time."""
        if self.fallback is None:
            return None
        if self._failing_since is None:
            self._failing_since = now
        if now - self._failing_since < self._patience:
            return None
        first, self._back = not self._back, not self._back
        return self.fallback if first else None

    def _store(self, config: BundleConfig, fallback: str | None) -> None:
        document = _members(config) | {"device": str(config.device), "fallback": fallback}
        self._storage.write(FILE, dump_json(document))

    def _load(self) -> None:
        """What is stored for another device, or does not parse, does not count."""
        data = self._storage.read(FILE, CONFIG_LIMIT)
        if data is None:
            return
        try:
            fields = object_fields("the configuration", parse_json(data))
            if fields.text("device", limit=300) == str(self._base.config.device):
                self.config = config_of(self._base.config.device, fields)
                self.fallback = fields.text_or_none("fallback")
        except (Malformed, UsageError):
            self._storage.remove(FILE)


_NAMES = ("broker", "artifacts", "enrol", "heartbeat", "reportingInterval", "topics")


def _members(config: BundleConfig) -> dict[str, Json]:
    return {
        "broker": config.broker,
        "artifacts": config.artifacts,
        "enrol": config.enrol,
        "heartbeat": config.heartbeat,
        "reportingInterval": config.reporting_interval,
        "topics": cast("dict[str, Json]", dict(config.topics)),
    }


def _is_broker(url: str) -> bool:
    try:
        Endpoint.parse_url(url)
    except FleetError:
        return False
    return True


def _is_secure(url: str) -> bool:
    return url.startswith(("mqtts:", "https:"))
