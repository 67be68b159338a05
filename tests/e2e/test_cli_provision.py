"""Devices and twins from the command line, without a broker: what is typed, what is printed, which status."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Fleetctl = Callable[..., Any]
ENTRY = {
    "certificateEnds",
    *("id", "type", "location", "labels", "status", "firmware", "lastSeen", "drift", "state", "createdAt"),
    *("serial", "batch"),
}
BATCH = {
    *("name", "state", "profile", "type", "location", "serials", "used", "quota", "notBefore", "notAfter", "refusal", "labels"),
    *("createdAt", "closedAt"),
}
PROFILE = {
    *("name", "type", "location", "heartbeat", "reportingInterval", "approval", "days", "ids", "twin", "labels", "outcome"),
}


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
        "profile",
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
    assert [set(each) for each in removed] == [{"id", "outcome", "revoked", "cleared", "sessionsCut", "detail"}]
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


@pytest.fixture
def factory(fleet: Fleetctl) -> Fleetctl:
    """The same with a profile and a batch of twelve serials."""
    words = ["--type", "pump", "--location", "oslo", "--heartbeat", "30s", "--days", "90", "--ids", "SN[0-9]{4}"]
    assert fleet("provision", "profile", "set", "line-1", *words, "--twin", "network.apn=iot", "--label", "line=one").status == 0
    assert fleet("provision", "batch", "create", "w48", "--profile", "line-1", "--quota", "10", "--for", "30d").status == 0
    assert fleet("provision", "batch", "import", "w48", "--serials", "SN0001..SN0012").status == 0
    return fleet


def test_a_profile_is_set_shown_and_listed(factory: Fleetctl, tmp_path: Path) -> None:
    shown = factory("provision", "profile", "show", "line-1", "-o", "json").json()
    assert set(shown) == PROFILE
    assert (shown["heartbeat"], shown["days"], shown["twin"], shown["approval"]) == (30, 90, {"network": {"apn": "iot"}}, "auto")
    (tmp_path / "p.yaml").write_text("type: pump\nlocation: lyon\nheartbeat: 10\ntwin: {a: 1}\n")
    words = ["provision", "profile", "set", "line-2", "-f", str(tmp_path / "p.yaml"), "--location", "oslo", "-o", "json"]
    made = factory(*words).json()
    assert (made["outcome"], made["location"], made["heartbeat"]) == ("stored", "oslo", 10)
    assert factory(*words).json()["outcome"] == "unchanged"
    assert factory("provision", "profile", "list", "-o", "name").out == "line-1\nline-2\n"
    assert factory("provision", "profile", "show", "nope").status == 3


def test_a_profile_that_says_nonsense_is_refused(fleet: Fleetctl, tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    for words in (["--ids", "(a+)+"], ["--approval", "later"], ["--heartbeat", "1ms"], ["--twin", "a"]):
        refused = fleet("provision", "profile", "set", "line-1", *words, "-o", "json")
        assert (refused.status, refused.out, refused.error()["code"]) == (2, "", "usage"), words
    for text in ("[", "- a", "ids: (a+)+", "&a [*a]"):
        file.write_text(text)
        refused = fleet("provision", "profile", "set", "line-1", "-f", str(file), "-o", "json")
        assert (refused.status, refused.out) in ((1, ""), (2, "")), text
        assert "Traceback" not in refused.err
    assert fleet("provision", "profile", "list", "-o", "json").json() == []


def test_a_batch_from_its_beginning_to_its_end(factory: Fleetctl, tmp_path: Path) -> None:
    (batch,) = factory("provision", "batch", "list", "-o", "json").json()
    assert set(batch) == BATCH
    assert (batch["serials"], batch["used"], batch["refusal"]) == (12, 0, None)
    again = ["provision", "batch", "create", "w48", "--profile", "line-1", "--quota", "10", "--for", "30d", "-o", "json"]
    assert factory(*again).json() == batch
    assert factory(*[word.replace("10", "11") for word in again]).status == 5
    assert factory("provision", "batch", "create", "x", "--profile", "nope").status == 3
    assert factory("provision", "batch", "create", "x", "--for", "1d", "--until", "2030-01-01T00:00:00Z").status == 2
    assert factory("provision", "batch", "create", "x", "--from", "tomorrow").status == 2

    table = tmp_path / "serials.csv"
    table.write_text("serial,id,label.floor\nSN0001,,\nSN0013,,2\nXX1,,\nSN0014,pump-1,\n,,\nSN0002,,3\n")
    ran = factory("provision", "batch", "import", "w48", str(table), "--errors", str(tmp_path / "bad.jsonl"), "-o", "json")
    report = json.loads(ran.out)
    assert (ran.status, report["added"], report["unchanged"], report["refused"]) == (8, 1, 1, 3)
    assert [each["line"] for each in report["errors"]] == [4, 5, 7]
    assert len((tmp_path / "bad.jsonl").read_text().splitlines()) == 3
    assert factory("provision", "list", "SN0013", "-o", "json").json()[0]["labels"] == {"line": "one", "floor": "2"}

    shown = factory("provision", "batch", "report", "w48", "-o", "json").json()
    assert set(shown) == BATCH | {"states", "first", "last", "refused"}
    assert shown["states"] == {"manufactured": 13}
    closed = factory("provision", "batch", "close", "w48", "-o", "json").json()
    assert (closed["state"], closed["refusal"]) == ("closed", "batch_closed")
    assert factory("provision", "batch", "close", "w48", "-o", "json").json() == closed
    assert factory("provision", "batch", "import", "w48", "--serials", "SN0099").status == 5
    assert factory("provision", "batch", "report", "nope").status == 3


def test_devices_are_manufactured_into_a_folder(factory: Fleetctl, tmp_path: Path) -> None:
    (tmp_path / "words").write_text("correct horse battery\n")
    (tmp_path / "words").chmod(0o600)
    (tmp_path / "base.bin").write_bytes(b"firmware")
    words = ["provision", "manufacture", "w48", "--out", str(tmp_path / "out"), "--passphrase-ref", f"file:{tmp_path / 'words'}"]
    made = factory(*words, "--firmware", str(tmp_path / "base.bin"), "--size", "4", "-o", "json").json()
    assert set(made) == {"batch", "made", "left", "firmware", "folder", "archives"}
    assert (made["made"], made["left"], made["archives"]) == (10, 2, ["w48-0001", "w48-0002", "w48-0003"])
    full = factory(*words, "--digest", made["firmware"], "-o", "json")
    assert (full.status, full.out, full.error()["code"]) == (5, "", "conflict")
    shown = factory("provision", "batch", "report", "w48", "-o", "json").json()
    assert (shown["states"], shown["used"], shown["refusal"]) == ({"manufactured": 2, "claimed": 10}, 10, "quota")
    for bad in (["--digest", "sha256:1"], ["--firmware", str(tmp_path / "none")], []):
        assert factory(*words, *bad, "-o", "json").status in (2, 3), bad
    assert factory(*words[:5], "--digest", made["firmware"]).status == 2


def test_the_life_of_a_device(factory: Fleetctl) -> None:
    suspended = factory("provision", "suspend", "SN0001", "SN0002", "--yes", "--reason", "stolen?", "-o", "json").json()
    assert [set(each) for each in suspended] == [{"id", "outcome", "state", "certificates", "sessionsCut", "detail"}] * 2
    assert factory("provision", "suspend", "SN0003", "SN0004").status == 2
    assert factory("provision", "list", "--state", "suspended", "-o", "name").out == "SN0001\nSN0002\n"
    assert factory("provision", "list", "--state", "asleep").status == 2
    assert factory("provision", "resume", "SN0002", "-o", "json").json()[0]["state"] == "manufactured"

    replaced = factory("provision", "replace", "SN0003", "--serial", "SN9003", "--compromised", "-o", "json").json()
    assert set(replaced) == {"id", "outcome", "serial", "was", "state", "revoked", "cleared"}
    assert (replaced["was"], replaced["serial"]) == ("SN0003", "SN9003")
    assert factory("provision", "replace", "SN0004", "--serial", "SN9003").status == 5

    gone = factory("provision", "decommission", "SN0001", "--reason", "scrapped", "-o", "json").json()
    assert [set(each) for each in gone] == [{"id", "outcome", "revoked", "cleared", "sessionsCut", "detail"}]
    status = factory("provision", "status", "SN0001", "-o", "json").json()
    assert set(status) == {
        *("id", "path", "serial", "batch", "profile", "state", "status", "lastSeen", "idle", "certificates", "timeline"),
    }
    assert [set(step) for step in status["timeline"]] == [{"at", "event", "before", "after", "reason", "actor"}] * 3
    assert [step["after"] for step in status["timeline"]] == ["manufactured", "suspended", "retired"]
    assert [step["reason"] for step in status["timeline"]] == [None, "stolen?", "scrapped"]
    assert factory("provision", "resume", "SN0001").status == 3
    assert factory("provision", "decommission", "SN0002", "--reason", "a\nb").status == 2


def test_a_file_is_imported_as_a_whole_or_not(fleet: Fleetctl, tmp_path: Path) -> None:
    table = tmp_path / "more.csv"
    table.write_text("id,type,location\np-1,pump,oslo\na/b,pump,oslo\n")
    ran = fleet("provision", "import", str(table), "--atomic", "--errors", str(tmp_path / "bad.jsonl"), "-o", "json")
    assert (ran.status, json.loads(ran.out)["added"]) == (1, 0)
    assert [set(json.loads(line)) for line in (tmp_path / "bad.jsonl").read_text().splitlines()] == [{"line", "id", "error"}]
    table.write_text("id,type,location\np-1,pump,oslo\np-2,pump,oslo\n")
    done = fleet("provision", "import", str(table), "--atomic", "--bundles", str(tmp_path / "b"), "-o", "json").json()
    assert done["added"] == 2
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["p-1", "p-2"]
