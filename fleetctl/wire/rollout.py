"""What is retained of a rollout: where its plan is (`/plan`), and the state that a resumer trusts (`/state`, signed)."""

import re
from dataclasses import dataclass, fields
from typing import Self

from fleetctl.errors import Malformed
from fleetctl.model.attempt import Code
from fleetctl.model.rollout.events import Counts, Evidence, Failure, Pending, Snapshot, State
from fleetctl.model.rollout.report import FAILURE_LIMIT, PENDING_LIMIT, RANGE_LIMIT
from fleetctl.wire.document import canonical_cbor, dump_json, parse_cbor, parse_json
from fleetctl.wire.fields import DIGEST, LEVEL, MAX_INTEGER, Fields, map_fields, object_fields

REASON_LIMIT = 512
WAVE_LIMIT = 1000
_KEYS = 15
_STATES = dict(enumerate(State, 1))
_STATE_NUMBERS = {state: number for number, state in _STATES.items()}
_CODES = dict(enumerate(Code, 1))
_CODE_NUMBERS = {str(code): number for number, code in _CODES.items()}
_COUNTS = tuple(field.name for field in fields(Counts) if field.name != "codes")
_RULES = ("e-value", "second-failure")
_PENDING = {1: "offered", 2: "updating", 3: "overdue"}
_PENDING_NUMBERS = {stage: number for number, stage in _PENDING.items()}
_PLACE = re.compile(r"[!-~]{1,2048}")


@dataclass(frozen=True, slots=True)
class PlanPointer:
    """`/plan`: the digest of `plan.json`, and the path below an artifact base at which it is stored. A hint, until verified."""

    digest: str
    place: str

    def encode(self) -> bytes:
        return dump_json({"digest": self.digest, "place": self.place})

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        read = object_fields("the plan pointer", parse_json(payload))
        return cls(read.text("digest", DIGEST), read.text("place", _PLACE, limit=2048))


def encode_state(snapshot: Snapshot) -> bytes:
    """The payload that a rollout key signs for `/state`."""
    required = {
        1: snapshot.rollout_id,
        2: snapshot.serial,
        3: float(snapshot.at),
        4: _STATE_NUMBERS[snapshot.state],
        5: snapshot.reason[:REASON_LIMIT],
        6: list(snapshot.starts),
        7: list(snapshot.sizes),
        8: snapshot.held,
        9: snapshot.waived,
        11: [[f.index, _CODE_NUMBERS[f.code], f.regressed, f.counted] for f in snapshot.failures],
        12: [list(run) for run in snapshot.proven],
        14: [[getattr(snapshot.counts, name) for name in _COUNTS], _encode_codes(snapshot.counts)],
        15: [[p.index, _PENDING_NUMBERS[p.stage], float(p.since)] for p in snapshot.pending],
    }
    optional = {10: snapshot.last_proof, 13: None if snapshot.evidence is None else _encode_evidence(snapshot.evidence)}
    return canonical_cbor(required | {key: value for key, value in optional.items() if value is not None})


def decode_state(payload: bytes) -> Snapshot:
    """The state that a verified envelope carries; raises `Malformed`."""
    read = map_fields("the rollout state", parse_cbor(payload), _KEYS)
    snapshot = Snapshot(
        rollout_id=read.text(1, LEVEL),
        serial=read.integer(2),
        at=read.number(3, 0, 1e12),
        state=_STATES[read.integer(4, 1, len(_STATES))],
        reason=read.text(5, limit=REASON_LIMIT),
        starts=tuple(_count(start) for start in read.array(6, WAVE_LIMIT)),
        sizes=tuple(_count(size) for size in read.array(7, WAVE_LIMIT)),
        held=read.flag(8),
        waived=read.integer(9),
        last_proof=None if read.absent(10) else read.number(10, 0, 1e12),
        failures=tuple(_failure(entry) for entry in read.array(11, FAILURE_LIMIT)),
        proven=tuple(_run(entry) for entry in read.array(12, RANGE_LIMIT)),
        pending=tuple(_pending(entry) for entry in read.array(15, PENDING_LIMIT)),
        evidence=None if read.absent(13) else _evidence(read.array(13, 6)),
        counts=_counts(read),
    )
    if len(snapshot.starts) != len(snapshot.sizes) or list(snapshot.starts) != sorted(snapshot.starts):
        raise Malformed("the waves of the rollout state disagree")
    return snapshot


def _encode_codes(counts: Counts) -> dict[int, int]:
    return {_CODE_NUMBERS[code]: number for code, number in counts.codes.items()}


def _encode_evidence(evidence: Evidence) -> list[object]:
    value, bound = float(evidence.value), float(evidence.bound)
    return [evidence.rule, value, bound, evidence.failures, evidence.exposed, evidence.scope[:REASON_LIMIT]]


def _failure(entry: object) -> Failure:
    match entry:
        case [index, code, bool(regressed), bool(counted)]:
            return Failure(_count(index), str(_CODES[_count(code, 1, len(_CODES))]), regressed, counted)
    raise Malformed("a failure in the rollout state is not one")


def _run(entry: object) -> tuple[int, int]:
    match entry:
        case [start, length]:
            return _count(start), _count(length, 1)
    raise Malformed("a run of proven devices in the rollout state is not one")


def _pending(entry: object) -> Pending:
    match entry:
        case [index, stage, float(since)]:
            return Pending(_count(index), _PENDING[_count(stage, 1, len(_PENDING))], since)
    raise Malformed("a pending device in the rollout state is not one")


def _evidence(entry: list[object]) -> Evidence:
    match entry:
        case [str(rule), float(value), float(bound), failures, exposed, str(scope)] if rule in _RULES:
            return Evidence(rule, value, bound, _count(failures), _count(exposed), scope[:REASON_LIMIT])
    raise Malformed("the evidence in the rollout state is none")


def _counts(read: Fields) -> Counts:
    match read.array(14, 2):
        case [list(numbers), dict(codes)] if len(numbers) == len(_COUNTS):
            named = {str(_CODES[_count(code, 1, len(_CODES))]): _count(number) for code, number in codes.items()}
            return Counts(**dict(zip(_COUNTS, map(_count, numbers), strict=True)), codes=named)
    raise Malformed("the counts in the rollout state are not counts")


def _count(value: object, low: int = 0, high: int = MAX_INTEGER) -> int:
    if type(value) is int and low <= value <= high:
        return value
    raise Malformed("the rollout state holds a number that is out of range")
