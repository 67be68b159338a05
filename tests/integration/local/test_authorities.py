"""Authorities of a context: made, followed by another, retired, registered; their lists renewed in time."""

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography import x509

from fleetctl.config import Context, load_context
from fleetctl.demo.place import free_ports
from fleetctl.errors import Conflict, Findings, NotFound, Untrusted, UsageError
from fleetctl.keys.store import generate_key
from fleetctl.model.certificate import DAY, Reason
from fleetctl.model.profile import ProvisioningProfile
from fleetctl.mqtt.endpoint import Endpoint
from fleetctl.pki import crl
from fleetctl.pki.authority import Authority, common_names, create_root, pem, read_certificates
from fleetctl.platforms.local import overview
from fleetctl.platforms.local.authorities import active
from fleetctl.platforms.local.fleet import LocalFleet
from fleetctl.platforms.local.init import create_context
from fleetctl.platforms.local.layout import Layout
from fleetctl.platforms.local.lists import refresh_due
from fleetctl.platforms.local.registering import register
from fleetctl.platforms.local.succession import Wanted, init_authority, retire, rotate
from fleetctl.wire import bundle
from tests.integration.local.test_revocation import REFUSALS, broker, connect

if TYPE_CHECKING:
    from tests.conftest import Fleetctl

WANTED = Wanted()


@pytest.fixture
def context() -> Context:
    create_context("prod", "acme", f"mqtts://localhost:{free_ports()}", "alice")
    return load_context("prod")


@pytest.fixture
def fleet(context: Context) -> Iterator[LocalFleet]:
    with LocalFleet(context) as opened:
        yield opened


@pytest.fixture
def new_device(fleet: LocalFleet, tmp_path: Path) -> Callable[[str], Endpoint]:
    def make(device_id: str) -> Endpoint:
        folder = tmp_path / device_id
        fleet.devices.add(device_id, device_type="pump", location="oslo", labels={}, bundle=folder)
        ca, cert, key = (folder / name for name in (bundle.AUTHORITY, bundle.CERTIFICATE, bundle.KEY))
        return Endpoint.parse_url(fleet.context.device_broker, ca=ca, cert=cert, key=key)

    return make


def layout(fleet: LocalFleet) -> Layout:
    return Layout(fleet.context.folder)


def names(path: Path) -> list[str]:
    return [common_names(each)[0] for each in read_certificates(path)]


def states(fleet: LocalFleet) -> dict[str, str]:
    return {row.name: row.state for row in fleet.registry.authorities()}


