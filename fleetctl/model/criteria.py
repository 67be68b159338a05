"""What a selector asks of a device: one criterion, a field compared with values."""

import fnmatch
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fleetctl.errors import UsageError
from fleetctl.model.device import DevicePath, printable
from fleetctl.model.presence import View
from fleetctl.model.release import Version

_FIXED = ("id", "type", "location", "status")
_ORDERS: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
_LABEL = re.compile(r"label\.[A-Za-z][A-Za-z0-9._/-]*")
_TWIN = re.compile(r"twin(\.[^.*?\[\]]+)+")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


@dataclass(frozen=True, slots=True)
class DeviceView:
    """What is known of a device at the moment of asking: `idle` is seconds since the last sign, None if there was none."""

    path: DevicePath
    labels: Mapping[str, str] = field(default_factory=dict)
    firmware: str | None = None
    status: str = View.UNKNOWN
    idle: float | None = None
    reported: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Operand:
    """A value as it was written; `order` is what it ranks by: a version, seconds or a number."""

    text: str
    is_literal: bool
    order: Any = None

    def equals(self, found: object) -> bool:
        if isinstance(found, str):
            return found == self.text if self.is_literal else _glob(self.text, found)
        return not self.is_literal and _same_json(found, _json(self.text))


@dataclass(frozen=True, slots=True)
class Criterion:
    """One comparison; `operator` is `=`, `!=`, an order, `in`, `notin`, `exists` or `absent`."""

    field: str
    operator: str
    operands: tuple[Operand, ...] = ()

    def holds(self, view: DeviceView) -> bool:
        found = value_of(self.field, view)
        match self.operator:
            case "exists":
                return found is not None
            case "absent":
                return found is None
            case "=" | "in":
                return self._equals(found)
            case "!=" | "notin":
                return not self._equals(found)
        ranked = _rank(self.field, found)
        return ranked is not None and _ORDERS[self.operator](ranked, self.operands[0].order)

    def _equals(self, found: object) -> bool:
        return found is not None and any(operand.equals(found) for operand in self.operands)


_FIELDS: Mapping[str, Callable[[DeviceView], object]] = {
    "id": lambda view: view.path.device_id,
    "type": lambda view: view.path.device_type,
    "location": lambda view: view.path.location,
    "status": lambda view: str(view.status),
    "firmware": lambda view: view.firmware or None,
    "idle": lambda view: view.idle,
}


def value_of(name: str, view: DeviceView) -> object:
    """The value of a field, None where there is none."""
    if name in _FIELDS:
        return _FIELDS[name](view)
    if name.startswith("twin."):
        return _at(view.reported, name.split(".")[1:])
    return view.labels.get(name.removeprefix("label."))


def criterion(name: str, operator: str, values: Sequence[tuple[str, bool]], at: int) -> Criterion:
    """Check one comparison, made of words and whether they were quoted; `at` is the column for `UsageError`."""
    canonical = name if name in _FIELDS or name.startswith(("twin.", "label.")) else f"label.{name}"
    if not (canonical in _FIELDS or _LABEL.fullmatch(canonical) or _TWIN.fullmatch(canonical)):
        raise UsageError(
            f"{printable(name)} at {at} names no field", f"id={name}, a label such as site=oslo, or twin.interval=60"
        )
    if canonical in _FIXED and operator in ("exists", "absent"):
        raise UsageError(f"`{name}` at {at} is compared with nothing", f"{name}=VALUE, or {name} in (A,B)")
    if canonical in _FIXED and operator in _ORDERS:
        raise UsageError(f"`{name}` at {at} has no order", f"{name}=VALUE, or {name} in (A,B)")
    if canonical == "idle" and operator not in (*_ORDERS, "exists", "absent"):
        raise UsageError(f"`idle` at {at} is compared with < or >", "idle>1h")
    if canonical == "status":
        _check_statuses(values, at)
    return Criterion(canonical, operator, tuple(_operand(canonical, operator, *value, at) for value in values))


def duration(text: str) -> float:
    """Seconds of `90s`, `1.5h`, `30d`; raises `UsageError` without a unit."""
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([smhdw])", text)
    if found is None:
        raise UsageError(f"{printable(text)} is not a duration", "write a number and a unit: 30s, 5m, 1h, 7d")
    return float(found[1]) * _UNITS[found[2]]


def _operand(name: str, operator: str, text: str, quoted: bool, at: int) -> Operand:
    if operator not in _ORDERS:
        return Operand(text, quoted)
    if name == "idle":
        return Operand(text, quoted, duration(text))
    order = _rank(name, text if name == "firmware" or name.startswith("label.") else _json(text))
    if order is None:
        kind = "a version, such as 2.1.0" if name == "firmware" else "a number"
        raise UsageError(
            f"{printable(text)} after `{operator}` at {at} is not {kind}", f"{name.removeprefix('label.')}{operator}…"
        )
    return Operand(text, quoted, order)


def _rank(name: str, found: object) -> Any:
    """What orders a value of this field: a version, or a number; None where it has none."""
    if name == "firmware":
        return _version(found)
    if name.startswith("label.") and isinstance(found, str):
        found = _json(found)
    if isinstance(found, bool) or not isinstance(found, int | float):
        return None
    return found if -math.inf < found < math.inf else None


def _version(found: object) -> Version | None:
    try:
        return Version.parse(found) if isinstance(found, str) else None
    except UsageError:
        return None


def _check_statuses(values: Sequence[tuple[str, bool]], at: int) -> None:
    for text, _ in values:
        if text not in tuple(View):
            raise UsageError(f"{printable(text)} after `status` at {at} is no status", f"status is one of {', '.join(View)}")


def _at(document: object, keys: Sequence[str]) -> object:
    for key in keys:
        if not isinstance(document, Mapping) or key not in document:
            return None
        document = document[key]
    return document


def _glob(pattern: str, found: str) -> bool:
    return fnmatch.fnmatchcase(found, pattern)


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _same_json(one: object, other: object) -> bool:
    return one == other and isinstance(one, bool) == isinstance(other, bool)
