"""The agent against a real broker and a real artifact server, over mutual TLS."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

from fleetctl.model import topic
from fleetctl.model.topic import Channel

HEALTHY = b"#!/bin/sh\nexit 0\n"
BROKEN = b"#!/bin/sh\necho pump does not answer >&2\nexit 1\n"
SUCCESS = [
    "accepted",
    "downloading",
    "downloaded",
    "verified",
    "installing",
    "installed",
    "rebooting",
    "testing",
    "succeeded",
]


def eventually(look: Callable[[], Any], timeout: float = 10.0) -> Any:
    deadline = monotonic() + timeout
    while not (found := look()):
        assert monotonic() < deadline, "it never came to pass"
        sleep(0.05)
    return found


def test_a_device_comes_online_and_says_goodbye(fleet: Any, start: Any) -> None:
    agent = start(fleet.bundle("there"))
    online = agent.wait("online")[0]
    status = fleet.retained("there", Channel.STATUS)
    assert status["status"] == "online"
    assert status["session"] == online["session"] == "1-1"
    assert status["heartbeat"] == 0.5
    agent.end()
    assert fleet.retained("there", Channel.STATUS)["status"] == "offline"
    assert agent.of("offline")[0]["reason"] == "stopped"


def test_an_update_goes_all_the_way(fleet: Any, start: Any) -> None:
    agent = start(fleet.bundle("good"))
    agent.wait("online")
    release = fleet.release("2.0.0", HEALTHY + os.urandom(300_000), counter=3)
    fleet.publish("good", Channel.OTA_DESIRED, fleet.assignment("good", release, 1))
    agent.wait("update", phase="succeeded")
    assert [phase for index, phase in enumerate(agent.phases()) if phase != agent.phases()[index - 1]] == SUCCESS
    report = eventually(lambda: (s := fleet.retained("good", Channel.OTA_STATUS))["phase"] == "succeeded" and s)
    assert (report["from"], report["to"], report["slot"], report["code"]) == ("1.0.0", "2.0.0", "B", None)
    assert report["acceptedBoot"] == 1
    presence = fleet.retained("good", Channel.STATUS)
    assert (presence["digest"], presence["firmwareVersion"], presence["session"]) == (release.digest, "2.0.0", "2-1")


def test_a_bad_image_falls_back_to_the_old_one(fleet: Any, start: Any) -> None:
    agent = start(fleet.bundle("bad"))
    before = agent.wait("boot")[0]["digest"]
    release = fleet.release("3.0.0", BROKEN)
    fleet.publish("bad", Channel.OTA_DESIRED, fleet.assignment("bad", release, 1))
    agent.wait("update", phase="rolled_back")
    eventually(lambda: agent.events[-1]["event"] in ("online", "assignment"))
    assert agent.phases()[-3:] == ["testing", "rolling_back", "rolled_back"]
    report = fleet.retained("bad", Channel.OTA_STATUS)
    assert (report["code"], report["detail"]) == ("HEALTH_FAILED", "the self-test ended with status 1: pump does not answer")
    presence = fleet.retained("bad", Channel.STATUS)
    assert (presence["digest"], presence["session"]) == (before, "3-1")


def test_what_was_kept_while_a_device_was_away_is_obeyed_in_its_last_form(fleet: Any, start: Any) -> None:
    place = fleet.bundle("away")
    release = fleet.release("2.0.0", HEALTHY)
    fleet.publish("away", Channel.OTA_DESIRED, fleet.assignment("away", release, 1))
    fleet.publish("away", Channel.OTA_DESIRED, fleet.assignment("away", release, 2, action="cancel"))
    agent = start(place)
    agent.wait("update", phase="canceled")
    assert agent.of("update", phase="accepted") == []
    assert fleet.retained("away", Channel.OTA_STATUS)["order"] == 2


def test_a_cancel_in_mid_download_leaves_the_old_image(fleet: Any, start: Any) -> None:
    agent = start(fleet.bundle("late"))
    release = fleet.release("2.0.0", HEALTHY + b"never stored", stored=False)
    fleet.publish("late", Channel.OTA_DESIRED, fleet.assignment("late", release, 1))
    agent.wait("update", phase="downloading")
    fleet.publish("late", Channel.OTA_DESIRED, fleet.assignment("late", release, 2, action="cancel"))
    agent.wait("update", phase="canceled")
    assert agent.phases() == ["accepted", "downloading", "canceled"]


def test_a_replayed_assignment_changes_nothing(fleet: Any, start: Any) -> None:
    agent = start(fleet.bundle("replay"))
    first, second = fleet.release("2.0.0", HEALTHY), fleet.release("3.0.0", HEALTHY + b"# 3\n")
    old = fleet.assignment("replay", first, 1)
    fleet.publish("replay", Channel.OTA_DESIRED, old)
    agent.wait("update", phase="succeeded")
    fleet.publish("replay", Channel.OTA_DESIRED, fleet.assignment("replay", second, 3))
    agent.wait("update", phase="succeeded", count=2)
    fleet.publish("replay", Channel.OTA_DESIRED, old)
    agent.wait("assignment", verdict="refused")
    assert len(agent.of("update", phase="accepted")) == 2
    assert fleet.retained("replay", Channel.OTA_STATUS)["to"] == "3.0.0"


@pytest.mark.parametrize(
    ("device", "changes", "version", "code"),
    [
        ("older", {}, "0.9.0", "DOWNGRADE"),
        ("late-term", {"not_after": 1_000_000}, "2.0.0", "EXPIRED"),
    ],
)
def test_what_must_not_be_installed_is_rejected(
    fleet: Any, start: Any, device: str, changes: dict[str, Any], version: str, code: str
) -> None:
    agent = start(fleet.bundle(device))
    release = fleet.release(version, HEALTHY)
    fleet.publish(device, Channel.OTA_DESIRED, fleet.assignment(device, release, 1, **changes))
    assert agent.wait("update", phase="rejected")[0]["code"] == code


def test_an_artifact_that_is_not_what_was_signed_is_not_installed(fleet: Any, start: Any) -> None:
    agent = start(fleet.bundle("tampered"))
    release = fleet.release("2.0.0", HEALTHY + b"#1", stored=False)
    (fleet.store / "sha256" / release.manifest.sha256.hex()).write_bytes(HEALTHY + b"#2")
    fleet.publish("tampered", Channel.OTA_DESIRED, fleet.assignment("tampered", release, 1))
    assert agent.wait("update", phase="failed")[0]["code"] == "INTEGRITY"


def test_garbage_on_every_topic_is_counted_and_never_fatal(fleet: Any, start: Any) -> None:
    agent = start(fleet.bundle("noisy"))
    agent.wait("online")
    path = fleet.path("noisy")
    names = [topic.of(path, c) for c in (Channel.TWIN_DESIRED, Channel.OTA_DESIRED, Channel.STATUS)]
    names += [topic.command(path, "ping"), topic.trust("acme")]
    garbage = [b"\xff\x00", b"{}", b"[" * 3000, b"\xd2\x84", b"x" * 130_000, b'{"status":"online"}']
    with fleet.session() as session:
        for name in names:
            for payload in garbage:
                session.publish(name, payload)
    release = fleet.release("2.0.0", HEALTHY)
    fleet.publish("noisy", Channel.OTA_DESIRED, fleet.assignment("noisy", release, 1))
    agent.wait("update", phase="installed")
    assert agent.of("dropped")
    agent.wait("update", phase="succeeded")
    assert agent.of("error") == []


def test_an_assignment_of_a_stranger_is_never_reported(fleet: Any, start: Any) -> None:
    agent = start(fleet.bundle("proud"))
    agent.wait("online")
    release = fleet.release("2.0.0", HEALTHY)
    stranger = fleet.assignment("neighbour", release, 1)
    fleet.publish("proud", Channel.OTA_DESIRED, stranger)
    assert "does not match" in agent.wait("dropped")[0]["reason"]
    assert fleet.retained("proud", Channel.OTA_STATUS) == {}


def test_a_twin_is_answered_with_what_was_refused(fleet: Any, start: Any) -> None:
    agent = start(fleet.bundle("twin"))
    agent.wait("online")
    desired = {"reportingInterval": "often", "mode": "eco"}
    document = {"generation": 1, "version": 4, "digest": f"sha256:{'0' * 64}", "desired": desired}
    fleet.publish("twin", Channel.TWIN_DESIRED, json.dumps({**document, "timestamp": "2026-01-01T00:00:00Z"}).encode())
    report = eventually(lambda: fleet.retained("twin", Channel.TWIN_REPORTED))
    assert report["version"] == 4
    assert report["reported"]["mode"] == "eco"
    assert list(report["reported"]["$errors"]) == ["reportingInterval"]


def test_a_ping_is_accepted_and_succeeds_and_a_reboot_begins_a_new_session(fleet: Any, start: Any) -> None:
    agent = start(fleet.bundle("obedient"))
    session = agent.wait("online")[0]["session"]
    path = fleet.path("obedient")
    with fleet.session() as operator:
        operator.subscribe([topic.command_reply(path, "+")])
        for name, number in (("ping", "1"), ("ping", "1"), ("fly", "2"), ("reboot", "3")):
            command = {"id": number, "session": session, "args": {}, "expires": None}
            operator.publish(topic.command(path, name), json.dumps(command).encode())
        replies: list[tuple[str, str]] = []
        for message in operator.messages(monotonic() + 10):
            reply = json.loads(message.payload)
            replies.append((reply["id"], reply["status"]))
            if replies[-1] == ("3", "succeeded"):
                break
    assert replies == [("1", "accepted"), ("1", "succeeded"), ("2", "rejected"), ("3", "accepted"), ("3", "succeeded")]
    assert agent.wait("online", count=2)[1]["session"] == "2-1"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if not mounted or mounted.returncode != 0:
        pytest.skip("no file system can be mounted here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_an_image_that_does_not_fit_the_disk_fails_and_the_agent_lives_on(fleet: Any, start: Any, small_disk: Path) -> None:
    place = fleet.bundle("small")
    (place / "state").symlink_to(small_disk)
    agent = start(place)
    large = fleet.release("2.0.0", HEALTHY + os.urandom(3 << 20))
    fleet.publish("small", Channel.OTA_DESIRED, fleet.assignment("small", large, 1))
    assert agent.wait("update", phase="failed")[0]["code"] == "NO_SPACE"
    assert agent.of("error") == []
    fits = fleet.release("2.0.1", HEALTHY + os.urandom(600_000))
    fleet.publish("small", Channel.OTA_DESIRED, fleet.assignment("small", fits, 3))
    agent.wait("update", phase="succeeded")


def test_a_killed_agent_leaves_its_will_and_goes_on_where_it_was(fleet: Any, process: Any, tmp_path: Any) -> None:
    place, log = fleet.bundle("killed"), tmp_path / "events"
    release = fleet.release("2.0.0", HEALTHY + os.urandom(3_000_000))
    fleet.publish("killed", Channel.OTA_DESIRED, fleet.assignment("killed", release, 1))

    def events() -> list[dict[str, Any]]:
        return [json.loads(line) for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def reached(*phases: str) -> bool:
        return any(event.get("phase") in phases for event in events())

    for phase in ("downloading", "installing", "rebooting", "testing"):
        agent = process(place, log, "sleep 0.2")
        eventually(partial(reached, phase), 20)
        agent.kill()
        agent.wait()
    eventually(lambda: fleet.retained("killed", Channel.STATUS)["status"] == "offline")
    process(place, log, "sleep 0.2")
    eventually(lambda: reached("succeeded", "rolled_back"), 20)
    assert len([e for e in events() if e.get("phase") == "accepted"]) == 1
    report = eventually(lambda: (s := fleet.retained("killed", Channel.OTA_STATUS))["phase"] == "succeeded" and s)
    assert report["to"] == "2.0.0"
