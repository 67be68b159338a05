"""A verb from words to exit status, through an application of our own."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer

from fleetctl.cli import group, main
from fleetctl.cli.group import single
from fleetctl.cli.session import Options, Planned, Session, Terminal
from fleetctl.cli.verb import verb
from fleetctl.errors import Conflict, FleetError, Halted, NotFound, Unavailable, UsageError
from fleetctl.present.format import Format
from fleetctl.present.view import As, Field, View

VIEW = View("thing", (Field("id"), Field("size", "integer"), Field("note", wide=True)))
OTHER = View("other", (Field("id"), Field("bytes", "integer")))
OPEN = View("event", (Field("event"),), id="event", open=True)
THINGS = [{"id": "a", "size": 1, "note": "x\x1b[2J"}, {"id": "b", "size": 2, "note": None}]


def _list(session: Session) -> list[dict[str, Any]]:
    """List things."""
    return THINGS


def _get(session: Session, name: Annotated[str, typer.Argument(metavar="NAME")]) -> dict[str, Any]:
    """Get one thing."""
    for each in THINGS:
        if each["id"] == name:
            return each
    raise NotFound(f"no thing named `{name}`", "fleetctl thing list")


def _follow(session: Session) -> Iterator[dict[str, Any]]:
    """Follow things."""
    yield from THINGS


def _drive(session: Session) -> Iterator[object]:
    """Drive things; they come to one, and then that is a failure."""
    yield from THINGS
    yield As(VIEW, {"id": "outcome", "size": 2, "note": None})
    raise Halted("it stopped itself")


def _set(session: Session, names: Annotated[list[str], typer.Argument(metavar="NAME...")]) -> list[dict[str, Any]]:
    """Set things."""
    session.approve(names, "set")
    return THINGS


def _fail(session: Session, how: Annotated[str, typer.Argument(metavar="HOW")]) -> None:
    """Fail."""
    if how == "record":
        raise Conflict("two", "retry", record=THINGS[0])
    if how == "interrupt":
        session.again = "fleetctl ota resume r1"
        raise KeyboardInterrupt
    if how == "raw":
        raise FleetError("a device said \x1b[31m", "see\x07")
    if how == "pipe":
        raise BrokenPipeError("a broker, not the reader")
    raise RuntimeError("-----BEGIN PRIVATE KEY-----\nMIIsecret\n-----END PRIVATE KEY-----")


def _events(session: Session) -> list[dict[str, Any]]:
    """Say what happens."""
    return [{"event": "x", "anything": 1}]


def _either(session: Session) -> As:
    """Do one thing or another."""
    return As(OTHER, [{"id": "a", "bytes": 7}])


@pytest.fixture(autouse=True)
def things(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more group in the table."""
    app = group.group("Things.")
    verb(app, VIEW, name="list", example="fleetctl thing list")(_list)
    verb(app, VIEW, name="get", example="fleetctl thing get a")(_get)
    verb(app, VIEW, name="follow", example="fleetctl thing follow")(_follow)
    verb(app, VIEW, name="drive", example="fleetctl thing drive", final=True)(_drive)
    verb(app, VIEW, name="set", example="fleetctl thing set a", writes=True)(_set)
    verb(app, VIEW, name="fail", example="fleetctl thing fail")(_fail)
    verb(app, OPEN, name="events", example="fleetctl thing events")(_events)
    verb(app, VIEW, name="either", example="fleetctl thing either", other=OTHER)(_either)
    made = single("Alone.")
    verb(made, VIEW, name="alone", example="fleetctl alone")(_list)
    apps = {"thing": app, "alone": made}
    monkeypatch.setattr(group, "TABLE", tuple((name, name, "") for name in apps))
    monkeypatch.setattr(group, "load", lambda module, name: apps[module].command(name))


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = main.run(list(words))
    told = capsys.readouterr()
    return status, told.out, told.err


def test_a_list_is_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "thing", "list") == (0, "ID  SIZE\na   1\nb   2\n", "")
    assert run(capsys, "thing", "list", "-o", "wide") == (0, "ID  SIZE  NOTE\na   1     x\\x1b[2J\nb   2     -\n", "")
    assert run(capsys, "thing", "list", "--columns", "size,id")[1] == "SIZE  ID\n1     a\n2     b\n"
    assert run(capsys, "alone", "-o", "name")[1] == "a\nb\n"


