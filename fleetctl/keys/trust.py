"""What may be believed, step by step: trust document, assignment, manifest.

What came from the network or a file is `Unverified…`; only its `verify` makes the value of that name. Each `verify` numbers the
steps of its proof and follows them in order; whatever fails is `Untrusted`.
"""

from dataclasses import dataclass

from fleetctl.errors import Malformed, Untrusted
from fleetctl.keys.cose import Signer, verify, verify_by_role
from fleetctl.keys.store import PublicKey
from fleetctl.model import topic
from fleetctl.model.device import DevicePath
from fleetctl.model.topic import Channel
from fleetctl.wire.assignment import Assignment
from fleetctl.wire.manifest import Manifest
from fleetctl.wire.trust import Role, TrustDocument

MANIFEST_AAD = b"fleetctl/manifest"
"""A manifest is the same for every device, so its place is a constant."""


def trust_aad(tenant: str) -> bytes:
    return topic.trust(tenant).encode()


def assignment_aad(path: DevicePath) -> bytes:
    return topic.of(path, Channel.OTA_DESIRED).encode()


def plan_aad(tenant: str, rollout: str) -> bytes:
    return topic.rollout_plan(tenant, rollout).encode()


def state_aad(tenant: str, rollout: str) -> bytes:
    return topic.rollout_state(tenant, rollout).encode()


def sign_trust(document: TrustDocument, root: Signer) -> bytes:
    """The trust document in its envelope; raises `Malformed` for one that no device would accept."""
    payload = document.encode()
    TrustDocument.decode(payload)
    return root.sign(payload, trust_aad(document.tenant))


def sign_assignment(assignment: Assignment, path: DevicePath, signer: Signer) -> bytes:
    """The assignment in its envelope, bound to the topic of its device."""
    return signer.sign(assignment.encode(), assignment_aad(path))


def sign_manifest(manifest: Manifest, signer: Signer) -> bytes:
    return signer.sign(manifest.encode(), MANIFEST_AAD)


@dataclass(frozen=True, slots=True)
class UnverifiedTrust:
    """A trust document as it was received."""

    data: bytes

    def verify(self, root: PublicKey, tenant: str, held_version: int = 0, *, held: bytes = b"") -> TrustDocument:
        """The trust document, if it counts.

        1. The root key that we hold signed it, for the trust topic of this tenant.
        2. It decodes strictly: no key twice, every kid that of its key.
        3. It names this tenant.
        4. Its version is greater than `held_version`, or it is byte for byte the one `held`.
        """
        what = "the trust document"
        # 1
        payload = verify(self.data, trust_aad(tenant), root, what)
        # 2
        try:
            document = TrustDocument.decode(payload)
        except Malformed as error:
            raise _malformed(what, error) from error
        # 3
        if document.tenant != tenant:
            raise Untrusted(f"{what} is for tenant `{document.tenant}`, not for `{tenant}`", "publish the one of this tenant")
        # 4
        if document.version <= held_version and self.data != held:
            raise Untrusted(
                f"{what} has version {document.version}, and version {held_version} is held already",
                f"sign and publish one of version {held_version + 1} or greater",
            )
        return document


@dataclass(frozen=True, slots=True)
class UnverifiedAssignment:
    """An assignment as it was received."""

    data: bytes

    def verify(self, trust: TrustDocument, path: DevicePath, now: float | None) -> Assignment:
        """The assignment, if it is for this device. Its order and its times are not judged here but by `model.update`.

        1. The trust document is that of the device's tenant.
        2. A rollout key signed it, for the `ota/desired` topic of exactly this device.
        3. It decodes strictly: no unknown critical key.
        4. It names this tenant and this device.
        """
        what = "the assignment"
        # 1
        if trust.tenant != path.tenant:
            raise Untrusted(
                f"the trust document is for tenant `{trust.tenant}`, not for `{path.tenant}`", "use that of the tenant"
            )
        # 2
        payload = verify_by_role(self.data, assignment_aad(path), trust, Role.ROLLOUT, now, what)
        # 3
        try:
            assignment = Assignment.decode(payload)
        except Malformed as error:
            raise _malformed(what, error) from error
        # 4
        if (assignment.tenant, assignment.device_id) != (path.tenant, path.device_id):
            raise Untrusted(
                f"{what} is for device `{assignment.device_id}` of `{assignment.tenant}`, not for `{path}`",
                "dispatch it to the device that it names",
            )
        return assignment


@dataclass(frozen=True, slots=True)
class UnverifiedManifest:
    """A manifest as it was received."""

    data: bytes

    def verify(self, trust: TrustDocument, now: float | None) -> Manifest:
        """The manifest, if a release key vouches for it.

        1. A release key signed it, as a manifest.
        2. It decodes strictly: no unknown critical key, its name that of its device type and version.
        """
        what = "the manifest"
        # 1
        payload = verify_by_role(self.data, MANIFEST_AAD, trust, Role.RELEASE, now, what)
        # 2
        try:
            return Manifest.decode(payload)
        except Malformed as error:
            raise _malformed(what, error) from error


def _malformed(what: str, error: Malformed) -> Untrusted:
    return Untrusted(
        f"{what} does not say what it must: {error.message}", error.hint or "have it made again, and check both versions"
    )
