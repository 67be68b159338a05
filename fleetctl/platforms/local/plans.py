"""Plans and states of rollouts with their proof: signed by a rollout key, good for one place only."""

from dataclasses import dataclass
from functools import cached_property

from fleetctl.errors import Malformed, Untrusted
from fleetctl.keys.cose import Signer, verify_by_role
from fleetctl.keys.trust import plan_aad, state_aad
from fleetctl.model.rollout import Plan, Snapshot
from fleetctl.wire.cose import split
from fleetctl.wire.document import digest
from fleetctl.wire.manifest import Manifest
from fleetctl.wire.plan import PLAN_LIMIT, PlanFile, encode_plan
from fleetctl.wire.rollout import decode_state, encode_state
from fleetctl.wire.trust import Role, TrustDocument


@dataclass(frozen=True)
class SignedPlan:
    """A plan that a rollout key vouches for; `data` is `plan.json`."""

    file: PlanFile

    @property
    def plan(self) -> Plan:
        return self.file.plan

    @cached_property
    def data(self) -> bytes:
        return self.file.encode()

    @cached_property
    def digest(self) -> str:
        return digest(self.data)


def sign_plan(plan: Plan, manifest: bytes, signer: Signer) -> SignedPlan:
    return SignedPlan(PlanFile(plan, manifest, signer.sign(encode_plan(plan), plan_aad(plan.tenant, plan.id))))


@dataclass(frozen=True, slots=True)
class UnverifiedPlan:
    """`plan.json` as it was read."""

    data: bytes

    def verify(self, trust: TrustDocument) -> SignedPlan:
        """The plan, if it counts.

        1. It decodes strictly, and what people read in it is what was signed.
        2. It is for the tenant of the trust document.
        3. A rollout key signed it, for this rollout.
        4. It carries the manifest that it names, and that is the release which people read in it.
        """
        # 1
        file = PlanFile.decode(self.data)
        plan = file.plan
        # 2
        if plan.tenant != trust.tenant:
            raise Untrusted(
                f"the plan is for tenant `{plan.tenant}`, not for `{trust.tenant}`", "use it in a context of its tenant"
            )
        # 3
        what = f"the plan of rollout `{plan.id}`"
        verify_by_role(file.envelope, plan_aad(plan.tenant, plan.id), trust, Role.ROLLOUT, None, what, PLAN_LIMIT)
        # 4
        if digest(file.manifest) != plan.manifest_digest:
            raise Untrusted(f"{what} carries another manifest than it names", "make a new one with fleetctl ota plan")
        try:
            manifest = Manifest.decode(split(file.manifest).payload)
        except Malformed as error:
            raise Untrusted(
                f"the manifest in {what} is none: {error.message}", "make a new one with fleetctl ota plan"
            ) from error
        if (manifest.name, manifest.image_digest) != (plan.release, plan.image_digest):
            raise Untrusted(
                f"{what} says `{plan.release}` and carries the manifest of `{manifest.name}`",
                "make a new one with fleetctl ota plan",
            )
        return SignedPlan(file)


def sign_state(snapshot: Snapshot, tenant: str, signer: Signer) -> bytes:
    return signer.sign(encode_state(snapshot), state_aad(tenant, snapshot.rollout_id))


def verify_state(data: bytes, tenant: str, rollout: str, trust: TrustDocument) -> Snapshot:
    """The state that the broker holds; raises `Untrusted`, because a rollout whose state was tampered with must not go on."""
    what = f"the state of rollout `{rollout}`"
    payload = verify_by_role(data, state_aad(tenant, rollout), trust, Role.ROLLOUT, None, what)
    try:
        return decode_state(payload)
    except Malformed as error:
        raise Untrusted(f"{what} does not say what it must: {error.message}", "was it written by a newer fleetctl?") from error
