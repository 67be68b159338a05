"""Which identity a device uses: the newest of what it was given in the field and what it came with."""

from pathlib import Path

from fleetctl.agent.identities import Identities
from fleetctl.agent.identity import Identity
from fleetctl.errors import FleetError, NotFound


class Home:
    """Where one device lives: its state, the identities in it, and the one in use, which a renewal replaces."""

    def __init__(
        self, state: Path, bundle: Path | None = None, now: float | None = None, identity: Identity | None = None
    ) -> None:
        """Raises what `Identity.load` raises, where no identity is whole; with an `identity`, that one is in use."""
        self.state = state
        self.identities = Identities(state)
        self.flaws: list[str] = []
        places = (self.identities.current, self.identities.previous, bundle)
        self.current = identity or self._newest([place for place in places if place is not None], now)

    def _newest(self, places: list[Path], now: float | None) -> Identity:
        """Of what is in date, else of all, what begins last; the first of them where several do."""
        found: list[Identity] = []
        failure: FleetError = NotFound(f"`{self.state}` holds no identity", "enrol it: fleetctl agent run CLAIM --serial SN")
        for place in reversed(places):
            try:
                identity = Identity.load(place)
            except FleetError as error:
                failure = error
                self.flaws.append(error.message)
                continue
            if not found or identity.config.device == found[0].config.device:
                found.insert(0, identity)
        if not found:
            raise failure
        dated = [one for one in found if now is None or one.credential is None or one.credential.not_after > now]
        return max(dated or found, key=_beginning)


def _beginning(identity: Identity) -> float:
    return 0.0 if identity.credential is None else identity.credential.not_before


def has_identity(state: Path) -> bool:
    """Whether a device has enrolled into this state already."""
    return Identities(state).current is not None
