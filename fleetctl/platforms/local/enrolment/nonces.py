"""The nonces that are outstanding: one for each claim and serial, good once and for a minute; the table is bounded."""

import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable

from fleetctl.model.enrolment import NONCE_SECONDS

LIMIT = 10_000
NONCE_BYTES = 24


class Nonces:
    """`clock` is monotonic seconds; when the table is full the oldest one gives way."""

    def __init__(
        self, clock: Callable[[], float], limit: int = LIMIT, make: Callable[[], str] = lambda: secrets.token_urlsafe(NONCE_BYTES)
    ) -> None:
        self._clock, self._limit, self._make = clock, limit, make
        self._held: OrderedDict[tuple[str, str], tuple[str, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def give(self, claim: str, serial: str) -> str:
        """A new one, which takes the place of the one before."""
        nonce = self._make()
        self._held.pop((claim, serial), None)
        self._held[claim, serial] = nonce, self._clock() + NONCE_SECONDS
        while len(self._held) > self._limit:
            self._held.popitem(last=False)
        return nonce

    def matches(self, claim: str, serial: str, challenge: str | None) -> bool | None:
        """Whether the challenge is the outstanding nonce; None where none is outstanding."""
        nonce, until = self._held.get((claim, serial), ("", 0.0))
        if not nonce or self._clock() > until:
            self._held.pop((claim, serial), None)
            return None
        return challenge is not None and hmac.compare_digest(challenge.encode(), nonce.encode())

    def spend(self, claim: str, serial: str) -> None:
        """It has been answered: it is good no more."""
        self._held.pop((claim, serial), None)
