"""Devices and twins from the command line, without a broker: what is typed, what is printed, which status."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Fleetctl = Callable[..., Any]
ENTRY = {"id", "type", "location", "labels", "status", "firmware", "lastSeen", "drift", "state", "createdAt"}


@pytest.fixture
def fleet(fleetctl: Fleetctl, tmp_path: Path) -> Fleetctl:
    """A context with three devices; its broker is not running."""
    made = fleetctl("init", "prod", "--tenant", "acme", "--broker", "mqtts://localhost:1")
    assert made.status == 0, made.err
    table = tmp_path / "devices.csv"
    table.write_text("id,type,location,site\npump-1,pump,oslo,north\npump-2,pump,oslo,south\ncam-1,camera,lyon,\n")
    assert fleetctl("provision", "import", str(table)).status == 0
    return fleetctl


def test_a_device_is_added_once_and_differently_never(fleet: Fleetctl) -> None:
    words = ["provision", "add", "pump-9", "--type", "pump", "--location", "oslo", "-o", "json"]
    assert fleet(*words).json() == {"id": "pump-9", "path": "acme/oslo/pump/pump-9", "outcome": "added", "bundle": None}
    assert fleet(*words).json()["outcome"] == "unchanged"
    again = fleet(*[word.replace("oslo", "lyon") for word in words])
    assert (again.status, again.out, again.error()["code"]) == (5, "", "conflict")


@pytest.mark.parametrize("name", ["a/b", "+", "#", "a#", "_fleet", "", "x" * 65, "a b", "\x1b[2J"])
def test_a_name_that_no_topic_may_have_is_refused(fleet: Fleetctl, name: str) -> None:
    refused = fleet("provision", "add", "--type", "pump", "--location", "oslo", "-o", "json", "--", name)
    assert (refused.status, refused.out) == (2, "")
    assert "\x1b" not in refused.err
    assert len(fleet("provision", "list", "-o", "json").json()) == 3


def test_the_keys_of_a_device(fleet: Fleetctl) -> None:
    listed = fleet("provision", "list", "-o", "json").json()
    assert [each["id"] for each in listed] == ["cam-1", "pump-1", "pump-2"]
    assert set(listed[0]) == ENTRY
    assert listed[1]["labels"] == {"site": "north"}
    assert set(fleet("provision", "show", "pump-1", "-o", "json").json()) == ENTRY | {
        "path",
        "session",
        "digest",
        "heartbeat",
        "desiredVersion",
        "reportedVersion",
    }


def test_names_of_one_command_are_the_words_of_another(fleet: Fleetctl, tmp_path: Path) -> None:
    names = fleet("provision", "list", "-l", "type=pump", "-o", "name").out
    assert names == "pump-1\npump-2\n"
    assert len(fleet("provision", "list", "-", "-o", "json", stdin=names).json()) == 2
    for words in (["provision", "show", "-"], ["twin", "get", "-"]):
        assert fleet(*words, "-o", "name", stdin="pump-1\n").out == "pump-1\n"
        assert fleet(*words, stdin=names).status == 2
    made = fleet("certs", "issue", "-", "--bundle", str(tmp_path / "made"), "-o", "json", stdin="pump-1\n").json()
    assert fleet("certs", "show", "-", "-o", "name", stdin="pump-1\n").out == f"{made['serial']}\n"
    assert fleet("certs", "list", "-", "-o", "name", stdin=f"pump-1\npump-2\n{made['serial']}\n").out == f"{made['serial']}\n"
    assert fleet("provision", "list", "*-1", "-l", "site=north", "-o", "name").out == "pump-1\n"


def test_every_format_of_a_list(fleet: Fleetctl) -> None:
    assert (
        fleet("provision", "list", "--columns", "id,labels.site").out
        == "ID      LABELS.SITE\ncam-1   -\npump-1  north\npump-2  south\n"
    )
    lines = fleet("provision", "list", FLEETCTL_OUTPUT="jsonl").out.splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["cam-1", "pump-1", "pump-2"]
    assert fleet("provision", "list", "-o=yaml", "--columns", "id").out == "- id: cam-1\n- id: pump-1\n- id: pump-2\n"
    assert "CREATED AT" in fleet("provision", "list", "-o", "wide").out


@pytest.mark.parametrize(
    ("selector", "status"), [("", 2), ("type=", 2), ("type=pump)", 2), ("(type=pump", 2), ("type==", 2), ("type=nothing", 0)]
)
def test_a_selector_is_right_or_refused(fleet: Fleetctl, selector: str, status: int) -> None:
    listed = fleet("provision", "list", "-l", selector, "-o", "json")
    assert listed.status == status
    assert listed.out == ("[]\n" if status == 0 else "")
    assert fleet("provision", "remove", "-l", selector, "--yes").status == (status or 3)


def test_an_unknown_device_is_not_found(fleet: Fleetctl) -> None:
    for words in (
        ["provision", "show", "nope"],
        ["provision", "list", "nope"],
        ["twin", "get", "nope"],
        ["twin", "set", "nope", "a=1"],
    ):
        missing = fleet(*words, "-o", "json")
        assert (missing.status, missing.out, missing.error()["code"]) == (3, "", "notFound"), words
        assert missing.error()["hint"]


def test_a_write_to_many_needs_yes_and_can_be_looked_at_first(fleet: Fleetctl) -> None:
    asked = fleet("provision", "remove", "pump-*")
    assert (asked.status, asked.out) == (2, "")
    assert "--yes" in asked.err
    assert fleet("provision", "remove", "pump-*", "--dry-run", "-o", "json").json() == [
        {"id": "pump-1", "action": "remove"},
        {"id": "pump-2", "action": "remove"},
    ]
    assert fleet("provision", "remove", "pump-*", "--yes", "--max-devices", "1").status == 2
    assert len(fleet("provision", "list", "-o", "json").json()) == 3


def test_a_removed_device_keeps_its_record_and_its_name(fleet: Fleetctl) -> None:
    removed = fleet("provision", "remove", "pump-1", "-o", "json").json()
    assert [set(each) for each in removed] == [{"id", "outcome", "revoked", "cleared"}]
    assert (removed[0]["outcome"], removed[0]["cleared"]) == ("removed", False)
    assert "pump-1" not in fleet("provision", "list", "-o", "name").out
    assert "pump-1" in fleet("provision", "list", "--retired", "-o", "name").out
    assert fleet("provision", "show", "pump-1", "-o", "json").json()["state"] == "retired"
    assert fleet("provision", "add", "pump-1", "--type", "pump", "--location", "oslo").status == 5


def test_a_file_of_devices_reports_each_bad_line(fleet: Fleetctl, tmp_path: Path) -> None:
    table = tmp_path / "more.jsonl"
    table.write_text('{"id":"p-1","type":"pump","location":"oslo"}\n{"id":"a/b","type":"pump","location":"oslo"}\nnot json\n')
    ran = fleet("provision", "import", str(table), "-o", "json")
    report = json.loads(ran.out)
    assert ran.status == 8
    assert (report["added"], report["unchanged"], report["refused"]) == (1, 0, 2)
    assert [each["line"] for each in report["errors"]] == [2, 3]


def test_a_twin_is_set_while_the_broker_is_away(fleet: Fleetctl) -> None:
    queued = fleet("twin", "set", "pump-1", "reportingInterval=60", "network.apn=iot", "debug=null", "-o", "json")
    assert queued.status == 10
    assert json.loads(queued.out) == [{"id": "pump-1", "version": 1, "outcome": "queued"}]
    twin = fleet("twin", "get", "pump-1", "-o", "json").json()
    assert twin["desired"] == {"reportingInterval": 60, "network": {"apn": "iot"}}
    assert set(twin) == {
        "id",
        "version",
        "desired",
        "digest",
        "generation",
        "updatedAt",
        "reportedVersion",
        "reported",
        "receivedAt",
        "drift",
    }
    assert fleet("twin", "set", "pump-1", "a=1", "--if-version", "9").status == 5


def test_drift_is_a_finding(fleet: Fleetctl) -> None:
    assert fleet("twin", "diff", "pump-1", "-o", "json").json() == []
    fleet("twin", "set", "pump-1", "reportingInterval=60")
    found = fleet("twin", "diff", "pump-*", "-o", "json")
    assert found.status == 11
    assert json.loads(found.out) == [{"id": "pump-1", "path": "reportingInterval", "desired": 60, "reported": None}]


@pytest.mark.parametrize("words", [["nothing"], ["pump-1"], ["pump-1", "=1"], ["pump-1", "a=1", "a.b=2"], ["pump-1", "$x=1"]])
def test_words_that_set_nothing_are_refused(fleet: Fleetctl, words: list[str]) -> None:
    assert fleet("twin", "set", *words).status == 2
    assert fleet("twin", "get", "pump-1", "-o", "json").json()["version"] == 0


def test_without_a_broker_nothing_pretends(fleet: Fleetctl) -> None:
    for words in (["publish", "pump-1", "commands/ping"], ["tail", "--duration", "1s"], ["provision", "list", "--refresh"]):
        away = fleet(*words, "-o", "jsonl")
        assert (away.status, away.out, away.error()["code"]) == (6, "", "unavailable"), words


def test_contexts_are_listed_shown_and_chosen(fleet: Fleetctl) -> None:
    assert fleet("init", "lab", "--tenant", "acme").status == 0
    listed = fleet("context", "list", "-o", "json").json()
    assert [each["name"] for each in listed] == ["lab", "prod"]
    assert set(listed[0]) == {"name", "current", "tenant", "broker", "deviceBroker", "artifacts", "certificates", "folder"}
    assert fleet("context", "use", "lab", "-o", "json").json()["current"] is True
    assert fleet("provision", "list", "-o", "json").json() == []
    assert len(fleet("provision", "list", "--context", "prod", "-o", "json").json()) == 3
    assert len(fleet("--context", "prod", "provision", "list", "-o", "json").json()) == 3
    assert len(fleet("provision", "list", "-o", "json", FLEETCTL_CONTEXT="prod").json()) == 3
    assert fleet("context", "use", "nowhere").status == 3


def test_a_registry_that_is_broken_or_newer_is_said_to_be(fleet: Fleetctl) -> None:
    folder = Path(fleet("context", "show", "-o", "json").json()["folder"])
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(folder / "registry.db")) as registry:
        registry.execute("PRAGMA user_version = 999")
    newer = fleet("provision", "list", "-o", "json")
    assert (newer.status, newer.out) == (1, "")
    assert newer.error()["hint"]
    for name in ("registry.db-wal", "registry.db-shm"):
        (folder / name).unlink(missing_ok=True)
    (folder / "registry.db").write_bytes(b"not a database, certainly" * 400)
    broken = fleet("provision", "list", "-o", "json")
    assert (broken.status, broken.out) == (1, "")
    assert broken.error()["hint"]
