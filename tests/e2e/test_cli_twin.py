"""`fleetctl twin` from the command line: documents, history and schemas without a broker; converging devices with one."""

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.console import Console, Said
from tests.e2e.running import RunningFleet
from tests.e2e.terminal import MARK, Terminal


def queued(said: Said, version: int) -> None:
    """Decided, and left for a broker that is away."""
    assert said.status == 10, said.err
    assert json.loads(said.out) == [{"id": "pump-1", "version": version, "outcome": "queued"}]


def desired(console: Console) -> object:
    return console.run("twin", "get", "pump-1", "-o", "json").json["desired"]


def editor(folder: Path, *bodies: str) -> str:
    """A program that types these texts, one each time it is run."""
    for number, body in enumerate(bodies):
        (folder / f"text-{number}").write_text(body)
    script = folder / "editor"
    script.write_text(
        f'#!/bin/sh\nkill -INT $PPID\ncp "$1" "{folder}/seen"\nstat -c %a "$1" "$(dirname "$1")" >> "{folder}/modes"\n'
        f'n=$(cat "{folder}/count" 2>/dev/null || echo 0)\necho $((n + 1)) > "{folder}/count"\ncat "{folder}/text-$n" > "$1"\n'
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return str(script)


class TestDocuments:
    def test_a_day_with_one_twin(self, console: Console, tmp_path: Path) -> None:
        said = console.run("twin", "set", "pump-1", "revision=1.10", "n=60", "--string", "--reason", "as ordered", "-o", "json")
        queued(said, 1)
        assert desired(console) == {"revision": "1.10", "n": "60"}
        patch = tmp_path / "patch.json"
        patch.write_text('{"n":60,"network":{"apn":"iot","old":null}}')
        queued(console.run("twin", "patch", "pump-1", "-f", patch, "-o", "json"), 2)
        queued(console.run("twin", "unset", "pump-1", "revision", "network.apn", "-o", "json"), 3)
        assert desired(console) == {"n": 60, "network": {}}
        queued(console.run("twin", "replace", "pump-1", "-f", "-", "--if-version", 3, "-o", "json", stdin='{"a":[null]}'), 4)
        queued(console.run("twin", "revert", "pump-1", "--to", 2, "--if-version", 4, "-o", "json"), 5)
        assert desired(console) == {"revision": "1.10", "n": 60, "network": {"apn": "iot"}}

        history = console.run("twin", "history", "pump-1", "-o", "json").json
        assert [(each["version"], each["reason"]) for each in history] == [
            (1, "as ordered"),
            (2, None),
            (3, None),
            (4, None),
            (5, "back to version 2"),
        ]
        assert [list(each) for each in history] == [["id", "version", "desired", "digest", "at", "actor", "reason"]] * 5
        assert all(each["actor"] for each in history)
        assert "as ordered" in console.run("twin", "history", "pump-1").out

    @pytest.mark.parametrize(
        ("status", "subject", "words"),
        [
            (2, "firmwareVersion", ["set", "pump-1", "firmwareVersion=2.0.0"]),
            (2, "firmwareVersion", ["unset", "pump-1", "firmwareVersion"]),
            (2, "firmwareVersion", ["patch", "pump-1", "-f", "firmware.json"]),
            (2, "firmwareVersion", ["replace", "pump-1", "-f", "firmware.json"]),
            (2, "a", ["replace", "pump-1", "-f", "null.json"]),
            (1, "bad.json", ["patch", "pump-1", "-f", "bad.json"]),
            (1, "list.json", ["patch", "pump-1", "-f", "list.json"]),
            (3, "none.json", ["patch", "pump-1", "-f", "none.json"]),
            (1, "stdin", ["patch", "pump-1", "-f", "-"]),
            (2, "-", ["patch", "-", "-f", "-"]),
            (2, "pump-1", ["unset", "pump-1"]),
            (5, "pump-1", ["unset", "pump-1", "a", "--if-version", "7"]),
            (3, "pump-9", ["unset", "pump-9", "a"]),
            (3, "pump-1", ["revert", "pump-1", "--to", "7"]),
            (3, "pump-9", ["history", "pump-9"]),
            (6, "", ["wait", "pump-1", "--timeout", "0s"]),
            (2, "peace", ["wait", "pump-1", "--for", "peace"]),
            (3, "pump-9", ["wait", "pump-9"]),
            (3, "pump-9", ["watch", "pump-9"]),
            (3, "pump", ["schema", "pump"]),
            (3, "pump", ["schema", "pump", "--remove"]),
            (2, "-f", ["schema", "pump", "--remove", "-f", "list.json"]),
            (2, "", ["schema", "--remove"]),
            (2, "pump", ["schema", "pump", "-f", "remote.json"]),
            (2, "a/b", ["schema", "a/b", "-f", "firmware.json"]),
        ],
    )
    def test_what_is_wrong_is_said_and_changes_nothing(
        self, unchanged: Console, tmp_path: Path, status: int, subject: str, words: list[str]
    ) -> None:
        files = {
            "firmware.json": '{"firmwareVersion":"2.0.0"}',
            "null.json": '{"a":null}',
            "bad.json": '{"a":1,}',
            "list.json": "[1]",
            "remote.json": '{"$ref":"https://example.com/s.json"}',
        }
        for name, text in files.items():
            (tmp_path / name).write_text(text)
        placed = [str(tmp_path / word) if word.endswith(".json") else word for word in words]
        shown = str(tmp_path / subject) if subject.endswith(".json") else subject
        found = unchanged.refused(status, shown, "twin", *placed)
        if subject == "firmwareVersion":
            assert "ota start" in found["hint"]

    def test_a_dry_run_writes_nothing(self, unchanged: Console) -> None:
        for words in (["unset", "pump-1", "a"], ["edit", "pump-1"], ["revert", "pump-1", "--to", "1"]):
            assert [set(each) for each in unchanged.run("twin", *words, "--dry-run", "-o", "json").json] == [{"id", "action"}]


class TestEditor:
    def test_what_an_editor_makes_is_desired(self, console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        queued(console.run("twin", "set", "pump-1", "a=1", "-o", "json"), 1)
        monkeypatch.setenv("EDITOR", editor(tmp_path, '{"a": 1.0}', '{"b": "ø"}'))
        monkeypatch.delenv("VISUAL", raising=False)
        said = console.run("twin", "edit", "pump-1", "-o", "json")
        assert said.json == [{"id": "pump-1", "version": 1, "outcome": "unchanged"}]
        assert (tmp_path / "seen").read_text() == '{\n  "a": 1\n}\n'
        queued(console.run("twin", "edit", "pump-1", "--reason", "by hand", "-o", "json"), 2)

        assert desired(console) == {"b": "ø"}
        assert console.run("twin", "history", "pump-1", "-o", "json").json[-1]["reason"] == "by hand"
        assert set((tmp_path / "modes").read_text().split()) == {"600", "700"}

    def test_somebody_at_a_terminal_may_mend_it(self, console: Console, tmp_path: Path) -> None:
        environment = {**console.environ, "VISUAL": editor(tmp_path, '{"a": 1', '{"a": 2}'), "TMPDIR": str(tmp_path)}
        terminal = Terminal(tmp_path, environment)
        try:
            terminal.type(f"{sys.executable} -m fleetctl twin edit pump-1")
            assert terminal.until(re.compile("Edit it again").search), terminal.text
            os.write(terminal.outside, b"y\n")
            done = terminal.until(MARK.search)
            assert done, terminal.text
            assert done[1] == "10", terminal.text
        finally:
            terminal.close()
        assert desired(console) == {"a": 2}
        assert list(tmp_path.glob("fleetctl-*")) == []

    def test_what_cannot_be_used_is_kept(self, console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("VISUAL", editor(tmp_path, '{"a": 1', '{"firmwareVersion": "2"}'))
        drafts = tmp_path / "drafts"
        drafts.mkdir()
        monkeypatch.setenv("TMPDIR", str(drafts))
        found = console.refused(1, "the edited document", "twin", "edit", "pump-1")
        kept = next(drafts.rglob("pump-1.json"))
        assert kept.read_text() == '{"a": 1'
        assert found["hint"] == f"mend it and: fleetctl twin replace pump-1 -f {kept} --if-version 0"
        kept.write_text('{"a": 1}')
        queued(console.run("twin", "replace", "pump-1", "-f", kept, "--if-version", 0, "-o", "json"), 1)

        found = console.refused(2, "firmwareVersion", "twin", "edit", "pump-1")
        assert "--if-version 1" in found["hint"]

    def test_an_editor_that_fails_does_nothing_and_leaves_nothing(
        self, unchanged: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        for words, status in (("false", 1), ("no-such-editor --wait", 2), ("'", 2)):
            monkeypatch.setenv("VISUAL", words)
            unchanged.refused(status, words, "twin", "edit", "pump-1")
        assert list(tmp_path.iterdir()) == []

    def test_what_somebody_else_changed_meanwhile_is_not_lost(
        self, console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        script = editor(tmp_path, '{"mine": 1}')
        with Path(script).open("a") as file:
            file.write(f"{sys.executable} -m fleetctl twin set pump-1 theirs=1 >/dev/null 2>&1\nexit 0\n")
        monkeypatch.setenv("EDITOR", script)
        monkeypatch.delenv("VISUAL", raising=False)
        found = console.refused(5, "pump-1", "twin", "edit", "pump-1")

        assert desired(console) == {"theirs": 1}
        kept = Path(found["hint"].rpartition(" ")[2])
        assert json.loads(kept.read_text()) == {"mine": 1}
        kept.unlink()
        kept.parent.rmdir()


class TestSchemas:
    def test_a_schema_is_stored_used_shown_and_removed(self, console: Console, tmp_path: Path) -> None:
        file = tmp_path / "pump.json"
        schema = {"properties": {"interval": {"type": "integer"}}}
        file.write_text(json.dumps(schema))
        assert console.run("twin", "schema", "-o", "json").json == []
        stored = console.run("twin", "schema", "pump", "-f", file, "-o", "json").json
        assert stored == {"type": "pump", "schema": schema, "outcome": "stored"}
        refused = console.refused(2, "pump", "twin", "set", "pump-1", "interval=soon")
        assert refused["message"] == "the schema of type `pump` refuses `interval` of `pump-1`: 'soon' is not of type 'integer'"
        assert console.run("twin", "schema", refused["hint"].split()[-1], "-o", "json").json["schema"] == schema
        assert console.run("twin", "schema", "-o", "name").out == "pump\n"
        queued(console.run("twin", "set", "pump-1", "interval=5", "-o", "json"), 1)
        assert console.run("twin", "schema", "pump", "--remove", "-o", "json").json["outcome"] == "removed"
        queued(console.run("twin", "set", "pump-1", "interval=soon", "-o", "json"), 2)

    def test_reading_a_twin_never_loads_the_library_of_schemas(self, unchanged: Console) -> None:
        code = """
import sys
from fleetctl.cli.main import run
assert run(sys.argv[1:]) == 0
print([name for name in ("jsonschema", "referencing", "rpds") if name in sys.modules], file=sys.stderr)
"""
        for words in (["twin", "get", "pump-1"], ["twin", "diff", "pump-1"], ["twin", "history", "pump-1"], ["twin", "schema"]):
            program = [sys.executable, "-c", code, *words]
            done = subprocess.run(program, capture_output=True, text=True, check=True, env=unchanged.environ)
            assert done.stderr.splitlines()[-1] == "[]", words


class TestFollowing:
    def test_devices_converge_refuse_or_are_silent(self, running_fleet: RunningFleet) -> None:
        run = running_fleet.console.run
        with running_fleet.console.start("twin", "watch", "pump-1", "--count", "2", "-o", "jsonl") as watching:
            version = 0
            while watching.poll() is None:
                said = run("twin", "set", "pump-1", f"turn={version}", "-o", "json").json
                version = said[0]["version"]
                run("twin", "wait", "pump-1", "--timeout", "20s")
            assert watching.stdout is not None
            events = [json.loads(line) for line in watching.stdout]
        assert [set(each) for each in events] == [{"id", "half", "version", "document", "receivedAt"}] * 2
        assert {each["half"] for each in events} == {"desired", "reported"}

        converged = run("twin", "wait", "pump-1", "--for", "converged", "--timeout", "20s", "-o", "json").json
        assert converged == [
            {"id": "pump-1", "outcome": "converged", "version": version, "reportedVersion": version, "detail": None}
        ]
        run("twin", "set", "pump-9", "silent=true")
        late = run("twin", "wait", "pump-1", "pump-9", "--timeout", "0s", "-o", "json")
        assert (late.status, [each["outcome"] for each in json.loads(late.out)]) == (10, ["converged", "waiting"])
        run("twin", "set", "pump-2", "reportingInterval=never")
        refused = run("twin", "wait", "pump-1", "pump-2", "--timeout", "20s", "-o", "jsonl")
        assert (refused.status, {each["id"]: each["outcome"] for each in refused.lines}) == (
            8,
            {"pump-1": "converged", "pump-2": "refused"},
        )
        assert run("twin", "unset", "pump-2", "reportingInterval").status == 0
        assert run("twin", "wait", "pump-2", "--timeout", "20s").status == 0

    def test_what_is_retained_is_what_is_shown(self, running_fleet: RunningFleet) -> None:
        run = running_fleet.console.run
        run("twin", "set", "pump-9", "a.b=1", "c=text")
        shown = run("twin", "get", "pump-9", "-o", "json").json
        words = ["-t", running_fleet.topic("pump-9", "twin/desired"), "-C", "1", "-W", "10"]
        said = json.loads(running_fleet.mosquitto("mosquitto_sub", *words))

        assert said["desired"] == shown["desired"]
        assert (said["generation"], said["version"], said["digest"]) == (
            shown["generation"],
            shown["version"],
            shown["digest"],
        )
