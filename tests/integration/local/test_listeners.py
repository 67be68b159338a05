"""Whom the listeners of a running broker let in, when authorities follow one another or hang side by side."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fleetctl.config import Context, load_context
from fleetctl.demo.place import free_ports
from fleetctl.keys.store import generate_key, private_pem
from fleetctl.model.device import DevicePath
from fleetctl.model.profile import ProvisioningProfile
from fleetctl.mqtt.broker import find_mosquitto
from fleetctl.mqtt.endpoint import Endpoint
from fleetctl.mqtt.session import open_session
from fleetctl.pki import crl
from fleetctl.pki.authority import Authority, create_issuing, create_root, device_request, issue, pem, read_certificates
from fleetctl.platforms.local.fleet import LocalFleet
from fleetctl.platforms.local.init import create_context
from fleetctl.platforms.local.registering import register
from fleetctl.platforms.local.succession import Wanted, retire, rotate
from tests.integration.local.test_revocation import REFUSALS, broker, connect, operator


@pytest.fixture
def context() -> Context:
    create_context("prod", "acme", f"mqtts://localhost:{free_ports()}", "alice")
    return load_context("prod")


@pytest.fixture
def fleet(context: Context) -> Iterator[LocalFleet]:
    with LocalFleet(context) as opened:
        yield opened


@pytest.fixture(params=["mosquitto", "builtin"])
def engine(request: pytest.FixtureRequest) -> str:
    if request.param == "mosquitto" and find_mosquitto() is None:
        pytest.skip("mosquitto is not installed")
    return str(request.param)


def later_operator(context: Context, folder: Path, name: str) -> Endpoint:
    with LocalFleet(context) as fleet:
        return operator(fleet, folder, name)


def enters(endpoint: Endpoint) -> None:
    open_session(endpoint, "test").close()


def test_operators_of_each_authority_are_let_in_until_theirs_is_retired(
    context: Context, fleet: LocalFleet, tmp_path: Path, engine: str
) -> None:
    with broker(context, engine):
        assert rotate(fleet, "people", Wanted()).broker_reloaded
        bob = later_operator(context, tmp_path / "bob", "op:bob")
        assert rotate(fleet, "people", Wanted("rsa3072")).name == "people-3"
        carol = later_operator(context, tmp_path / "carol", "op:carol")
        assert [issuer_of(each) for each in (bob, carol)] == ["people-2", "people-3"]
        for each in (bob, carol, fleet.endpoint):
            enters(each)
        assert retire(fleet, "people-2", force=True).broker_reloaded
        with pytest.raises(REFUSALS):
            enters(bob)
        for each in (carol, fleet.endpoint):
            enters(each)


def issuer_of(endpoint: Endpoint) -> str:
    assert endpoint.cert is not None
    leaf = read_certificates(endpoint.cert)[0]
    return next(name.value for name in leaf.issuer if name.rfc4514_attribute_name == "CN" and isinstance(name.value, str))


def test_a_sibling_below_the_same_root_lets_nobody_in(context: Context, fleet: LocalFleet, tmp_path: Path, engine: str) -> None:
    now = fleet.clock()
    root = create_root("vendor-root", "vendor", generate_key("p256"), now, 1)
    ours, sibling = (create_issuing(root, name, "vendor", generate_key("p256"), now) for name in ("pumps-ca", "toys-ca"))
    file, lists = tmp_path / "vendor.pem", tmp_path / "vendor.crl"
    file.write_bytes(pem(*ours.chain))
    built = [crl.build(each, [], 1, int(now) - 100) for each in (ours, root, sibling)]
    lists.write_bytes(b"".join(built))
    fleet.registry.put_profile(ProvisioningProfile(name="pumps"))
    device = maker(fleet, tmp_path)
    with broker(context, engine):
        assert register(fleet, file, lists, "pumps").broker_reloaded
        connect(device(ours, "p-1"), "p-1").close()
        for shown in (2, 1, 0):
            with pytest.raises(REFUSALS):
                connect(device(sibling, "p-2", shown), "p-2").close()
        with pytest.raises(REFUSALS):
            connect(device(root, "p-3"), "p-3").close()
        connect(device(ours, "p-1", 2), "p-1").close()


def maker(fleet: LocalFleet, folder: Path) -> Callable[..., Endpoint]:
    """Devices that show so many of the authorities above them."""

    def make(authority: Authority, name: str, shown: int = 0) -> Endpoint:
        key = generate_key("p256")
        leaf = issue(authority, device_request(DevicePath("acme", "oslo", "pump", name)), key.public_key(), fleet.clock())
        cert, secret = folder / f"{name}.pem", folder / f"{name}.key"
        cert.write_bytes(pem(leaf, *authority.chain[:shown]))
        secret.touch(0o600)
        secret.write_bytes(private_pem(key))
        return Endpoint.parse_url(fleet.context.device_broker, ca=fleet.context.ca, cert=cert, key=secret)

    return make
