"""The device of docs/guides/sleepy-device.md: the guide as it is typed, then what it must not believe."""

import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from random import Random
from time import monotonic, sleep, time
from typing import Any

import cbor2
import pytest

from fleetctl import config
from fleetctl.demo import place
from fleetctl.demo.processes import child
from fleetctl.errors import Malformed
from fleetctl.keys.cose import Signer, trust_key
from fleetctl.keys.store import generate_key, load_key
from fleetctl.keys.trust import sign_assignment, sign_manifest, sign_trust
from fleetctl.model import topic
from fleetctl.model.device import DevicePath
from fleetctl.model.topic import Channel
from fleetctl.mqtt.broker import find_mosquitto
from fleetctl.platforms.local import artifacts
from fleetctl.platforms.local.fleet import LocalFleet
from fleetctl.platforms.local.init import create_context
from fleetctl.platforms.local.layout import Layout
from fleetctl.wire.assignment import Assignment
from fleetctl.wire.command import Command
from fleetctl.wire.cose import split
from fleetctl.wire.desired import pack
from fleetctl.wire.manifest import Manifest
from fleetctl.wire.trust import TrustDocument, key_id

GUIDES = Path(__file__).parents[2] / "docs" / "guides"
SCRIPTS = ("sleepy-device.sh", "sleepy-update.sh", "sleepy-device.jq")
TENANT, TYPE = "acme", "pump"
HEALTHY = b"#!/bin/sh\n# firmware\nexit 0\n" + b"# padding\n" * 2000
BROKEN = b"#!/bin/sh\nexit 3\n"
TOOLS = ("mosquitto_sub", "mosquitto_pub", "curl", "openssl", "jq", "od")

pytestmark = pytest.mark.skipif(
    find_mosquitto() is None or not all(shutil.which(tool) for tool in TOOLS), reason=f"needs mosquitto and {', '.join(TOOLS)}"
)


