"""The plan and the state of a rollout, written and read back, and what is refused."""

import json
from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetctl.errors import Malformed, Untrusted
from fleetctl.model.device import DevicePath
from fleetctl.model.rollout import (
    Counts,
    Evidence,
    Failure,
    Parameters,
    Pending,
    Plan,
    Skipped,
    SkipReason,
    Snapshot,
    State,
    Target,
)
from fleetctl.wire.cose import join, protect
from fleetctl.wire.document import canonical_cbor, parse_cbor
from fleetctl.wire.plan import PlanFile, decode_plan, encode_plan, readable
from fleetctl.wire.rollout import PlanPointer, decode_state, encode_state

NEW, OLD = "sha256:" + "a" * 64, "sha256:" + "b" * 64
PLAN = Plan(
    id="2026-11-23-pump",
    tenant="acme",
    release="pump@2.0.0",
    image_digest=NEW,
    manifest_digest=OLD,
    targets=(
        Target(DevicePath("acme", "oslo", "pump", "p1"), OLD, 4, "pump/a", "oslo"),
        Target(DevicePath("acme", "rome", "pump", "p2"), None, 0, "pump/b", ""),
    ),
    waves=(1, 1),
    parameters=Parameters(),
    created_at=1_763_900_000,
    not_after=1_763_990_000,
    window=(1320, 120),
    jitter=60,
    skipped=(Skipped(DevicePath("acme", "oslo", "fan", "f1"), SkipReason.INCOMPATIBLE),),
)
LEVELS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,9}", fullmatch=True)
DIGESTS = st.binary(min_size=32, max_size=32).map(lambda data: f"sha256:{data.hex()}")


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    ids = draw(st.lists(LEVELS, unique=True, max_size=6))
    targets = tuple(
        Target(
            DevicePath("acme", draw(LEVELS), "pump", name),
            draw(st.none() | DIGESTS),
            draw(st.integers(0, 1 << 52)),
            draw(LEVELS),
            draw(LEVELS),
        )
        for name in ids
    )
    return replace(
        PLAN,
        targets=targets,
        waves=(len(ids),) if ids else (),
        jitter=draw(st.integers(0, 1000)),
        not_before=draw(st.none() | st.integers(0, 1 << 40)),
        parameters=Parameters(soak=draw(st.floats(0, 1e9)), p0=draw(st.sampled_from([0.001, 0.01]))),
    )


@given(plans())
@settings(deadline=None)
def test_a_plan_survives_being_written(plan: Plan) -> None:
    assert decode_plan(encode_plan(plan)) == plan


def test_every_reason_has_the_number_that_the_contract_gives_it() -> None:
    path = DevicePath("acme", "oslo", "pump", "p9")
    for reason, number in zip(SkipReason, (1, 2, 3, 4), strict=True):
        payload = encode_plan(replace(PLAN, skipped=(Skipped(path, reason),)))
        document = parse_cbor(payload)
        assert isinstance(document, dict)
        assert document[19] == [["oslo", "pump", "p9", number]]
        assert decode_plan(payload).skipped == (Skipped(path, reason),)


def sealed(plan: Plan) -> PlanFile:
    return PlanFile(plan, b"manifest", join(protect(-8, b"k" * 8), encode_plan(plan), b"s" * 64))


def test_a_plan_file_carries_the_plan_for_people_and_what_proves_it() -> None:
    data = sealed(PLAN).encode()
    assert PlanFile.decode(data) == sealed(PLAN)
    document = json.loads(data)
    assert list(document) == ["plan", "manifest", "envelope"]
    assert document["plan"] == readable(PLAN)
    assert document["plan"]["targets"][0]["path"] == "acme/oslo/pump/p1"
    assert document["plan"]["skipped"] == [{"path": "acme/oslo/fan/f1", "reason": "incompatible"}]


@pytest.mark.parametrize(
    ("key", "value"),
    [("size", 3), ("waves", [2]), ("release", "pump@2.0.1"), ("allowDowngrade", True), ("notBefore", "2026-01-01T00:00:00.000Z")],
)
def test_what_people_read_must_be_what_was_signed(key: str, value: object) -> None:
    document = json.loads(sealed(PLAN).encode())
    document["plan"][key] = value
    with pytest.raises(Untrusted, match="not the plan that was signed"):
        PlanFile.decode(json.dumps(document).encode())


