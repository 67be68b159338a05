"""JSON Schemas of what travels, drawn from what `encode` really writes: one full and one bare example of each."""

import json
import os
from pathlib import Path
from typing import Any, Protocol

import pytest

from fleetctl.wire.command import Command, Reply
from fleetctl.wire.presence import Presence
from fleetctl.wire.status import UpdateStatus
from fleetctl.wire.telemetry import Reading, Telemetry
from fleetctl.wire.twin import Desired, Reported

FOLDER = Path(__file__).parents[3] / "docs" / "schemas" / "wire"
TIME = "2026-01-15T10:30:00.000Z"
DIGEST = "sha256:" + "0" * 64


class Wire(Protocol):
    def encode(self) -> bytes: ...


EXAMPLES: dict[str, tuple[Wire, ...]] = {
    "status": (
        Presence("online", "12-3", "2.0.5", DIGEST, "set", 900.0, TIME, TIME),
        Presence("offline", "12-3", "2.0.5", DIGEST, "none", 900.0),
    ),
    "telemetry": (
        Telemetry("temp-001", TIME, "m-1", {"temperature": Reading(21.4, "Cel")}, {"uptime": 86400}),
        Telemetry("temp-001", None, "m-1", {}),
    ),
    "twin-desired": (Desired(1, 7, DIGEST, {"reportingInterval": 60}, TIME),),
    "twin-reported": (Reported(7, {"reportingInterval": 60}, TIME), Reported(0, {})),
    "command": (Command("c-1", "12-3", {"after": 5}, TIME), Command("c-1", "12-3")),
    "command-reply": (Reply("c-1", "succeeded", {"took": 3}, TIME), Reply("c-1", "accepted")),
    "ota-status": (
        UpdateStatus("r-1", 3, 1, 7, "testing", "HEALTH_FAILED", 62, "1.4.1", "1.4.2", DIGEST, "B", 12, 11, TIME, "why"),
        UpdateStatus("r-1", 3, 1, 1, "queued", None, None, "1.4.1", None, DIGEST, None, 12, None),
    ),
}
ANY = {("command-reply", "result")}
NAMES = {bool: "boolean", int: "integer", float: "number", str: "string", dict: "object", list: "array", type(None): "null"}


def schema(name: str, examples: tuple[Wire, ...]) -> dict[str, Any]:
    documents = [json.loads(each.encode()) for each in examples]
    properties: dict[str, Any] = {}
    for key in documents[0]:
        kinds = list(dict.fromkeys(NAMES[type(document[key])] for document in documents))
        properties[key] = {} if (name, key) in ANY else {"type": kinds[0] if len(kinds) == 1 else kinds}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": name,
        "type": "object",
        "properties": properties,
        "required": list(properties),
    }


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_schema_of_each_payload(name: str) -> None:
    text = json.dumps(schema(name, EXAMPLES[name]), indent=2) + "\n"
    place = FOLDER / f"{name}.json"
    if os.environ.get("FLEETCTL_WRITE_REFERENCE"):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    assert place.read_text() == text
