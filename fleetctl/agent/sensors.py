"""What an agent measures: the machine it runs on, or, when it is only simulated, a plausible day."""

import math
import os
import zlib
from collections.abc import Callable
from typing import TypeAlias

from fleetctl.wire.telemetry import Reading

Sensors: TypeAlias = Callable[[str, float], dict[str, Reading]]
"""The readings of a device, by its id and a time in seconds."""

DAY = 86400.0


def of_machine(_device_id: str, _seconds: float) -> dict[str, Reading]:
    """The load of the last minute."""
    try:
        return {"load": Reading(round(os.getloadavg()[0], 2), "1")}
    except OSError:
        return {}


def of_simulation(device_id: str, seconds: float) -> dict[str, Reading]:
    """A temperature and a humidity that go up and down with the day; each device has its own."""
    phase = zlib.crc32(device_id.encode()) / 2**32 * math.tau
    swing = math.sin(seconds / DAY * math.tau + phase) + 0.05 * math.sin(seconds / 7 + phase)
    return {
        "temperature": Reading(round(20 + 5 * swing, 2), "Cel"),
        "humidity": Reading(round(55 - 15 * swing, 1), "%RH"),
    }
