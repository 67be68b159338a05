"""Tokens: kept as digests, used once, and by whom they were made."""

import pytest

from fleetctl.model.device import Device, DevicePath, LifeCycle
from fleetctl.registry import Registry
from fleetctl.registry.tokens import TokenRow

AT, LATER = "2026-11-24T00:00:00.000Z", "2026-11-25T00:00:00.000Z"
ROW = TokenRow("aa", "p-1", AT, LATER, actor="op:alice")


@pytest.fixture
def kept(registry: Registry) -> Registry:
    for name in ("p-1", "p-2"):
        registry.add_device(Device(DevicePath("acme", "oslo", "pump", name), {}, LifeCycle.ACTIVE, AT))
    registry.add_token(ROW)
    return registry


def test_a_token_is_found_by_its_digest(kept: Registry) -> None:
    assert kept.token("aa") == ROW
    assert kept.token("ab") is None


def test_a_token_is_used_once(kept: Registry) -> None:
    assert kept.use_token("aa", "01", AT)
    assert not kept.use_token("aa", "02", LATER)
    assert not kept.revoke_token("aa", LATER)
    assert kept.token("aa") == ROW._replace(used_at=AT, certificate="01")


def test_a_revoked_token_is_never_used(kept: Registry) -> None:
    assert kept.revoke_token("aa", AT)
    assert not kept.revoke_token("aa", LATER)
    assert not kept.use_token("aa", "01", LATER)


def test_tokens_are_listed_oldest_first_and_by_device(kept: Registry) -> None:
    kept.add_token(TokenRow("00", "p-2", LATER, LATER))
    assert [row.digest for row in kept.tokens()] == ["aa", "00"]
    assert [row.digest for row in kept.tokens("p-2")] == ["00"]


def test_what_ended_unused_is_forgotten_and_what_was_used_stays(kept: Registry) -> None:
    kept.add_token(TokenRow("bb", "p-1", AT, AT))
    kept.add_token(TokenRow("cc", "p-1", AT, AT, AT, "01"))
    assert kept.forget_tokens(LATER) == 1
    assert [row.digest for row in kept.tokens()] == ["aa", "cc"]