@pytest.mark.parametrize("key", ["plan", "manifest", "envelope"])
def test_a_plan_file_without_one_of_its_parts_is_refused(key: str) -> None:
    document = json.loads(sealed(PLAN).encode())
    for value in (None, "*", 7):
        with pytest.raises(Malformed):
            PlanFile.decode(json.dumps({**document, key: value}).encode())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (1, 2),
        (2, "a/b"),
        (2, None),
        (5, b"short"),
        (7, 3),
        (8, ["line\nbreak"]),
        (10, [["oslo", "pump", "p1", None, 0, 0, 0]] * 2),
        (10, [["oslo", "pump", "p1", None, 0, 5, 0]]),
        (10, [["oslo", "pump", "p+", None, 0, 0, 0], ["oslo", "pump", "p2", None, 0, 0, 0]]),
        (11, [2, 0]),
        (11, [1]),
        (12, {}),
        (13, "today"),
        (16, [5, 5]),
        (16, [5, 1440]),
        (17, -1),
        (18, 1),
        (19, [["oslo", "fan", "f1", 9]]),
        (20, "critical"),
    ],
)
def test_a_plan_that_is_not_whole_is_refused(key: int, value: object) -> None:
    document = parse_cbor(encode_plan(PLAN))
    assert isinstance(document, dict)
    with pytest.raises(Malformed):
        decode_plan(canonical_cbor({**document, key: value}))


@given(st.binary(max_size=200))
def test_garbage_is_malformed_and_nothing_else(data: bytes) -> None:
    for decode in (decode_plan, decode_state, PlanFile.decode, PlanPointer.decode):
        with pytest.raises(Malformed):
            decode(data)


def test_parameters_that_would_never_halt_are_refused() -> None:
    document = parse_cbor(encode_plan(PLAN))
    assert isinstance(document, dict)
    document[12][2] = 0.0
    with pytest.raises(Malformed, match="alpha"):
        decode_plan(canonical_cbor(document))


def test_the_numbers_of_parameters_in_a_plan_never_move() -> None:
    """Their position is their key on the wire: append, never reorder."""
    assert [field.name for field in fields(Parameters)][:7] == [
        "p0",
        "alpha",
        "grid",
        "small_fleet",
        "first_wave",
        "growth",
        "accept_within",
    ]
    assert len(fields(Parameters)) == 19


STATE = Snapshot(
    rollout_id="r1",
    serial=7,
    at=1_763_900_000.25,
    state=State.HALTED,
    reason="3 of 5 devices failed",
    starts=(0, 5),
    sizes=(5, 15),
    held=False,
    waived=1,
    last_proof=1_763_899_000.5,
    failures=(Failure(3, "SILENT", False, True), Failure(4, "ROLLED_BACK", True, False)),
    proven=((0, 3), (7, 1)),
    pending=(Pending(8, "offered", 1_763_899_990.5), Pending(9, "overdue", 1.0)),
    evidence=Evidence("e-value", 1234.5, 1000.0, 3, 5, "wave 1"),
    counts=Counts(queued=10, failed=3, targets=13, codes={"SILENT": 3}),
)


def test_a_state_survives_being_written() -> None:
    assert decode_state(encode_state(STATE)) == STATE
    bare = replace(STATE, evidence=None, last_proof=None, failures=(), proven=(), pending=(), state=State.RUNNING, reason="")
    assert decode_state(encode_state(bare)) == bare


def test_the_largest_state_fits_a_payload() -> None:
    failures = tuple(Failure(1_000_000 + n, "HEALTH_FAILED", True, True) for n in range(1000))
    proven = tuple((1_000_000 + 2 * n, 1) for n in range(2000))
    pending = tuple(Pending(1_000_000 + n, "offered", 1_763_900_000.123) for n in range(1000))
    data = encode_state(replace(STATE, failures=failures, proven=proven, pending=pending))
    assert len(data) < 65536
    assert decode_state(data).failures == failures


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (1, ""),
        (4, 9),
        (5, "x" * 600),
        (6, [0]),
        (6, [5, 0]),
        (7, [-1, 1]),
        (11, [[1, 99, True, True]]),
        (11, [[1, 1, 1, True]]),
        (12, [[1]]),
        (13, ["guess", 1.0, 1.0, 1, 1, ""]),
        (14, [[1], {}]),
        (15, [[1, 4, 1.0]]),
        (15, [[1, 1]]),
        (16, 1),
    ],
)
def test_a_state_that_is_not_whole_is_refused(key: int, value: object) -> None:
    document = parse_cbor(encode_state(STATE))
    assert isinstance(document, dict)
    with pytest.raises(Malformed):
        decode_state(canonical_cbor({**document, key: value}))


def test_a_pointer_says_where_the_plan_is() -> None:
    pointer = PlanPointer(NEW, f"/sha256/{'a' * 64}")
    assert PlanPointer.decode(pointer.encode()) == pointer
    assert json.loads(pointer.encode()) == {"digest": NEW, "place": f"/sha256/{'a' * 64}"}
