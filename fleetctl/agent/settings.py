"""What the owner of an agent may choose; none of it comes from the fleet."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from fleetctl.agent.selftest import SelfTest, always_healthy
from fleetctl.agent.storage import SLOT_SIZE
from fleetctl.wire.telemetry import Reading

Sensors: TypeAlias = Callable[[str, float], dict[str, Reading]]
"""Readings of a device at a monotonic time."""


def no_sensors(_device_id: str, _now: float) -> dict[str, Reading]:
    return {}


@dataclass(frozen=True, slots=True)
class Settings:
    """Times are seconds; `heartbeat` None means the bundle's, `factory` None a small image made of the version."""

    firmware_version: str = "1.0.0"
    factory: Path | None = None
    self_test: SelfTest = always_healthy
    self_test_timeout: float = 60.0
    telemetry: float = 60.0
    heartbeat: float | None = None
    reboot_delay: float = 1.0
    slot_size: int = SLOT_SIZE
    clock: bool = True
    sensors: Sensors = no_sensors
    connect_timeout: float = 10.0
    backoff: float = 0.5
    backoff_limit: float = 60.0

    def factory_image(self, device_type: str) -> bytes:
        """The bytes that slot A holds before the first update."""
        if self.factory is not None:
            return self.factory.read_bytes()
        return f"factory image {self.firmware_version} of {device_type}\n".encode()
