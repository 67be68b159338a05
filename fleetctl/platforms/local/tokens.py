"""One-time tokens with which a device enrols over EST: shown once, kept as a digest."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from fleetctl.errors import Conflict, NotFound, UsageError
from fleetctl.model.device import Device, LifeCycle, printable
from fleetctl.platforms.local.est_desk import BARRED, digest_of
from fleetctl.registry.tokens import TokenRow
from fleetctl.wire.document import parse_rfc3339, rfc3339

if TYPE_CHECKING:
    from fleetctl.platforms.local.fleet import LocalFleet

BYTES = 24
"""192 bits: nobody guesses one, so that its digest needs no salt and no rounds."""
SHORT = 12
"""How many digits of the digest name a token among people."""
DAY = 86400.0
SHORTEST, LONGEST = 60.0, 30 * DAY
KEPT = 90 * DAY
"""How long a token that ended unused stays in the list."""


class TokenState(StrEnum):
    """What a token is good for now."""

    VALID = "valid"
    USED = "used"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token, this once."""

    id: str
    device_id: str
    token: str
    expires_at: str


@dataclass(frozen=True, slots=True)
class TokenEntry:
    """A token as the registry knows it; `certificate` is the serial of what it was used for."""

    id: str
    device_id: str
    state: TokenState
    created_at: str
    expires_at: str
    used_at: str | None
    certificate: str | None
    actor: str | None


@dataclass(frozen=True, slots=True)
class TokenRevoked:
    """What became of one token; `outcome` is revoked or unchanged."""

    id: str
    device_id: str
    outcome: str


def create(fleet: "LocalFleet", devices: Sequence[Device], seconds: float) -> list[NewToken]:
    """One for each device, all or none; `seconds` is how long they are good.

    Raises:
        Conflict: a device is suspended or retired.
        UsageError: that is too short or too long.
        Missing: the context has no authority.
    """
    if not SHORTEST <= seconds <= LONGEST:
        raise UsageError("a token is good for at least 1m and at most 30d", "as in --for 24h")
    for device in devices:
        if device.state in BARRED:
            verb = "resume" if device.state is LifeCycle.SUSPENDED else "show"
            raise Conflict(f"device `{device.id}` is {device.state}", f"fleetctl provision {verb} {device.id}")
    _ = fleet.certificates
    now, made = fleet.clock(), []
    expires_at = rfc3339(now + seconds)
    with fleet.registry.transaction():
        fleet.registry.forget_tokens(rfc3339(now - KEPT))
        for device in devices:
            token = secrets.token_urlsafe(BYTES)
            digest = digest_of(token)
            fleet.registry.add_token(TokenRow(digest, device.id, rfc3339(now), expires_at, actor=fleet.actor))
            made.append(NewToken(digest[:SHORT], device.id, token, expires_at))
    return made


def entries(fleet: "LocalFleet", device_id: str | None = None) -> list[TokenEntry]:
    """All that there are, or those of one device; raises `NotFound`."""
    if device_id is not None:
        fleet.registry.device(device_id)
    now = fleet.clock()
    return [
        TokenEntry(
            *(row.digest[:SHORT], row.device_id, state_of(row, now), row.created_at, row.expires_at),
            *(row.used_at if row.certificate else None, row.certificate, row.actor),
        )
        for row in fleet.registry.tokens(device_id)
    ]


def revoke(fleet: "LocalFleet", words: Sequence[str]) -> list[TokenRevoked]:
    """Tokens by their ids, or every good one of a device; all or none. One that was used stays used.

    Raises:
        NotFound: a word is neither.
    """
    now, done = fleet.clock(), []
    with fleet.registry.transaction():
        rows = fleet.registry.tokens()
        for row in dict.fromkeys(row for word in words for row in _meant(fleet, rows, word, now)):
            revoked = fleet.registry.revoke_token(row.digest, rfc3339(now))
            done.append(TokenRevoked(row.digest[:SHORT], row.device_id, "revoked" if revoked else "unchanged"))
    return done


def state_of(row: TokenRow, now: float) -> TokenState:
    if row.used_at is not None:
        return TokenState.USED if row.certificate else TokenState.REVOKED
    return TokenState.EXPIRED if parse_rfc3339(row.expires_at) < now else TokenState.VALID


def _meant(fleet: "LocalFleet", rows: Sequence[TokenRow], word: str, now: float) -> list[TokenRow]:
    named = [row for row in rows if len(word) >= SHORT and row.digest.startswith(word)]
    if named:
        return named
    try:
        device = fleet.registry.device(word)
    except NotFound as error:
        raise NotFound(f"no token and no device named {printable(word)}", "see fleetctl provision token list") from error
    return [row for row in rows if row.device_id == device.id and state_of(row, now) is TokenState.VALID]
