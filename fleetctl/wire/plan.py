"""The plan of a rollout as it is signed (canonical CBOR), and `plan.json`: the same for people, with what proves it."""

import re
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

from fleetctl.errors import FleetError, Malformed, Untrusted
from fleetctl.model.attempt import Code
from fleetctl.model.device import DevicePath
from fleetctl.model.rollout.plan import ATTEMPT_LIMIT, Parameters, Plan, Skipped, SkipReason, Target
from fleetctl.wire.cose import split
from fleetctl.wire.document import Json, canonical_cbor, dump_json, parse_cbor, parse_json, rfc3339
from fleetctl.wire.fields import DIGEST, LEVEL, MAX_INTEGER, Fields, map_fields, object_fields

PLAN_LIMIT = 64 << 20
"""Bytes of one plan: some 400,000 devices; larger ones will come in pages."""
MANIFEST_LIMIT = 64 << 10
TARGET_LIMIT = 1_000_000
NAME_LIMIT = 128
FORMAT = 1
MINUTES_OF_DAY = 1440

_RELEASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}@[0-9A-Za-z.+-]{1,64}")
_KEYS = 19
_REASONS = dict(enumerate(SkipReason, 1))
_REASON_NUMBERS = {reason: number for number, reason in _REASONS.items()}
_PARAMETERS = tuple(field.name for field in fields(Parameters))
_LISTS = {"firmware_codes", "transient_codes"}
_COUNTS = {
    "small_fleet": TARGET_LIMIT,
    "first_wave": TARGET_LIMIT,
    "growth": 1000,
    "heartbeats": 250,
    "failure_floor": TARGET_LIMIT,
    "other_floor": TARGET_LIMIT,
    "max_attempts": ATTEMPT_LIMIT,
}


def encode_plan(plan: Plan) -> bytes:
    """The payload that a rollout key signs."""
    strata = sorted({target.stratum for target in plan.targets})
    sites = sorted({target.site for target in plan.targets})
    stratum, site = ({name: number for number, name in enumerate(names)} for names in (strata, sites))
    targets = [
        [*_short(t.path), None if t.digest is None else _raw(t.digest), t.base_order, stratum[t.stratum], site[t.site]]
        for t in plan.targets
    ]
    required = {
        1: FORMAT,
        2: plan.id,
        3: plan.tenant,
        4: plan.release,
        5: _raw(plan.image_digest),
        6: _raw(plan.manifest_digest),
        7: plan.size,
        8: strata,
        9: sites,
        10: targets,
        11: list(plan.waves),
        12: _encode_parameters(plan.parameters),
        13: plan.created_at,
        17: plan.jitter,
        18: plan.allow_downgrade,
        19: [[*_short(skipped.path), _REASON_NUMBERS[skipped.reason]] for skipped in plan.skipped],
    }
    optional = {14: plan.not_before, 15: plan.not_after, 16: None if plan.window is None else list(plan.window)}
    return canonical_cbor(required | {key: value for key, value in optional.items() if value is not None})


def decode_plan(payload: bytes) -> Plan:
    """The plan that a verified envelope carries; raises `Malformed` unless it is whole and says nothing unknown."""
    read = map_fields("the plan", parse_cbor(payload, PLAN_LIMIT), _KEYS)
    read.integer(1, FORMAT, FORMAT)
    tenant = read.text(3, LEVEL)
    plan = Plan(
        id=read.text(2, LEVEL),
        tenant=tenant,
        release=read.text(4, _RELEASE),
        image_digest=_spelled(read.data(5, 32)),
        manifest_digest=_spelled(read.data(6, 32)),
        targets=_targets(read, tenant),
        waves=tuple(_count(size, 1) for size in read.array(11, TARGET_LIMIT)),
        parameters=_parameters(map_fields("the parameters of the plan", read.mapping(12), len(_PARAMETERS))),
        created_at=read.integer(13),
        not_before=read.integer_or_none(14),
        not_after=read.integer_or_none(15),
        jitter=read.integer(17, high=0xFFFFFFFF),
        window=_window(read),
        allow_downgrade=read.flag(18),
        skipped=tuple(_skipped(entry, tenant) for entry in read.array(19, TARGET_LIMIT)),
    )
    if not plan.size == read.integer(7) == sum(plan.waves) == len({target.id for target in plan.targets}):
        raise Malformed("the numbers of devices in the plan disagree")
    return plan


