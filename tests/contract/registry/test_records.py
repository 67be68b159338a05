"""Certificates, twins, the outbox, rollouts and order numbers."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fleetctl.errors import Conflict, NotFound
from fleetctl.model.device import Device, DevicePath
from fleetctl.registry import CertificateRow, Registry

AT = "2026-01-15T10:30:00.000Z"
PATH = DevicePath("acme", "oslo", "pump", "pump-1")
ROW = CertificateRow("0a", "device-issuing", "device", "pump-1", "pump-1", AT, AT, "sha256:00", "PEM")


@pytest.fixture(autouse=True)
def _device(registry: Registry) -> None:
    registry.add_device(Device(PATH, created_at=AT))


def test_certificates_are_kept_with_their_revocation(registry: Registry) -> None:
    person = replace(ROW, serial="0b", authority="fleet", subject="op:alice", device_id=None)
    registry.add_certificate(ROW)
    registry.add_certificate(person)

    assert registry.certificates() == [person, ROW]
    assert registry.certificates("pump-1") == [ROW]
    assert registry.revoke_certificate("0a", "keyCompromise", AT)
    assert not registry.revoke_certificate("0a", "superseded", "later")
    assert registry.revoked("device-issuing") == [replace(ROW, revoked_at=AT, reason="keyCompromise")]
    assert registry.revoked("fleet") == []
    with pytest.raises(Conflict, match="is in the registry already"):
        registry.add_certificate(ROW)
    with pytest.raises(NotFound, match="no certificate with serial `ff`"):
        registry.revoke_certificate("ff", "x", AT)


def test_crl_numbers_and_times_rise_even_if_the_clock_does_not(registry: Registry) -> None:
    assert registry.next_crl_number("fleet", 1000.9) == (1, 1000)
    assert registry.next_crl_number("fleet", 1000.9) == (2, 1001)
    assert registry.next_crl_number("fleet", 10.0) == (3, 1002)
    assert registry.next_crl_number("fleet", 2000.0) == (4, 2000)
    assert registry.next_crl_number("other", 5.0) == (1, 5)


def test_a_twin_begins_empty_and_takes_one_version_after_the_other(registry: Registry) -> None:
    assert (registry.twin("pump-1").version, registry.twin("pump-1").desired) == (0, {})

    registry.save_desired("pump-1", 1, '{"a":1}', "sha256:01", AT)
    with pytest.raises(Conflict, match="at version 1: 1 cannot follow"):
        registry.save_desired("pump-1", 1, "{}", "", AT)
    with pytest.raises(Conflict):
        registry.save_desired("pump-1", 3, "{}", "", AT)
    assert registry.remember_reported(PATH, 1, '{"a":2}', 7.5)

    twin = registry.twin("pump-1")
    assert (twin.version, twin.desired, twin.digest, twin.updated_at) == (1, {"a": 1}, "sha256:01", AT)
    assert (twin.reported_version, twin.reported, twin.received_at) == (1, {"a": 2}, 7.5)
    (record,) = registry.records()
    assert (record.desired_version, record.reported_version, record.reported) == (1, 1, {"a": 2})


def test_the_outbox_holds_one_message_for_each_topic(registry: Registry) -> None:
    first = registry.enqueue("a", b"1", AT)
    registry.enqueue("b", b"", AT)
    second = registry.enqueue("a", b"2", AT)
    registry.sent(first)

    assert [(row.topic, row.payload) for row in registry.outbox()] == [("b", b""), ("a", b"2")]
    assert [row.topic for row in registry.outbox(limit=1)] == ["b"]
    registry.sent(second)
    assert [row.topic for row in registry.outbox()] == ["b"]


def test_order_numbers_only_rise(registry: Registry) -> None:
    registry.raise_order("pump-1", 5)
    registry.raise_order("pump-1", 3)
    registry.raise_order("unknown-to-the-registry", 1)

    assert registry.orders(["pump-1", "other", "unknown-to-the-registry"]) == {
        "pump-1": 5,
        "other": 0,
        "unknown-to-the-registry": 1,
    }


def test_rollouts_are_kept_as_their_controller_left_them(registry: Registry) -> None:
    registry.save_rollout("r-1", "pump@2.0.0", "running", "sha256:aa", '{"succeeded":1}')
    registry.save_rollout("r-1", "pump@2.0.0", "completed", "sha256:aa", '{"succeeded":2}')

    assert registry.rollout("r-1").state == "completed"
    assert [row.record for row in registry.rollouts()] == [{"succeeded": 2}]
    with pytest.raises(NotFound, match="no rollout named `r-2`"):
        registry.rollout("r-2")


def test_only_a_greater_attempt_and_step_replaces_what_a_device_said(registry: Registry) -> None:
    def said(attempt: int, step: int, phase: str = "testing") -> bool:
        document = {"rolloutId": "r-1", "attempt": attempt, "step": step, "phase": phase}
        return registry.remember_update_status(PATH, json.dumps(document), 1.0)

    assert said(1, 7)
    assert not said(1, 7, "failed")
    assert not said(1, 6)
    assert said(2, 1, "accepted")
    assert not said(1, 9)
    (row,) = registry.update_statuses("r-1")
    assert (row.device_id, row.attempt, row.step, row.document["phase"]) == ("pump-1", 2, 1, "accepted")


def test_two_processes_that_write_at_once_lose_nothing(registry: Registry, place: Path | str) -> None:
    code = """
import sys; from pathlib import Path; from fleetctl.registry import Registry; from fleetctl.errors import Conflict
place = sys.argv[1]
with Registry.open(place if "://" in place else Path(place)) as registry:
    for _ in range(40):
        with registry.transaction():
            registry.save_desired("pump-1", registry.twin("pump-1").version + 1, "{}", "", "")
"""
    processes = [subprocess.Popen([sys.executable, "-c", code, str(place)]) for _ in range(2)]

    assert [process.wait(60) for process in processes] == [0, 0]
    assert registry.twin("pump-1").version == 80
