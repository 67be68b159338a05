"""What the owner of an agent may choose; none of it comes from the fleet."""

from dataclasses import dataclass
from pathlib import Path

from fleetctl import files
from fleetctl.agent.selftest import SelfTest, always_healthy
from fleetctl.agent.sensors import Sensors
from fleetctl.agent.storage import SLOT_SIZE
from fleetctl.errors import ConfigError
from fleetctl.model.device import printable
from fleetctl.wire.fields import TOKEN


@dataclass(frozen=True, slots=True)
class Settings:
    """Times are seconds; `heartbeat` None means the bundle's, `factory` None a small image made of the version.

    `telemetry` is what counts where neither the twin nor the configuration says more; `fallback_after` is how long a new
    broker may be unreachable before the last that worked is tried again.

    `sensors` None means the machine's load for an agent, and a made-up climate for a simulated one.
    """

    firmware_version: str = "1.0.0"
    factory: Path | None = None
    self_test: SelfTest = always_healthy
    self_test_timeout: float = 60.0
    telemetry: float = 60.0
    heartbeat: float | None = None
    reboot_delay: float = 1.0
    slot_size: int = SLOT_SIZE
    clock: bool = True
    sensors: Sensors | None = None
    connect_timeout: float = 10.0
    backoff: float = 0.5
    backoff_limit: float = 60.0
    enrol_timeout: float = 20.0
    renewal_retry: float = 60.0
    renewal_limit: float = 3600.0
    fallback_after: float = 120.0

    def __post_init__(self) -> None:
        if not TOKEN.fullmatch(self.firmware_version):
            raise ConfigError(f"{printable(self.firmware_version)} is not a firmware version", "write it as 1.0.0")

    def factory_image(self, device_type: str) -> bytes:
        """The bytes that slot A holds before the first update; raises `Malformed` where they do not fit a slot."""
        if self.factory is not None:
            return files.read_limited(self.factory, self.slot_size)
        return f"factory image {self.firmware_version} of {device_type}\n".encode()
