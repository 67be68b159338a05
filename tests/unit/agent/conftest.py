"""A device without a network: its keys, its folder, a clock that is set by hand, and a link that remembers."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from fleetctl.agent.device import Device
from fleetctl.agent.download import Artifacts
from fleetctl.agent.identity import Identity
from fleetctl.agent.settings import Settings
from fleetctl.agent.storage import Storage
from fleetctl.agent.updater import Clock, Outcome
from fleetctl.keys.cose import Signer, trust_key
from fleetctl.keys.store import generate_key
from fleetctl.keys.trust import UnverifiedTrust, sign_assignment, sign_manifest, sign_trust
from fleetctl.model import topic
from fleetctl.model.device import DevicePath
from fleetctl.model.topic import Channel
from fleetctl.model.update import Do
from fleetctl.mqtt.endpoint import Endpoint
from fleetctl.mqtt.message import Message
from fleetctl.wire.assignment import Assignment
from fleetctl.wire.bundle import BundleConfig
from fleetctl.wire.desired import pack
from fleetctl.wire.manifest import Manifest
from fleetctl.wire.trust import TrustDocument

PATH = DevicePath("acme", "hall", "pump", "p1")


@dataclass
class FakeLink:
    """Remembers what is published and subscribed."""

    published: list[tuple[str, dict[str, Any], bool]] = field(default_factory=list)
    filters: list[str] = field(default_factory=list)

    def publish(self, name: str, payload: bytes, qos: int = 1, retain: bool = False, *, correlation: bytes | None = None) -> int:
        self.published.append((name.removeprefix(f"{PATH}/"), json.loads(payload), retain))
        return len(self.published)

    def subscribe(self, filters: Sequence[str], qos: int = 1) -> int:
        self.filters += filters
        return 1

    def on(self, name: str) -> list[dict[str, Any]]:
        return [document for found, document, _ in self.published if found == name]


class Keys:
    """Every key of a fleet, and what it can sign."""

    def __init__(self) -> None:
        self.root, self.release, self.rollout = (Signer(generate_key()) for _ in range(3))

    def trust(self, version: int = 1, *, rollout: Signer | None = None, root: Signer | None = None) -> bytes:
        keys = (trust_key(self.release.public_key, "release"), trust_key((rollout or self.rollout).public_key, "rollout"))
        return sign_trust(TrustDocument(version, "acme", keys), root or self.root)

    def manifest(self, image: bytes, version: str = "2.0.0", device_class: str = "pump", signer: Signer | None = None) -> bytes:
        digest = hashlib.sha256(image).digest()
        name = f"{device_class}@{version}"
        manifest = Manifest("acme", device_class, version, "app", len(image), digest, "raw", 0, 1, name)
        return sign_manifest(manifest, signer or self.release)

    def desired(self, manifest: bytes, order: int = 1, *, path: DevicePath = PATH, **changes: Any) -> bytes:
        digest = hashlib.sha256(manifest).digest()
        assignment = Assignment("acme", path.device_id, "r1", order, "install", (order + 1) // 2, digest)
        return pack(sign_assignment(replace(assignment, **changes), path, self.rollout), manifest)


class Bench:
    """One device on a bench: `boot` starts it from its folder, `hear` gives it a message, `pass_time` lets time go by."""

    def __init__(self, folder: Path, keys: Keys, settings: Settings) -> None:
        self.folder, self.keys, self.settings = folder, keys, settings
        self.now = 1_800_000_000.0
        self.events: list[dict[str, Any]] = []
        trust = keys.trust()
        self.identity = Identity(
            config=BundleConfig.of(PATH, "mqtts://localhost:1", "https://localhost:2", 100.0),
            endpoint=Endpoint("localhost", 1),
            artifacts=Artifacts("https://localhost:2", None),
            root=keys.root.public_key,
            trust=UnverifiedTrust(trust).verify(keys.root.public_key, "acme"),
            trust_envelope=trust,
        )
        self.device = self.boot()

    def boot(self) -> Device:
        """Start from disk alone, and connect."""
        clock = Clock((lambda: self.now) if self.settings.clock else (lambda: None), lambda: self.now)
        self.storage = Storage(self.folder, write=_write)
        self.device = Device(self.identity, self.settings, self.storage, clock, Random(7))
        self.connect()
        return self.device

    def connect(self) -> None:
        self.link = FakeLink()
        self.will = self.device.opening()
        self.device.opened(self.link)

    def hear(self, name: str, payload: bytes) -> None:
        full = name if name.startswith("acme/") else f"{PATH}/{name}"
        self.device.received(Message(full, payload, 1, False, self.now))

    def hear_json(self, name: str, **document: Any) -> None:
        self.hear(name, json.dumps(document).encode())

    def assign(self, payload: bytes) -> None:
        self.hear(Channel.OTA_DESIRED, payload)

    def told(self, event: str) -> list[dict[str, Any]]:
        return [found for found in self.device.events if found["event"] == event]

    def phases(self) -> list[str]:
        return [document["phase"] for document in self.link.on("ota/status")]

    def work_off(self, image: bytes, *, healthy: bool = True) -> None:
        """Do what is due without network and pool, until there is nothing, or a reboot."""
        while (do := self.device.work()) is not None:
            attempt = self.device.updater.record.attempt
            assert attempt is not None
            assert attempt.image is not None
            if do is Do.FETCH:
                self.storage.partial(attempt.image.digest).write_bytes(image)
            if do is Do.WRITE:
                self.storage.write_slot(self.device.updater.record.active.other, attempt.image)
            self.device.worked(Outcome(do, healthy=healthy, detail="" if healthy else "it hurts"))


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_bytes(data)
    temporary.replace(path)


@pytest.fixture(scope="session")
def keys() -> Keys:
    return Keys()


@pytest.fixture
def bench(tmp_path: Path, keys: Keys) -> Bench:
    return Bench(tmp_path / "state", keys, Settings(reboot_delay=0.0))


@pytest.fixture
def trust_topic() -> str:
    return topic.trust("acme")