def test_a_column_that_no_record_has_is_refused_before_anything_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    told = "error: no column `foo`\n\nhint: the columns are id, size, note\n"
    assert run(capsys, "thing", "list", "--columns", "id,foo") == (2, "", told)
    assert run(capsys, "thing", "fail", "record", "--columns", "foo") == (2, "", told)
    assert run(capsys, "thing", "list", "--columns", "note.deep,id")[0] == 0
    assert run(capsys, "thing", "set", "a", "--dry-run", "--columns", "id,action") == (0, "ID  ACTION\na   set\n", "")
    assert run(capsys, "thing", "set", "a", "--columns", "action")[0] == 2
    assert run(capsys, "thing", "events", "--columns", "anything")[1] == "ANYTHING\n1\n"


def test_a_verb_of_two_kinds_of_records_takes_the_columns_of_both(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "thing", "either", "--columns", "bytes") == (0, "BYTES\n7\n", "")
    assert run(capsys, "thing", "either", "--columns", "size")[0] == 0


def test_every_format_of_a_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(run(capsys, "thing", "list", "-o", "json")[1]) == THINGS
    lines = run(capsys, "thing", "list", "-o=jsonl")[1].splitlines()
    assert [json.loads(line) for line in lines] == THINGS
    assert run(capsys, "thing", "list", "-o", "yaml", "--columns", "id")[1] == "- id: a\n- id: b\n"


def test_the_environment_sets_the_format_and_the_option_wins(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEETCTL_OUTPUT", "name")
    assert run(capsys, "thing", "list")[1] == "a\nb\n"
    assert run(capsys, "thing", "list", "-o", "jsonl", "--columns", "id")[1] == '{"id":"a"}\n{"id":"b"}\n'
    monkeypatch.setenv("FLEETCTL_OUTPUT", "xml")
    status, out, err = run(capsys, "thing", "list")
    assert (status, out) == (2, "")
    assert err == "error: `xml` in `FLEETCTL_OUTPUT` is no format\n\nhint: export FLEETCTL_OUTPUT=json\n"


def test_one_record_is_an_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(run(capsys, "thing", "get", "b", "-o", "json")[1]) == THINGS[1]
    assert run(capsys, "thing", "get", "b")[1] == "Id:   b\nSize: 2\n"


def test_an_error_has_a_hint_a_status_and_for_programs_a_last_line(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "thing", "get", "z", "-o", "json")
    assert (status, out) == (3, "")
    human, last = err.rstrip("\n").rsplit("\n", 1)
    assert human == "error: no thing named `z`\n\nhint: fleetctl thing list"
    assert json.loads(last) == {
        "error": {"code": "notFound", "message": "no thing named `z`", "hint": "fleetctl thing list", "status": 3}
    }


def test_words_that_do_not_parse_are_ours_to_explain(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "thing", "get") == (2, "", "error: missing argument `NAME`\n\nhint: fleetctl thing get --help\n")
    status, _, err = run(capsys, "thing", "list", "-o", "xml")
    assert status == 2
    assert "`xml` is not one of table, wide, json" in err
    status, _, err = run(capsys, "thing", "lst")
    assert (status, err) == (2, "error: no command `lst` in `fleetctl thing`\n\nhint: did you mean fleetctl thing list\n")
    assert run(capsys, "thing", "list", "--nope", "-o", "json")[2].splitlines()[-1].startswith('{"error":{"code":"usage"')


@pytest.mark.parametrize("word", ["device", "status", "sub", "pub", "login"])
def test_what_people_type_first_gets_a_hint(capsys: pytest.CaptureFixture[str], word: str) -> None:
    status, _, err = run(capsys, word, "list")
    assert status == 2
    assert f"no command `{word}`" in err
    assert f"hint: use fleetctl {group.ALIASES[word]}" in err


def test_what_people_type_second_gets_a_hint_too(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(group.ALIASES, "thing rm", "thing set NAME")
    told = "error: no command `rm` in `fleetctl thing`\n\nhint: use fleetctl thing set NAME\n"
    assert run(capsys, "thing", "rm", "a") == (2, "", told)


@pytest.mark.parametrize("words", [[], ["thing"], ["thing", "list"], ["alone"]])
def test_help_has_a_short_name(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    status, out, err = run(capsys, *words, "-h")
    assert (status, err) == (0, "")
    assert out == run(capsys, *words, "--help")[1]


def test_a_bare_group_shows_its_help_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "thing")
    assert (status, out) == (2, "")
    assert "List things." in err


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "thing", "get", "--help")
    assert status == 0
    assert "    $ fleetctl thing get a" in out
    assert "session" not in out.lower()


def test_a_stream_refuses_to_be_one_document_before_it_begins(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "thing", "follow", "-o", "json")
    assert (status, out) == (2, "")
    assert "-o jsonl" in err
    assert run(capsys, "thing", "follow", "-o", "name")[1] == "a\nb\n"


def test_a_stream_is_one_document_where_it_comes_to_a_record(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "thing", "drive", "-o", "json")
    assert (status, json.loads(out)["id"]) == (9, "outcome")
    assert err.startswith("error: it stopped itself")
    assert run(capsys, "thing", "drive", "-o", "name")[1] == "outcome\n"
    assert run(capsys, "thing", "drive")[1] == "ID  SIZE\na   1\nb   2\n\nId:   outcome\nSize: 2\n"


def test_a_record_of_an_error_is_printed_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "thing", "fail", "record", "-o", "json")
    assert status == 5
    assert json.loads(out) == THINGS[0]
    assert err.startswith("error: two")


