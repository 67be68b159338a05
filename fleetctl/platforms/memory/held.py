"""What a fleet in memory holds of a device."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fleetctl.model.device import Device
from fleetctl.wire.presence import Presence
from fleetctl.wire.twin import Reported


@dataclass(slots=True)
class Held:
    device: Device
    version: int = 0
    desired: Mapping[str, Any] = field(default_factory=dict)
    digest: str | None = None
    updated_at: str | None = None
    presence: Presence | None = None
    seen_at: float | None = None
    reported: Reported | None = None
    reported_at: float | None = None
