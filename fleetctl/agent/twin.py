"""The device's side of its twin: what it takes of the desired state, what it refuses, what it reports."""

from collections.abc import Mapping

from fleetctl.agent.storage import Storage
from fleetctl.errors import Malformed
from fleetctl.model.twin import FIRMWARE_KEYS
from fleetctl.wire.document import TWIN_LIMIT, Json, dump_json
from fleetctl.wire.twin import Desired, Reported

FILE = "twin.json"
FILE_LIMIT = 131072
INTERVAL = "reportingInterval"
SHORTEST, LONGEST = 0.1, 86400.0


class Twin:
    """The last desired document that counted, durable; `interval` is the telemetry's, where it names one."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.held: Desired | None = None
        data = storage.read(FILE, FILE_LIMIT)
        if data is not None:
            try:
                self.held = Desired.decode(data)
            except Malformed:
                storage.remove(FILE)

    def receive(self, payload: bytes) -> bool:
        """Take a desired document; whether it is new. A lower version of the same registry is an old message.

        Raises:
            Malformed: it is no desired document.
        """
        offered = Desired.decode(payload)
        held = self.held
        if held is not None and offered.generation == held.generation and offered.version <= held.version:
            return False
        self._storage.write(FILE, payload)
        self.held = offered
        return True

    @property
    def interval(self) -> float | None:
        value = self.held.desired.get(INTERVAL) if self.held else None
        return float(value) if _is_interval(value) and isinstance(value, int | float) else None

    def report(self, facts: Mapping[str, Json], timestamp: str | None) -> Reported | None:
        """All that there is to report; None before the first desired document."""
        if self.held is None:
            return None
        errors = objections(self.held.desired)
        taken = {key: value for key, value in self.held.desired.items() if key not in errors}
        reported: dict[str, Json] = {**taken, **facts}
        if errors:
            reported["$errors"] = dict(errors)
        if len(dump_json(reported)) > TWIN_LIMIT:
            reported = {**facts, "$errors": {"$": "the desired state leaves no room to report it"}}
        return Reported(self.held.version, reported, timestamp)


def objections(desired: Mapping[str, Json]) -> dict[str, str]:
    """What a device refuses of a desired state, with the reason."""
    errors: dict[str, str] = {}
    for key, value in desired.items():
        if key.startswith("$"):
            errors[key] = "keys that begin with `$` are reserved"
        elif key in FIRMWARE_KEYS:
            errors[key] = "firmware is changed by ota, not by the twin"
        elif key == INTERVAL and not _is_interval(value):
            errors[key] = f"not a number of seconds from {SHORTEST:g} to {LONGEST:g}"
    return errors


def _is_interval(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and SHORTEST <= value <= LONGEST
