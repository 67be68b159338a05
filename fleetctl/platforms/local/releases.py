"""Releases of a context: its trust document, its release key and its store."""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

from fleetctl import files
from fleetctl.config import Context
from fleetctl.errors import ConfigError, NotFound, Untrusted
from fleetctl.keys.cose import Signer
from fleetctl.keys.store import load_key, load_public_key
from fleetctl.keys.trust import UnverifiedTrust
from fleetctl.model.device import printable
from fleetctl.ota.store import Release, ReleaseStore
from fleetctl.platforms.updates import ReleaseEntry
from fleetctl.wire.trust import TrustDocument

TRUST_LIMIT = 65536


class Releases:
    """What is published here, and whom this context trusts to publish."""

    def __init__(self, context: Context, clock: Callable[[], float]) -> None:
        self._context = context
        self._clock = clock

    @cached_property
    def trust_envelope(self) -> bytes:
        return files.read_limited(self._context.pki_folder / "trust.cose", TRUST_LIMIT)

    @cached_property
    def trust(self) -> TrustDocument:
        """The trust document of the context, proved against its root key; raises `Untrusted`."""
        pem = files.read_limited(self._context.pki_folder / "root.pub", TRUST_LIMIT)
        root = load_public_key(pem, "the root key of this context")
        try:
            return UnverifiedTrust(self.trust_envelope).verify(root, self._context.tenant)
        except Untrusted as error:
            path = self._context.pki_folder / "trust.cose"
            raise Untrusted(f"{printable(str(path))} cannot be trusted: {error.message}", error.hint) from error

    @cached_property
    def store(self) -> ReleaseStore:
        return ReleaseStore(self._context.releases_folder, self.trust, self._clock())

    def publish(self, file: Path, device_type: str, version: str, *, security_counter: int = 0) -> ReleaseEntry:
        signer = self.signer("release")
        release, new = self.store.publish(file, device_type, version, signer, self._context.tenant, security_counter)
        return entry(release, "published" if new else "unchanged")

    def releases(self) -> Sequence[ReleaseEntry]:
        return [entry(release) for release in self.store]

    def show(self, name: str) -> ReleaseEntry:
        return entry(self.store.get(name))

    def verify(self, name: str) -> ReleaseEntry:
        release = self.store.get(name)
        self.store.check_image(release)
        return entry(release, "verified")

    def signer(self, role: str) -> Signer:
        """The context's key for a role.

        Raises:
            ConfigError: the key is not here.
        """
        path = self._context.keys_folder / f"{role}.key"
        try:
            return Signer(load_key(path))
        except NotFound as error:
            raise ConfigError(
                f"the {role} key is not on this machine: {path} is missing", "bring it here, or name it with --key"
            ) from error


def entry(release: Release, outcome: str = "listed") -> ReleaseEntry:
    manifest = release.manifest
    return ReleaseEntry(
        name=release.name,
        type=manifest.device_class,
        version=manifest.version,
        size=manifest.size,
        digest=release.image_digest,
        manifest_digest=release.manifest_digest,
        security_counter=manifest.security_counter,
        sequence=manifest.sequence,
        outcome=outcome,
    )
