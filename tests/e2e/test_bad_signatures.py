"""Firmware that changed, and documents that somebody else signed: refused on the console and on the device."""

import base64
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from fleetctl.demo import firmware
from fleetctl.keys.cose import Signer
from fleetctl.keys.store import generate_key, load_key, load_public_key
from fleetctl.keys.trust import UnverifiedManifest, UnverifiedTrust, sign_assignment, sign_manifest, sign_trust
from fleetctl.model.device import DevicePath
from fleetctl.ota.store import Release
from fleetctl.platforms.local.layout import Layout
from fleetctl.wire.assignment import Assignment
from fleetctl.wire.desired import pack
from fleetctl.wire.document import rfc3339
from fleetctl.wire.trust import TrustDocument
from tests.e2e.console import Console, files_of
from tests.e2e.running import RunningFleet

PLAN = ["--soak", "0s", "--heartbeats", "1", "--first-wave", "10"]


def publish(console: Console, version: str, image: bytes = b"firmware") -> dict[str, Any]:
    file = console.home / f"{version}.bin"
    file.write_bytes(image)
    made: dict[str, Any] = console.run("ota", "publish", file, "--type", "pump", "--version", version, "-o", "json").json
    return made


def stranger(console: Console, folder: Path) -> Console:
    """Somebody else's fleet of the same tenant, with a release of the same name."""
    other = Console(folder / "stranger")
    assert other.run("init", "--tenant", "acme").status == 0
    publish(other, "2.0.0")
    return other


def test_firmware_that_changed_after_publishing_goes_nowhere(console: Console, tmp_path: Path) -> None:
    made = publish(console, "2.0.0")
    blob = console.folder / "releases" / made["digest"].replace(":", "/")
    blob.chmod(0o644)
    blob.write_bytes(b"FIRMWARE")
    before = files_of(console.folder)
    console.refused(7, "pump@2.0.0", "ota", "verify", "pump@2.0.0")
    console.refused(7, "pump@2.0.0", "ota", "plan", "pump@2.0.0", "pump-1", "-f", tmp_path / "p")
    console.refused(7, "pump@2.0.0", "ota", "start", "pump@2.0.0", "pump-1")
    assert files_of(console.folder) == before
    assert not (tmp_path / "p").exists()
    blob.unlink()
    console.refused(3, "pump@2.0.0", "ota", "verify", "pump@2.0.0")


def test_a_manifest_that_another_key_signed_is_no_release(console: Console, tmp_path: Path) -> None:
    publish(console, "2.0.0")
    other = stranger(console, tmp_path)
    held = console.folder / "releases" / "manifests" / "pump@2.0.0.cose"
    own = held.read_bytes()
    theirs = (other.folder / "releases" / "manifests" / "pump@2.0.0.cose").read_bytes()
    for envelope in (theirs, b""):
        held.write_bytes(envelope)
        before = files_of(console.folder)
        for words in (["verify", "pump@2.0.0"], ["plan", "pump@2.0.0", "pump-1"]):
            console.refused(7, "", "ota", *words)
        assert files_of(console.folder) == before
    held.write_bytes(own)
    shutil.copy(held, held.with_name("pump@3.0.0.cose"))
    console.refused(7, "pump@3.0.0", "ota", "show", "pump@3.0.0")


def test_a_trust_document_that_another_key_signed_ends_all_of_ota(console: Console, tmp_path: Path) -> None:
    publish(console, "2.0.0")
    other = stranger(console, tmp_path)
    image = tmp_path / "3.bin"
    image.write_bytes(b"three")
    trust = Layout(console.folder).trust
    for envelope in (Layout(other.folder).trust.read_bytes(), b"garbage"):
        trust.write_bytes(envelope)
        before = files_of(console.folder)
        for words in (
            ["publish", image, "--type", "pump", "--version", "3.0.0"],
            ["start", "pump@2.0.0", "pump-1"],
        ):
            assert console.refused(7, "", "ota", *words)["code"] == "untrusted"
        assert files_of(console.folder) == before


def test_a_plan_that_is_not_ours_is_not_started(running_fleet: RunningFleet, tmp_path: Path) -> None:
    console = running_fleet.console
    publish(console, "1.9.0", firmware.image("1.9.0", firmware.HEALTHY))
    plan = tmp_path / "plan.json"
    assert console.run("ota", "plan", "pump@1.9.0", "pump-9", "-f", plan, "--supersede", "--allow-downgrade").status == 0
    document = json.loads(plan.read_text())
    envelope = base64.b64decode(document["envelope"])
    edited = json.dumps({**document, "plan": {**document["plan"], "tenant": "other"}})
    resigned = json.dumps({**document, "envelope": base64.b64encode(envelope[:-1] + bytes([envelope[-1] ^ 1])).decode()})
    before = files_of(console.folder)
    for text, status in ((edited, 7), (resigned, 7), ("{}", 1), ("[" * 100000, 1)):
        plan.write_text(text)
        for verb in ("start", "abort"):
            console.refused(status, "", "ota", verb, "-f", plan)
    console.refused(3, str(tmp_path / "no.json"), "ota", "start", "-f", tmp_path / "no.json")
    assert files_of(console.folder) == before


