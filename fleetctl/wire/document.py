"""The two encodings of the contract, read strictly: JSON for what people see, canonical CBOR for what is signed.

Nothing here trusts its input: size, depth, duplicate keys, non-finite numbers and second spellings are refused with `Malformed`.
"""

import hashlib
import json
import math
import re
import struct
from datetime import UTC, datetime
from typing import NoReturn, TypeAlias

import cbor2

from fleetctl.errors import Malformed
from fleetctl.model.device import printable

PAYLOAD_LIMIT = 131072
TWIN_LIMIT = 8192
DEPTH_LIMIT = 32
CBOR_DEPTH_LIMIT = 16

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII)


def parse_json(payload: bytes, limit: int = PAYLOAD_LIMIT) -> dict[str, Json]:
    """The JSON object (RFC 8259, I-JSON's restrictions) that `payload` spells; `limit` is in bytes; raises `Malformed`."""
    if len(payload) > limit:
        raise Malformed(f"the document has {len(payload)} bytes, {limit} are allowed")
    try:
        document = json.loads(
            payload.decode(),
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=_integer,
        )
        if b"\\u" in payload:
            json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise Malformed("the document holds half a surrogate pair") from error
    except UnicodeDecodeError as error:
        raise Malformed("the document is not UTF-8") from error
    except RecursionError as error:
        raise Malformed(f"the document is nested deeper than {DEPTH_LIMIT} levels") from error
    except ValueError as error:
        raise Malformed(f"the document is not JSON: {str(error)[:120]}") from error
    if not isinstance(document, dict):
        raise Malformed("the document is not a JSON object")
    _check_depth(document, DEPTH_LIMIT)
    return document


def dump_json(document: object) -> bytes:
    """Compact UTF-8 JSON in the order given; raises `Malformed` for NaN, infinities and half surrogate pairs."""
    try:
        return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except ValueError as error:
        raise Malformed("the document holds a number or text that JSON cannot carry") from error


def canonical_cbor(document: object) -> bytes:
    """The deterministic encoding (RFC 8949 section 4.2.1), for maps whose keys are all text or all integers from 0 on."""
    return cbor2.dumps(document, canonical=True)


def parse_cbor(payload: bytes, limit: int = PAYLOAD_LIMIT) -> object:
    """The one item that `payload` is the canonical encoding of; raises `Malformed` for any other spelling, tag or trailing byte.

    Items are integers of 64 bits, finite floats, booleans, null, byte and text strings, arrays, and maps
    whose keys are all text or all integers from 0 on.
    """
    if len(payload) > limit:
        raise Malformed(f"the document has {len(payload)} bytes, {limit} are allowed")
    _check_heads(payload)
    try:
        document = cbor2.loads(payload)
    except (cbor2.CBORDecodeError, ValueError, TypeError, OverflowError) as error:
        raise Malformed("the document is not CBOR") from error
    _check_values(document)
    if canonical_cbor(document) != payload:
        raise Malformed("the document is not canonical CBOR")
    return document


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def rfc3339(seconds: float) -> str:
    """Seconds since 1970 as RFC 3339 UTC with milliseconds."""
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise Malformed(f"{seconds} is no time between the years 1 and 9999") from error
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def parse_rfc3339(text: str) -> float:
    """Seconds since 1970; raises `Malformed` unless `text` is a full RFC 3339 time with its offset."""
    if not _RFC3339.fullmatch(text):
        raise Malformed(f"{printable(text)} is not an RFC 3339 time", "write it as 2026-01-15T10:30:00.000Z")
    try:
        seconds = datetime.fromisoformat(text).timestamp()
        rfc3339(seconds)
    except (ValueError, OverflowError, Malformed) as error:
        raise Malformed(f"{printable(text)} is not a time of the calendar") from error
    return seconds


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a key appears twice in one object")
    return document


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value


def _integer(text: str) -> int:
    if len(text) > 20 or not -(1 << 63) <= (value := int(text)) < 1 << 63:
        raise ValueError("an integer does not fit 64 bits")
    return value


def _check_depth(value: Json, left: int) -> None:
    if not isinstance(value, dict | list):
        return
    if not left:
        raise Malformed(f"the document is nested deeper than {DEPTH_LIMIT} levels")
    for child in value.values() if isinstance(value, dict) else value:
        _check_depth(child, left - 1)


def _check_heads(payload: bytes) -> None:
    """Walk the item heads before any library builds objects: no tags (which run code), no indefinite length, bounded depth."""
    position, open_items = 0, [1]
    while open_items:
        if not open_items[-1]:
            open_items.pop()
            continue
        open_items[-1] -= 1
        major, argument, position = _head(payload, position)
        if major in (2, 3):
            position += argument
            if position > len(payload):
                raise Malformed("the document ends early")
        elif major in (4, 5):
            if len(open_items) > CBOR_DEPTH_LIMIT:
                raise Malformed(f"the document is nested deeper than {CBOR_DEPTH_LIMIT} levels")
            open_items.append(argument * (major - 3))
    if position != len(payload):
        raise Malformed(f"{len(payload) - position} bytes follow the document")


def _head(payload: bytes, position: int) -> tuple[int, int, int]:
    """The major type, the argument and the end of the head at `position` (RFC 8949 section 3)."""
    try:
        major, information = payload[position] >> 5, payload[position] & 31
        if major == 6 or information > 27 or (major == 7 and information not in (20, 21, 22, 25, 26, 27)):
            raise Malformed("the document holds a tag, an indefinite length or a value that the contract does not use")
        if information < 24:
            return major, information, position + 1
        size = 1 << (information - 24)
        (argument,) = struct.unpack_from((">B", ">H", ">I", ">Q")[information - 24], payload, position + 1)
    except (IndexError, struct.error) as error:
        raise Malformed("the document ends early") from error
    return major, argument, position + 1 + size


def _check_values(value: object) -> None:
    if isinstance(value, dict):
        if not (all(type(key) is str for key in value) or all(type(key) is int and key >= 0 for key in value)):
            raise Malformed("the keys of a map are neither all text nor all integers from 0 on")
        for child in value.values():
            _check_values(child)
    elif isinstance(value, list):
        for child in value:
            _check_values(child)
    elif isinstance(value, float) and not math.isfinite(value):
        raise Malformed("the document holds a number that is not finite")
