"""Devices that do not exist, selectors that say nothing, names that no topic may have: one line, a hint, a status."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.console import Console

BAD_NAMES = ["a/b", "+", "a#", "_fleet"]
MORE_BAD_NAMES = ["", "x" * 65, "\x1b[2J", ".", "-x", "a b", "å", "a\nb", "nul\0", "\0", "a\0b", "#", "a+b"]


@pytest.mark.parametrize(
    "words",
    [
        ["provision", "show", "pump-9"],
        ["provision", "remove", "pump-1", "pump-9", "--yes"],
        ["provision", "list", "pump-9", "--refresh"],
        ["certs", "issue", "pump-9"],
        ["twin", "get", "pump-9"],
        ["twin", "set", "pump-1", "pump-9", "a=1", "--yes"],
        ["publish", "pump-1", "pump-9", "commands/ping", "--yes"],
        ["tail", "pump-9"],
        ["ota", "start", "pump@1.0.0", "pump-9"],
    ],
)
def test_an_unknown_device_is_named_and_nothing_is_done_to_the_others(unchanged: Console, words: list[str]) -> None:
    assert unchanged.refused(3, "pump-9", *words)["code"] == "notFound"


@pytest.mark.parametrize(
    "verb",
    [
        ["provision", "list"],
        ["provision", "remove", "--yes"],
        ["twin", "set", "a=1", "--yes"],
        ["twin", "diff"],
        ["publish", "commands/ping", "--yes"],
        ["tail", "--duration", "1s"],
        ["ota", "plan", "pump@1.0.0"],
        ["ota", "start", "pump@1.0.0", "--yes"],
    ],
    ids=lambda words: "-".join(words[:2]),
)
def test_a_selector_that_says_nothing_never_means_everything(unchanged: Console, verb: list[str]) -> None:
    assert unchanged.refused(2, "", *verb, "-l", "")["code"] == "usage"


@pytest.mark.parametrize(
    "selector",
    [
        "   ",
        "type=pump)",
        "idle>soon",
        "status=sleeping",
        "ty\x1b[2Jpe=pump",
        "(" * 5000,
        "not " * 5000 + "type=pump",
        "type=pump or " * 5000,
    ],
    ids=lambda text: repr(text[:20]),
)
def test_a_malformed_selector_is_a_usage_error(unchanged: Console, selector: str) -> None:
    error = unchanged.refused(2, "", "provision", "remove", "--yes", "-l", selector)
    assert len(error["message"]) < 400
    assert len(unchanged.run("provision", "list", "-o", "json").json) == 1


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_no_topic_may_have_becomes_no_device(unchanged: Console, name: str, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    told = ["--type", "pump", "--location", "oslo"]
    unchanged.refused(2, name, "provision", "add", *told, "--bundle", bundle, "--", name)
    assert not bundle.exists()


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_no_topic_may_have_gets_no_certificate(unchanged: Console, name: str, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    assert unchanged.refused(2, f"op:{name}", "certs", "issue", f"op:{name}", "--bundle", bundle)["code"] == "usage"
    unchanged.refused(2, name, "init", "other", f"--tenant={name}")
    assert not bundle.exists()


def test_names_in_a_file_are_refused_line_by_line_with_nul_among_them(unchanged: Console, tmp_path: Path) -> None:
    names = [*BAD_NAMES, *MORE_BAD_NAMES]
    rows: list[dict[str, Any]] = [{"id": name, "type": "pump", "location": "oslo"} for name in names]
    rows += [{"id": "p", "type": name, "location": "oslo"} for name in names]
    rows += [{"id": "p", "type": "pump", "location": name} for name in names]
    table = tmp_path / "devices.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = unchanged.run("provision", "import", table, "--bundles", tmp_path / "bundles", "-o", "json")
    assert said.error(1, str(table))["hint"]
    report = json.loads(said.out)
    assert (report["added"], report["refused"]) == (0, len(rows))
    assert [each["line"] for each in report["errors"]] == list(range(1, len(rows) + 1))
    assert not list(tmp_path.glob("bundles/*"))


def test_ids_from_stdin_may_hold_nul_and_escapes_and_are_only_unknown(unchanged: Console) -> None:
    for text in (b"pump-1\na\0b\n", b"\x1b]0;title\x07\n", b"a/b\n", b"\xff\xfe\xfd\n"):
        assert unchanged.refused(3, "", "provision", "list", "-", stdin=text)["code"] == "notFound"
    for garbage in (b"", b"\n\n# nothing\n"):
        assert unchanged.refused(2, "", "provision", "list", "-", stdin=garbage)["code"] == "usage"


@pytest.mark.parametrize("topic", ["", "acme/+/x", "x" * 70000])
def test_a_topic_that_is_none_is_not_published_to(unchanged: Console, topic: str) -> None:
    assert unchanged.refused(2, "", "publish", "-t", topic, "x")["code"] == "usage"


@pytest.mark.parametrize("words", [["[1]"], ['{"a":1,"a":2}'], ["{}", "{}"], ["@/nonexistent"], ["{" * 3000]])
def test_a_payload_that_is_no_object_is_not_sent(unchanged: Console, words: list[str]) -> None:
    assert unchanged.refused(2, "", "publish", "pump-1", "commands/ping", *words)["code"] == "usage"
