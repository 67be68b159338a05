"""The release store: a folder of immutable images named by their digest, and one signed manifest a release.

```
<store>/sha256/<hex>            the image, mode 0444
<store>/manifests/<T@V>.cose    the manifest, a COSE_Sign1 by a release key
```
An image is complete before a manifest names it, so a crash leaves at most an image that no release uses.
"""

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fleetctl import files
from fleetctl.errors import Conflict, NotFound, Untrusted, UsageError
from fleetctl.keys.cose import Signer
from fleetctl.keys.trust import UnverifiedManifest, sign_manifest
from fleetctl.model import release as naming
from fleetctl.model.device import printable
from fleetctl.wire.manifest import Manifest
from fleetctl.wire.trust import TrustDocument

CHUNK = 1 << 20
MANIFEST_LIMIT = 16384
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Release:
    """One published release: its manifest as verified, and the envelope that carries its signature."""

    manifest: Manifest
    envelope: bytes

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def image_digest(self) -> str:
        return self.manifest.image_digest

    @property
    def manifest_digest(self) -> str:
        return f"sha256:{hashlib.sha256(self.envelope).hexdigest()}"


class ReleaseStore:
    """Releases in `folder`; `trust` says whose manifests count, `now` (Unix seconds) which keys still do."""

    def __init__(self, folder: Path, trust: TrustDocument, now: float) -> None:
        self._folder = folder
        self._trust = trust
        self._now = now

    def publish(
        self, file: Path, device_type: str, version: str, signer: Signer, vendor: str, security_counter: int = 0
    ) -> tuple[Release, bool]:
        """Sign and store a release; the flag says whether it is new.

        Raises:
            UsageError: the type is no name, the version no SemVer, or the file empty.
            NotFound: the file cannot be read.
            Conflict: the release exists with another image or counter.
        """
        name = naming.Release(device_type, naming.Version.parse(version)).name
        with files.lock(files.private_folder(self._folder) / "lock"):
            digest, size = self._take_in(file)
            if self._manifest_path(name).exists():
                held = self.get(name)
                if (held.manifest.sha256, held.manifest.security_counter) != (digest, security_counter):
                    raise Conflict(
                        f"release `{name}` exists with another image or security counter",
                        "a release never changes: publish the new image under a new version",
                    )
                return held, False
            manifest = Manifest(
                vendor=vendor,
                device_class=device_type,
                version=version,
                slot="app",
                size=size,
                sha256=digest,
                native_format="raw",
                security_counter=security_counter,
                sequence=max((release.manifest.sequence for release in self), default=0) + 1,
                name=name,
            )
            envelope = sign_manifest(manifest, signer)
            release = Release(UnverifiedManifest(envelope).verify(self._trust, self._now), envelope)
            files.write_atomic(self._manifest_path(name), envelope)
            return release, True

    def get(self, name: str) -> Release:
        """The release with that name.

        Raises:
            NotFound: there is none.
            Untrusted: its manifest is not signed by a release key, or names another release.
        """
        name = naming.Release.parse(name).name
        path = self._manifest_path(name)
        if not path.is_file():
            raise NotFound(f"no release named `{name}`", "list them with fleetctl ota releases")
        envelope = files.read_limited(path, MANIFEST_LIMIT)
        release = Release(UnverifiedManifest(envelope).verify(self._trust, self._now), envelope)
        if release.name != name:
            raise Untrusted(
                f"the manifest stored as `{name}` is that of `{release.name}`",
                f"restore {path} from where it was published",
            )
        return release

    def __iter__(self) -> Iterator[Release]:
        """All releases, in the order of their names."""
        for path in sorted((self._folder / "manifests").glob("*.cose")):
            yield self.get(path.name.removesuffix(".cose"))

    def check_image(self, release: Release) -> Path:
        """The image of a release, read in full and proved.

        Raises:
            NotFound: the image is not in the store.
            Untrusted: it is not the image that was published.
        """
        path = self.image_path(release)
        if not path.is_file():
            raise NotFound(f"the image of release `{release.name}` is not in the store", f"publish it again: {path} is missing")
        digest, size = _digest_of(path)
        if (digest, size) != (release.manifest.sha256, release.manifest.size):
            raise Untrusted(
                f"the image of release `{release.name}` changed after it was published: its digest is sha256:{digest.hex()}",
                f"remove {path} and publish the original file again",
            )
        return path

    def image_path(self, release: Release) -> Path:
        return self._folder / "sha256" / release.manifest.sha256.hex()

    def keep_blob(self, data: bytes) -> str:
        """Store a document (a signed plan) beside the images; returns its digest."""
        digest = hashlib.sha256(data).hexdigest()
        folder = files.private_folder(self._folder / "sha256")
        if not (folder / digest).exists():
            files.write_atomic(folder / digest, data, 0o444)
        return f"sha256:{digest}"

    def _manifest_path(self, name: str) -> Path:
        return files.private_folder(self._folder / "manifests") / f"{name}.cose"

    def _take_in(self, file: Path) -> tuple[bytes, int]:
        """Copy an image into the store under its digest, hashing what is written rather than what was read before."""
        folder = files.private_folder(self._folder / "sha256")
        try:
            source = file.open("rb")
        except OSError as error:
            raise NotFound(f"cannot read {printable(str(file))}: {error.strerror}", "name a readable firmware file") from error
        with source, tempfile.NamedTemporaryFile(dir=folder, prefix=".new-", delete=False) as target:
            written = Path(target.name)
            try:
                hasher, size = hashlib.sha256(), 0
                while chunk := source.read(CHUNK):
                    hasher.update(chunk)
                    size += target.write(chunk)
                if not size:
                    raise UsageError(f"firmware file {printable(str(file))} is empty", "name the image that devices shall run")
                target.flush()
                os.fchmod(target.fileno(), 0o444)
                os.fsync(target.fileno())
                written.replace(folder / hasher.hexdigest())
            except BaseException:
                written.unlink(missing_ok=True)
                raise
        return hasher.digest(), size


def _digest_of(path: Path) -> tuple[bytes, int]:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").digest(), os.fstat(source.fileno()).st_size


def blob_path(folder: Path, hex_digest: str) -> Path | None:
    """Where a blob of that digest lies, or None where the name is no digest or nothing is there."""
    if not _DIGEST.fullmatch(hex_digest):
        return None
    path = folder / "sha256" / hex_digest
    return path if path.is_file() else None
