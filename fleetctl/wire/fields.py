"""Reading the members of a parsed document: each method returns a checked value or raises `Malformed` naming the member."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import cast

from fleetctl.errors import Malformed
from fleetctl.model.device import LEVEL_PATTERN
from fleetctl.wire.document import Json, parse_rfc3339

MAX_INTEGER = (1 << 53) - 1
FIRST_EXTENSION = 100
"""Integer keys from here on may be ignored by who does not know them; below, an unknown key is critical."""

LEVEL = re.compile(LEVEL_PATTERN)
TOKEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+:-]{0,63}")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

Key = str | int


@dataclass(frozen=True, slots=True)
class Fields:
    """The members of one document; `what` says which in messages. Absent and `null` are the same."""

    what: str
    members: Mapping[Key, object]

    def text(self, key: Key, pattern: re.Pattern[str] | None = None, limit: int = 256) -> str:
        value = self.members.get(key)
        if type(value) is not str or len(value) > limit or (pattern is not None and not pattern.fullmatch(value)):
            raise self._wrong(key)
        return value

    def integer(self, key: Key, low: int = 0, high: int = MAX_INTEGER) -> int:
        value = self.members.get(key)
        if type(value) is not int or not low <= value <= high:
            raise self._wrong(key)
        return value

    def number(self, key: Key, low: float, high: float) -> float:
        value = self.members.get(key)
        if type(value) not in (int, float) or not low <= (number := cast(float, value)) <= high:
            raise self._wrong(key)
        return number

    def flag(self, key: Key) -> bool:
        value = self.members.get(key)
        if type(value) is not bool:
            raise self._wrong(key)
        return value

    def data(self, key: Key, *lengths: int) -> bytes:
        """Bytes of one of these lengths."""
        value = self.members.get(key)
        if type(value) is not bytes or len(value) not in lengths:
            raise self._wrong(key)
        return value

    def choice(self, key: Key, allowed: Collection[str]) -> str:
        value = self.text(key)
        if value not in allowed:
            raise self._wrong(key)
        return value

    def time(self, key: Key) -> str:
        """An RFC 3339 time, as it was written."""
        value = self.text(key, limit=40)
        parse_rfc3339(value)
        return value

    def mapping(self, key: Key) -> dict[str, Json]:
        value = self.members.get(key)
        if not isinstance(value, dict):
            raise self._wrong(key)
        return value

    def array(self, key: Key, limit: int) -> list[object]:
        value = self.members.get(key)
        if not isinstance(value, list) or len(value) > limit:
            raise self._wrong(key)
        return value

    def absent(self, key: Key) -> bool:
        return self.members.get(key) is None

    def text_or_none(self, key: Key, pattern: re.Pattern[str] | None = None, limit: int = 256) -> str | None:
        return None if self.absent(key) else self.text(key, pattern, limit)

    def integer_or_none(self, key: Key, low: int = 0, high: int = MAX_INTEGER) -> int | None:
        return None if self.absent(key) else self.integer(key, low, high)

    def time_or_none(self, key: Key) -> str | None:
        return None if self.absent(key) else self.time(key)

    def _wrong(self, key: Key) -> Malformed:
        missing = key not in self.members
        return Malformed(f"{self.what} has {'no' if missing else 'a wrong'} `{key}`")


def object_fields(what: str, document: Mapping[str, Json]) -> Fields:
    """The members of a JSON object; unknown ones are ignored, so that adding a key stays a minor change."""
    return Fields(what, cast(Mapping[Key, object], document))


def map_fields(what: str, document: object, known: int) -> Fields:
    """The members of a signed CBOR map, whose keys are 1 to `known`; an unknown key below 100 is critical and refused."""
    if not isinstance(document, dict):
        raise Malformed(f"{what} is not a map")
    for key, value in document.items():
        if type(key) is not int or not (1 <= key <= known or key >= FIRST_EXTENSION):
            raise Malformed(f"{what} has the critical key `{key!r}`, which is not known here", "upgrade fleetctl")
        if value is None:
            raise Malformed(f"{what} spells an absent `{key}` as null")
    return Fields(what, document)
