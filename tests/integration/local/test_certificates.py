"""Certificates of a fleet of one's own: issued into bundles, judged by openssl, listed, revoked."""

import re
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fleetctl import config
from fleetctl.agent.identity import Identity
from fleetctl.config import load_context
from fleetctl.errors import ConfigError, Conflict, Denied, NotFound, Unavailable, UsageError
from fleetctl.model.certificate import State
from fleetctl.pki import crl
from fleetctl.platforms.local.certificates import Issued
from fleetctl.platforms.local.fleet import LocalFleet
from fleetctl.platforms.local.init import create_context
from fleetctl.platforms.local.layout import Layout
from fleetctl.wire import bundle

if TYPE_CHECKING:
    from tests.conftest import Fleetctl


@pytest.fixture
def fleet() -> Iterator[LocalFleet]:
    create_context("prod", "acme", "mqtts://localhost:1", "alice")
    with LocalFleet(load_context("prod")) as opened:
        yield opened


def layout(fleet: LocalFleet) -> Layout:
    return Layout(fleet.context.folder)


def add(fleet: LocalFleet, name: str = "p-1") -> None:
    fleet.devices.add(name, device_type="pump", location="oslo", labels={})


def issue(fleet: LocalFleet, folder: Path, name: str = "p-1") -> Issued:
    add(fleet, name)
    return fleet.certificates.issue(name, folder)


def verify(fleet: LocalFleet, cert: Path) -> str:
    """What openssl says of a device certificate, with nothing but the root and every list."""
    root = fleet.context.folder / "only-root.pem"
    root.write_text(layout(fleet).device_ca.read_text().split("-----BEGIN", 2)[2].join(["-----BEGIN", ""]))
    words = ["-x509_strict", "-purpose", "sslclient", "-crl_check_all", "-CRLfile", str(layout(fleet).device_lists)]
    command = ["openssl", "verify", *words, "-CAfile", str(root), "-untrusted", str(cert), str(cert)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_a_bundle_is_whole_private_and_good_for_an_agent(fleet: LocalFleet, tmp_path: Path) -> None:
    issued = issue(fleet, tmp_path / "p-1")

    assert issued.outcome == "issued"
    assert sorted(each.name for each in (tmp_path / "p-1").iterdir()) == sorted(bundle.FILES)
    assert stat.S_IMODE((tmp_path / "p-1").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "p-1" / bundle.KEY).stat().st_mode) == 0o600
    identity = Identity.load(tmp_path / "p-1")
    assert str(identity.config.device) == "acme/oslo/pump/p-1"
    assert identity.trust.version == 1
    assert verify(fleet, tmp_path / "p-1" / bundle.CERTIFICATE).endswith("OK\n")


def test_issuing_again_into_the_same_folder_changes_nothing(fleet: LocalFleet, tmp_path: Path) -> None:
    first = issue(fleet, tmp_path / "p-1")
    again = fleet.certificates.issue("p-1", tmp_path / "p-1")
    assert (again.serial, again.outcome) == (first.serial, "unchanged")
    assert len(fleet.registry.certificates("p-1")) == 1


@pytest.mark.parametrize("missing", bundle.FILES)
def test_a_bundle_that_is_not_whole_is_not_taken_for_one(fleet: LocalFleet, tmp_path: Path, missing: str) -> None:
    issue(fleet, tmp_path / "p-1")
    (tmp_path / "p-1" / missing).unlink()
    with pytest.raises(Conflict, match="no good bundle of `p-1`"):
        fleet.certificates.issue("p-1", tmp_path / "p-1")


def test_a_bundle_of_another_device_or_a_revoked_one_is_not_taken_for_one(fleet: LocalFleet, tmp_path: Path) -> None:
    issue(fleet, tmp_path / "p-1")
    add(fleet, "p-2")
    with pytest.raises(Conflict, match="no good bundle of `p-2`"):
        fleet.certificates.issue("p-2", tmp_path / "p-1")
    fleet.certificates.revoke("p-1")
    with pytest.raises(Conflict, match="no good bundle of `p-1`"):
        fleet.certificates.issue("p-1", tmp_path / "p-1")


