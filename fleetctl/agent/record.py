"""The durable record as JSON, for `state.json`."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from fleetctl.errors import Malformed
from fleetctl.model.attempt import Attempt, Code, Image, Phase, Record, Slot, Terms


def encode(record: Record) -> bytes:
    return json.dumps(asdict(record), indent=1).encode()


def decode(data: bytes) -> Record:
    """The record that was written; raises `Malformed` for anything that the state machine cannot have written."""
    try:
        fields = json.loads(data)
        fields["a"], fields["b"] = _image(fields["a"]), _image(fields["b"])
        fields["active"], fields["running"], fields["trial"] = (
            Slot(fields["active"]),
            Slot(fields["running"]),
            _slot(fields["trial"]),
        )
        fields["attempt"] = None if fields["attempt"] is None else _attempt(fields["attempt"])
        record = Record(**fields)
        if record.sound():
            return record
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise Malformed("the record of slots and updates does not parse") from error
    raise Malformed("the record of slots and updates contradicts itself")


def _attempt(fields: dict[str, Any]) -> Attempt:
    terms = dict(fields["terms"])
    window = terms["window"]
    terms["window"] = None if window is None else (int(window[0]), int(window[1]))
    return Attempt(
        **{
            **fields,
            "phase": Phase(fields["phase"]),
            "code": None if fields["code"] is None else Code(fields["code"]),
            "slot": _slot(fields["slot"]),
            "image": _image(fields["image"]),
            "terms": Terms(**terms),
        }
    )


def _image(fields: Mapping[str, Any] | None) -> Image | None:
    return None if fields is None else Image(**fields)


def _slot(text: str | None) -> Slot | None:
    return None if text is None else Slot(text)
