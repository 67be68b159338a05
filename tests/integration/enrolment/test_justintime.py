"""Devices that nobody knows, with certificates of an authority that was registered."""

import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from fleetctl.errors import FleetError
from fleetctl.keys.store import PrivateKey, generate_key, private_pem
from fleetctl.model.certificate import Reason
from fleetctl.model.device import DevicePath
from fleetctl.model.profile import Approval, ProvisioningProfile
from fleetctl.mqtt.broker import find_mosquitto
from fleetctl.pki import crl
from fleetctl.pki.authority import DEVICE_ISSUING, Authority, create_root, device_request, issue, pem
from fleetctl.platforms.local.authorities import registered_list, write_accepted
from fleetctl.platforms.local.enrolment import approval
from fleetctl.platforms.local.enrolment.justintime import LIMIT, JustInTime
from fleetctl.platforms.local.layout import Layout
from fleetctl.platforms.local.lists import write_lists
from fleetctl.registry.authorities import AuthorityRow
from fleetctl.wire.document import rfc3339
from fleetctl.wire.presence import Presence
from tests.integration.enrolment.stand import DIGEST, Own, Serving, Stand, eventually, serving

PROFILE = ProvisioningProfile("vendor", "pump", None, heartbeat=9.0, ids="vp-[0-9]{3}", labels={"maker": "vendor"})
PICKY = ProvisioningProfile("picky", approval=Approval.MANUAL)


class Vendor:
    """Somebody else's authority, registered with the fleet; `vp-666` is on its list."""

    def __init__(self, stand: Stand, name: str, profile: ProvisioningProfile) -> None:
        self.stand, self.now = stand, stand.fleet.clock()
        self.authority: Authority = create_root(name, "vendor", generate_key("p256"), self.now, 1)
        self.revoked = self._issue("vp-666", generate_key("p256"))
        fleet, layout = stand.fleet, Layout(stand.fleet.context.folder)
        lines = [crl.Revoked(self.revoked.serial_number, self.now, Reason.KEY_COMPROMISE)]
        path = registered_list(layout, self.authority.certificate)
        path.write_bytes(crl.build(self.authority, lines, 1, int(crl.first_date(self.now))))
        fleet.registry.put_profile(profile)
        text = pem(self.authority.certificate).decode()
        fleet.registry.add_authority(AuthorityRow(name, "registered", "root", "active", profile.name, text, rfc3339(self.now)))
        write_accepted(fleet.registry, layout, "devices")
        write_lists(fleet.registry, layout, DEVICE_ISSUING, self.now)

    def _issue(self, name: str, key: PrivateKey) -> x509.Certificate:
        path = DevicePath("acme", "oslo", "pump", name)
        return issue(self.authority, device_request(path), key.public_key(), self.now)

    def device(self, folder: Path, name: str, kind: str = "pump", certificate: x509.Certificate | None = None) -> Own:
        key = generate_key("p256")
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        folder.mkdir()
        (folder / "device.pem").write_bytes(pem(certificate or self._issue(name, key)))
        (folder / "device.key").touch(0o600)
        (folder / "device.key").write_bytes(private_pem(key))
        (folder / "ca.pem").write_bytes(Layout(self.stand.fleet.context.folder).fleet_ca.read_bytes())
        return Own(DevicePath("acme", "oslo", kind, name), folder, self.stand.fleet.context.device_broker, key)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stand, Vendor, Vendor, Serving]]:
    if find_mosquitto() is None:
        pytest.skip("mosquitto is not installed")
    with ExitStack() as stack:
        made = Stand(tmp_path_factory.mktemp("jit"), stack)
        vendors = Vendor(made, "vendor-ca", PROFILE), Vendor(made, "picky-ca", PICKY)
        made.run_broker()
        yield made, *vendors, stack.enter_context(serving(made))


def test_an_unknown_device_of_a_registered_authority_is_taken_in_and_configured(
    own: tuple[Stand, Vendor, Vendor, Serving], tmp_path: Path
) -> None:
    stand, vendor, _, service = own
    device = vendor.device(tmp_path / "d", "vp-001")
    with device.session() as session:
        assert device.obey(session, "configure") is not None
        service.wait_for("configured", device_id="vp-001")

    registry = stand.fleet.registry
    found = registry.device("vp-001")
    assert (found.state, found.profile, dict(found.labels)) == ("active", "vendor", {"maker": "vendor"})
    assert device.settings["heartbeat"] == 9.0
    (row,) = registry.certificates("vp-001")
    assert (row.authority, row.proven_at is not None) == ("vendor-ca", True)
    steps = [(step.event, step.state_after) for step in registry.timeline("vp-001")]
    assert steps == [("added", "claimed"), ("activated", "active"), ("configured", "active")]
    assert [each.method for each in registry.enrolments(device_id="vp-001")] == ["jit"]


