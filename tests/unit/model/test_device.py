"""Names of devices: what they may be, and how they are shown."""

import pytest

from fleetctl.errors import UsageError
from fleetctl.model import topic
from fleetctl.model.device import DevicePath, check_labels, is_level, printable


@pytest.mark.parametrize("name", ["a", "A9", "pump-1", "x" * 64, "a.b_c-d", "9"])
def test_a_level_is_a_plain_name(name: str) -> None:
    assert is_level(name)


@pytest.mark.parametrize("name", ["", "_fleet", "-a", ".a", "a/b", "a+", "#", "a b", "a\0", "ü", "x" * 65, "a\n"])
def test_what_could_be_a_topic_or_a_secret_place_is_no_level(name: str) -> None:
    assert not is_level(name)
    with pytest.raises(UsageError, match="is not a name"):
        DevicePath("acme", "oslo", "pump", name)


def test_no_device_is_called_as_a_connection_of_ours_is() -> None:
    with pytest.raises(UsageError, match="is reserved"):
        DevicePath("acme", "oslo", "pump", "fleetctl-rollout-r-1")
    assert topic.split("acme/oslo/pump/fleetctl-rollout-r-1/status") is None


def test_a_path_reads_what_it_writes() -> None:
    path = DevicePath("acme", "oslo", "pump", "p-1")
    assert DevicePath.parse(str(path)) == path
    for text in ("acme/oslo/pump", "acme/oslo/pump/p-1/status", ""):
        with pytest.raises(UsageError, match="is not a device path"):
            DevicePath.parse(text)


def test_labels_are_what_a_selector_can_name() -> None:
    assert check_labels({"b": "2", "a": "1"}) == {"a": "1", "b": "2"}
    for wrong in ({"": "1"}, {"1a": "x"}, {"a": "x" * 129}, {"a": "x\n"}):
        with pytest.raises(UsageError):
            check_labels(wrong)


def test_what_is_shown_moves_no_cursor_and_keeps_the_name_of_a_file() -> None:
    assert printable("a\x1b[2Jb\n") == "`a\\x1b[2Jb\\n`"
    path = "/a" * 200 + "/none.pem"
    assert len(printable(path)) == 123
    assert printable(path).endswith("/none.pem`")