def test_a_defect_is_one_line_and_its_log_has_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "thing", "fail", "defect")
    assert (status, out) == (70, "")
    assert err.startswith("error: a defect in fleetctl: RuntimeError in ")
    log = Path(err.rstrip("\n").rsplit(" ", 1)[1])
    assert log.stat().st_mode & 0o777 == 0o600
    assert "RuntimeError: (secret)" in log.read_text()
    assert "MIIsecret" not in log.read_text()


def test_a_socket_that_breaks_is_no_reader_that_left(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "thing", "fail", "pipe")[0] == 70


def test_ctrl_c_is_130_with_the_way_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "thing", "fail", "interrupt") == (130, "", "\ninterrupted\n\nhint: fleetctl ota resume r1\n")


def test_debug_shows_the_chain(capsys: pytest.CaptureFixture[str]) -> None:
    _, _, err = run(capsys, "thing", "fail", "record", "--debug")
    assert "Traceback" in err
    assert "Traceback" not in run(capsys, "thing", "fail", "record")[2]


def test_a_message_never_moves_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    err = run(capsys, "thing", "fail", "raw")[2]
    assert err == "error: a device said \\x1b[31m\n\nhint: see\\x07\n"


def test_a_write_to_many_needs_a_yes(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    status, out, err = run(capsys, "thing", "set", "a", "b")
    assert (status, out) == (2, "")
    assert err == (
        "error: set: 2 devices (a, b): no terminal to ask at\n\nhint: repeat it with --yes, or look first with --dry-run\n"
    )
    assert run(capsys, "thing", "set", "a", "b", "--yes")[0] == 0
    assert run(capsys, "thing", "set", "a")[0] == 0


def test_a_dry_run_prints_the_plan(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "thing", "set", "a", "b", "--dry-run", "-o", "json")
    assert status == 0
    assert json.loads(out) == [{"id": "a", "action": "set"}, {"id": "b", "action": "set"}]


def test_a_cap_on_devices_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, "thing", "set", "a", "b", "--yes", "--max-devices", "1")
    assert status == 2
    assert "2 devices are more than `--max-devices 1`" in err


class Person(io.StringIO):
    """A terminal at which somebody sits."""

    def isatty(self) -> bool:
        return True


def asked(answer: str) -> Session:
    return Session(Options(), Terminal(Person(answer), Person()))


def test_a_person_is_asked() -> None:
    asked("y\n").approve(["a", "b"], "set")
    for answer in ("n\n", "\n", ""):
        with pytest.raises(FleetError, match="the answer was no"):
            asked(answer).approve(["a", "b"], "set")


def test_nothing_to_write_to_is_not_found() -> None:
    with pytest.raises(NotFound):
        Session(Options(yes=True)).approve([], "set")
    with pytest.raises(Planned):
        Session(Options(dry_run=True)).approve(["a"], "set")


def test_formats_are_spelt_once() -> None:
    assert list(Format) == ["table", "wide", "json", "jsonl", "yaml", "name"]
    assert issubclass(Unavailable, FleetError)
    assert issubclass(UsageError, FleetError)


def test_a_verb_of_one_device_takes_it_from_stdin() -> None:
    def given(text: str) -> Session:
        return Session(Options(), Terminal(io.StringIO(text), io.StringIO()))

    assert given("# one\npump-1\n").one("-") == "pump-1"
    assert given("").one("pump-2") == "pump-2"
    with pytest.raises(UsageError, match="`-` names 2 devices, this takes one"):
        given("pump-1\npump-2\n").one("-")
    with pytest.raises(UsageError, match="no device is named"):
        given("").one("-")
