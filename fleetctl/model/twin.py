"""Twins: what a device should be, what it says it is, and the difference (RFC 7396)."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fleetctl.errors import UsageError
from fleetctl.model.device import printable

SIZE_LIMIT = 8192
DEPTH_LIMIT = 16
NUMBER_LIMIT = (1 << 63) - 1
FIRMWARE_KEYS = ("firmwareVersion",)
HISTORY_LIMIT = 100
"""How many versions of each twin are kept."""


@dataclass(frozen=True, slots=True)
class Absent:
    """There is no such key; `null` would be a value."""

    def __bool__(self) -> bool:
        return False


ABSENT = Absent()


@dataclass(frozen=True, slots=True)
class Difference:
    """One desired value that the device does not report; `reported` is ABSENT where it reports nothing."""

    path: str
    desired: Any
    reported: Any


def merge(target: Any, patch: Any) -> Any:
    """RFC 7396 section 2: `null` removes a key, objects merge, everything else replaces; arguments stay as they are."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


def drift(desired: Mapping[str, Any], reported: Mapping[str, Any] | None) -> list[Difference]:
    """Every desired value that the device does not report, by dotted path; what it reports beyond that is no drift."""
    return list(_drift(desired, reported or {}, ""))


def convergence(
    version: int, desired: Mapping[str, Any], reported_version: int, reported: Mapping[str, Any] | None
) -> tuple[str, str | None]:
    """`converged`, `refused` or `waiting`, and what is between: a device answers a version with all it has and its `$errors`."""
    if not version:
        return "converged", "nothing is desired"
    if reported is None:
        return "waiting", "it has reported nothing"
    if reported_version < version:
        return "waiting", f"it answers version {reported_version}"
    missing, errors = drift(desired, reported), reported.get("$errors")
    if not missing:
        return "converged", None
    if isinstance(errors, Mapping) and errors:
        key = min(errors)
        return "refused", f"{printable(key)}: {printable(str(errors[key])).strip('`')}"
    first = printable(missing[0].path)
    return "waiting", f"{first} differs" if len(missing) == 1 else f"{len(missing)} values differ, the first is {first}"


def removal(keys: Iterable[str]) -> dict[str, Any]:
    """A merge patch that removes dotted keys; raises `UsageError` as `parse_words` does."""
    patch: dict[str, Any] = {}
    for key in keys:
        if not all(key.split(".")) or "=" in key:
            raise UsageError(f"{printable(key)} is not a key", "reportingInterval, or network.apn")
        _put(patch, key, None)
    if not patch:
        raise UsageError("nothing to unset", "name at least one key")
    return check_patch(patch)


def check_document(document: Mapping[str, Any]) -> dict[str, Any]:
    """A whole document that a fleet may desire; raises `UsageError` as `check_patch` does, and for a `null`."""
    _check_no_null(document, "")
    return check_patch(document)


def parse_words(words: Iterable[str], *, text: bool = False) -> dict[str, Any]:
    """A merge patch from `k=v` words: the value is JSON if it parses, else text; dots nest; `null` removes.

    With `text` every value is taken as it stands, so that `1.10` stays `"1.10"`.

    Raises:
        UsageError: a word is no assignment, a key is reserved, or two words contradict each other.
    """
    patch: dict[str, Any] = {}
    for word in words:
        key, separator, value = word.partition("=")
        if not separator or not all(key.split(".")):
            raise UsageError(f"{printable(word)} is not KEY=VALUE", "reportingInterval=60, or network.apn=iot.example")
        _put(patch, key, value if text else _value(value))
    if not patch:
        raise UsageError("nothing to set", "name at least one KEY=VALUE")
    return check_patch(patch)


def check_patch(patch: Mapping[str, Any]) -> dict[str, Any]:
    """Return the patch if a fleet may send it; raises `UsageError` for keys that are not the twin's, and for deep nesting."""
    for key in FIRMWARE_KEYS:
        if key in patch:
            raise UsageError(
                f"`{key}` is not set through the twin", "roll out a release with fleetctl ota start RELEASE -l SELECTOR"
            )
    _check_value(patch, 0)
    return dict(patch)


def check_size(device_id: str, document: bytes) -> bytes:
    """Raises `UsageError` when a desired document is larger than a device must be able to take."""
    if len(document) > SIZE_LIMIT:
        raise UsageError(
            f"the twin of `{device_id}` would be {len(document)} bytes, more than {SIZE_LIMIT}", "remove keys with KEY=null"
        )
    return document


def _drift(desired: Mapping[str, Any], reported: Mapping[str, Any], prefix: str) -> Iterator[Difference]:
    for key in sorted(desired):
        wanted, found = desired[key], reported.get(key, ABSENT)
        if isinstance(wanted, Mapping) and wanted and isinstance(found, Mapping):
            yield from _drift(wanted, found, f"{prefix}{key}.")
        elif not same(wanted, found):
            yield Difference(f"{prefix}{key}", wanted, found)


def same(one: Any, other: Any) -> bool:
    """JSON equality: 60 and 60.0 are the same, 1 and true are not."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(same(*pair) for pair in zip(one, other, strict=True))
    return bool(one == other)


def _put(patch: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    place = patch
    for parent in parents:
        place = place.setdefault(parent, {})
        if not isinstance(place, dict):
            raise UsageError(f"`{key}` contradicts another word", "name each key once")
    if last in place:
        raise UsageError(f"`{key}` is set twice", "name each key once")
    place[last] = value


def _value(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse, object_pairs_hook=_object)
    except (ValueError, RecursionError):
        return text


def _check_no_null(value: Any, path: str) -> None:
    if value is None:
        raise UsageError(f"`{path}` is null", "leave the key out: null only removes, in a patch")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _check_no_null(inner, f"{path}.{key}" if path else str(key))


def _refuse(text: str) -> None:
    raise ValueError(text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise UsageError("a key appears twice in one JSON value", "name each key once")
    return found


def _check_value(value: Any, depth: int) -> None:
    if depth > DEPTH_LIMIT:
        raise UsageError(f"the change nests deeper than {DEPTH_LIMIT} levels", "write it flatter")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _check_value(key, depth)
            if key.startswith("$"):
                raise UsageError(f"{printable(key)} is a reserved key", "keys that begin with `$` belong to the protocol")
            _check_value(inner, depth + 1)
    elif isinstance(value, list | tuple):
        for inner in value:
            _check_value(inner, depth + 1)
    elif isinstance(value, int | float) and not -NUMBER_LIMIT <= value <= NUMBER_LIMIT:
        raise UsageError("a number is larger than devices take", "send it as text: KEY='\"…\"'")
    elif isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise UsageError(f"{printable(value)} is not Unicode text", "write half of a surrogate pair nowhere")
