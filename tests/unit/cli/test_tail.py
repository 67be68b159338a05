import io
from typing import Any

from fleetctl.cli.tail import MESSAGE
from fleetctl.present.format import Format
from fleetctl.present.render import Page, render

RECORDS = [
    {"receivedAt": "2026-01-15T10:30:00.000Z", "deviceId": "pump-1", "topic": "acme/oslo/pump/pump-1/telemetry", "payload": 1},
    {"receivedAt": "2026-01-15T10:30:00.500Z", "deviceId": None, "topic": "acme/_fleet/trust", "payload": {"base64": "AA=="}},
    {"receivedAt": "2026-01-15T10:30:01.000Z", "deviceId": "pump-2", "topic": "acme/oslo/pump/pump-2/twin/desired", "payload": 2},
]


def printed(**more: Any) -> str:
    out = io.StringIO()
    render(iter(RECORDS), MESSAGE, Page(out, **more))
    return out.getvalue()


def test_a_topic_leaves_out_the_device_that_is_named_beside_it() -> None:
    assert printed(limit=90).splitlines() == [
        "RECEIVED AT               DEVICE    TOPIC          PAYLOAD",
        "2026-01-15T10:30:00.000Z  pump-1    telemetry      1",
        "2026-01-15T10:30:00.500Z  -         acme/_fleet/trust  base64=AA==",
        "2026-01-15T10:30:01.000Z  pump-2    twin/desired       2",
    ]


def test_the_whole_topic_is_there_for_whoever_asks() -> None:
    for whole in (printed(format=Format.WIDE), printed(columns=("topic",)), printed(format=Format.JSONL)):
        assert "acme/oslo/pump/pump-1/telemetry" in whole