def test_an_empty_folder_is_filled_and_a_file_is_not_touched(fleet: LocalFleet, tmp_path: Path) -> None:
    add(fleet)
    (tmp_path / "empty").mkdir()
    assert fleet.certificates.issue("p-1", tmp_path / "empty").outcome == "issued"
    (tmp_path / "file").write_text("mine")
    with pytest.raises(Conflict):
        fleet.certificates.issue("p-1", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
    assert len(fleet.registry.certificates("p-1")) == 1


def test_what_cannot_be_issued_leaves_neither_folder_nor_row(fleet: LocalFleet, tmp_path: Path) -> None:
    add(fleet)
    layout(fleet).trust.unlink()
    with pytest.raises(NotFound):
        fleet.certificates.issue("p-1", tmp_path / "p-1")
    assert list(tmp_path.iterdir()) == []
    assert fleet.registry.certificates("p-1") == []


def test_an_authority_key_that_others_can_read_issues_nothing(fleet: LocalFleet, tmp_path: Path) -> None:
    add(fleet)
    layout(fleet).key("device-issuing").chmod(0o644)
    with pytest.raises(Denied, match="can be used by others"):
        fleet.certificates.issue("p-1", tmp_path / "p-1")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["nobody", "a/b", "+", "#", "a\0", "_fleet", ""])
def test_an_unknown_or_impossible_name_is_not_issued(fleet: LocalFleet, tmp_path: Path, name: str) -> None:
    with pytest.raises((NotFound, UsageError)):
        fleet.certificates.issue(name, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["op:", "op:a/b", "op:+", "op:_x", "op:op:x"])
