import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fleetctl.errors import UsageError
from fleetctl.present.format import Format
from fleetctl.present.render import Page, render
from fleetctl.present.text import cell, cut, is_safe, json_text, safe, width
from fleetctl.present.view import Field, Rows, View, plain

TEXTS = st.text(st.characters(exclude_categories=()))
VALUES: tuple[object, ...] = (None, "", True, False, 1, 0.5, 3.0, {}, [])
ANY = View("any", (Field("id"), Field("value", "any")))


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True, slots=True)
class Thing:
    device_id: str
    colour: Colour
    digest: bytes


def printed(result: object, format: Format, view: View = ANY, **more: object) -> str:  # noqa: A002
    out = io.StringIO()
    render(result, view, Page(out, format, **more))  # type: ignore[arg-type]
    return out.getvalue()


@given(TEXTS, st.sampled_from(list(Format)))
def test_no_format_lets_a_control_character_through(text: str, chosen: Format) -> None:
    shown = printed([{"id": text, "value": {text: text}}], chosen)
    assert is_safe(shown)
    shown.encode()


@given(TEXTS)
def test_json_says_the_same_after_escaping(text: str) -> None:
    assert json.loads(json_text({"a": text})) == {"a": text}


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_yaml_says_the_same_after_escaping(text: str) -> None:
    assert yaml.safe_load(printed({"id": text}, Format.YAML)) == {"id": text}


@given(st.text(max_size=60), st.integers(1, 50))
def test_a_cut_text_fits(text: str, limit: int) -> None:
    assert width(cut(safe(text), limit)) <= limit


@given(st.lists(st.dictionaries(st.sampled_from(["id", "value"]), TEXTS), max_size=5), st.integers(20, 60))
def test_a_table_fits_the_terminal(records: list[dict[str, str]], limit: int) -> None:
    assert all(width(line) <= limit for line in printed(records, Format.TABLE, limit=limit).splitlines())


def test_a_table_is_not_cut_where_there_is_no_terminal() -> None:
    assert "x" * 500 in printed([{"id": "x" * 500, "value": "y" * 500}], Format.TABLE)


def test_an_empty_list_prints_its_header_or_an_empty_array() -> None:
    assert printed([], Format.TABLE) == "ID  VALUE\n"
    assert printed([], Format.JSON) == "[]\n"
    assert printed([], Format.JSONL) == ""
    assert printed([], Format.NAME) == ""


def test_cells_are_words() -> None:
    assert [cell(each) for each in VALUES] == [
        "-",
        "-",
        "yes",
        "no",
        "1",
        "0.5",
        "3",
        "-",
        "-",
    ]
    assert cell({"site": "oslo", "n": 1}) == "site=oslo,n=1"
    assert cell({"a": {"b": 1}}) == '{"a":{"b":1}}'
    assert cell(["a", "b"]) == "a,b"


def test_values_become_records_with_camel_case_keys() -> None:
    assert plain(Thing("p1", Colour.RED, b"\x01\xff")) == {"deviceId": "p1", "colour": "red", "digest": "01ff"}
    assert plain({"a": {"x_y": 1}}) == {"a": {"x_y": 1}}
    with pytest.raises(TypeError):
        plain(object())


def test_a_record_within_a_record_has_its_own_line() -> None:
    assert printed({"id": "a", "value": [{"x": 1}, {"x": 2}]}, Format.TABLE) == "Id:    a\nValue: x=1\n       x=2\n"


def test_a_stream_prints_as_it_comes() -> None:
    out = io.StringIO()
    seen: list[str] = []

    def stream() -> Iterator[dict[str, str]]:
        yield {"id": "a"}
        seen.append(out.getvalue())
        yield {"id": "b"}

    render(stream(), ANY, Page(out, Format.JSONL))
    assert seen == ['{"id":"a"}\n']


def test_a_refused_stream_was_never_started() -> None:
    started: list[int] = []

    def stream() -> Iterator[dict[str, str]]:
        started.append(1)
        yield {}

    with pytest.raises(UsageError):
        render(stream(), ANY, Page(io.StringIO(), Format.JSON))
    assert not started


def test_columns_name_nested_keys() -> None:
    assert printed([{"id": "a", "value": {"b": 2}}], Format.TABLE, columns=("value.b",)) == "VALUE.B\n2\n"
    assert json.loads(printed({"id": "a", "value": {"b": 2}}, Format.JSON, columns=("value.b", "no"))) == {
        "value.b": 2,
        "no": None,
    }


def test_a_record_named_by_the_records_within_it_prints_their_ids() -> None:
    summary = View("summary", (Field("devices", "integer"), Field("rollouts", "array")), id="rollouts")
    record = {"devices": 3, "rollouts": [{"id": "pump-2.0.0"}, {"id": "pump-2.1.0\x1b"}]}
    assert printed(record, Format.NAME, summary) == "pump-2.0.0\npump-2.1.0\\x1b\n"
    assert printed({"devices": 3, "rollouts": []}, Format.NAME, summary) == ""


@given(st.integers(40, 120))
def test_a_narrow_terminal_cuts_neither_ids_nor_numbers(limit: int) -> None:
    view = View("wide", (Field("text"), Field("id"), Field("amount", "integer", header="A LONG NAME OF A NUMBER"), Field("more")))
    record = {"text": "t" * 60, "id": "i" * 20, "amount": 123456, "more": "m" * 60}
    header, row = printed([record], Format.TABLE, view, limit=limit).splitlines()
    assert ("i" * 20) in row
    assert "123456" in row
    assert max(width(header), width(row)) <= limit
    assert header.split()[1] == "ID"


@pytest.mark.parametrize("format", list(Format))
@pytest.mark.parametrize("size", [0, 1, 3000])
def test_a_list_that_comes_one_by_one_looks_like_one_that_is_there(format: Format, size: int) -> None:  # noqa: A002
    records = [{"id": f"d-{number:04}", "value": number % 7} for number in range(size)]
    assert printed(Rows(iter(records)), format) == printed(records, format)


def test_lines_are_printed_before_the_next_record_is_made() -> None:
    out = io.StringIO()

    def records() -> Iterator[object]:
        for number in range(3):
            assert len(out.getvalue().splitlines()) == number
            yield {"id": number, "value": None}

    render(Rows(records()), ANY, Page(out, Format.JSONL))
    assert len(out.getvalue().splitlines()) == 3