@pytest.mark.parametrize(
    ("name", "kind", "code"), [("other-1", "pump", "wrong_id"), ("vp-002", "valve", "wrong_type")], ids=["id", "type"]
)
def test_a_device_that_its_profile_does_not_take_is_refused(
    own: tuple[Stand, Vendor, Vendor, Serving], tmp_path: Path, name: str, kind: str, code: str
) -> None:
    stand, vendor, _, service = own
    device = vendor.device(tmp_path / "d", name, kind)
    with device.session() as session:
        assert device.obey(session, "identify") is not None
        assert service.wait_for("refused", device_id=name).code == code
    assert stand.fleet.registry.standing(name) is None


def test_a_device_without_the_key_of_its_certificate_is_refused(
    own: tuple[Stand, Vendor, Vendor, Serving], tmp_path: Path
) -> None:
    stand, vendor, _, service = own
    device = vendor.device(tmp_path / "d", "vp-003")
    with device.session() as session:
        device.key = generate_key("p256")
        assert device.obey(session, "identify") is not None
        assert service.wait_for("refused", device_id="vp-003").code == "untrusted"
    assert stand.fleet.registry.standing("vp-003") is None


@pytest.mark.parametrize("wrong", ["another's", "not registered", "revoked"])
def test_a_chain_that_proves_nothing_is_refused(own: tuple[Stand, Vendor, Vendor, Serving], tmp_path: Path, wrong: str) -> None:
    stand, vendor, _, service = own
    name = {"another's": "vp-011", "not registered": "vp-012", "revoked": "vp-666"}[wrong]
    device = vendor.device(tmp_path / "d", "vp-666" if wrong == "revoked" else name)
    with device.session() as session:
        shown = vendor.device(tmp_path / "other", "vp-099")
        if wrong == "not registered":
            stranger = create_root("vendor-ca", "vendor", generate_key("p256"), vendor.now, 1)
            path = DevicePath("acme", "oslo", "pump", name)
            assert isinstance(shown.key, ec.EllipticCurvePrivateKey)
            leaf = issue(stranger, device_request(path), shown.key.public_key(), vendor.now)
            (shown.folder / "device.pem").write_bytes(pem(leaf, stranger.certificate))
        if wrong == "revoked":
            (shown.folder / "device.pem").write_bytes(pem(vendor.revoked))
        device.folder, device.key = shown.folder, shown.key
        assert device.obey(session, "identify") is not None
        assert service.wait_for("refused", device_id=name).code == "untrusted"
    assert stand.fleet.registry.standing(name) is None


def test_a_device_that_its_authority_has_revoked_does_not_get_in(
    own: tuple[Stand, Vendor, Vendor, Serving], tmp_path: Path
) -> None:
    _, vendor, _, _ = own
    device = vendor.device(tmp_path / "d", "vp-666", certificate=vendor.revoked)
    with pytest.raises(FleetError), device.session():
        pass


def test_a_person_decides_about_newcomers_where_the_profile_says_so(
    own: tuple[Stand, Vendor, Vendor, Serving], tmp_path: Path
) -> None:
    stand, _, picky, service = own
    device = picky.device(tmp_path / "d", "np-001")
    with device.session() as session:
        assert device.obey(session, "identify") is not None
        service.wait_for("pending", device_id="np-001")
    assert stand.fleet.registry.standing("np-001") is None
    approval.approve(stand.fleet, approval.choose(stand.fleet, ["np-001"], None, "approve"), None)

    with device.session("1-2") as session:
        assert device.obey(session, "configure") is not None
    eventually(lambda: stand.fleet.registry.standing("np-001"))


def test_a_flood_of_unknown_names_is_asked_a_few_questions_only(own: tuple[Stand, Vendor, Vendor, Serving]) -> None:
    stand, _, _, _ = own
    clock = [0.0]
    newcomers = JustInTime(stand.fleet, lambda: clock[0], lambda _path, _session: None)
    for number in range(3000):
        clock[0] += 0.001
        name = f"flood-{number}-{secrets.token_hex(2)}"
        newcomers.seen(DevicePath("acme", "oslo", "pump", name), Presence("online", "1-1", "1", DIGEST, "set", 60.0))
    assert len(newcomers.asked) <= 100 < LIMIT
    clock[0] += 60
    newcomers.seen(DevicePath("acme", "oslo", "pump", "late"), Presence("online", "1-1", "1", DIGEST, "set", 60.0))
    assert list(newcomers.asked) == ["late"]
