import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetctl.cli.publish import Order, parse_args, parse_order
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
    with pytest.raises(UsageError, match="is a JSON object"):
        parse_args(payload)
    assert parse_args(b'{"after":5}') == {"after": 5}
