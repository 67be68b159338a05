import pytest
import typer

from fleetctl.cli.words import column_names, duration, equals, format_name
from fleetctl.errors import UsageError
from fleetctl.present.format import Format


@pytest.mark.parametrize(
    ("text", "seconds"), [("5s", 5), ("500ms", 0.5), ("1h30m", 5400), ("30d", 2592000), ("1.5h", 5400), ("=2m", 120)]
)
def test_a_duration_has_a_unit(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["5", "", "s", "-5s", "5 s", "5y", "1h 30m", "1e3s", "nan", "\u0665s"])
def test_a_number_without_a_unit_is_no_duration(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is not a duration"):
        duration(text)


def test_an_equals_sign_after_a_short_option_is_dropped_once() -> None:
    assert format_name("=json") is Format.JSON
    assert equals("=app=web") == "app=web"
    assert equals("app=web") == "app=web"


def test_an_unknown_format_names_those_there_are() -> None:
    with pytest.raises(typer.BadParameter, match="table, wide, json, jsonl, yaml, name"):
        format_name("xml")


def test_columns_are_keys_between_commas() -> None:
    assert column_names("id, labels.site,") == ("id", "labels.site")
    with pytest.raises(UsageError):
        column_names(" , ")
