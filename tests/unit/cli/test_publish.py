import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetctl.cli.publish import Order, parse_args, parse_order, publish, raw_payload, refuse
from fleetctl.cli.session import Options, Planned, Session, Terminal
from fleetctl.errors import UsageError


@pytest.mark.parametrize(
    ("words", "order"),
    [
        (["pump-7", "commands/ping"], Order(("pump-7",), "ping", None)),
        (["commands/ping"], Order((), "ping", None)),
        (["a", "b*", "-", "@f", "commands/reboot", '{"after":5}'], Order(("a", "b*", "-", "@f"), "reboot", '{"after":5}')),
        (["a", "commands/x", "commands/y"], Order(("a",), "x", "commands/y")),
        (["a", "commands/x", ""], Order(("a",), "x", "")),
    ],
)
def test_the_first_word_that_begins_with_commands_is_the_channel(words: list[str], order: Order) -> None:
    assert parse_order(words) == order


@pytest.mark.parametrize("words", [[], ["pump-7"], ["pump-7", "ping"], ["pump-7", "command/ping"]])
def test_without_a_channel_nothing_is_sent(words: list[str]) -> None:
    with pytest.raises(UsageError, match="no command is named"):
        parse_order(words)


@pytest.mark.parametrize("name", ["", "a/b", "+", "#", "x" * 33, "ping/reply", "_x", "é"])
def test_a_command_is_one_level(name: str) -> None:
    with pytest.raises(UsageError, match="names no command"):
        parse_order(["pump-7", f"commands/{name}"])


def test_there_is_at_most_one_payload() -> None:
    with pytest.raises(UsageError, match="one payload, not 2"):
        parse_order(["pump-7", "commands/say", "hello", "world"])


@given(st.lists(st.text()))
def test_any_words_are_understood_or_refused(words: list[str]) -> None:
    try:
        order = parse_order(words)
    except UsageError:
        return
    assert [*order.devices, f"commands/{order.command}"] == words[: len(order.devices) + 1]


@pytest.mark.parametrize("payload", [b"", b"5", b"[]", b"{", b'{"a":NaN}', b'{"a":1,"a":2}', b"\xff"])
def test_arguments_are_a_json_object(payload: bytes) -> None:
    with pytest.raises(UsageError, match="is not a JSON object"):
        parse_args(payload)
    assert parse_args(b'{"after":5}') == {"after": 5}


def test_a_payload_that_is_no_json_says_where() -> None:
    with pytest.raises(UsageError) as stop:
        parse_args(b"hello")
    assert stop.value.message == "the payload is not a JSON object (line 1, column 1)"
    with pytest.raises(UsageError) as stop:
        parse_args(b"[]")
    assert stop.value.message == "the payload is not a JSON object"
    with pytest.raises(UsageError, match="a JSON object: a key appears twice"):
        parse_args(b'{"a":1,"a":2}')


def test_a_topic_gets_an_empty_object_unless_something_is_named() -> None:
    assert raw_payload([]) == "{}"
    assert raw_payload([""]) == ""
    assert raw_payload(["hello"]) == "hello"
    with pytest.raises(UsageError, match="devices and `-t` do not go together"):
        raw_payload(["pump-1", "{}"])


def session(**options: object) -> Session:
    return Session(Options(**options), Terminal(io.StringIO(), io.StringIO()))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "more", "action"),
    [
        (None, {}, "publish 2 bytes at QoS 1: {}"),
        ([""], {"retain": True}, "publish 0 bytes at QoS 1, retained"),
        (["x" * 300], {"qos": 0}, f"publish 300 bytes at QoS 0: {'x' * 200}…"),
    ],
)
def test_a_dry_run_of_a_raw_message_says_what_would_be_sent(words: list[str] | None, more: dict[str, int], action: str) -> None:
    with pytest.raises(Planned) as planned:
        publish(session(dry_run=True), words, topic="a/b", **more)  # type: ignore[arg-type]
    assert planned.value.writes == [{"id": "a/b", "action": action}]


@pytest.mark.parametrize("given", [{"wait": True}, {"timeout": 0.0}, {"limit": "3"}, {"selector": ""}])
def test_options_of_commands_mean_nothing_with_a_topic(given: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="means nothing with `-t`"):
        publish(session(), ["{}"], topic="a/b", **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [{"retain": True}, {"qos": 0}])
def test_options_of_messages_mean_nothing_for_a_command(given: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="means nothing without `-t`"):
        publish(session(), ["pump-7", "commands/ping"], **given)  # type: ignore[arg-type]
    refuse({"--retain": False}, "here")