def test_an_operator_with_a_dangerous_name_is_not_issued(fleet: LocalFleet, tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError):
        fleet.certificates.issue(name, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_an_operator_gets_a_folder_too(fleet: LocalFleet, tmp_path: Path) -> None:
    first = fleet.certificates.issue("op:bob", tmp_path / "bob")
    assert first.outcome == "issued"
    assert stat.S_IMODE((tmp_path / "bob" / "operator.key").stat().st_mode) == 0o600
    assert fleet.certificates.issue("op:bob", tmp_path / "bob").outcome == "unchanged"
    (entry,) = fleet.certificates.list("op:bob")
    assert (entry.profile, entry.authority, entry.state) == ("operator", "fleet-ca", State.VALID)


def test_a_new_context_lists_its_authorities_operator_and_server(fleet: LocalFleet) -> None:
    found = {(entry.subject, entry.profile, entry.state.value) for entry in fleet.certificates.list()}
    assert found == {
        ("device-root", "authority", "valid"),
        ("device-issuing", "authority", "valid"),
        ("fleet-ca", "authority", "valid"),
        ("op:alice", "operator", "valid"),
        ("localhost", "server", "valid"),
    }


def test_a_certificate_is_shown_by_name_and_by_serial_in_any_spelling(fleet: LocalFleet, tmp_path: Path) -> None:
    serial = issue(fleet, tmp_path / "p-1").serial
    colons = ":".join(re.findall("..", serial.upper()))
    shown = [fleet.certificates.show(name) for name in ("p-1", serial, serial.upper(), colons)]
    assert {each.serial for each in shown} == {serial}
    assert shown[0].pem.encode() in (tmp_path / "p-1" / bundle.CERTIFICATE).read_bytes()
    assert shown[0].state is State.VALID
    assert shown[0].device_id == "p-1"


@pytest.mark.parametrize("name", ["p-2", "f" * 40, "op:nobody"])
def test_what_nobody_has_is_not_found(fleet: LocalFleet, name: str) -> None:
    with pytest.raises(NotFound):
        fleet.certificates.show(name)
    with pytest.raises(NotFound):
        fleet.certificates.revoke(name)


def test_a_device_without_a_certificate_is_told_how_to_get_one(fleet: LocalFleet) -> None:
    add(fleet)
    with pytest.raises(NotFound, match="has no certificate") as caught:
        fleet.certificates.show("p-1")
    assert caught.value.hint == "issue one with fleetctl certs issue p-1"


def test_a_revoked_certificate_is_on_the_list_of_its_authority(fleet: LocalFleet, tmp_path: Path) -> None:
    serial = issue(fleet, tmp_path / "p-1").serial
    issue(fleet, tmp_path / "p-2", "p-2")
    numbers = crl.read_numbers(layout(fleet).device_lists)

    (report,) = fleet.certificates.revoke("p-1", "keyCompromise")

    assert (report.subject, report.serials, report.outcome, report.reason) == ("p-1", (serial,), "revoked", "keyCompromise")
    assert (report.broker_running, report.broker_reloaded, report.sessions_cut) == (False, False, None)
    assert report.crl_number == numbers["device-issuing"] + 1
    assert crl.read_numbers(layout(fleet).device_lists) == {**numbers, "device-issuing": report.crl_number}
    assert "certificate revoked" in verify(fleet, tmp_path / "p-1" / bundle.CERTIFICATE)
    assert verify(fleet, tmp_path / "p-2" / bundle.CERTIFICATE).endswith("OK\n")
    assert fleet.certificates.show("p-1").state is State.REVOKED


def test_a_root_whose_key_is_kept_elsewhere_keeps_its_list(fleet: LocalFleet, tmp_path: Path) -> None:
    issue(fleet, tmp_path / "p-1")
    layout(fleet).key("device-root").unlink()
    before = crl.read_numbers(layout(fleet).device_lists)

    (report,) = fleet.certificates.revoke("p-1")

    assert report.crl_number == before["device-issuing"] + 1
    assert crl.read_numbers(layout(fleet).device_lists) == {**before, "device-issuing": report.crl_number}
    assert "certificate revoked" in verify(fleet, tmp_path / "p-1" / bundle.CERTIFICATE)


def test_a_lost_list_of_a_root_whose_key_is_kept_elsewhere_is_said_and_nothing_is_revoked(
    fleet: LocalFleet, tmp_path: Path
) -> None:
    issue(fleet, tmp_path / "p-1")
    layout(fleet).key("device-root").unlink()
    _, issuing = crl.read_lists(layout(fleet).device_lists)["device-issuing"]
    layout(fleet).device_lists.write_bytes(issuing)
    with pytest.raises(ConfigError, match="no list of `device-root`"):
        fleet.certificates.revoke("p-1")
    assert fleet.certificates.show("p-1").state is State.VALID


def test_revoking_again_changes_nothing(fleet: LocalFleet, tmp_path: Path) -> None:
    issue(fleet, tmp_path / "p-1")
    (first,) = fleet.certificates.revoke("p-1", "keyCompromise")
    held = layout(fleet).device_lists.read_bytes()
    (again,) = fleet.certificates.revoke("p-1", "superseded")
    assert (again.outcome, again.reason, again.crl_number) == ("unchanged", "keyCompromise", first.crl_number)
    assert again.revoked_at == first.revoked_at
    assert layout(fleet).device_lists.read_bytes() == held


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_revoking_again_mends_a_list_that_was_lost(fleet: LocalFleet, tmp_path: Path, damage: bytes | None) -> None:
    serial = issue(fleet, tmp_path / "p-1").serial
    fleet.certificates.revoke("p-1")
    path = layout(fleet).device_lists
    path.unlink() if damage is None else path.write_bytes(damage)
    fleet.certificates.revoke("p-1")
    assert crl.read_serials(path) == {int(serial, 16)}


def test_right_after_init_many_lists_in_one_second_rise_and_none_is_in_the_future(fleet: LocalFleet, tmp_path: Path) -> None:
    bundles = [tmp_path / f"p-{number}" for number in range(8)]
    for folder in bundles:
        issue(fleet, folder, folder.name)
    dates = []
    for folder in bundles:
        fleet.certificates.revoke(folder.name)
        dates.append(this_update(fleet))
        assert "certificate revoked" in verify(fleet, folder / bundle.CERTIFICATE)
    assert all(later > earlier for earlier, later in pairwise(dates))
    assert dates[-1] < time.time()


def this_update(fleet: LocalFleet) -> float:
    row = fleet.registry.read_one("SELECT this_update FROM crls WHERE authority = 'device-issuing'")
    assert row is not None
    return float(row[0])


def test_a_list_that_would_lock_everybody_out_is_not_made(fleet: LocalFleet, tmp_path: Path) -> None:
    issue(fleet, tmp_path / "p-1")
    fleet.registry.write("UPDATE crls SET this_update = ?", (int(time.time()) + 100,))
    held = layout(fleet).device_lists.read_bytes()
    with pytest.raises(Unavailable, match="in the future"):
        fleet.certificates.revoke("p-1")
    assert layout(fleet).device_lists.read_bytes() == held
    assert fleet.certificates.show("p-1").state is State.VALID


def test_revocations_at_the_same_time_lose_none(fleet: LocalFleet, tmp_path: Path) -> None:
    names = [f"p-{number}" for number in range(6)]
    serials = {int(issue(fleet, tmp_path / name, name).serial, 16) for name in names}

    def revoke(name: str) -> None:
        with LocalFleet(load_context("prod")) as own:
            own.certificates.revoke(name)

    threads = [threading.Thread(target=revoke, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert crl.read_serials(layout(fleet).device_lists) == serials


def test_the_certificate_in_use_is_not_revoked_and_the_program_says_how_to_change_it(
    fleet: LocalFleet, tmp_path: Path, fleetctl: "Fleetctl"
) -> None:
    serial = fleet.certificates.show("op:alice").serial
    for name in ("op:alice", serial):
        refused = fleetctl("certs", "revoke", name, "--yes", "-o", "json").error()
        assert (refused["status"], "the one that context `prod` uses" in refused["message"]) == (5, True)
        assert "certs issue op:NEW" in refused["hint"]
    told = fleetctl("certs", "issue", "op:root", "--bundle", str(tmp_path / "me")).err
    path = config.home().config
    assert all(each in told for each in (str(path), f"cert: {tmp_path}/me/operator.pem", f"key: {tmp_path}/me/operator.key"))

    for name in ("pem", "key"):
        kept = "pki/operator.pem" if name == "pem" else "keys/operator.key"
        path.write_text(path.read_text().replace(kept, f"{tmp_path}/me/operator.{name}"))
    assert fleetctl("certs", "revoke", "op:alice", "-o", "json").json()[0]["outcome"] == "revoked"


def test_many_are_revoked_with_one_list(fleet: LocalFleet, tmp_path: Path) -> None:
    names = [f"p-{number}" for number in range(3)]
    for name in names:
        issue(fleet, tmp_path / name, name)
    fleet.certificates.issue("p-0", tmp_path / "second")
    fleet.certificates.issue("op:bob", tmp_path / "bob")
    reports = fleet.certificates.revoke_all([*names, "op:bob"])
    assert [(each.subject, len(each.serials)) for each in reports] == [("p-0", 2), ("p-1", 1), ("p-2", 1), ("op:bob", 1)]
    assert {each.crl_number for each in reports} == {2}
    assert len(crl.read_serials(layout(fleet).fleet_lists)) == 1


def test_one_unknown_name_among_many_revokes_nothing(fleet: LocalFleet, tmp_path: Path) -> None:
    issue(fleet, tmp_path / "p-1")
    with pytest.raises(NotFound):
        fleet.certificates.revoke_all(["p-1", "nobody"])
    assert fleet.certificates.show("p-1").state is State.VALID


def test_an_authority_is_not_revoked_like_a_leaf(fleet: LocalFleet) -> None:
    serial = next(entry.serial for entry in fleet.certificates.list() if entry.subject == "device-issuing")
    with pytest.raises(UsageError, match="is an authority's"):
        fleet.certificates.revoke(serial)


def test_an_unknown_reason_revokes_nothing(fleet: LocalFleet, tmp_path: Path) -> None:
    issue(fleet, tmp_path / "p-1")
    with pytest.raises(UsageError, match="no reason"):
        fleet.certificates.revoke("p-1", "bored")
    assert fleet.certificates.show("p-1").state is State.VALID


def test_a_disk_that_takes_no_list_leaves_the_registry_as_it_was(fleet: LocalFleet, tmp_path: Path) -> None:
    issue(fleet, tmp_path / "p-1")
    path = layout(fleet).device_lists
    path.unlink()
    path.mkdir()
    with pytest.raises(Exception, match="cannot"):
        fleet.certificates.revoke("p-1")
    assert fleet.certificates.show("p-1").state is State.VALID
