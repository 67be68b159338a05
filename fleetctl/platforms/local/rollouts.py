"""Which rollout is meant, where its plan is, and what is recorded of it."""

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from fleetctl import files
from fleetctl.errors import Malformed, NotFound, Untrusted, UsageError
from fleetctl.keys.cose import Signer, UnknownKey, trust_key
from fleetctl.keys.stores import open_reference
from fleetctl.model import topic as topics
from fleetctl.model.device import check_level
from fleetctl.model.rollout import Plan, Rollout, Snapshot, State
from fleetctl.mqtt.message import Message
from fleetctl.ota.store import blob_path
from fleetctl.platforms.local.plans import SignedPlan, UnverifiedPlan
from fleetctl.platforms.local.releases import Releases
from fleetctl.platforms.updates import RolloutEntry, RolloutRef
from fleetctl.registry import Registry
from fleetctl.wire.cose import split
from fleetctl.wire.document import parse_json, rfc3339
from fleetctl.wire.manifest import Manifest
from fleetctl.wire.plan import PLAN_LIMIT
from fleetctl.wire.rollout import PlanPointer
from fleetctl.wire.trust import TrustDocument

if TYPE_CHECKING:
    from fleetctl.platforms.local.fleet import LocalFleet

FILE_LIMIT = 3 * PLAN_LIMIT


class Authority:
    """In whose name a rollout is driven: the signer, and the keys whose plans and states count.

    `is_ours` says that `trust` is the context's trust document, which devices are told; that of a key alone is no document.
    """

    def __init__(self, signer: Signer, trust: TrustDocument, *, is_ours: bool) -> None:
        self.signer = signer
        self.trust = trust
        self.is_ours = is_ours


def authority(releases: Releases, tenant: str, key: str | None) -> Authority:
    """The context's rollout key; or the key that a reference leads to, which then trusts itself alone."""
    if key is None:
        return Authority(releases.signer("rollout"), releases.trust, is_ours=True)
    signer = Signer(open_reference(key))
    return Authority(signer, TrustDocument(1, tenant, (trust_key(signer.public_key, "rollout"),)), is_ours=False)


def reader(releases: Releases, tenant: str, key: str | None) -> TrustDocument:
    """Whose plans and states count for somebody who only looks: no private key is needed, unless one is named."""
    return releases.trust if key is None else authority(releases, tenant, key).trust


def manifest_of(signed: SignedPlan) -> Manifest:
    """The manifest that a plan carries, for its size; whether a release key signed it is for each device to prove."""
    return Manifest.decode(split(signed.file.manifest).payload)


def find_plan(fleet: "LocalFleet", ref: RolloutRef, trust: TrustDocument) -> SignedPlan:
    """The signed plan that is meant.

    Raises:
        NotFound: no such rollout, or its plan is not in this store.
        Untrusted: the plan is not signed by a rollout key.
    """
    if ref.plan is not None:
        return _verified(files.read_limited(ref.plan, FILE_LIMIT), trust)
    if ref.id is None:
        raise UsageError("no rollout is named", "name one of fleetctl ota list, or a plan with -f plan.json")
    digest = _digest_of(fleet, check_level("rollout", ref.id))
    path = blob_path(fleet.context.releases_folder, digest.removeprefix("sha256:"))
    if path is None:
        raise NotFound(f"the plan of rollout `{ref.id}` is not in this store", "name its file: -f plan.json")
    signed = _verified(files.read_limited(path, FILE_LIMIT), trust)
    if signed.plan.id != ref.id:
        raise Untrusted(f"the plan at rollout `{ref.id}` is that of `{signed.plan.id}`", "name its file: -f plan.json")
    return signed


def _verified(data: bytes, trust: TrustDocument) -> SignedPlan:
    try:
        return UnverifiedPlan(data).verify(trust)
    except UnknownKey as error:
        error.hint = "name the rollout key that signed it: --key file:PATH or --key env:NAME"
        raise


def _digest_of(fleet: "LocalFleet", rollout: str) -> str:
    try:
        return fleet.registry.rollout(rollout).plan_digest
    except NotFound:
        place = topics.rollout_plan(fleet.context.tenant, rollout)
        with fleet.open_session("rollout") as session:
            held = session.read_retained([place]).get(place)
        if held is None or not held.payload:
            raise
        try:
            return PlanPointer.decode(held.payload).digest
        except Malformed as error:
            raise NotFound(f"rollout `{rollout}` has no readable plan", "name its file: -f plan.json") from error


SIGNED_STATE = "signed_state"
PLANNED = "planned"
"""The state of a rollout that nobody has started."""


def remember_plan(registry: Registry, signed: SignedPlan, at: float) -> None:
    entry = replace(entry_of(Rollout(signed.plan), signed, attended=False, at=at), state=PLANNED, unattended_since=None)
    _save(registry, entry)