def verified(fleet: LocalFleet, cert: Path, folder: Path) -> bool:
    root = folder / "root.pem"
    overview.export(fleet, "devices", root, root=True)
    words = ["-x509_strict", "-purpose", "sslclient", "-crl_check_all", "-CRLfile", str(layout(fleet).device_lists)]
    command = ["openssl", "verify", *words, "-CAfile", str(root), "-untrusted", str(cert), str(cert)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("kty", ["p256", "p384", "ed25519", "rsa3072"])
def test_after_a_rotation_old_and_new_devices_are_good_and_either_can_be_revoked(
    fleet: LocalFleet, new_device: Callable[[str], Endpoint], tmp_path: Path, kty: str
) -> None:
    new_device("p-1")
    change = rotate(fleet, "devices", Wanted(kty))
    assert (change.name, change.superseded, change.certificates) == ("device-issuing-2", "device-issuing", 1)
    assert names(layout(fleet).device_ca) == ["device-issuing-2", "device-issuing", "device-root"]
    with LocalFleet(fleet.context) as later:
        later.devices.add("p-2", device_type="pump", location="oslo", labels={}, bundle=tmp_path / "p-2")
        assert [row.authority for row in later.registry.certificates("p-2")] == ["device-issuing-2"]
    certs = [tmp_path / name / bundle.CERTIFICATE for name in ("p-1", "p-2")]
    assert [verified(fleet, cert, tmp_path) for cert in certs] == [True, True]
    fleet.certificates.revoke("p-1")
    assert [verified(fleet, cert, tmp_path) for cert in certs] == [False, True]
    fleet.certificates.revoke("p-2")
    assert [verified(fleet, cert, tmp_path) for cert in certs] == [False, False]


@pytest.mark.parametrize("engine", ["mosquitto", "builtin"])
def test_a_running_broker_takes_the_new_authority_and_lets_go_of_the_retired_one(
    context: Context, fleet: LocalFleet, new_device: Callable[[str], Endpoint], tmp_path: Path, engine: str
) -> None:
    old = new_device("p-1")
    with broker(context, engine):
        assert rotate(fleet, "devices", WANTED).broker_reloaded
        connect(old, "p-1").close()
        with LocalFleet(context) as later:
            later.devices.add("p-2", device_type="pump", location="oslo", labels={}, bundle=tmp_path / "p-2")
        ca, cert, key = (tmp_path / "p-2" / name for name in (bundle.AUTHORITY, bundle.CERTIFICATE, bundle.KEY))
        new = Endpoint.parse_url(context.device_broker, ca=ca, cert=cert, key=key)
        connect(new, "p-2").close()
        with pytest.raises(Conflict, match="1 good certificate below `device-issuing`"):
            retire(fleet, "device-issuing")
        assert retire(fleet, "device-issuing", force=True).broker_reloaded
        with pytest.raises(REFUSALS):
            connect(old, "p-1").close()
        connect(new, "p-2").close()


def test_people_get_an_authority_of_their_own_and_services_keep_theirs(
    context: Context, fleet: LocalFleet, tmp_path: Path
) -> None:
    before = layout(fleet).fleet_ca.read_bytes()
    with broker(context, "builtin"):
        assert rotate(fleet, "people", WANTED).name == "people-2"
        fleet.open_session("old").close()
        assert layout(fleet).fleet_ca.read_bytes() == before
        assert names(layout(fleet).people_ca) == ["people-2", "fleet-ca"]
        assert active(fleet, "people").name == "people-2"


def test_claims_have_an_authority_once_somebody_makes_it(fleet: LocalFleet) -> None:
    with pytest.raises(NotFound, match="no authority for claims yet"):
        active(fleet, "claims")
    assert init_authority(fleet, "claims", WANTED).outcome == "made"
    assert init_authority(fleet, "claims", WANTED).outcome == "unchanged"
    assert names(layout(fleet).claim_ca) == ["claim-ca"]
    assert crl.read_numbers(layout(fleet).claim_lists) == {"claim-ca": 1}


def test_who_issues_and_the_root_are_not_retired_and_nobody_is_retired_twice(fleet: LocalFleet) -> None:
    for name in ("device-issuing", "device-root", "fleet-ca"):
        with pytest.raises(Conflict):
            retire(fleet, name)
    rotate(fleet, "devices", WANTED)
    assert [retire(fleet, "device-issuing").outcome for _ in range(2)] == ["retired", "unchanged"]
    assert states(fleet)["device-issuing"] == "retired"
    assert set(crl.read_numbers(layout(fleet).device_lists)) == {"device-issuing-2", "device-root"}


def test_a_rotation_that_fails_leaves_everything_as_it_was(fleet: LocalFleet) -> None:
    held, before = layout(fleet).device_ca.read_bytes(), states(fleet)
    path = layout(fleet).device_lists
    path.unlink()
    path.mkdir()
    with pytest.raises(Exception, match="cannot"):
        rotate(fleet, "devices", WANTED)
    assert (layout(fleet).device_ca.read_bytes(), states(fleet)) == (held, before)
    assert not layout(fleet).has_key("device-issuing-2")


@pytest.mark.parametrize("words", [{"kty": "dsa"}, {"permit": ("x",)}, {"permit": ("ip:nowhere",)}])
def test_words_that_mean_no_authority_are_refused(words: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        Wanted(**words)  # type: ignore[arg-type]


def vendor(folder: Path, *, path_length: int = 0, next_number: int = 1, signer: Authority | None = None) -> Authority:
    now = time.time()
    made = signer or create_root("vendor-ca", "vendor", generate_key("p256"), now, path_length)
    (folder / "vendor.pem").write_bytes(pem(made.certificate))
    (folder / "vendor.crl").write_bytes(crl.build(made, [], next_number, int(now) - 100 + next_number))
    return made


def test_a_registered_authority_is_accepted_with_its_list_which_only_rises(fleet: LocalFleet, tmp_path: Path) -> None:
    fleet.registry.put_profile(ProvisioningProfile(name="pumps", device_type="pump", location="oslo"))
    made = vendor(tmp_path, next_number=5)
    files = (tmp_path / "vendor.pem", tmp_path / "vendor.crl")
    with pytest.raises(NotFound):
        register(fleet, *files, "nothing")
    assert register(fleet, *files, "pumps").outcome == "registered"
    assert names(layout(fleet).device_ca) == ["device-issuing", "device-root", "vendor-ca"]
    assert crl.read_numbers(layout(fleet).device_lists)["vendor-ca"] == 5
    vendor(tmp_path, next_number=6, signer=made)
    assert register(fleet, *files, "pumps").outcome == "updated"
    vendor(tmp_path, next_number=4, signer=made)
    with pytest.raises(Conflict, match="older"):
        register(fleet, *files, "pumps")
    layout(fleet).device_lists.unlink()
    overview.build(fleet)
    assert crl.read_numbers(layout(fleet).device_lists)["vendor-ca"] == 6
    assert retire(fleet, "vendor-ca").outcome == "retired"
    assert "vendor-ca" not in names(layout(fleet).device_ca)


def test_what_is_no_authority_and_whose_list_is_anothers_is_not_registered(fleet: LocalFleet, tmp_path: Path) -> None:
    vendor(tmp_path)
    for certificate, list_file in (
        (layout(fleet).public("operator.pem"), tmp_path / "vendor.crl"),
        (tmp_path / "vendor.pem", layout(fleet).device_lists),
    ):
        with pytest.raises(Untrusted):
            register(fleet, certificate, list_file, "pumps")
    assert "vendor-ca" not in states(fleet)


def test_a_list_past_half_of_its_life_is_found_and_signed_again(context: Context) -> None:
    with LocalFleet(context, clock=time.time) as fleet:
        assert not fleet.registry.lists_due(time.time())
        assert overview.statuses(fleet)
        fleet.registry.write("UPDATE crls SET this_update = ?, next_update = ?", (int(time.time()) - 200 * DAY, int(time.time())))
        with pytest.raises(Findings) as caught:
            overview.statuses(fleet)
        assert caught.value.hint == "fleetctl certs crl build"
        assert sorted(refresh_due(fleet)) == ["device-issuing", "device-root", "fleet-ca"]
        assert {each.state for each in overview.statuses(fleet)} == {"good"}
        assert refresh_due(fleet) == []


def test_entries_of_ended_certificates_stay_for_one_more_list(fleet: LocalFleet, new_device: Callable[[str], Endpoint]) -> None:
    new_device("p-1")
    fleet.certificates.revoke("p-1", Reason.SUPERSEDED)
    lists = layout(fleet).device_lists
    fleet.registry.write("UPDATE certificates SET not_after = ? WHERE device_id = 'p-1'", ("2026-01-01T00:00:00.000Z",))
    fleet.registry.write("UPDATE crls SET this_update = 1700000000")
    overview.build(fleet)
    assert len(crl.read_serials(lists)) == 1
    overview.build(fleet)
    assert len(crl.read_serials(lists)) == 0


def test_a_role_is_exported_as_its_listener_accepts_it_and_the_root_alone(fleet: LocalFleet, tmp_path: Path) -> None:
    whole = overview.export(fleet, "devices", tmp_path / "all.pem")
    assert (whole.certificates, whole.pem.encode()) == (2, layout(fleet).device_ca.read_bytes())
    (root,) = x509.load_pem_x509_certificates(overview.export(fleet, "devices", root=True).pem.encode())
    assert common_names(root) == ["device-root"]
    entry = next(each for each in overview.entries(fleet) if each.name == "device-issuing")
    assert (entry.role, entry.kind, entry.state, entry.key_type, entry.store) == ("devices", "issuing", "active", "p256", "plain")


def test_every_command_warns_of_a_list_that_is_late_and_the_verbs_show_and_mend_it(
    fleet: LocalFleet, fleetctl: "Fleetctl"
) -> None:
    assert "warning" not in fleetctl("provision", "list").err
    fleet.registry.write("UPDATE crls SET next_update = ? WHERE authority = 'fleet-ca'", (int(time.time()) + 60,))
    fleet.registry.write("UPDATE crls SET this_update = this_update - 3600 WHERE authority = 'fleet-ca'")
    assert "the revocation list of fleet-ca is past half of its life" in fleetctl("provision", "list").err
    assert fleetctl("certs", "crl", "status").status == 11
    (first, *_) = fleetctl("certs", "crl", "build", "-o", "json").json()
    assert list(first) == ["authority", "number", "entries", "thisUpdate", "nextUpdate", "state", "obeyed"]
    assert "warning" not in fleetctl("certs", "crl", "status").err


def test_the_verbs_of_authorities_print_these_keys(fleet: LocalFleet, fleetctl: "Fleetctl") -> None:
    change = fleetctl("certs", "ca", "rotate", "devices", "-o", "json").json()
    assert list(change) == [
        *("name", "role", "outcome", "superseded", "certificates", "notAfter", "brokerRunning", "brokerReloaded", "detail")
    ]
    entry = fleetctl("certs", "ca", "show", "device-issuing-2", "-o", "json").json()[0]
    assert list(entry) == [
        *("name", "role", "kind", "state", "keyType", "store", "notBefore", "notAfter", "certificates", "serial"),
        *("fingerprint", "profile"),
    ]
    exported = fleetctl("certs", "ca", "export", "devices", "--root", "-o", "json").json()
    assert (list(exported), exported["certificates"]) == (["name", "certificates", "pem", "file"], 1)
