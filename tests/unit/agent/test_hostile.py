"""Whatever arrives, on whatever topic, signed or not: the device drops it and counts it, and goes on."""

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleetctl.wire.document import canonical_cbor, dump_json

TOPICS = st.sampled_from(
    ["status", "twin/desired", "ota/desired", "commands/ping", "commands/", "commands/a/b", "acme/_fleet/trust", "elsewhere"]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
)
KEYS = st.sampled_from(["id", "session", "args", "expires", "status", "desired", "version", "generation", "digest", "timestamp"])
VALUES = SCALARS | st.sampled_from(["1-1", "0-1", "online", f"sha256:{'0' * 64}", "2026-01-01T00:00:00Z"])
DOCUMENTS = st.dictionaries(KEYS, VALUES | st.lists(SCALARS, max_size=3) | st.dictionaries(KEYS, VALUES, max_size=3))
CBOR = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.binary(max_size=80) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.integers(0, 20), inner, max_size=4),
    max_leaves=10,
)
QUIET = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def unhurt(bench: Any) -> None:
    assert bench.device.updater.record.attempt is None
    assert not any(event["event"] == "error" for event in bench.device.events)
    bench.device.events.clear()
    bench.device.reboots = False
    bench.device.tick()


@QUIET
@given(TOPICS, st.binary(max_size=300))
def test_any_bytes_are_survived(bench: Any, name: str, payload: bytes) -> None:
    bench.hear(name, payload)
    unhurt(bench)


@QUIET
@given(TOPICS, DOCUMENTS)
def test_any_json_is_survived(bench: Any, name: str, document: dict[str, Any]) -> None:
    bench.hear(name, dump_json(document))
    unhurt(bench)


@QUIET
@given(TOPICS, CBOR)
def test_any_cbor_is_survived(bench: Any, name: str, document: Any) -> None:
    bench.hear(name, canonical_cbor(document))
    unhurt(bench)


@QUIET
@given(CBOR, CBOR, st.integers(0, 2))
def test_nonsense_with_a_good_signature_is_survived(bench: Any, keys: Any, first: Any, second: Any, which: int) -> None:
    place = b"acme/hall/pump/p1/ota/desired"
    assignment = keys.rollout.sign(canonical_cbor(first), place)
    manifest = keys.release.sign(canonical_cbor(second), b"fleetctl/manifest")
    bench.assign(canonical_cbor([[assignment, manifest], [assignment], assignment][which]))
    unhurt(bench)


@settings(QUIET, max_examples=100)
@given(st.integers(0, 10_000), st.integers(1, 255))
def test_one_changed_byte_of_an_update_is_one_too_many(bench: Any, keys: Any, at: int, change: int) -> None:
    payload = bytearray(keys.desired(keys.manifest(b"image")))
    payload[at % len(payload)] ^= change
    before = bench.device.dropped
    bench.assign(bytes(payload))
    assert bench.device.dropped == before + 1
    unhurt(bench)