class Forger:
    """Makes what a device is sent: well signed unless told otherwise."""

    def __init__(self, fleet: RunningFleet, device: str) -> None:
        layout = Layout(fleet.console.folder)
        self.fleet, self.device = fleet, device
        self.path = DevicePath("acme", "oslo", "pump", device)
        self.rollout, self.root = Signer(load_key(layout.key("rollout"))), Signer(load_key(layout.key("root")))
        self.trust = UnverifiedTrust(layout.trust.read_bytes()).verify(load_public_key(layout.root_key.read_bytes()), "acme")

    def release(self, name: str) -> Release:
        path = self.fleet.console.folder / "releases" / "manifests" / f"{name}.cose"
        return Release(UnverifiedManifest(path.read_bytes()).verify(self.trust, None), path.read_bytes())

    def assign(self, release: Release, order: int, signer: Signer | None = None, path: DevicePath | None = None) -> bytes:
        digest = bytes.fromhex(release.manifest_digest.removeprefix("sha256:"))
        made = Assignment("acme", self.device, "r-forged", order, "install", 1, digest)
        return pack(sign_assignment(made, path or self.path, signer or self.rollout), release.envelope)

    def send(self, payload: bytes) -> None:
        self.fleet.say(self.fleet.topic(self.device, "ota/desired"), payload)


def test_a_device_drops_and_counts_what_the_wrong_key_signed(running_fleet: RunningFleet) -> None:
    release = publish(running_fleet.console, "1.8.0", firmware.image("1.8.0", firmware.HEALTHY))["name"]
    forger, other = Forger(running_fleet, "pump-1"), Signer(generate_key("ed25519"))
    found = forger.release(release)
    elsewhere, before = replace(forger.path, device_id="pump-2"), running_fleet.dropped("pump-1")
    envelopes = [
        forger.assign(found, 900, other),
        forger.assign(found, 900, forger.root),
        forger.assign(found, 900, path=elsewhere),
    ]
    for payload in envelopes:
        forger.send(payload)
    for document in (sign_trust(TrustDocument(99, "acme", forger.trust.keys), other), sign_trust(forger.trust, other)):
        running_fleet.say("acme/_fleet/trust", document)
    assert "rollout key" in running_fleet.event("dropped", "pump-1")["reason"]
    assert running_fleet.dropped("pump-1") == before + 5
    assert running_fleet.is_alive("pump-1")
    shown = running_fleet.console.run("provision", "show", "pump-1", "--refresh", "-o", "json").json
    assert shown["firmware"] == "1.0.0"


def test_a_device_rejects_a_manifest_that_another_key_signed_and_says_so(running_fleet: RunningFleet) -> None:
    running_fleet.add("pump-3")
    running_fleet.play("pump-3")
    name = publish(running_fleet.console, "1.7.0", firmware.image("1.7.0", firmware.HEALTHY))["name"]
    forger = Forger(running_fleet, "pump-3")
    own = forger.release(name)
    forged = replace(own, envelope=sign_manifest(own.manifest, Signer(generate_key("ed25519"))))
    forger.send(forger.assign(forged, 900))
    update = running_fleet.event("update", "pump-3", phase="failed")
    assert (update["code"], update["boot"], update["to"]) == ("UNTRUSTED_KEY", 1, None)
    assert running_fleet.is_alive("pump-3")


def test_a_replayed_assignment_installs_nothing_again(running_fleet: RunningFleet) -> None:
    running_fleet.add("pump-4")
    running_fleet.play("pump-4")
    console, topic = running_fleet.console, running_fleet.topic("pump-4", "ota/desired")
    sent = []
    for version in ("2.0.0", "2.1.0"):
        publish(console, version, firmware.image(version, firmware.HEALTHY))
        rolled = console.run("ota", "start", f"pump@{version}", "pump-4", *PLAN, "--wait", "--timeout", "40s", "-o", "json")
        assert rolled.json["succeeded"] == 1
        held = console.run("tail", "-t", topic, "--count", "1", "-o", "jsonl").lines[0]["payload"]
        sent.append(base64.b64decode(held["base64"]))
    orders = []
    for payload, verdict in ((sent[0], "refused"), (sent[1], "repeated")):
        running_fleet.say(topic, payload)
        orders.append(running_fleet.event("assignment", "pump-4", verdict=verdict)["order"])
    assert orders[0] == orders[1]
    assert running_fleet.is_alive("pump-4")
    shown = console.run("provision", "show", "pump-4", "--refresh", "-o", "json").json
    assert (shown["firmware"], shown["session"].split("-")[0]) == ("2.1.0", "3")


def test_a_rollout_state_that_nobody_signed_is_untrusted(running_fleet: RunningFleet) -> None:
    console = running_fleet.console
    publish(console, "1.6.0", firmware.image("1.6.0", firmware.HEALTHY))
    plan = console.run("ota", "plan", "pump@1.6.0", "pump-9", "--supersede", "--allow-downgrade", "-o", "json").json
    state = f"acme/_fleet/rollouts/{plan['id']}/state"
    running_fleet.say(state, json.dumps({"state": "completed", "at": rfc3339(0.0)}).encode(), retain=True)
    for verb in ("resume", "status"):
        said = console.run("ota", verb, plan["id"], "-o", "jsonl")
        assert said.error(7, plan["id"])["code"] == "untrusted"
    watched = console.run("ota", "watch", plan["id"], "--timeout", "1s", "-o", "json")
    assert watched.status == 10
    assert json.loads(watched.out)["ignored"] >= 1
    running_fleet.say(state, b"", retain=True)
    assert console.run("ota", "status", plan["id"], "-o", "json").json["succeeded"] == 0
