"""Profiles, names, validity and serial numbers of certificates."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetctl.errors import ConfigError, UsageError
from fleetctl.model.certificate import (
    BACKDATE,
    DAY,
    Profile,
    Reason,
    State,
    Validity,
    check_host,
    check_operator,
    check_subject,
    device_uri,
    is_operator,
    parse_serial,
    reason,
    serial_text,
    validity,
)
from fleetctl.model.device import DevicePath, is_level

NOW = 1_800_000_000.7


def test_a_certificate_begins_a_little_before_now_for_clocks_that_are_slow() -> None:
    span = validity(Profile.DEVICE, NOW)
    assert span == Validity(int(NOW) - BACKDATE, int(NOW) + Profile.DEVICE.days * DAY)


@pytest.mark.parametrize(("life", "backdate"), [(13, 1), (60, 6), (600, 60), (3000, BACKDATE), (DAY, BACKDATE)])
def test_a_certificate_of_minutes_is_not_past_its_middle_when_it_is_made(life: int, backdate: int) -> None:
    now = int(NOW)
    span = validity(Profile.DEVICE, now, days=life / DAY)
    assert now - span.not_before == pytest.approx(backdate, abs=1)
    assert span.not_after - now == pytest.approx(life, abs=1)
    assert (span.not_before + span.not_after) / 2 > now + 0.4 * life


def test_a_certificate_never_outlives_its_issuer() -> None:
    issuer = Validity(int(NOW) - 100, int(NOW) + 100)
    assert validity(Profile.SERVER, NOW, issuer) == issuer


@pytest.mark.parametrize("issuer", [Validity(0, int(NOW) - 1), Validity(int(NOW) + 10, int(NOW) + 20)])
def test_an_authority_that_is_not_valid_now_issues_nothing(issuer: Validity) -> None:
    with pytest.raises(ConfigError, match="not valid now"):
        validity(Profile.DEVICE, NOW, issuer)


@pytest.mark.parametrize(
    ("now", "revoked", "state"),
    [
        (9, False, State.NOT_YET_VALID),
        (10, False, State.VALID),
        (20, False, State.VALID),
        (20.5, False, State.EXPIRED),
        (15, True, State.REVOKED),
    ],
)
def test_the_state_of_a_certificate_is_a_matter_of_time_and_revocation(now: float, revoked: bool, state: State) -> None:
    assert Validity(10, 20).state(now, revoked=revoked) is state


@pytest.mark.parametrize(
    "name", ["", "a/b", "a+b", "a#b", "a\0b", "_fleet", "op:alice", "a b", "ä", "-a", "x" * 65, "a\n", "+", "#", ".", "$SYS"]
)
def test_no_device_certificate_carries_a_name_that_is_no_level(name: str) -> None:
    with pytest.raises(UsageError):
        check_subject(Profile.DEVICE, name)


@pytest.mark.parametrize(
    "name", ["", "op:", "alice", "op:a/b", "op:a+", "op:_x", "op:a\0", "op:op:a", "OP:alice", "op:" + "x" * 62]
)
def test_no_operator_certificate_carries_a_name_that_could_be_a_devices(name: str) -> None:
    assert not is_operator(name)
    with pytest.raises(UsageError):
        check_subject(Profile.OPERATOR, name)


@pytest.mark.parametrize("given_name", ["alice", "op:alice"])
def test_an_operator_may_be_named_with_or_without_the_prefix(given_name: str) -> None:
    assert check_operator(given_name) == "op:alice"


def test_a_bad_operator_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="is not a name"):
        check_operator("a/b")


@pytest.mark.parametrize("name", ["localhost", "broker.example.org", "127.0.0.1", "::1", "my_host", "x" * 63])
def test_a_server_is_a_host_or_an_address(name: str) -> None:
    assert check_subject(Profile.SERVER, name) == name


@pytest.mark.parametrize(
    "name", ["", "a b", "*.x", "a/b", "a:b", "fe80::1%eth0", "a..b", ".", "x" * 64, "a." * 127 + "b", "ä.de"]
)
def test_a_server_is_nothing_else(name: str) -> None:
    with pytest.raises(UsageError):
        check_host(name)


@given(st.text())
def test_no_name_is_a_devices_and_an_operators(name: str) -> None:
    assert not (is_level(name) and is_operator(name))


def test_a_device_certificate_names_the_whole_address() -> None:
    assert device_uri(DevicePath("acme", "oslo", "pump", "p-1")) == "urn:fleetctl:acme/oslo/pump/p-1"


@given(st.integers(min_value=1, max_value=2**159))
def test_a_serial_is_found_however_another_tool_spells_it(serial: int) -> None:
    text = serial_text(serial)
    plain = f"{serial:X}"
    even = plain.zfill(len(plain) + len(plain) % 2)
    colons = ":".join(even[i : i + 2] for i in range(0, len(even), 2))
    assert {parse_serial(text), parse_serial(plain), parse_serial(colons), parse_serial(f"0x{plain}")} == {text}


@pytest.mark.parametrize("text", ["", ":", "pump-7", "0" * 41, "g1", "op:alice"])
def test_what_is_no_serial_is_none(text: str) -> None:
    assert parse_serial(text) is None


def test_reasons_are_those_of_the_standard() -> None:
    assert reason("keyCompromise") is Reason.KEY_COMPROMISE
    with pytest.raises(UsageError, match="no reason"):
        reason("certificateHold")
