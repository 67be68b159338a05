import pytest

from fleetctl.errors import Partial, Unavailable
from fleetctl.platforms.commands import Ledger


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"a": None}, "command `ping` to 1 device: it was never seen"),
        ({"a": ("offline", "1-1")}, "command `ping` to 1 device: it is offline"),
        ({"a": None, "b": None}, "command `ping` to 2 devices: 2 were never seen"),
        ({"a": None, "b": ("offline", "1-1")}, "command `ping` to 2 devices: 1 was never seen, 1 is offline"),
    ],
)
def test_devices_that_nothing_was_sent_to_say_why(said: dict[str, tuple[str, str] | None], words: str) -> None:
    ledger = Ledger("ping", said)
    assert [each.status for each in ledger.unreachable()] == [("offline" if found else "unknown") for found in said.values()]
    verdict = ledger.verdict()
    assert isinstance(verdict, Unavailable)
    assert verdict.message == words


def test_a_command_that_reached_some_says_what_became_of_the_rest() -> None:
    ledger = Ledger("ping", {"a": ("online", "1-1"), "b": ("offline", "1-1"), "c": ("online", "1-1")})
    results = [*ledger.unreachable(), *ledger.reply("a", "succeeded", None), *ledger.rest("timedOut")]
    assert [(each.id, each.status) for each in results] == [("b", "offline"), ("a", "succeeded"), ("c", "timedOut")]
    verdict = ledger.verdict()
    assert isinstance(verdict, Partial)
    assert verdict.message == "command `ping` to 3 devices: 1 is offline, 1 timedOut"
