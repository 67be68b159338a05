"""Rollouts with real parts: a broker process, devices as MQTT sessions, an artifact server, signatures throughout."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fleetctl import config
from fleetctl.demo import firmware
from fleetctl.demo.processes import Child
from fleetctl.errors import Conflict, FleetError, Halted, Partial, Pending, Unavailable, Untrusted
from fleetctl.platforms.local.fleet import LocalFleet
from fleetctl.platforms.local.init import adopt_context
from fleetctl.platforms.protocol import Targets
from fleetctl.platforms.updates import RolloutEntry, RolloutRef
from tests.integration.ota.stand import HEARTBEAT, QUICK, Acceptances, Stand


def drive(fleet: LocalFleet, ref: RolloutRef, timeout: float = 60.0) -> tuple[list[dict[str, Any]], RolloutEntry]:
    events: list[dict[str, Any]] = []
    entry = None
    try:
        for record in fleet.updates.start(ref, wait=True, timeout=timeout):
            if isinstance(record, RolloutEntry):
                entry = record
            else:
                events.append(dict(record))
    except (Halted, Partial, Pending):
        pass
    assert entry is not None
    return events, entry


@pytest.mark.parametrize("engine", ["mosquitto", "builtin"])
def test_a_good_release_reaches_every_device_in_waves(new_stand: Callable[[str], Stand], engine: str) -> None:
    stand = new_stand(engine)
    stand.start_agents(stand.add(4))
    plan = stand.plan(stand.release("2.0.0"))
    assert list(plan.waves) == [1, 2, 1]
    events, entry = drive(stand.fleet, RolloutRef(plan.id))
    assert (entry.state, entry.succeeded, entry.failed, entry.untouched) == ("completed", 4, 0, 0)
    assert [event["size"] for event in events if event["event"] == "wave"] == [1, 2, 1]
    again, entry = drive(stand.fleet, RolloutRef(plan.id))
    assert entry.state == "completed"
    assert [event for event in again if event["event"] == "offered"] == []


def test_a_bad_release_halts_at_the_second_failure_and_devices_fall_back(stand: Stand) -> None:
    stand.start_agents(stand.add(5))
    plan = stand.plan(stand.release("3.0.0", firmware.BROKEN))
    with pytest.raises(Halted, match="2 of 2 devices failed"):
        list(stand.fleet.updates.start(RolloutRef(plan.id), wait=True, timeout=60.0))
    entry = stand.fleet.updates.status(RolloutRef(plan.id))
    assert (entry.state, entry.failed, entry.untouched) == ("halted", 2, 3)
    stand.fleet.devices.refresh(stand.fleet.devices.resolve(Targets(selector="type=pump")))
    assert {device.firmware for device in stand.fleet.devices.list(Targets())} == {"1.0.0"}


def test_start_without_waiting_delivers_the_first_wave_and_status_says_that_nobody_drives(stand: Stand) -> None:
    stand.start_agents(stand.add(3))
    serving = stand.run("serve", "ota", "serve", "--context", "test")
    serving.wait_for("serving", 10.0)
    plan = stand.plan(stand.release("2.0.0"))
    records = list(stand.fleet.updates.start(RolloutRef(plan.id)))
    assert [record["event"] for record in records if isinstance(record, dict)].count("offered") == 1
    status = stand.fleet.updates.status(RolloutRef(plan.id))
    assert (status.state, status.attended) == ("running", False)
    assert status.unattended_since is not None


def test_nothing_is_dispatched_while_no_device_could_fetch_the_image(stand: Stand) -> None:
    names = stand.add(1)
    plan = stand.plan(stand.release("2.0.0"))
    with pytest.raises(FleetError, match="does not answer"):
        list(stand.fleet.updates.start(RolloutRef(plan.id)))
    topic = f"acme/at-{names[0]}/pump/{names[0]}/ota/desired"
    assert topic not in stand.session().read_retained([topic])


@pytest.mark.parametrize("moment", ["offered", "device", "wave"])
def test_a_driver_killed_in_mid_rollout_is_resumed_and_nobody_accepts_twice(stand: Stand, moment: str) -> None:
    names = stand.add(6)
    stand.start_agents(names)
    acceptances = Acceptances(stand.session(), names)
    plan = stand.plan(stand.release("2.0.0"))
    _kill_at(stand, plan.id, moment, count=3)
    _, entry = drive(stand.fleet, RolloutRef(plan.id))
    assert (entry.state, entry.succeeded) == ("completed", 6)
    assert set(acceptances.count().values()) == {1}


def _kill_at(stand: Stand, rollout: str, moment: str, count: int) -> None:
    """Run the driver as a process of its own and `kill -9` it at the given event."""
    words = [
        sys.executable,
        "-m",
        "fleetctl",
        "ota",
        "start",
        "-f",
        str(_plan_file(stand, rollout)),
        "--wait",
        "--yes",
        "-o",
        "jsonl",
    ]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, env={**os.environ, **stand.environ, "FLEETCTL_CONTEXT": "test"}, text=True
    ) as driver:
        assert driver.stdout is not None
        for line in driver.stdout:
            count -= json.loads(line).get("event") == moment
            if not count:
                driver.send_signal(signal.SIGKILL)
        driver.wait()
    assert driver.returncode == -signal.SIGKILL


def _plan_file(stand: Stand, rollout: str) -> Path:
    digest = stand.fleet.updates.status(RolloutRef(rollout)).plan.removeprefix("sha256:")
    return stand.fleet.context.releases_folder / "sha256" / digest


def test_another_machine_finishes_from_the_plan_and_the_rollout_key_alone(stand: Stand, tmp_path: Path) -> None:
    names = stand.add(5)
    stand.start_agents(names)
    acceptances = Acceptances(stand.session(), names)
    serving = stand.run("serve", "ota", "serve", "--context", "test")
    serving.wait_for("serving", 10.0)
    file = tmp_path / "plan.json"
    plan = stand.plan(stand.release("2.0.0"), file=file)
    list(stand.fleet.updates.start(RolloutRef(plan.id)))
    environ = {"FLEETCTL_HOME": str(tmp_path / "elsewhere")}
    own = stand.fleet.context
    assert own.ca is not None
    assert own.cert is not None
    assert own.key is not None
    adopt_context("ci", "acme", own.broker, own.ca, cert=own.cert, key=own.key, artifacts=own.artifacts, environ=environ)
    with LocalFleet(config.load_context("ci", environ)) as elsewhere:
        key = f"file:{own.keys_folder / 'rollout.key'}"
        _, entry = drive(elsewhere, RolloutRef(plan=file, key=key))
    assert (entry.state, entry.succeeded) == ("completed", 5)
    assert set(acceptances.count().values()) == {1}


def test_a_second_controller_cuts_the_first_off(stand: Stand) -> None:
    stand.add(2)
    plan = stand.plan(stand.release("2.0.0"))
    first = stand.fleet.updates.start(RolloutRef(plan.id), wait=True, timeout=30.0)
    assert any(isinstance(record, dict) and record["event"] == "offered" for record in iter(lambda: next(first), None))
    assert [record for record in stand.open().updates.step(RolloutRef(plan.id)) if isinstance(record, RolloutEntry)]
    with pytest.raises(Conflict, match=f"fleetctl-rollout-{plan.id}"):
        list(first)


def test_a_device_that_was_away_during_a_halt_does_not_install_the_halted_release(stand: Stand) -> None:
    names = stand.add(5)
    away = names[-1]
    stand.start_agents(names, "all").stop()
    stand.start_agents(names[:-1])
    everyone_at_once = replace(QUICK, small_fleet=1, first_wave=5)
    plan = stand.plan(stand.release("3.0.0", firmware.BROKEN), everyone_at_once)
    events, entry = drive(stand.fleet, RolloutRef(plan.id))
    assert entry.state == "halted"
    assert {event["deviceId"] for event in events if event["event"] == "offered"} == set(names)
    assert away in {event["deviceId"] for event in events if event["event"] == "withdrawn"}
    returned = stand.start_agents([away], "returned")
    assert set(phases_told(returned, 2.0)) <= {"canceled"}
    stand.fleet.devices.refresh(stand.fleet.devices.resolve(Targets(words=[away])))
    assert stand.fleet.devices.show(away).firmware == "1.0.0"


def phases_told(agents: Child, quiet: float) -> Iterator[str]:
    """The phases that devices report, until nothing comes for `quiet` seconds."""
    with suppress(Unavailable):
        while True:
            yield agents.wait_for("update", quiet)["phase"]


def test_an_aborted_rollout_takes_back_what_it_offered(stand: Stand) -> None:
    stand.add(2)
    serving = stand.run("serve", "ota", "serve", "--context", "test")
    serving.wait_for("serving", 10.0)
    plan = stand.plan(stand.release("2.0.0"))
    list(stand.fleet.updates.start(RolloutRef(plan.id)))
    records = list(stand.fleet.updates.abort(RolloutRef(plan.id)))
    assert [record["event"] for record in records if isinstance(record, dict)].count("withdrawn") == 1
    assert stand.fleet.updates.status(RolloutRef(plan.id)).state == "aborted"
    with pytest.raises(Halted, match="aborted"):
        list(stand.fleet.updates.start(RolloutRef(plan.id), wait=True, timeout=10.0))


def test_a_second_rollout_waits_for_the_first(stand: Stand) -> None:
    stand.add(2)
    serving = stand.run("serve", "ota", "serve", "--context", "test")
    serving.wait_for("serving", 10.0)
    plan = stand.plan(stand.release("2.0.0"))
    list(stand.fleet.updates.start(RolloutRef(plan.id)))
    with pytest.raises(Conflict, match=f"still has an assignment of rollout `{plan.id}`"):
        stand.plan(stand.release("2.1.0"))


def test_an_image_that_changed_after_publishing_is_not_rolled_out(stand: Stand) -> None:
    stand.add(1)
    release = stand.release("2.0.0")
    digest = stand.fleet.updates.show(release).digest.removeprefix("sha256:")
    path = stand.fleet.context.releases_folder / "sha256" / digest
    path.chmod(0o644)
    path.write_bytes(b"something else")
    with pytest.raises(Untrusted, match="changed after it was published"):
        stand.plan(release)


def test_a_plan_that_somebody_edited_is_refused(stand: Stand, tmp_path: Path) -> None:
    stand.add(2)
    file = tmp_path / "plan.json"
    stand.plan(stand.release("2.0.0"), file=file)
    document = json.loads(file.read_text())
    document["plan"]["waves"] = [2]
    file.write_text(json.dumps(document))
    with pytest.raises(FleetError, match="not the plan that was signed"):
        list(stand.fleet.updates.start(RolloutRef(plan=file)))


def test_steps_alone_bring_a_rollout_to_its_end(stand: Stand) -> None:
    stand.start_agents(stand.add(3))
    stand.run("serve", "ota", "serve", "--context", "test").wait_for("serving", 10.0)
    plan = stand.plan(stand.release("2.0.0"))
    deadline = time.monotonic() + 60
    while (entry := step(stand, plan.id)).state != "completed" and time.monotonic() < deadline:
        time.sleep(HEARTBEAT)
    assert (entry.state, entry.succeeded) == ("completed", 3)


def step(stand: Stand, rollout: str) -> RolloutEntry:
    *_, entry = stand.fleet.updates.step(RolloutRef(rollout))
    assert isinstance(entry, RolloutEntry)
    return entry


def test_whoever_watches_sees_the_rollout_and_does_not_drive_it(stand: Stand) -> None:
    stand.start_agents(stand.add(3))
    plan = stand.plan(stand.release("2.0.0"))
    environ = {**os.environ, **stand.environ, "FLEETCTL_CONTEXT": "test"}
    words = [sys.executable, "-m", "fleetctl", "ota", "watch", plan.id, "-o", "jsonl"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=environ, text=True) as watcher:
        _, entry = drive(stand.fleet, RolloutRef(plan.id))
        output, _ = watcher.communicate(timeout=30)
    assert watcher.returncode == 0
    *events, last = [json.loads(line) for line in output.splitlines()]
    assert (last["state"], last["succeeded"]) == ("completed", 3)
    assert entry.state == "completed"
    assert {event["deviceId"] for event in events if event.get("stage") == "succeeded"} == {"pump-1", "pump-2", "pump-3"}


def start(stand: Stand, *words: str) -> tuple[int, dict[str, Any], str]:
    """What `ota start --wait -o json` ends with: exit status, the last record, stderr."""
    command = [sys.executable, "-m", "fleetctl", "ota", "start", *words, "--wait", "--yes", "-o", "json"]
    command += ["--soak", "0s", "--heartbeats", "1", "--context", "test"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **stand.environ}, timeout=90, check=False)
    return done.returncode, json.loads(done.stdout), done.stderr


def test_the_exit_status_says_how_the_rollout_ended(stand: Stand) -> None:
    names = stand.add(3)
    agents = stand.start_agents(names)
    good, bad = stand.release("2.0.0"), stand.release("3.0.0", firmware.BROKEN)
    status, record, _ = start(stand, good, "-l", "type=pump")
    assert (status, record["state"], record["succeeded"]) == (0, "completed", 3)
    status, record, errors = start(stand, bad, "-l", "type=pump")
    assert (status, record["state"], record["failed"]) == (9, "halted", 2)
    assert json.loads(errors.splitlines()[-1])["error"]["code"] == "halted"
    agents.stop()
    later = stand.release("3.0.1")
    status, record, errors = start(stand, later, *names, "--timeout", "1s")
    assert (status, record["state"]) == (10, "running")
    assert f"fleetctl ota resume {record['id']}" in errors
    list(stand.fleet.updates.abort(RolloutRef(record["id"])))
    stand.start_agents(names[:2], "some")
    status, record, _ = start(stand, later, *names, "--accept-within", "1s", "--timeout", "60s")
    assert (status, record["state"], record["succeeded"], record["untouched"]) == (8, "completed", 2, 1)


@pytest.mark.parametrize("moment", ["offered", "wave"])
def test_an_interrupted_driver_leaves_word_of_how_far_it_was(stand: Stand, moment: str) -> None:
    stand.start_agents(stand.add(3))
    plan = stand.plan(stand.release("2.0.0"))
    words = [sys.executable, "-m", "fleetctl", "ota", "resume", plan.id, "-o", "jsonl"]
    environ = {**os.environ, **stand.environ, "FLEETCTL_CONTEXT": "test"}
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ, text=True) as driver:
        assert driver.stdout is not None
        for line in driver.stdout:
            if json.loads(line).get("event") == moment:
                driver.send_signal(signal.SIGINT)
                break
        _, errors = driver.communicate(timeout=30)
    assert driver.returncode == 130
    assert f"hint: fleetctl ota resume {plan.id}" in errors
    status = stand.fleet.updates.status(RolloutRef(plan.id))
    assert (status.state, status.attended) == ("running", False)
    assert status.unattended_since is not None


def test_whoever_looks_from_elsewhere_sees_a_running_rollout_move(stand: Stand) -> None:
    stand.start_agents(stand.add(3))
    plan = stand.plan(stand.release("2.0.0"), replace(QUICK, soak=4.0))
    driver = stand.fleet.updates.start(RolloutRef(plan.id), wait=True, timeout=60.0)
    seen = set()
    for record in driver:
        if isinstance(record, dict) and record["event"] == "device":
            status = stand.open().updates.status(RolloutRef(plan.id))
            seen.add((status.attended, status.exposed))
    assert (True, 1) in seen


def test_what_cannot_be_driven_from_here_does_not_cut_off_who_drives(stand: Stand, tmp_path: Path) -> None:
    stand.add(2)
    plan = stand.plan(stand.release("2.0.0"), file=tmp_path / "plan.json")
    first = stand.fleet.updates.start(RolloutRef(plan.id), wait=True, timeout=20.0)
    while next(first).get("event") != "offered":  # type: ignore[union-attr]
        pass
    own = stand.fleet.context
    environ = {"FLEETCTL_HOME": str(tmp_path / "elsewhere")}
    adopt_context("ci", "acme", own.broker, own.ca, cert=own.cert, key=own.key, environ=environ)
    with LocalFleet(config.load_context("ci", environ)) as elsewhere:
        key = f"file:{own.keys_folder / 'rollout.key'}"
        with pytest.raises(FleetError, match="no artifact base"):
            list(elsewhere.updates.start(RolloutRef(plan=tmp_path / "plan.json", key=key)))
        with pytest.raises(Untrusted, match="no rollout key") as refused:
            elsewhere.updates.status(RolloutRef(plan=tmp_path / "plan.json"))
        assert "--key" in refused.value.hint
        assert elsewhere.updates.status(RolloutRef(plan=tmp_path / "plan.json", key=key)).state == "running"
    next(first)
    first.close()  # type: ignore[attr-defined]


def test_a_rollout_that_is_over_needs_no_image_and_no_driver(stand: Stand) -> None:
    stand.start_agents(stand.add(2))
    plan = stand.plan(stand.release("2.0.0"))
    drive(stand.fleet, RolloutRef(plan.id))
    later = stand.plan(stand.release("2.1.0"))
    drive(stand.fleet, RolloutRef(later.id))
    for again in (stand.fleet.updates.step(RolloutRef(plan.id)), stand.fleet.updates.resume(RolloutRef(plan.id))):
        (entry,) = again
        assert isinstance(entry, RolloutEntry)
        assert (entry.state, entry.succeeded) == ("completed", 2)


def test_a_broker_that_forgets_or_replays_the_state_brings_no_stopped_rollout_back(stand: Stand) -> None:
    stand.add(3)
    stand.run("serve", "ota", "serve", "--context", "test").wait_for("serving", 10.0)
    plan = stand.plan(stand.release("2.0.0"))
    list(stand.fleet.updates.start(RolloutRef(plan.id)))
    place = f"acme/_fleet/rollouts/{plan.id}/state"
    session = stand.session()
    before = session.read_retained([place])[place].payload
    list(stand.fleet.updates.abort(RolloutRef(plan.id)))
    for told in (before, b""):
        session.publish(place, told, retain=True)
        session.flush()
        with pytest.raises(Halted, match="was aborted"):
            list(stand.fleet.updates.resume(RolloutRef(plan.id), timeout=10.0))


def test_a_machine_that_knows_nothing_refuses_a_rollout_whose_state_is_gone(stand: Stand, tmp_path: Path) -> None:
    stand.add(2)
    stand.run("serve", "ota", "serve", "--context", "test").wait_for("serving", 10.0)
    file = tmp_path / "plan.json"
    plan = stand.plan(stand.release("2.0.0"), file=file)
    list(stand.fleet.updates.start(RolloutRef(plan.id)))
    session = stand.session()
    session.publish(f"acme/_fleet/rollouts/{plan.id}/state", b"", retain=True)
    session.flush()
    own = stand.fleet.context
    environ = {"FLEETCTL_HOME": str(tmp_path / "elsewhere")}
    adopt_context("ci", "acme", own.broker, own.ca, cert=own.cert, key=own.key, environ=environ)
    with LocalFleet(config.load_context("ci", environ)) as elsewhere:
        ref = RolloutRef(plan=file, key=f"file:{own.keys_folder / 'rollout.key'}")
        with pytest.raises(Conflict, match="lost the state"):
            list(elsewhere.updates.resume(ref, timeout=10.0))
        list(elsewhere.updates.abort(ref))
        assert elsewhere.updates.status(ref).state == "aborted"
