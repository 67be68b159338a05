"""The assignment: what one device shall do with one manifest, signed by a rollout key."""

from dataclasses import dataclass
from typing import Literal, Self

from fleetctl.errors import Malformed
from fleetctl.wire.document import canonical_cbor, parse_cbor
from fleetctl.wire.fields import LEVEL, Fields, map_fields

MINUTES_OF_DAY = 1440
_ACTIONS: dict[int, Literal["install", "cancel"]] = {1: "install", 2: "cancel"}
_NUMBERS = {action: number for number, action in _ACTIONS.items()}
_KEYS = 12


@dataclass(frozen=True, slots=True)
class Assignment:
    """One order to one device.

    `order` rises strictly per device; `manifest` is the SHA-256 of the manifest's envelope; `not_before` and `not_after` are
    Unix seconds; `window` is minutes of the UTC day, and may wrap midnight; `jitter` is seconds.
    """

    tenant: str
    device_id: str
    rollout_id: str
    order: int
    action: Literal["install", "cancel"]
    attempt: int
    manifest: bytes
    not_before: int | None = None
    not_after: int | None = None
    window: tuple[int, int] | None = None
    jitter: int = 0
    allow_downgrade: bool = False

    def encode(self) -> bytes:
        required = {
            1: self.tenant,
            2: self.device_id,
            3: self.rollout_id,
            4: self.order,
            5: _NUMBERS[self.action],
            6: self.attempt,
            7: self.manifest,
            11: self.jitter,
            12: self.allow_downgrade,
        }
        optional = {8: self.not_before, 9: self.not_after, 10: None if self.window is None else list(self.window)}
        return canonical_cbor(required | {key: value for key, value in optional.items() if value is not None})

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        fields = map_fields("the assignment", parse_cbor(payload), _KEYS)
        return cls(
            tenant=fields.text(1, LEVEL),
            device_id=fields.text(2, LEVEL),
            rollout_id=fields.text(3, LEVEL),
            order=fields.integer(4, low=1),
            action=_ACTIONS[fields.integer(5, 1, len(_ACTIONS))],
            attempt=fields.integer(6, low=1),
            manifest=fields.data(7, 32),
            not_before=fields.integer_or_none(8),
            not_after=fields.integer_or_none(9),
            window=_window(fields),
            jitter=fields.integer(11, high=0xFFFFFFFF),
            allow_downgrade=fields.flag(12),
        )


def _window(fields: Fields) -> tuple[int, int] | None:
    if fields.absent(10):
        return None
    match fields.array(10, limit=2):
        case [int(start), int(end)] if all(type(m) is int and 0 <= m < MINUTES_OF_DAY for m in (start, end)) and start != end:
            return start, end
    raise Malformed("the window of the assignment is not two different minutes of the day")
