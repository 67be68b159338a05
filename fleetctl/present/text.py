"""Values as one line of text that a terminal may be shown: no control character of a device reaches it raw."""

import json
import re
from collections.abc import Mapping
from unicodedata import east_asian_width

_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
_UNSAFE_IN_JSON = re.compile("[\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")


def safe(text: str) -> str:
    """`text` with control, direction and invisible characters escaped."""
    return _UNSAFE.sub(lambda found: found.group().encode("unicode_escape", "surrogatepass").decode(), text)


def is_safe(text: str) -> bool:
    """Whether nothing in `text` needs an escape, line ends apart."""
    return _UNSAFE.search(text.replace("\n", "")) is None


def json_text(value: object, indent: int | None = None) -> str:
    """JSON with nothing in it that moves a cursor: what JSON leaves raw is escaped too."""
    separators = (",", ":") if indent is None else (",", ": ")
    raw = json.dumps(value, ensure_ascii=False, indent=indent, separators=separators, allow_nan=False)
    return _UNSAFE_IN_JSON.sub(lambda found: f"\\u{ord(found.group()):04x}", raw)


def needs_escapes(value: object) -> bool:
    """Whether some text in this JSON value holds what JSON would leave raw and a terminal obeys."""
    return _UNSAFE_IN_JSON.search(json.dumps(value, ensure_ascii=False)) is not None


def cell(value: object) -> str:
    """A value as a table shows it: `-` for nothing, `k=v` pairs for a mapping."""
    if value is None or value in ("", {}, []):
        return "-"
    if isinstance(value, Mapping):
        return _pairs(value)
    if isinstance(value, list):
        return ",".join(cell(each) for each in value)
    return _scalar(value)


def _scalar(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}" if abs(value) < 1e6 else f"{value:.0f}"
    return safe(str(value))


def _pairs(value: Mapping[object, object]) -> str:
    if any(isinstance(each, Mapping | list) for each in value.values()):
        return json_text(value)
    return ",".join(f"{safe(str(key))}={_word(each)}" for key, each in value.items())


def _word(value: object) -> str:
    return safe(value) if isinstance(value, str) else json_text(value)


def width(text: str) -> int:
    """How many cells of a terminal `text` fills."""
    if text.isascii():
        return len(text)
    return sum(2 if east_asian_width(each) in "WF" else 1 for each in text)


def cut(text: str, limit: int) -> str:
    """`text` in at most `limit` cells, with an ellipsis where something is missing."""
    if width(text) <= limit:
        return text
    kept, used = [], 0
    for each in text:
        used += width(each)
        if used > limit - 1:
            break
        kept.append(each)
    return "".join(kept) + "…"
