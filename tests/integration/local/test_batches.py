"""Batches: what a report says of the devices that came, and of those that were refused."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from fleetctl.config import load_context
from fleetctl.errors import Conflict, FleetError, NotFound, Partial
from fleetctl.model.batch import Batch
from fleetctl.model.device import Device, LifeCycle
from fleetctl.model.profile import parse
from fleetctl.platforms.importing import Intake
from fleetctl.platforms.local import batches
from fleetctl.platforms.local.enrolment import approval
from fleetctl.platforms.local.fleet import LocalFleet
from fleetctl.platforms.local.init import create_context
from fleetctl.platforms.protocol import Targets
from fleetctl.registry.enrolments import ClaimRow, EnrolmentRow
from fleetctl.wire.document import rfc3339

BEGIN = 1_795_000_000.0
AT = rfc3339(BEGIN)
PROFILE = parse("line-1", {"type": "pump", "location": "oslo", "ids": "SN[0-9]{2}", "labels": {"line": "1"}})


class Clock:
    """Goes on by a minute each time somebody lets it."""

    def __init__(self) -> None:
        self.now = BEGIN

    def __call__(self) -> float:
        return self.now

    def tick(self) -> str:
        self.now += 60
        return rfc3339(self.now)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def fleet(clock: Clock) -> Iterator[LocalFleet]:
    create_context("prod", "acme", "mqtts://localhost:1", "alice", clock=clock)
    with LocalFleet(load_context("prod"), clock=clock) as opened:
        opened.registry.put_profile(PROFILE)
        yield opened


def filled(fleet: LocalFleet, serials: str = "SN01..SN05", quota: int | None = None) -> None:
    batches.create(fleet, Batch("w", "line-1", quota=quota), lasts=86400)
    batches.import_serials(fleet, "w", [serials], Intake(fleet.registry.transaction))


def named(fleet: LocalFleet, *names: str) -> list[Device]:
    return list(fleet.devices.resolve(Targets(names)))


def enrolment(fleet: LocalFleet, name: str, serial: str, key: str, claim: str | None = "line") -> EnrolmentRow:
    row = EnrolmentRow(name, "claim", claim, serial, serial, key * 64, None, "pending", None, None, AT)
    fleet.registry.add_enrolment(row)
    return row


def test_a_new_batch_has_nothing_to_report(fleet: LocalFleet) -> None:
    filled(fleet)
    report = batches.report(fleet, "w")
    assert asdict(report) == {
        "name": "w",
        "state": "open",
        "profile": "line-1",
        "type": None,
        "location": None,
        "serials": 5,
        "used": 0,
        "quota": None,
        "not_before": None,
        "not_after": rfc3339(BEGIN + 86400),
        "refusal": None,
        "labels": {},
        "created_at": AT,
        "closed_at": None,
        "states": {"manufactured": 5},
        "first": None,
        "last": None,
        "refused": {},
    }


def test_a_report_says_when_the_first_and_the_last_came(fleet: LocalFleet, clock: Clock, tmp_path: Path) -> None:
    filled(fleet, quota=3)
    first = clock.tick()
    fleet.certificates.issue("SN02", tmp_path / "SN02")
    clock.tick()
    fleet.certificates.issue("SN01", tmp_path / "SN01")
    last = clock.tick()
    fleet.registry.move_device("SN02", LifeCycle.ACTIVE, event="activated", at=last)
    clock.tick()
    fleet.registry.note("SN01", "configured", at=clock.tick())

    report = batches.report(fleet, "w")

    assert (report.first, report.last, report.used, report.refusal) == (first, last, 2, None)
    assert report.states == {"manufactured": 3, "claimed": 1, "active": 1}
    fleet.certificates.issue("SN05", tmp_path / "SN05")
    assert batches.report(fleet, "w").refusal == "quota"
    assert batches.entry(fleet, fleet.registry.batch("w")).used == 3


def test_who_was_refused_is_counted_by_the_code(fleet: LocalFleet) -> None:
    filled(fleet)
    batches.create(fleet, Batch("other", "line-1"))
    batches.import_serials(fleet, "other", ["SN90"], Intake(fleet.registry.transaction))
    registry = fleet.registry
    for claim, batch in (("line", "w"), ("elsewhere", "other")):
        registry.add_claim(ClaimRow(claim, batch, "ab", None, None, "active", AT))
    rows = [enrolment(fleet, "e1", "SN01", "1"), enrolment(fleet, "e2", "SN02", "2")]
    enrolment(fleet, "e3", "SN03", "3", claim=None)
    approval.reject(fleet, rows, "not one of ours")
    for serial in ("SN77", "SN78"):
        registry.record_refusal("line", serial, None, "serial_not_in_batch", AT)
        registry.record_refusal("line", serial, None, "serial_not_in_batch", AT)
    registry.record_refusal("elsewhere", "SN90", "SN90", "quota", AT)

    assert batches.report(fleet, "w").refused == {"rejected": 2, "serial_not_in_batch": 2}
    assert batches.report(fleet, "other").refused == {"quota": 1}
    assert batches.report(fleet, "w").used == 0


def test_what_is_reset_or_revoked_gives_its_place_back_or_keeps_it(fleet: LocalFleet, tmp_path: Path) -> None:
    filled(fleet)
    for name in ("SN01", "SN02", "SN03"):
        fleet.certificates.issue(name, tmp_path / name)
    approval.reset(fleet, named(fleet, "SN01"), "lost its flash")
    fleet.certificates.revoke("SN02", "keyCompromise")

    report = batches.report(fleet, "w")

    assert report.states == {"manufactured": 3, "claimed": 1, "revoked": 1}
    assert report.used == 2


def test_a_closed_batch_takes_nothing_more(fleet: LocalFleet, clock: Clock) -> None:
    filled(fleet)
    at = clock.tick()
    assert (batches.close(fleet, "w").closed_at, batches.close(fleet, "w").closed_at) == (at, at)
    clock.tick()
    assert (batches.report(fleet, "w").closed_at, batches.report(fleet, "w").refusal) == (at, "batch_closed")
    with pytest.raises(Conflict, match="is closed"):
        batches.import_serials(fleet, "w", ["SN09"], Intake(fleet.registry.transaction))


def test_a_batch_that_has_ended_says_so(fleet: LocalFleet, clock: Clock) -> None:
    filled(fleet)
    clock.now += 86401
    report = batches.report(fleet, "w")
    assert (report.state, report.refusal) == ("open", "batch_closed")


def test_the_same_batch_again_is_the_same_and_another_is_refused(fleet: LocalFleet, clock: Clock) -> None:
    filled(fleet)
    clock.tick()
    filled(fleet)
    assert batches.report(fleet, "w").serials == 5
    with pytest.raises(Conflict, match="differs: quota"):
        batches.create(fleet, Batch("w", "line-1", quota=7), lasts=86400)
    with pytest.raises(NotFound, match="no batch named"):
        batches.report(fleet, "nobody")


def test_serials_of_a_file_are_taken_each_or_all_or_none(fleet: LocalFleet, tmp_path: Path) -> None:
    batches.create(fleet, Batch("w", "line-1", labels={"week": "48"}))
    file = tmp_path / "more.csv"
    file.write_text("serial,site\nSN01,north\nXX1,north\nSN02,\n")
    with pytest.raises(FleetError, match="line 3: id `XX1` does not match"):
        batches.import_serials(fleet, "w", file, Intake(fleet.registry.transaction, atomic=True))
    assert batches.report(fleet, "w").serials == 0
    with pytest.raises(Partial):
        batches.import_serials(fleet, "w", file, Intake(fleet.registry.transaction))
    assert batches.report(fleet, "w").serials == 2
    assert fleet.registry.device("SN01").labels == {"line": "1", "site": "north", "week": "48"}
