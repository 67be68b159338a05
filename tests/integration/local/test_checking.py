"""Finding what is amiss before it stops anybody."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleetctl.config import load_context
from fleetctl.errors import Findings, NotFound
from fleetctl.model.certificate import DAY
from fleetctl.model.device import LifeCycle
from fleetctl.platforms.local.checking import check
from fleetctl.platforms.local.fleet import LocalFleet
from fleetctl.platforms.local.init import create_context
from fleetctl.platforms.local.layout import Layout
from tests.conftest import Fleetctl


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[LocalFleet]:
    create_context("prod", "acme", "mqtts://localhost:1", "alice")
    with LocalFleet(load_context("prod")) as opened:
        for name in ("p-1", "p-2"):
            opened.devices.add(name, device_type="pump", location="oslo", labels={}, bundle=tmp_path / name)
        yield opened


def found(fleet: LocalFleet, *names: str, strict: bool = False) -> list[tuple[str, str]]:
    """Subject and code of each finding; of files, only the name."""
    try:
        assert check(fleet, names, strict=strict) == []
    except Findings as error:
        record: Any = error.record
        assert all(sorted(each) == ["code", "detail", "hint", "severity", "subject"] for each in record)
        return [(each["subject"].rsplit("/", 1)[-1], each["code"]) for each in record]
    return []


def layout(fleet: LocalFleet) -> Layout:
    return Layout(fleet.context.folder)


def test_a_new_context_is_in_order(fleet: LocalFleet, fleetctl: Fleetctl) -> None:
    assert found(fleet) == []
    assert fleetctl("certs", "check", "-o", "json").json() == []


def test_what_is_found_is_printed_and_the_status_says_so(fleet: LocalFleet, fleetctl: Fleetctl) -> None:
    layout(fleet).key("broker").chmod(0o640)
    done = fleetctl("certs", "check", "-o", "json")
    assert done.status == 11
    first = json.loads(done.out)[0]
    assert (first["code"], first["severity"]) == ("unprotectedKey", "error")


def test_certificates_that_end_or_have_ended_are_found_of_the_last_one_alone(fleet: LocalFleet, tmp_path: Path) -> None:
    later = LocalFleet(fleet.context, clock=lambda: fleet.clock() + (5 * 365 - 20) * DAY)
    with later:
        assert [each for each in found(later, "p-1", "p-2") if each[1] == "expiring"] == [
            ("p-1", "expiring"),
            ("p-2", "expiring"),
        ]
        later.certificates.issue("p-1", tmp_path / "again")
        assert found(later, "p-1") == []
    with LocalFleet(fleet.context, clock=lambda: fleet.clock() + 5 * 365 * DAY + DAY) as much_later:
        assert found(much_later, "p-2") == [("p-2", "expired")]


def test_a_short_life_is_near_its_end_in_its_last_third(fleet: LocalFleet) -> None:
    row = fleet.registry.certificates("p-1")[0]
    fleet.registry.write(
        "UPDATE certificates SET not_before = ?, not_after = ?", ("2026-01-01T00:00:00Z", "2026-01-10T00:00:00Z")
    )
    start = 1767225600.0
    assert row.device_id == "p-1"
    for days, expected in ((5, []), (7, [("p-1", "expiring")]), (10, [("p-1", "expired")])):
        with LocalFleet(fleet.context, clock=lambda days=days: start + days * DAY) as then:  # type: ignore[misc]
            assert found(then, "p-1") == expected


def test_a_removed_device_and_a_revoked_certificate_are_nobodys_concern(fleet: LocalFleet) -> None:
    fleet.registry.write("UPDATE certificates SET not_after = '2020-01-01T00:00:00.000Z' WHERE device_id IS NOT NULL")
    assert sorted(found(fleet)) == [("p-1", "expired"), ("p-2", "expired")]
    fleet.registry.move_device("p-1", LifeCycle.RETIRED, event="retired", at="2026-01-01T00:00:00.000Z")
    fleet.registry.revoke_certificate(fleet.registry.certificates("p-2")[0].serial, "superseded", "2026-01-01T00:00:00.000Z")
    assert found(fleet) == []


def test_one_key_for_two_is_found_also_where_the_registry_did_not_know_keys(fleet: LocalFleet) -> None:
    one, two = (fleet.registry.certificates(name)[0] for name in ("p-1", "p-2"))
    fleet.registry.write("UPDATE certificates SET spki = NULL, pem = ? WHERE serial = ?", (one.pem, two.serial))
    fleet.registry.write("UPDATE certificates SET spki = NULL")
    assert ("p-1", "duplicateKey") in found(fleet)
    assert ("p-2", "badCommonName") in found(fleet)


def test_a_certificate_that_does_not_parse_is_found(fleet: LocalFleet) -> None:
    fleet.registry.write("UPDATE certificates SET pem = 'garbage' WHERE device_id = 'p-1'")
    assert found(fleet) == [("p-1", "malformed")]


def test_keys_that_others_may_use_are_found(fleet: LocalFleet) -> None:
    layout(fleet).key("device-issuing").chmod(0o644)
    layout(fleet).key("root").parent.chmod(0o755)
    assert found(fleet)[:2] == [("keys", "unprotectedKey"), ("device-issuing.key", "unprotectedKey")]


def test_a_key_that_is_anothers_is_found(fleet: LocalFleet) -> None:
    layout(fleet).key("operator").write_bytes(layout(fleet).key("broker").read_bytes())
    assert found(fleet) == [("operator.pem", "keyMismatch")]
    layout(fleet).key("operator").unlink()
    assert found(fleet) == [("operator.pem", "missingKey")]


def test_lists_that_end_or_are_gone_are_found(fleet: LocalFleet) -> None:
    layout(fleet).fleet_lists.unlink()
    assert found(fleet) == [("fleet.crl.pem", "listMissing")]
    layout(fleet).device_lists.write_text("garbage")
    assert found(fleet) == [("device.crl.pem", "listMissing"), ("fleet.crl.pem", "listMissing")]


@pytest.mark.parametrize(("days", "code"), [(100, None), (200, "listDue"), (366, "listExpired")])
def test_a_list_past_half_of_its_life_and_one_that_ended_are_found(fleet: LocalFleet, days: int, code: str | None) -> None:
    with LocalFleet(fleet.context, clock=lambda: fleet.clock() + days * DAY) as later:
        lists = {subject: code for subject, code in found(later) if code.startswith("list")}
        assert lists.get("device-issuing") == lists.get("fleet-ca") == code


def test_the_certificate_of_the_servers_is_minded_too(fleet: LocalFleet) -> None:
    with LocalFleet(fleet.context, clock=lambda: fleet.clock() + 800 * DAY) as later:
        assert ("broker.pem", "expiring") in found(later)
    with LocalFleet(fleet.context, clock=lambda: fleet.clock() + 830 * DAY) as later:
        assert ("broker.pem", "expired") in found(later)


def test_whoever_asks_says_what_is_near(fleet: LocalFleet, fleetctl: Fleetctl) -> None:
    assert fleetctl("certs", "check", "p-1", "--within", "1825d", "-o", "json").status == 11
    assert fleetctl("certs", "check", "p-1", "--within", "1800d", "-o", "json").json() == []


def test_a_key_of_an_authority_that_is_anothers_is_found(fleet: LocalFleet) -> None:
    layout(fleet).key("device-issuing").write_bytes(layout(fleet).key("device-root").read_bytes())
    assert found(fleet) == [("device-issuing", "keyMismatch")]


def test_of_many_certificates_only_those_that_count_are_looked_at(fleet: LocalFleet, tmp_path: Path) -> None:
    first = fleet.registry.certificates("p-1")[0]
    with LocalFleet(fleet.context, clock=lambda: fleet.clock() + DAY) as later:
        second = later.certificates.issue("p-1", tmp_path / "again").serial
    current = [row.serial for row in fleet.registry.current_certificates() if row.device_id == "p-1"]
    assert current == [second]
    fleet.registry.revoke_certificate(second, "superseded", "2026-01-01T00:00:00.000Z")
    assert [row.serial for row in fleet.registry.current_certificates() if row.device_id == "p-1"] == [first.serial]


def test_keys_that_are_not_encrypted_are_found_only_where_that_is_asked(fleet: LocalFleet) -> None:
    strict = found(fleet, strict=True)
    assert {code for _, code in strict} == {"unencryptedKey"}
    assert sorted(subject for subject, _ in strict) == ["device-issuing.key", "device-root.key", "fleet-ca.key"]


def test_a_device_without_a_certificate_is_told_of_and_one_that_is_not_there_is_not_found(fleet: LocalFleet) -> None:
    fleet.devices.add("p-3", device_type="pump", location="oslo", labels={})
    assert found(fleet, "p-3") == [("p-3", "noCertificate")]
    with pytest.raises(NotFound):
        check(fleet, ["p-9"])
