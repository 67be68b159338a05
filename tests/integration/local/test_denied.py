"""Devices whose certificates somebody else's authority issued: no list of ours names them, the broker keeps them out by name."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fleetctl.config import Context, load_context
from fleetctl.demo.place import free_ports
from fleetctl.errors import Denied
from fleetctl.keys.store import generate_key, private_pem
from fleetctl.model.certificate import Profile
from fleetctl.model.device import Device, DevicePath, LifeCycle
from fleetctl.model.profile import ProvisioningProfile
from fleetctl.mqtt.broker import find_mosquitto
from fleetctl.mqtt.endpoint import Endpoint
from fleetctl.mqtt.session import Session
from fleetctl.pki import crl
from fleetctl.pki.authority import Authority, create_root, device_request, issue, pem
from fleetctl.platforms.local.fleet import LocalFleet
from fleetctl.platforms.local.init import create_context
from fleetctl.platforms.local.issuing import row_of
from fleetctl.platforms.local.listeners import denied
from fleetctl.platforms.local.registering import register
from fleetctl.platforms.local.rendering import Rendering, make_files
from fleetctl.platforms.local.running import running
from fleetctl.platforms.local.succession import retire
from fleetctl.platforms.protocol import Targets
from fleetctl.wire.document import rfc3339
from tests.integration.local.test_revocation import REFUSALS, broker, connect, wait_until_closed

UNLISTED = "no list of ours names certificates of `vendor-ca`"
BY_NAME = {
    "mosquitto": f"{UNLISTED}: mosquitto lets it connect, but nothing that it says reaches anybody, and nothing reaches it",
    "builtin": f"{UNLISTED}: the broker refuses it by its name",
}
BELOW = "acme/oslo/pump"


@dataclass
class Vendor:
    """An authority that is registered with the fleet, and devices that it vouches for."""

    fleet: LocalFleet
    folder: Path
    authority: Authority = field(init=False)

    def __post_init__(self) -> None:
        now = self.fleet.clock()
        self.authority = create_root("vendor-ca", "vendor", generate_key("p256"), now, 0)
        self.folder.mkdir(exist_ok=True)
        (self.folder / "vendor.pem").write_bytes(pem(self.authority.certificate))
        (self.folder / "vendor.crl").write_bytes(crl.build(self.authority, [], 1, int(now) - 100))
        self.fleet.registry.put_profile(ProvisioningProfile(name="pumps", device_type="pump", location="oslo"))
        register(self.fleet, self.folder / "vendor.pem", self.folder / "vendor.crl", "pumps")

    def device(self, name: str) -> Endpoint:
        """As it is once it was taken in just in time."""
        key, path, at = generate_key("p256"), DevicePath("acme", "oslo", "pump", name), rfc3339(self.fleet.clock())
        leaf = issue(self.authority, device_request(path), key.public_key(), self.fleet.clock())
        self.fleet.registry.add_device(Device(path, {}, LifeCycle.ACTIVE, at))
        self.fleet.registry.add_certificate(row_of(leaf, "vendor-ca", Profile.DEVICE, name))
        cert, secret = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        cert.write_bytes(pem(leaf))
        secret.touch(0o600)
        secret.write_bytes(private_pem(key))
        return Endpoint.parse_url(self.fleet.context.device_broker, ca=self.fleet.context.ca, cert=cert, key=secret)


@pytest.fixture
def context() -> Context:
    create_context("prod", "acme", f"mqtts://localhost:{free_ports()}", "alice")
    return load_context("prod")


@pytest.fixture
def fleet(context: Context) -> Iterator[LocalFleet]:
    with LocalFleet(context) as opened:
        yield opened


@pytest.fixture
def vendor(fleet: LocalFleet, tmp_path: Path) -> Vendor:
    return Vendor(fleet, tmp_path / "vendor")


@pytest.fixture(params=["mosquitto", "builtin"])
def engine(request: pytest.FixtureRequest) -> str:
    if request.param == "mosquitto" and find_mosquitto() is None:
        pytest.skip("mosquitto is not installed")
    return str(request.param)


def only(fleet: LocalFleet, *names: str) -> list[Device]:
    return list(fleet.devices.resolve(Targets(names)))


def says(session: Session, name: str, text: bytes) -> None:
    session.publish(f"{BELOW}/{name}/telemetry", text)
    session.flush()


def heard(watch: Session, neighbour: Session) -> list[bytes]:
    """What arrived before the word of a neighbour, who is heard always."""
    says(neighbour, "v-2", b"end")
    found: list[bytes] = []
    while b"end" not in found:
        found += [each.payload for each in watch.receive(10)]
    return found[: found.index(b"end")]


def test_a_suspended_device_of_a_registered_authority_is_cut_and_neither_heard_nor_told_until_it_is_resumed(
    context: Context, fleet: LocalFleet, vendor: Vendor, engine: str
) -> None:
    bad, good = vendor.device("v-1"), vendor.device("v-2")
    with broker(context, engine), connect(good, "v-2") as neighbour, fleet.open_session("watch") as watch:
        watch.subscribe([f"{BELOW}/+/telemetry"])
        live = connect(bad, "v-1")
        says(live, "v-1", b"before")
        assert heard(watch, neighbour) == [b"before"]

        (done,) = fleet.devices.suspend(only(fleet, "v-1"), why="stolen?")
        try:
            wait_until_closed(live)
        finally:
            live.close()
        assert (done.outcome, done.certificates, done.sessions_cut, done.detail) == ("suspended", 1, True, BY_NAME[engine])
        assert_out(bad, engine, watch, neighbour)

        (done,) = fleet.devices.resume(only(fleet, "v-1"), why="found")
        assert (done.outcome, done.detail) == ("resumed", None)
        with connect(bad, "v-1") as again:
            says(again, "v-1", b"back")
            assert heard(watch, neighbour) == [b"back"]

        (gone,) = fleet.devices.remove(only(fleet, "v-1"), why="scrapped")
        assert (gone.outcome, gone.sessions_cut, gone.detail) == ("removed", True, BY_NAME[engine])
        assert_out(bad, engine, watch, neighbour)


def assert_out(endpoint: Endpoint, engine: str, watch: Session, neighbour: Session) -> None:
    if engine == "builtin":
        with pytest.raises(Denied, match="not authorized"):
            connect(endpoint, "v-1").close()
        return
    with connect(endpoint, "v-1") as mute:
        mute.subscribe([f"{BELOW}/v-1/commands/+"])
        with pytest.raises(Denied):
            says(mute, "v-1", b"after")
        watch.publish(f"{BELOW}/v-1/commands/reboot", b"{}")
        watch.flush()
        assert heard(watch, neighbour) == []
        assert list(mute.receive(0.3)) == []


def test_the_broker_finds_out_by_itself_who_may_come_back(context: Context, fleet: LocalFleet, vendor: Vendor) -> None:
    endpoint = vendor.device("v-1")
    fleet.devices.suspend(only(fleet, "v-1"), why=None)
    with broker(context, "builtin"):
        with pytest.raises(REFUSALS):
            connect(endpoint, "v-1").close()
        fleet.registry.move_device("v-1", LifeCycle.ACTIVE, event="resumed", at=rfc3339(fleet.clock()))
        fleet.registry.release_certificate(fleet.registry.certificates("v-1")[0].serial)
        eventually(lambda: (running(context.folder) or pytest.fail("it ended")).reloads > 0)
        connect(endpoint, "v-1").close()


def eventually(look: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_without_a_broker_here_the_record_says_so(fleet: LocalFleet, vendor: Vendor) -> None:
    vendor.device("v-1")
    (done,) = fleet.devices.suspend(only(fleet, "v-1"), why=None)
    assert done.sessions_cut is None
    assert (done.detail or "").startswith(f"{UNLISTED}; no broker runs here: ")


def test_only_devices_of_an_authority_that_is_accepted_are_named(context: Context, fleet: LocalFleet, vendor: Vendor) -> None:
    for name in ("v-1", "v-2", "v-3"):
        vendor.device(name)
    fleet.devices.add("p-1", device_type="pump", location="oslo", labels={})
    fleet.devices.suspend(only(fleet, "p-1", "v-1"), why=None)
    fleet.devices.remove(only(fleet, "v-2"), why=None)
    assert denied(context) == {"v-1", "v-2"}
    rules, _ = make_files(context, Rendering(Path("/etc/mosquitto/fleetctl")))["device.acl"]
    assert rules.startswith(b"user v-1\ntopic deny #\nuser v-2\ntopic deny #\npattern write acme/")
    fleet.registry.write("UPDATE certificates SET not_after = ?", (rfc3339(fleet.clock() - 60),))
    assert denied(context) == {"v-1"}, "whose authority may have renewed it"
    retire(fleet, "vendor-ca", force=True)
    assert denied(context) == frozenset()
