"""`provision token`: made, listed and revoked by a person."""

import sqlite3
from pathlib import Path

import pytest

from tests.conftest import Fleetctl
from tests.integration.est.stand import Stand


@pytest.fixture
def typed(stand: Stand, fleetctl: Fleetctl) -> Fleetctl:
    for name in ("p-1", "p-2"):
        stand.add(name)
    return fleetctl


def test_a_token_is_shown_once_and_listed_without_itself(typed: Fleetctl, stand: Stand) -> None:
    (made,) = typed("provision", "token", "create", "p-1", "-o", "json").json()
    assert list(made) == ["id", "deviceId", "token", "expiresAt"]
    assert len(made["token"]) >= 22, "128 bits in base64 at least"
    (listed,) = typed("provision", "token", "list", "p-1", "-o", "json").json()
    assert list(listed) == ["id", "deviceId", "state", "createdAt", "expiresAt", "usedAt", "certificate", "actor"]
    assert (listed["id"], listed["state"], listed["actor"]) == (made["id"], "valid", "op:alice")
    assert made["token"] not in "\n".join(sqlite3_dump(stand.fleet.context.folder / "registry.db"))


def test_tokens_are_revoked_by_their_ids_and_by_device(typed: Fleetctl) -> None:
    made = typed("provision", "token", "create", "p-1", "p-2", "--yes", "-o", "json").json()
    (done,) = typed("provision", "token", "revoke", made[0]["id"], "-o", "json").json()
    assert done == {"id": made[0]["id"], "deviceId": "p-1", "outcome": "revoked"}
    assert typed("provision", "token", "revoke", made[0]["id"], "-o", "json").json()[0]["outcome"] == "unchanged"
    assert typed("provision", "token", "revoke", "p-2", "-o", "json").json()[0]["outcome"] == "revoked"
    assert typed("provision", "token", "revoke", "p-9", "-o", "json").error()["code"] == "notFound"


def test_a_token_for_nobody_or_for_ever_is_refused(typed: Fleetctl) -> None:
    assert typed("provision", "token", "create", "p-9", "-o", "json").status == 3
    assert typed("provision", "token", "create", "p-1", "--for", "1y", "-o", "json").status == 2
    assert typed("provision", "token", "create", "p-1", "--for", "31d", "-o", "json").error()["code"] == "usage"


def sqlite3_dump(path: Path) -> list[str]:
    connection = sqlite3.connect(path)
    try:
        return list(connection.iterdump())
    finally:
        connection.close()