def _save(registry: Registry, entry: RolloutEntry, signed_state: bytes = b"") -> None:
    record = {**asdict(entry), SIGNED_STATE: b64encode(signed_state).decode()}
    registry.save_rollout(entry.id, entry.release, entry.state, entry.plan, json.dumps(record, separators=(",", ":")))


def known_state(registry: Registry, signed: SignedPlan) -> bytes:
    """The last signed state that was decided from here, else nothing; a broker may forget it, or replay an older one."""
    try:
        row = registry.rollout(signed.plan.id)
    except NotFound:
        return b""
    return b64decode(row.record.get(SIGNED_STATE) or "")


def ended(registry: Registry) -> set[str]:
    """The rollouts that are known here to be over."""
    rows = registry.rollouts()
    return {row.id for row in rows if row.state in (State.COMPLETED, State.HALTED, State.ABORTED)}


Keep = Callable[[Rollout, bool, bytes], None]
"""Write down where a rollout is, whether somebody drives it, and its state as it was signed."""


def keeper(registry: Registry, signed: SignedPlan, now: Callable[[], float]) -> Keep:
    """Writes a rollout into the registry as it goes; the broker's `/state` stays the record that counts."""

    def keep(rollout: Rollout, attended: bool, signed_state: bytes) -> None:
        _save(registry, entry_of(rollout, signed, attended=attended, at=now()), signed_state)

    return keep


def entry_of(rollout: Rollout, signed: SignedPlan, *, attended: bool, at: float, unread: int = 0) -> RolloutEntry:
    """The record of a rollout; `unread` messages were no events for it."""
    counts, plan = rollout.counts(), signed.plan
    return RolloutEntry(
        id=plan.id,
        release=plan.release,
        state=rollout.state.value,
        reason=rollout.reason or None,
        devices=counts.targets,
        succeeded=counts.succeeded,
        failed=counts.targets - counts.succeeded - counts.updating - counts.untouched,
        updating=counts.updating,
        untouched=counts.untouched,
        exposed=counts.exposed,
        overdue=counts.overdue,
        skipped=counts.skipped,
        wave=rollout.wave,
        waves=len(plan.waves),
        codes=dict(counts.codes),
        settled=rollout.settled,
        attended=attended,
        unattended_since=None if attended or is_over(rollout.state, rollout.settled) else rfc3339(at),
        updated_at=rfc3339(at),
        plan=signed.digest,
        ignored=counts.ignored + unread,
    )


def is_over(state: State, settled: bool) -> bool:
    """Whether nothing is left to be driven."""
    return state == State.COMPLETED or (state in (State.HALTED, State.ABORTED) and settled)


def remember_sightings(registry: Registry, plan: Plan, sighted: Mapping[int, Message]) -> None:
    """What the driver saw of the devices' presence is news for the registry too, where it knows them."""
    with registry.transaction():
        for index, message in sighted.items():
            path = plan.targets[index].path
            if registry.knows(path):
                registry.remember_presence(path, message.payload, message.received_at)


def recorded(registry: Registry, signed: SignedPlan, at: float) -> RolloutEntry:
    """The registry's record, or that of a rollout which nobody has driven from here."""
    try:
        return entry_from_record(registry.rollout(signed.plan.id).record)
    except NotFound:
        return entry_of(Rollout(signed.plan), signed, attended=False, at=at)


def with_attendance(entry: RolloutEntry, payload: bytes) -> RolloutEntry:
    """The entry with the hint whether somebody drives; a driver that died left no time, so its last decision counts."""
    try:
        said = parse_json(payload) if payload else {}
    except Malformed:
        said = {}
    attended = said.get("attended") is True
    since = said.get("since")
    over = entry.state == State.COMPLETED or (entry.state in (State.HALTED, State.ABORTED) and not entry.updating)
    away = None if attended or over else since if isinstance(since, str) else entry.updated_at
    return replace(entry, attended=attended, unattended_since=away)


def entry_from_record(record: dict[str, Any]) -> RolloutEntry:
    return RolloutEntry(**{key: value for key, value in record.items() if key != SIGNED_STATE})


def with_snapshot(entry: RolloutEntry, snapshot: Snapshot) -> RolloutEntry:
    """The entry brought up to date from the signed `/state` that the broker holds."""
    counts = snapshot.counts
    return replace(
        entry,
        state=snapshot.state.value,
        reason=snapshot.reason or None,
        succeeded=counts.succeeded,
        updating=counts.updating,
        untouched=counts.untouched,
        failed=counts.targets - counts.succeeded - counts.updating - counts.untouched,
        exposed=counts.exposed,
        overdue=counts.overdue,
        wave=snapshot.wave,
        codes=dict(counts.codes),
        updated_at=rfc3339(snapshot.at),
    )