@dataclass(frozen=True, slots=True)
class PlanFile:
    """`plan.json`: the plan, the signed manifest of its release, and the envelope (COSE_Sign1) over the plan; not verified."""

    plan: Plan
    manifest: bytes
    envelope: bytes

    def encode(self) -> bytes:
        document = {
            "plan": readable(self.plan),
            "manifest": b64encode(self.manifest).decode(),
            "envelope": b64encode(self.envelope).decode(),
        }
        return dump_json(document) + b"\n"

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Raises `Untrusted` unless what people read is what was signed; the signature is for `keys` to verify."""
        hint = "make a new one with fleetctl ota plan"
        try:
            read = object_fields("the plan file", parse_json(payload, 3 * PLAN_LIMIT))
            envelope, manifest = _base64(read, "envelope", PLAN_LIMIT), _base64(read, "manifest", MANIFEST_LIMIT)
            plan, shown = decode_plan(split(envelope, PLAN_LIMIT).payload), read.mapping("plan")
        except Malformed as error:
            raise Malformed(f"this is no plan: {error.message}", hint) from error
        if shown != readable(plan):
            raise Untrusted("the plan in the file is not the plan that was signed", hint)
        return cls(plan, manifest, envelope)


def readable(plan: Plan) -> dict[str, Json]:
    """The plan as people and scripts read it."""
    return {
        "id": plan.id,
        "tenant": plan.tenant,
        "release": plan.release,
        "imageDigest": plan.image_digest,
        "manifestDigest": plan.manifest_digest,
        "size": plan.size,
        "targets": [
            {"path": str(t.path), "digest": t.digest, "baseOrder": t.base_order, "stratum": t.stratum, "site": t.site}
            for t in plan.targets
        ],
        "waves": list(plan.waves),
        "parameters": {_camel(name): _plain(getattr(plan.parameters, name)) for name in _PARAMETERS},
        "createdAt": rfc3339(plan.created_at),
        "notBefore": None if plan.not_before is None else rfc3339(plan.not_before),
        "notAfter": None if plan.not_after is None else rfc3339(plan.not_after),
        "window": None if plan.window is None else list(plan.window),
        "jitter": plan.jitter,
        "allowDowngrade": plan.allow_downgrade,
        "skipped": [{"path": str(skipped.path), "reason": str(skipped.reason)} for skipped in plan.skipped],
    }


def _short(path: DevicePath) -> list[str]:
    return [path.location, path.device_type, path.device_id]


def _raw(digest: str) -> bytes:
    if not DIGEST.fullmatch(digest):
        raise Malformed(f"`{digest[:80]}` is not a digest")
    return bytes.fromhex(digest.removeprefix("sha256:"))


def _spelled(data: bytes) -> str:
    return f"sha256:{data.hex()}"


def _encode_parameters(parameters: Parameters) -> dict[int, object]:
    return {number: _plain(getattr(parameters, name)) for number, name in enumerate(_PARAMETERS, 1)}


def _plain(value: float | tuple[float, ...] | tuple[str, ...]) -> Json:
    return list(value) if isinstance(value, tuple) else value


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)


def _parameters(read: Fields) -> Parameters:
    values: dict[str, object] = {}
    for number, name in enumerate(_PARAMETERS, 1):
        if name == "grid":
            values[name] = tuple(_share(rate) for rate in read.array(number, 100))
        elif name in _LISTS:
            values[name] = tuple(_code(code) for code in read.array(number, len(Code)))
        elif name in _COUNTS:
            values[name] = read.integer(number, high=_COUNTS[name])
        else:
            values[name] = read.number(number, 0, 1e10)
    try:
        return Parameters(**values)  # type: ignore[arg-type]
    except FleetError as error:
        raise Malformed(f"the plan is refused: {error.message}") from error


def _targets(read: Fields, tenant: str) -> tuple[Target, ...]:
    strata = [_name(name) for name in read.array(8, TARGET_LIMIT)]
    sites = [_name(name) for name in read.array(9, TARGET_LIMIT)]
    return tuple(_target(entry, tenant, strata, sites) for entry in read.array(10, TARGET_LIMIT))


def _target(entry: object, tenant: str, strata: Sequence[str], sites: Sequence[str]) -> Target:
    match entry:
        case [str(location), str(device_type), str(device), None | bytes() as image, order, stratum, site]:
            path = _path(tenant, location, device_type, device)
            if image is None or len(image) == 32:
                digest = None if image is None else _spelled(image)
                order = _count(order, 0, MAX_INTEGER - 2 * ATTEMPT_LIMIT)
                numbers = _count(stratum, 0, len(strata) - 1), _count(site, 0, len(sites) - 1)
                return Target(path, digest, order, strata[numbers[0]], sites[numbers[1]])
    raise Malformed("a target of the plan is not a device")


def _skipped(entry: object, tenant: str) -> Skipped:
    match entry:
        case [str(location), str(device_type), str(device), reason]:
            return Skipped(_path(tenant, location, device_type, device), _REASONS[_count(reason, 1, len(_REASONS))])
    raise Malformed("a skipped device of the plan has no reason")


def _path(*levels: str) -> DevicePath:
    try:
        return DevicePath(*levels)
    except FleetError as error:
        raise Malformed(f"the plan names no device: {error.message}") from error


def _window(read: Fields) -> tuple[int, int] | None:
    if read.absent(16):
        return None
    match read.array(16, limit=2):
        case [start, end] if start != end:
            return _count(start, 0, MINUTES_OF_DAY - 1), _count(end, 0, MINUTES_OF_DAY - 1)
    raise Malformed("the window of the plan is not two different minutes of the day")


def _count(value: object, low: int, high: int = TARGET_LIMIT) -> int:
    if type(value) is int and low <= value <= high:
        return value
    raise Malformed("the plan holds a number that is out of range")


def _share(value: object) -> float:
    if isinstance(value, float) and 0 < value < 1:
        return value
    raise Malformed("the plan holds a rate that is not a share")


def _name(value: object) -> str:
    if isinstance(value, str) and len(value) <= NAME_LIMIT and value.isprintable():
        return value
    raise Malformed("the plan holds a stratum or a site that is not a name")


def _code(value: object) -> str:
    if isinstance(value, str) and value in set(Code):
        return value
    raise Malformed("the plan holds a code that is not known")


def _base64(read: Fields, key: str, limit: int) -> bytes:
    try:
        return b64decode(read.text(key, limit=limit * 2), validate=True)
    except ValueError as error:
        raise Malformed(f"`{key}` of the plan file is not base64") from error
