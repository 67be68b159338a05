"""What a fleet in memory holds of a device."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fleetctl.model.device import Device
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

    @property
    def version(self) -> int:
        return 0 if self.said is None else self.said.version

    @property
    def desired(self) -> Mapping[str, Any]:
        return {} if self.said is None else self.said.desired