class Sleeper:
    """One sleepy device, turned by hand."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.path = DevicePath(TENANT, "hall", TYPE, name)
        self.bundle, self.state = folder / "bundles" / name, folder / "states" / name

    def begin(self, turn: str, listen: int = 1) -> "subprocess.Popen[str]":
        words = ["sh", str(GUIDES / "sleepy-device.sh"), str(self.bundle), str(self.state), turn]
        environ = {**os.environ, "LISTEN": str(listen)}
        return subprocess.Popen(words, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def turn(self, turn: str = "wake") -> str:
        return ended(self.begin(turn))

    @property
    def record(self) -> dict[str, Any]:
        return dict(json.loads((self.state / "record.json").read_text()))

    def outcome(self) -> tuple[str, str | None] | None:
        """Phase and code of its attempt."""
        attempt = self.record["attempt"]
        return None if attempt is None else (attempt["phase"], attempt["code"])

    @property
    def dropped(self) -> int:
        return int((self.state / "dropped").read_text())


def ended(process: "subprocess.Popen[str]") -> str:
    """What it said; it must have ended well."""
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert "rror" not in said, said
    return said


def together(sleepers: list[Sleeper], turn: str = "wake") -> None:
    for process in [sleeper.begin(turn) for sleeper in sleepers]:
        ended(process)


class Stand:
    """A fleet with a broker and an artifact server, and with its signing keys at hand."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        environ = {"FLEETCTL_HOME": str(folder / "home")}
        port = place.free_ports()
        create_context("wells", TENANT, f"mqtts://{place.HOST}:{port}", "tester", environ=environ)
        broker = child("broker", ["broker", "run", "--engine", "mosquitto", "-o", "jsonl"], environ, folder / "broker.log")
        stack.enter_context(broker).wait_for("listening", 20.0)
        context = config.load_context("wells", environ)
        self.folder = folder
        self.fleet = stack.enter_context(LocalFleet(context))
        self.session = stack.enter_context(self.fleet.open_session("test"))
        self.store = context.releases_folder / "sha256"
        self.store.mkdir(exist_ok=True)
        stack.enter_context(artifacts.server(context))
        layout = Layout(context.folder)
        self.root, self.release, self.rollout = (Signer(load_key(layout.key(name))) for name in ("root", "release", "rollout"))
        self._count = 0

    def sleepers(self, count: int = 1) -> list[Sleeper]:
        """New devices, booted."""
        made = [Sleeper(f"well-{self._count + number}", self.folder) for number in range(1, count + 1)]
        self._count += count
        for one in made:
            self.fleet.devices.add(one.name, device_type=TYPE, location="hall", labels={}, bundle=one.bundle)
        together(made, "boot")
        return made

    def manifest(self, version: str = "2.0.0", image: bytes = HEALTHY, device_class: str = TYPE) -> Manifest:
        digest = hashlib.sha256(image)
        (self.store / digest.hexdigest()).write_bytes(image)
        name = f"{device_class}@{version}"
        return Manifest("acme", device_class, version, "app", len(image), digest.digest(), "raw", 0, 1, name)

    def offer(self, to: Sleeper, order: int, envelope: bytes, signer: Signer | None = None, **changes: Any) -> bytes:
        """The payload of `ota/desired`, each order an attempt of its own."""
        named = hashlib.sha256(envelope).digest()
        assignment = replace(Assignment(TENANT, to.name, "r-1", order, "install", order, named), **changes)
        return pack(sign_assignment(assignment, to.path, signer or self.rollout), envelope)

    def signed(self, **changes: Any) -> bytes:
        return sign_manifest(self.manifest(**changes), self.release)

    def send(self, to: Sleeper, payload: bytes) -> None:
        self.publish(topic.of(to.path, Channel.OTA_DESIRED), payload)

    def publish(self, name: str, payload: bytes, retain: bool = True) -> None:
        self.session.publish(name, payload, retain=retain)
        self.session.flush()

    def retained(self, sleeper: Sleeper, channel: Channel) -> dict[str, Any]:
        name = topic.of(sleeper.path, channel)
        found = self.session.read_retained([name])
        return dict(json.loads(found[name].payload)) if name in found else {}


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with ExitStack() as stack:
        yield Stand(tmp_path_factory.mktemp("stand"), stack)


