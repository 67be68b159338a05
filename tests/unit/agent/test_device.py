"""One device on a bench: what it says, what it obeys, what it drops."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fleetctl.agent.settings import Settings
from fleetctl.errors import ConfigError
from fleetctl.keys.cose import Signer
from fleetctl.keys.store import generate_key
from fleetctl.model.device import DevicePath
from fleetctl.wire.desired import pack, unpack
from fleetctl.wire.document import PAYLOAD_LIMIT

IMAGE = b"image two"


def test_it_says_who_it_is_listens_to_its_topics_and_leaves_the_same_document_as_its_will(bench: Any) -> None:
    online, retained = bench.link.published[0][1:]
    assert retained
    assert (online["status"], online["session"], online["clock"], online["heartbeat"]) == ("online", "1-1", "set", 100.0)
    will = json.loads(bench.will.payload)
    assert {key for key in will if will[key] != online[key]} == {"status"}
    assert bench.link.filters == [
        "acme/_fleet/trust",
        "acme/hall/pump/p1/status",
        "acme/hall/pump/p1/twin/desired",
        "acme/hall/pump/p1/ota/desired",
        "acme/hall/pump/p1/commands/+",
    ]


def test_sessions_rise_with_connections_and_boots(bench: Any) -> None:
    bench.connect()
    assert bench.device.session == "1-2"
    bench.boot()
    assert bench.device.session == "2-1"


def test_heartbeats_and_telemetry_come_in_time_and_jittered(bench: Any) -> None:
    due = []
    for _ in range(200):
        due.append(bench.device.tick() - bench.now)
        bench.now += max(due[-1], 0.01)
    beats, messages = bench.link.on("status"), bench.link.on("telemetry")
    hours = (bench.now - 1_800_000_000.0) / 100
    assert hours <= len(beats) <= hours / 0.8 + 2
    assert len(messages) > len(beats)
    assert len({message["messageId"] for message in messages}) == len(messages)


def test_a_status_of_an_older_session_is_answered_with_our_own(bench: Any) -> None:
    ours = bench.link.on("status")[0]
    bench.hear_json("status", **{**ours, "status": "offline", "session": "0-9"})
    assert [status["status"] for status in bench.link.on("status")] == ["online", "online"]
    bench.hear_json("status", **ours)
    assert len(bench.link.on("status")) == 2


# -- updates


def test_an_update_is_reported_step_by_step_over_a_reboot(bench: Any, keys: Any) -> None:
    bench.assign(keys.desired(keys.manifest(IMAGE)))
    bench.work_off(IMAGE)
    assert bench.phases()[-2:] == ["installed", "rebooting"]
    assert bench.device.reboots
    steps = [status["step"] for status in bench.link.on("ota/status")]
    assert steps == sorted(set(steps))
    bench.boot()
    bench.work_off(IMAGE)
    assert bench.phases() == ["testing", "succeeded"]
    assert bench.link.on("status")[-1]["firmwareVersion"] == "2.0.0"
    assert bench.link.on("ota/status")[-1]["acceptedBoot"] == 1


def test_a_device_that_was_away_during_a_halt_does_not_set_its_boot_flag(bench: Any, keys: Any) -> None:
    manifest = keys.manifest(IMAGE)
    bench.assign(keys.desired(manifest))
    bench.connect()
    bench.work_off(IMAGE)
    assert bench.device.updater.phase == "installing"
    assert not bench.device.reboots
    bench.assign(keys.desired(manifest, 2, action="cancel", attempt=1))
    assert bench.phases()[-1] == "canceled"
    assert bench.link.on("ota/status")[-1]["order"] == 2
    bench.work_off(IMAGE)
    assert not bench.device.reboots


def test_a_device_that_sees_its_assignment_again_goes_on(bench: Any, keys: Any) -> None:
    payload = keys.desired(keys.manifest(IMAGE))
    bench.assign(payload)
    bench.connect()
    bench.work_off(IMAGE)
    bench.assign(payload)
    bench.work_off(IMAGE)
    assert bench.device.reboots
    assert bench.phases().count("accepted") == 1


def test_a_cancel_that_came_too_late_is_taken_after_the_end(bench: Any, keys: Any) -> None:
    manifest = keys.manifest(IMAGE)
    bench.assign(keys.desired(manifest))
    bench.work_off(IMAGE)
    bench.boot()
    bench.assign(keys.desired(manifest, 2, action="cancel", attempt=1))
    assert bench.told("assignment")[-1]["verdict"] == "postponed"
    bench.work_off(IMAGE)
    assert bench.phases()[-1] == "succeeded"
    assert bench.device.updater.record.order == 2


def test_a_failed_self_test_leads_back_to_the_old_image(bench: Any, keys: Any) -> None:
    bench.assign(keys.desired(keys.manifest(IMAGE)))
    bench.work_off(IMAGE)
    bench.boot()
    bench.work_off(IMAGE, healthy=False)
    assert bench.device.reboots
    bench.boot()
    last = bench.link.on("ota/status")[-1]
    assert (last["phase"], last["code"], last["detail"]) == ("rolled_back", "HEALTH_FAILED", "it hurts")
    assert bench.link.on("status")[-1]["firmwareVersion"] == "1.0.0"


def test_an_image_that_never_ends_its_test_is_given_up_after_three_starts(bench: Any, keys: Any) -> None:
    bench.assign(keys.desired(keys.manifest(IMAGE)))
    bench.work_off(IMAGE)
    for _ in range(4):
        bench.boot()
    last = bench.link.on("ota/status")[-1]
    assert (last["phase"], last["code"]) == ("rolled_back", "BOOT_FAILED")


def test_the_last_report_is_published_again_at_every_connection(bench: Any, keys: Any) -> None:
    bench.assign(keys.desired(keys.manifest(IMAGE)))
    before = bench.link.on("ota/status")[-1]
    bench.connect()
    again = bench.link.on("ota/status")
    assert [(status["phase"], status["step"]) for status in again] == [(before["phase"], before["step"])]


def test_a_manifest_signed_by_a_stranger_fails_with_the_key_named(bench: Any, keys: Any) -> None:
    bench.assign(keys.desired(keys.manifest(IMAGE, signer=Signer(generate_key()))))
    last = bench.link.on("ota/status")[-1]
    assert (last["phase"], last["code"], last["acceptedBoot"]) == ("failed", "UNTRUSTED_KEY", None)


def test_a_manifest_whose_signature_is_wrong_fails(bench: Any, keys: Any) -> None:
    manifest = keys.manifest(IMAGE)
    bench.assign(keys.desired(manifest[:-1] + bytes([manifest[-1] ^ 1])))
    assert bench.link.on("ota/status")[-1]["code"] == "SIGNATURE"


def test_an_image_for_another_device_type_is_rejected(bench: Any, keys: Any) -> None:
    bench.assign(keys.desired(keys.manifest(IMAGE, device_class="valve")))
    last = bench.link.on("ota/status")[-1]
    assert (last["phase"], last["code"]) == ("rejected", "INCOMPATIBLE")


def _stranger(keys: Any) -> bytes:
    other = type(keys)()
    return bytes(other.desired(keys.manifest(IMAGE)))


def _elsewhere(keys: Any) -> bytes:
    return bytes(keys.desired(keys.manifest(IMAGE), path=DevicePath("acme", "hall", "pump", "p2")))


def _other_half(keys: Any) -> bytes:
    first, _ = unpack(keys.desired(keys.manifest(IMAGE)))
    return pack(first, keys.manifest(b"another image"))


@pytest.mark.parametrize("attack", [_stranger, _elsewhere, _other_half])
def test_what_is_not_proved_is_counted_and_reported_nowhere(bench: Any, keys: Any, attack: Any) -> None:
    bench.assign(attack(keys))
    assert bench.link.on("ota/status") == []
    assert bench.device.dropped == 1
    bench.assign(keys.desired(keys.manifest(IMAGE)))
    assert bench.phases() == ["accepted"]


# -- trust


def test_a_newer_trust_document_counts_and_survives_a_reboot(bench: Any, keys: Any, trust_topic: str) -> None:
    other = type(keys)()
    other.release = keys.release
    payload = other.desired(keys.manifest(IMAGE))
    bench.assign(payload)
    bench.hear(trust_topic, keys.trust(2, rollout=other.rollout))
    assert bench.told("trust")[-1]["version"] == 2
    bench.assign(payload)
    assert bench.phases() == ["accepted"]
    bench.boot()
    bench.hear(trust_topic, keys.trust(1))
    assert bench.device.dropped == 1


def test_a_trust_document_of_another_root_is_dropped(bench: Any, keys: Any, trust_topic: str) -> None:
    bench.hear(trust_topic, keys.trust(9, root=Signer(generate_key())))
    assert bench.device.dropped == 1
    assert bench.told("trust") == []


def test_an_assignment_that_came_before_its_key_is_taken_when_the_key_comes(bench: Any, keys: Any, trust_topic: str) -> None:
    other = type(keys)()
    other.release = keys.release
    bench.assign(other.desired(keys.manifest(IMAGE)))
    bench.hear(trust_topic, keys.trust(2, rollout=other.rollout))
    assert bench.phases() == ["accepted"]


# -- garbage


@pytest.mark.parametrize("name", ["status", "twin/desired", "ota/desired", "commands/ping", "acme/_fleet/trust", "alerts"])
@pytest.mark.parametrize("payload", [b"\xff", b"[]", b"{}", b"null", b"\xd2\x84", b"9" * 5000, b"x" * (PAYLOAD_LIMIT + 1)])
def test_garbage_is_counted_and_changes_nothing(bench: Any, name: str, payload: bytes) -> None:
    before = (bench.device.updater.record, list(bench.link.published))
    bench.hear(name, payload)
    assert bench.device.dropped == 1
    assert (bench.device.updater.record, bench.link.published) == before
    assert bench.told("dropped")


def test_a_cleared_topic_means_nothing(bench: Any) -> None:
    bench.hear("ota/desired", b"")
    assert bench.device.dropped == 0


def test_a_flood_of_garbage_is_counted_and_told_once_a_second(bench: Any) -> None:
    for _ in range(50):
        bench.hear("ota/desired", b"\0")
    assert len(bench.told("dropped")) == 1
    bench.now += 2
    bench.device.tick()
    assert [event["count"] for event in bench.told("dropped")] == [1, 50]
    assert bench.device.dropped == 50
    for _ in range(10):
        bench.now += 60
        bench.device.tick()
    assert bench.link.on("telemetry")[-1]["metadata"]["dropped"] == 50


# -- commands


def test_a_command_for_this_session_is_carried_out_once(bench: Any) -> None:
    for _ in range(2):
        bench.hear_json("commands/ping", id="1", session="1-1", args={}, expires=None)
    replies = bench.link.on("commands/ping/reply")
    assert [reply["status"] for reply in replies] == ["accepted", "succeeded"]
    assert replies[1]["result"] == {"firmwareVersion": "1.0.0", "session": "1-1"}


def test_a_command_for_another_session_is_ignored(bench: Any) -> None:
    bench.hear_json("commands/reboot", id="1", session="1-0", args={}, expires=None)
    assert not bench.device.reboots
    assert bench.link.on("commands/reboot/reply") == []


def test_an_expired_and_an_unknown_command_are_rejected(bench: Any) -> None:
    bench.hear_json("commands/ping", id="1", session="1-1", args={}, expires="2026-01-01T00:00:00Z")
    bench.hear_json("commands/fly", id="2", session="1-1", args={}, expires=None)
    assert [bench.link.on(f"commands/{name}/reply")[0]["status"] for name in ("ping", "fly")] == ["rejected", "rejected"]


def test_a_reboot_is_accepted_before_it_happens_and_succeeds_after(bench: Any) -> None:
    bench.hear_json("commands/reboot", id="1", session="1-1", args={}, expires=None)
    assert bench.device.reboots
    assert [reply["status"] for reply in bench.link.on("commands/reboot/reply")] == ["accepted"]
    bench.boot()
    assert [reply["status"] for reply in bench.link.on("commands/reboot/reply")] == ["succeeded"]
    bench.boot()
    assert bench.link.on("commands/reboot/reply") == []


# -- twin


def desired(version: int, generation: int = 1, **wanted: Any) -> dict[str, Any]:
    head = {"generation": generation, "version": version, "digest": f"sha256:{'0' * 64}"}
    return {**head, "desired": wanted, "timestamp": "2026-01-01T00:00:00Z"}


def test_the_twin_is_answered_in_full_and_again_after_a_reboot(bench: Any) -> None:
    bench.hear_json("twin/desired", **desired(3, mode="eco", reportingInterval=2))
    report = bench.link.on("twin/reported")[-1]
    assert (report["version"], report["reported"]) == (3, {"mode": "eco", "reportingInterval": 2, "firmwareVersion": "1.0.0"})
    bench.boot()
    assert bench.link.on("twin/reported")[-1]["reported"]["mode"] == "eco"


def test_what_a_twin_refuses_it_says_with_the_reason(bench: Any) -> None:
    bench.hear_json("twin/desired", **desired(1, reportingInterval=True, firmwareVersion="9.9.9", **{"$x": 1}))
    reported = bench.link.on("twin/reported")[-1]["reported"]
    assert set(reported["$errors"]) == {"reportingInterval", "firmwareVersion", "$x"}
    assert reported["firmwareVersion"] == "1.0.0"


def test_an_older_version_of_the_twin_is_not_applied_but_one_of_a_new_registry_is(bench: Any) -> None:
    bench.hear_json("twin/desired", **desired(5, mode="eco"))
    bench.hear_json("twin/desired", **desired(4, mode="loud"))
    assert bench.link.on("twin/reported")[-1]["reported"]["mode"] == "eco"
    bench.hear_json("twin/desired", **desired(1, generation=2, mode="loud"))
    assert bench.link.on("twin/reported")[-1]["reported"]["mode"] == "loud"


def test_the_reporting_interval_sets_the_pace_of_telemetry(bench: Any) -> None:
    bench.hear_json("twin/desired", **desired(1, reportingInterval=1))
    for _ in range(20):
        bench.now += 1.2
        bench.device.tick()
    assert len(bench.link.on("telemetry")) == 20


# -- clock and storage


def test_a_device_without_a_clock_says_so_and_refuses_what_names_times(bench: Any, keys: Any) -> None:
    bench.settings = replace(bench.settings, clock=False)
    bench.boot()
    status = bench.link.on("status")[-1]
    assert (status["clock"], status["timestamp"]) == ("none", None)
    bench.assign(keys.desired(keys.manifest(IMAGE), not_after=2_000_000_000))
    assert bench.link.on("ota/status")[-1]["code"] == "NO_CLOCK"


def test_a_damaged_record_is_named_with_a_way_out(bench: Any) -> None:
    (bench.folder / "state.json").write_text("{}")
    with pytest.raises(ConfigError, match="is damaged") as caught:
        bench.boot()
    assert "begin again" in caught.value.hint


def test_the_factory_image_is_the_owners(tmp_path: Path) -> None:
    (tmp_path / "factory.bin").write_bytes(b"made in oslo")
    assert Settings(factory=tmp_path / "factory.bin").factory_image("pump") == b"made in oslo"


def test_what_matters_of_an_update_is_told_first(bench: Any, keys: Any) -> None:
    bench.assign(keys.desired(keys.manifest(b"new image")))
    assert list(bench.told("update")[0])[:5] == ["event", "deviceId", "time", "phase", "code"]


def test_a_fault_that_a_message_brings_to_light_drops_the_message_and_is_told_once(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(_payload: bytes) -> None:
        raise KeyError("surprise")

    monkeypatch.setattr(bench.device, "_on_twin", fault)
    for _ in range(3):
        bench.hear("twin/desired", b"{}")
    assert bench.device.dropped == 3
    (error,) = bench.told("error")
    assert error["reason"] == "a message on `acme/hall/pump/p1/twin/desired` met a fault of the agent: KeyError: 'surprise'"
