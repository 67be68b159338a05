"""What a device remembers of its slots and of an update: phases, codes, attempts, the durable record (docs/protocol.md)."""

from dataclasses import dataclass
from enum import StrEnum


class Phase(StrEnum):
    """What a device reports of an attempt; `queued` and the fleet's own verdicts are not the device's to say."""

    ACCEPTED = "accepted"
    DEFERRED = "deferred"
    DOWNLOADING = "downloading"
    DOWNLOADED = "downloaded"
    VERIFIED = "verified"
    INSTALLING = "installing"
    INSTALLED = "installed"
    REBOOTING = "rebooting"
    TESTING = "testing"
    SUCCEEDED = "succeeded"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"
    CANCELED = "canceled"
    REJECTED = "rejected"
    FAILED = "failed"


FINAL = frozenset({Phase.SUCCEEDED, Phase.ROLLED_BACK, Phase.CANCELED, Phase.REJECTED, Phase.FAILED})
COMMITTED = frozenset({Phase.INSTALLED, Phase.REBOOTING, Phase.TESTING, Phase.ROLLING_BACK})


class Code(StrEnum):
    """Why an attempt failed."""

    BOOT_FAILED = "BOOT_FAILED"
    HEALTH_FAILED = "HEALTH_FAILED"
    ROLLED_BACK = "ROLLED_BACK"
    SILENT = "SILENT"
    NO_SPACE = "NO_SPACE"
    NO_MEMORY = "NO_MEMORY"
    CONNECTION_LOST = "CONNECTION_LOST"
    INTEGRITY = "INTEGRITY"
    SIGNATURE = "SIGNATURE"
    UNTRUSTED_KEY = "UNTRUSTED_KEY"
    INCOMPATIBLE = "INCOMPATIBLE"
    DOWNGRADE = "DOWNGRADE"
    EXPIRED = "EXPIRED"
    NO_CLOCK = "NO_CLOCK"
    BASE_MISMATCH = "BASE_MISMATCH"
    POWER = "POWER"
    UNAUTHORIZED = "UNAUTHORIZED"
    CANCELED = "CANCELED"
    INTERNAL = "INTERNAL"


FIRMWARE_CODES = frozenset({Code.BOOT_FAILED, Code.HEALTH_FAILED, Code.ROLLED_BACK, Code.SILENT})


class Slot(StrEnum):
    A = "A"
    B = "B"

    @property
    def other(self) -> "Slot":
        return Slot.B if self is Slot.A else Slot.A


@dataclass(frozen=True, slots=True)
class Image:
    """A firmware image: `digest` is `sha256:<hex>` of its `size` bytes."""

    digest: str
    version: str
    size: int
    security_counter: int = 0


@dataclass(frozen=True, slots=True)
class Terms:
    """When an attempt may begin: Unix seconds, a window in minutes of the UTC day, `delay` seconds drawn from the jitter."""

    not_before: float | None = None
    not_after: float | None = None
    window: tuple[int, int] | None = None
    delay: float = 0.0

    @property
    def needs_clock(self) -> bool:
        return self.not_before is not None or self.not_after is not None or self.window is not None


@dataclass(frozen=True, slots=True)
class Offer:
    """An assignment whose signature, tenant, device and manifest digest the caller has proved.

    `content` is the digest of the assignment. `image` is what its manifest says, or None with the `flaw` that the manifest has;
    a cancel needs neither. `compatible` says that the image is made for this kind of device.
    """

    rollout_id: str
    order: int
    attempt: int
    cancel: bool
    content: str
    manifest: str
    image: Image | None = None
    flaw: Code | None = None
    detail: str = ""
    compatible: bool = True
    allow_downgrade: bool = False
    terms: Terms = Terms()


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at one assignment, as it is reported: only a greater (number, step) of a rollout counts."""

    rollout_id: str
    number: int
    order: int
    manifest: str
    phase: Phase
    step: int = 1
    code: Code | None = None
    detail: str = ""
    progress: int = 0
    image: Image | None = None
    from_version: str = ""
    slot: Slot | None = None
    accepted_boot: int | None = None
    terms: Terms = Terms()

    @property
    def final(self) -> bool:
        return self.phase in FINAL


@dataclass(frozen=True, slots=True)
class Record:
    """All that a device must remember; `active` is the confirmed slot, `trial` the boot flag, `running` what was started."""

    a: Image | None
    b: Image | None = None
    active: Slot = Slot.A
    trial: Slot | None = None
    running: Slot = Slot.A
    tries: int = 0
    boot: int = 0
    security_counter: int = 0
    order: int = 0
    content: str = ""
    attempt: Attempt | None = None

    def image(self, slot: Slot) -> Image | None:
        return self.a if slot is Slot.A else self.b

    @property
    def current(self) -> Image:
        """The image that runs."""
        image = self.image(self.running)
        if image is None:
            raise ValueError(f"slot {self.running} runs but is empty")
        return image

    def sound(self) -> bool:
        """Whether this is a record that the state machine can have written."""
        return (
            self.image(self.active) is not None
            and self.image(self.running) is not None
            and self.trial is not self.active
            and (self.trial is None or (self.image(self.trial) is not None and self.tries >= 0))
            and (self.trial is None or (self.attempt is not None and self.attempt.phase in COMMITTED))
            and (self.attempt is None or self.attempt.final or self.attempt.image is not None)
        )