def test_the_guide_does_what_it_says(tmp_path: Path) -> None:
    port = place.free_ports()
    blocks = re.findall(r"^```console\n(.*?)^```", (GUIDES / "sleepy-device.md").read_text(), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    words = "\n".join(line[2:] for line in lines if line.startswith("$ "))
    for script in SCRIPTS:
        shutil.copy(GUIDES / script, tmp_path)
    said = _typed(_patient(words, port), tmp_path)
    for line in lines:
        assert line.startswith("$ ") or line in said
    assert re.search(r"^well-1 .* online +1\.0\.0 ", said, re.MULTILINE)
    assert re.search(r"ping +succeeded", said), said
    assert re.search(r"^well-1 .* offline +2\.0\.0 .* no$", said, re.MULTILINE)


def _patient(words: str, port: int) -> str:
    """The guide on a slow machine: on ports of its own, waiting for what a person sees."""
    probe = f"until (: </dev/tcp/127.0.0.1/{port}) 2>/dev/null; do sleep 0.1; done"
    turn = "while kill -0 $ping 2>/dev/null; do sh sleepy-device.sh ./well-1 ./state wake; done"
    words = words.replace("8883", str(port)).replace("broker run &", f"broker run &\n{probe}")
    assert probe in words
    assert "reportingInterval=2 " in words
    words = words.replace("reportingInterval=2 ", "reportingInterval=1 ")
    assert "wait $ping" in words
    return words.replace("wait $ping", f"{turn}\nwait $ping")


def _typed(words: str, folder: Path) -> str:
    """Run a script as its own process group, and leave nothing of it behind."""
    environ = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    with (folder / "said").open("w") as log:
        process = subprocess.Popen(
            ["bash", "-eu", "-c", words],
            cwd=folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            status: int | None = process.wait(110)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
    said = (folder / "said").read_text()
    assert status == 0, said
    return said


SPOILS: tuple[object, ...] = (
    *(
        -1,
        0,
        1,
        2,
        24,
        2**32,
        2**53 - 1,
        2**53,
        1.5,
        None,
        True,
        b"",
        b"8 bytes.",
        bytes(32),
        b"",
        "",
        "a b",
        "x" * 65,
        "a\n",
        "\x80",
    ),
    *([], [0, 1], [5, 5], [0, 1440], {}, {1: 2}),
)


def _spoilt(document: Any, chance: Random) -> Any:
    """The document with one member or item removed, added or replaced, somewhere in it."""
    if not isinstance(document, dict | list) or chance.random() < 0.1:
        return chance.choice(SPOILS)
    changed: Any = document.copy()
    keys = list(document) if isinstance(document, dict) else list(range(len(document)))
    key: Any = chance.choice([*keys, 13, 99, 100, "x"] if isinstance(document, dict) else keys)
    if key in keys and chance.random() < 0.2:
        del changed[key]
    else:
        changed[key] = _spoilt(document[key], chance) if key in keys and chance.random() < 0.7 else chance.choice(SPOILS)
    return changed


def _spellings(document: Any, chance: Random) -> Iterator[bytes]:
    """CBOR of the document and of its spoilt kin, some of it torn."""
    yield cbor2.dumps(document, canonical=True)
    for _ in range(400):
        torn = bytearray(cbor2.dumps(_spoilt(document, chance), canonical=True))
        yield bytes(torn)
        yield bytes(torn) + b"\0"
        torn[chance.randrange(len(torn))] ^= 0x20
        yield bytes(torn)


def _accepted(read: Callable[[bytes], object], data: bytes) -> bool | None:
    """What ours says; None where it looks at the hash of a key, which the device does with openssl."""
    try:
        read(data)
    except Malformed as error:
        return None if "kid of its key" in error.message else False
    return True


@pytest.mark.parametrize(
    ("name", "document", "read"),
    [
        ("envelope", [cbor2.dumps({1: -8, 4: bytes(8)}, canonical=True), {}, b"payload", bytes(64)], split),
        ("assignment", {1: "acme", 2: "w-1", 3: "r", 4: 5, 5: 1, 6: 1, 7: bytes(32), 11: 0, 12: False}, Assignment.decode),
        ("manifest", {1: "é", 2: "p", 3: "1", 4: "a", 5: 9, 6: bytes(32), 7: "raw", 8: 0, 9: 1, 10: "p@1"}, Manifest.decode),
        ("trust_document", {1: 3, 2: "acme", 3: [{1: 1, 2: key_id(-8, bytes(32)), 3: -8, 4: bytes(32)}]}, TrustDocument.decode),
    ],
    ids=["envelope", "assignment", "manifest", "trust"],
)
def test_its_reader_takes_what_ours_takes(name: str, document: Any, read: Callable[[bytes], object]) -> None:
    tag = b"\xd2" if name == "envelope" else b""
    cases = [tag + spelling for spelling in _spellings(document, Random(name))]
    program = f'include "sleepy-device"; try (bytes_of_hex | {name} | true) catch (startswith("malformed: ") | not)'
    words = "\n".join(f'"{case.hex()}"' for case in cases)
    done = subprocess.run(["jq", "-L", str(GUIDES), program], input=words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    theirs, ours = [word == "true" for word in done.stdout.split()], [_accepted(read, case) for case in cases]
    differ = [case.hex() for case, one, other in zip(cases, theirs, ours, strict=True) if other not in (one, None)]
    assert differ == []
    assert theirs[0]
    assert 10 < sum(theirs) < len(theirs) / 2


def test_what_is_not_proved_is_not_installed(stand: Stand) -> None:
    stranger = Signer(generate_key())
    good, foreign = stand.signed(), sign_manifest(stand.manifest(), stranger)
    spoilt = good[:-1] + bytes([good[-1] ^ 1])
    cases: dict[str, tuple[Callable[[Sleeper], bytes], tuple[str, str] | None]] = {
        "manifest by another key": (lambda to: stand.offer(to, 1, foreign), ("failed", "UNTRUSTED_KEY")),
        "manifest with a wrong signature": (lambda to: stand.offer(to, 1, spoilt), ("failed", "SIGNATURE")),
        "older version": (lambda to: stand.offer(to, 1, stand.signed(version="1.0.0-rc.1")), ("rejected", "DOWNGRADE")),
        "another device type": (lambda to: stand.offer(to, 1, stand.signed(device_class="cam")), ("rejected", "INCOMPATIBLE")),
        "assignment by another key": (lambda to: stand.offer(to, 1, good, stranger), None),
        "assignment by a release key": (lambda to: stand.offer(to, 1, good, stand.release), None),
        "assignment of another device": (lambda to: stand.offer(Sleeper("well-x", stand.folder), 1, good), None),
        "another manifest than named": (lambda to: stand.offer(to, 1, good, manifest=bytes(32)), None),
        "not canonical": (lambda to: b"\x98\x02" + stand.offer(to, 1, good)[1:], None),
    }
    sleepers = stand.sleepers(len(cases))
    for one, (make, _) in zip(sleepers, cases.values(), strict=True):
        stand.send(one, make(one))
    together(sleepers)
    ends = {name: end for name, (_, end) in cases.items()}
    assert {name: one.outcome() for name, one in zip(cases, sleepers, strict=True)} == ends
    for one, (_, end) in zip(sleepers, cases.values(), strict=True):
        assert one.dropped == (end is None)
        assert one.record["images"]["B"] is None
        assert stand.retained(one, Channel.OTA_STATUS).get("code") == (end[1] if end else None)


def test_an_order_counts_once_and_a_cancel_is_final(stand: Stand) -> None:
    (one,) = stand.sleepers()
    envelope = stand.signed()
    install = stand.offer(one, 5, envelope, not_before=int(time()) + 3600)
    stand.send(one, install)
    one.turn()
    assert one.outcome() == ("deferred", None)
    stand.send(one, stand.offer(one, 6, envelope, action="cancel", attempt=5))
    one.turn()
    assert one.outcome() == ("canceled", "CANCELED")
    stand.send(one, install)
    one.turn()
    assert (one.outcome(), one.dropped) == (("canceled", "CANCELED"), 1)
    assert stand.retained(one, Channel.OTA_STATUS)["phase"] == "canceled"
    assert stand.retained(one, Channel.STATUS)["firmwareVersion"] == "1.0.0"


def test_a_cancel_that_comes_right_before_the_boot_flag_is_obeyed(stand: Stand) -> None:
    (one,) = stand.sleepers()
    envelope = stand.signed()
    stand.send(one, stand.offer(one, 1, envelope))
    process = one.begin("wake", listen=2)
    deadline = monotonic() + 20
    while stand.retained(one, Channel.OTA_STATUS).get("phase") != "installing":
        assert monotonic() < deadline
        sleep(0.1)
    stand.send(one, stand.offer(one, 2, envelope, action="cancel", attempt=1))
    ended(process)
    assert one.outcome() == ("canceled", "CANCELED")
    assert (one.record["running"], one.record["trial"], one.record["boot"]) == ("A", None, 1)


def test_an_image_that_fails_its_self_test_falls_back(stand: Stand) -> None:
    (one,) = stand.sleepers()
    one.turn()
    factory = stand.retained(one, Channel.STATUS)
    stand.send(one, stand.offer(one, 1, stand.signed(image=BROKEN)))
    one.turn()
    said, status = stand.retained(one, Channel.STATUS), stand.retained(one, Channel.OTA_STATUS)
    assert (status["phase"], status["code"], status["acceptedBoot"], status["boot"]) == ("rolled_back", "HEALTH_FAILED", 1, 3)
    assert (said["digest"], said["session"]) == (factory["digest"], "3-1")


def test_trust_only_rises_and_p256_keys_sign_as_well(stand: Stand) -> None:
    (one,) = stand.sleepers()
    release, rollout = Signer(generate_key("p256")), Signer(generate_key("p256"))
    keys = (trust_key(release.public_key, "release"), trust_key(rollout.public_key, "rollout"))
    place_of_trust = topic.trust(TENANT)
    try:
        stand.publish(place_of_trust, sign_trust(TrustDocument(2, TENANT, keys), stand.root))
        stand.send(one, stand.offer(one, 1, stand.signed()))
        assert "trust 2" in one.turn()
        assert (one.outcome(), one.dropped) == (None, 1)
        stand.publish(place_of_trust, sign_trust(TrustDocument(3, TENANT, ()), Signer(generate_key())))
        envelope = sign_manifest(stand.manifest(), release)
        part = one.state / f"download-{hashlib.sha256(HEALTHY).hexdigest()}"
        part.write_bytes(HEALTHY[:10000])
        stand.send(one, stand.offer(one, 2, envelope, rollout))
        one.turn()
    finally:
        stand.publish(place_of_trust, b"")
    assert one.dropped == 3
    assert one.outcome() == ("succeeded", None)
    status, said = stand.retained(one, Channel.OTA_STATUS), stand.retained(one, Channel.STATUS)
    assert (status["phase"], status["slot"], status["acceptedBoot"], status["to"]) == ("succeeded", "B", 1, "2.0.0")
    assert (said["session"], said["digest"]) == ("2-1", f"sha256:{hashlib.sha256(HEALTHY).hexdigest()}")
    assert not part.exists()


def test_garbage_is_counted_and_never_run(stand: Stand) -> None:
    (one,) = stand.sleepers()
    one.turn()
    trap = one.state / "trapped"
    evil = f"$(touch {trap}) `touch {trap}` \"; touch {trap}; '".encode()
    commands = topic.of(one.path, Channel.STATUS).removesuffix("status") + "commands/"
    for name in ("ping", f"$(touch {trap.name})", "a b"):
        stand.publish(commands + name, evil, retain=False)
    stand.publish(commands + "ping", b"\xff\x00\xfe" * 40000, retain=False)
    stand.publish(commands + "ping", Command(evil.decode(), "1-1").encode(), retain=False)
    stand.publish(commands + "ping", Command("late", "1-1", expires="2020-01-01T00:00:00+01:00").encode(), retain=False)
    stand.publish(commands + "ping", Command("c-1", "1-1").encode(), retain=False)
    stand.publish(commands + "ping", Command("c-1", "1-1").encode(), retain=False)
    stand.publish(commands + "reboot", Command("old", "0-1").encode(), retain=False)
    stand.publish(topic.of(one.path, Channel.TWIN_DESIRED), evil)
    stand.send(one, evil)
    said = one.turn()
    assert said.count("command ping") == 2
    assert one.dropped == 7
    assert not list(one.state.rglob("trapped"))
    assert not Path(trap.name).exists()


def test_a_broker_that_is_down_is_waited_for(stand: Stand) -> None:
    (one,) = stand.sleepers()
    stopped = one.bundle / "device.yaml"
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    stopped.write_text(re.sub(r"broker: .*", f"broker: mqtts://127.0.0.1:{port}", stopped.read_text()))
    process = one.begin("wake")
    said, _ = process.communicate(timeout=30)
    assert (process.returncode, "not connected" in said) == (1, True)
