"""Provisioning profiles: what a new device is given, and which ids may have it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from fleetctl.errors import UsageError
from fleetctl.model.device import check_labels, check_level, printable
from fleetctl.model.twin import check_patch

HEARTBEAT = 60.0
REPORTING = 60.0
SHORTEST_SECONDS = 0.1
LONGEST_SECONDS = 31 * 86400.0
FEWEST_DAYS = 0.0001
MOST_DAYS = 20 * 365
ID_LIMIT = 64
PATTERN_LIMIT = 128
CHOICES_LIMIT = 3
"""How many parts of a pattern may repeat as often as they like: more, and an id could keep the matcher busy for hours."""
BRANCHES_LIMIT = 16
REPEATS_LIMIT = 64

_TOKEN = re.compile(
    r"(?P<group>\((?:\?:)?)|(?P<end>\))|(?P<branch>\|)|(?P<repeat>[*+?]|\{[0-9]{1,3}(?:,[0-9]{0,3})?\})"
    r"|(?P<anchor>[$^])|(?P<atom>\[\^?[^\[\]\\]+\]|\\[dwDW.\-_+*?()|\[\]{}^$\\]|[^\\\[\](){}*+?|^$])"
)


class Approval(StrEnum):
    """Who decides about a device that enrols."""

    AUTO = "auto"
    MANUAL = "manual"


@dataclass(frozen=True, slots=True)
class ProvisioningProfile:
    """What devices get that enrol with it: type and place, seconds between their messages, twin defaults, days of certificate.

    `ids` is a regular expression that a whole id must match; `days` may be less than one, and is None for the default.
    """

    name: str
    device_type: str | None = None
    location: str | None = None
    heartbeat: float = HEARTBEAT
    reporting_interval: float = REPORTING
    twin: Mapping[str, Any] = field(default_factory=dict)
    days: float | None = None
    approval: Approval = Approval.AUTO
    ids: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    def takes(self, device_id: str) -> bool:
        """Whether a device may be called that."""
        return self.ids is None or (len(device_id) <= ID_LIMIT and re.fullmatch(self.ids, device_id) is not None)

    def document(self) -> dict[str, Any]:
        """The profile as JSON's types, without its name; `parse` reads it."""
        return {
            "type": self.device_type,
            "location": self.location,
            "heartbeat": self.heartbeat,
            "reportingInterval": self.reporting_interval,
            "twin": dict(self.twin),
            "days": self.days,
            "approval": self.approval.value,
            "ids": self.ids,
            "labels": dict(self.labels),
        }


KEYS = tuple(ProvisioningProfile("any").document())
DEFAULT = ProvisioningProfile("default")
"""What holds where no profile is named."""


def parse(name: str, document: Mapping[str, Any]) -> ProvisioningProfile:
    """A checked profile; what is absent or null has its default. Raises `UsageError` naming the key that is wrong."""
    check_level("profile", name)
    unknown = [key for key in document if key not in KEYS]
    if unknown:
        raise UsageError(f"profile `{name}` has an unknown key {printable(str(unknown[0]))}", f"its keys are {', '.join(KEYS)}")
    given = {key: value for key, value in document.items() if value is not None}
    return ProvisioningProfile(
        name,
        _level(given, "device type", "type"),
        _level(given, "location", "location"),
        _seconds(given, "heartbeat", HEARTBEAT),
        _seconds(given, "reportingInterval", REPORTING),
        check_patch(_mapping(given, "twin")),
        _days(given),
        _approval(given.get("approval", Approval.AUTO)),
        check_ids(given["ids"]) if "ids" in given else None,
        check_labels(_texts(_mapping(given, "labels"))),
    )


def check_ids(pattern: object) -> str:
    """Return a pattern that any id of at most 64 characters is matched with in a moment; raises `UsageError`.

    It may repeat single characters and classes, not groups, because one repetition in another takes time beyond measure.
    """
    if not isinstance(pattern, str) or not 0 < len(pattern) <= PATTERN_LIMIT:
        raise _refused(pattern, f"it is no text of 1 to {PATTERN_LIMIT} characters")
    position, last, choices, branches, groups = 0, "", 0, 0, 0
    while position < len(pattern):
        found = _TOKEN.match(pattern, position)
        if found is None:
            raise _refused(pattern, f"{printable(pattern[position:][:12])} at {position + 1} is not understood")
        kind = str(found.lastgroup)
        if kind == "repeat" and last != "atom":
            raise _refused(pattern, f"`{found[0]}` at {position + 1} repeats no single character or class")
        choices += kind == "repeat" and _is_choice(found[0])
        branches += kind == "branch"
        groups += kind == "group"
        position, last = found.end(), kind
    if choices > CHOICES_LIMIT or branches > BRANCHES_LIMIT or groups > 2:
        raise _refused(pattern, f"it has more than {CHOICES_LIMIT} open repetitions, {BRANCHES_LIMIT} alternatives or 2 groups")
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise _refused(pattern, str(error)) from error
    return pattern


def _is_choice(repeat: str) -> bool:
    """Whether it leaves open how often; raises `UsageError` for a number that no id needs."""
    numbers = [int(text) for text in repeat.strip("{}").split(",") if text.isdigit()]
    if any(number > REPEATS_LIMIT for number in numbers):
        raise _refused(repeat, f"an id has at most {ID_LIMIT} characters")
    return not (len(numbers) == 1 and "," not in repeat)


def _refused(pattern: object, why: str) -> UsageError:
    return UsageError(f"pattern {printable(str(pattern))} is not one for ids: {why}", "as in --ids 'SN[0-9]{6}' or 'pump-[a-z]+'")


def _level(given: Mapping[str, Any], what: str, key: str) -> str | None:
    return check_level(what, str(given[key])) if key in given else None


def _seconds(given: Mapping[str, Any], key: str, default: float) -> float:
    value = given.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not SHORTEST_SECONDS <= value <= LONGEST_SECONDS:
        raise UsageError(f"`{key}` is not a time between {SHORTEST_SECONDS:g}s and 31d", "as in 60s, or 60 in a file")
    return float(value)


def _days(given: Mapping[str, Any]) -> float | None:
    value = given.get("days")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not FEWEST_DAYS <= value <= MOST_DAYS:
        raise UsageError(f"`days` is not a number from {FEWEST_DAYS:g} to {MOST_DAYS}", "as in --days 90, or --days 0.5")
    return int(value) if value == int(value) else value


def _approval(value: object) -> Approval:
    try:
        return Approval(str(value))
    except ValueError as error:
        raise UsageError(f"{printable(str(value))} is no way to approve", f"one of: {', '.join(Approval)}") from error


def _mapping(given: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = given.get(key, {})
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise UsageError(f"`{key}` is not an object", f"as in {key}: {{key: value}}")
    return value


def _texts(labels: Mapping[str, Any]) -> dict[str, str]:
    for name, value in labels.items():
        if not isinstance(value, str):
            raise UsageError(f"label {printable(name)} is not text", "put it in quotes")
    return dict(labels)
