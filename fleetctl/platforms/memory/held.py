"""What a fleet in memory holds of a device."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fleetctl.model.device import Device, LifeCycle
from fleetctl.model.lifecycle import check_move
from fleetctl.model.twin import HISTORY_LIMIT
from fleetctl.platforms.device_records import Step
from fleetctl.platforms.twins import TwinVersion
from fleetctl.wire.presence import Presence
from fleetctl.wire.twin import Desired, Reported


@dataclass(slots=True)
class Held:
    device: Device
    said: Desired | None = None
    presence: Presence | None = None
    seen_at: float | None = None
    reported: Reported | None = None
    reported_at: float | None = None
    timeline: list[Step] = field(default_factory=list)
    versions: list[TwinVersion] = field(default_factory=list)

    @property
    def version(self) -> int:
        return 0 if self.said is None else self.said.version

    @property
    def desired(self) -> Mapping[str, Any]:
        return {} if self.said is None else self.said.desired

    def say(self, said: Desired, why: str | None) -> None:
        """Desire it from now on."""
        self.said = said
        self.versions.append(TwinVersion(self.device.id, said.version, said.desired, said.digest, said.timestamp, None, why))
        del self.versions[:-HISTORY_LIMIT]

    def move(self, to: LifeCycle, event: str, at: str, why: str | None) -> bool:
        """Take a step; False if it is there already; raises `Conflict` for one that no device takes."""
        before = self.device.state
        if before is to:
            return False
        check_move(self.device.id, before, to)
        self.device = replace(self.device, state=to)
        self.note(event, at, why, before)
        return True

    def note(self, event: str, at: str, why: str | None = None, before: LifeCycle | None = None) -> None:
        self.timeline.append(Step(at, event, before, self.device.state, why, None))
