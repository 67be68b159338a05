"""The release store: what is published is signed, complete and never changes."""

import hashlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fleetctl.errors import Conflict, NotFound, Untrusted, UsageError
from fleetctl.keys.cose import Signer, trust_key
from fleetctl.keys.store import generate_key
from fleetctl.ota.store import Release, ReleaseStore, blob_path
from fleetctl.wire.trust import TrustDocument

NOW = 1_800_000_000.0


class Shop:
    """A store with its release key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.signer = Signer(generate_key())
        self.trust = TrustDocument(1, "acme", (trust_key(self.signer.public_key, "release"),))
        self.store = ReleaseStore(folder / "releases", self.trust, NOW)

    def publish(self, image: bytes = b"firmware", version: str = "2.0.0", counter: int = 0) -> tuple[Release, bool]:
        file = self.folder / "image.bin"
        file.write_bytes(image)
        return self.store.publish(file, "pump", version, self.signer, "acme", counter)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def test_a_release_is_stored_under_its_digest_and_verifies(shop: Shop) -> None:
    release, new = shop.publish()
    assert new
    assert release.name == "pump@2.0.0"
    assert release.image_digest == "sha256:" + hashlib.sha256(b"firmware").hexdigest()
    assert shop.store.check_image(shop.store.get("pump@2.0.0")).read_bytes() == b"firmware"
    assert [held.name for held in shop.store] == ["pump@2.0.0"]


def test_publishing_the_same_again_changes_nothing(shop: Shop) -> None:
    first, _ = shop.publish()
    second, new = shop.publish()
    assert not new
    assert second == first


@pytest.mark.parametrize(("image", "counter"), [(b"other", 0), (b"firmware", 1)])
def test_a_release_never_changes(shop: Shop, image: bytes, counter: int) -> None:
    shop.publish()
    with pytest.raises(Conflict, match="another image"):
        shop.publish(image, counter=counter)
    assert shop.store.get("pump@2.0.0").manifest.security_counter == 0


def test_the_sequence_rises(shop: Shop) -> None:
    assert shop.publish()[0].manifest.sequence == 1
    assert shop.publish(version="2.1.0")[0].manifest.sequence == 2


def test_an_image_that_changed_after_publishing_is_refused(shop: Shop) -> None:
    release, _ = shop.publish()
    path = shop.store.image_path(release)
    path.chmod(0o644)
    path.write_bytes(b"tampered")
    with pytest.raises(Untrusted, match="changed after it was published"):
        shop.store.check_image(release)
    path.unlink()
    with pytest.raises(NotFound, match="not in the store"):
        shop.store.check_image(release)


def test_a_manifest_of_another_key_is_refused(shop: Shop) -> None:
    shop.publish()
    stranger = TrustDocument(1, "acme", (trust_key(Ed25519PrivateKey.generate().public_key(), "release"),))
    with pytest.raises(Untrusted, match="no release key"):
        ReleaseStore(shop.folder / "releases", stranger, NOW).get("pump@2.0.0")


def test_a_manifest_under_another_name_is_refused(shop: Shop) -> None:
    shop.publish()
    manifests = shop.folder / "releases" / "manifests"
    (manifests / "pump@2.0.0.cose").rename(manifests / "pump@9.0.0.cose")
    with pytest.raises(Untrusted, match=r"is that of `pump@2\.0\.0`"):
        shop.store.get("pump@9.0.0")


def test_what_is_no_image_leaves_no_trace(shop: Shop) -> None:
    with pytest.raises(UsageError, match="is empty"):
        shop.publish(b"")
    with pytest.raises(NotFound, match="cannot read"):
        shop.store.publish(shop.folder / "missing", "pump", "1.0.0", shop.signer, "acme")
    with pytest.raises(NotFound, match="cannot read"):
        shop.store.publish(shop.folder, "pump", "1.0.0", shop.signer, "acme")
    assert list((shop.folder / "releases" / "sha256").iterdir()) == []
    assert list(shop.store) == []


@pytest.mark.parametrize("version", ["2.0", "v2.0.0", "../2.0.0", "2.0.0/..", ""])
def test_a_version_is_semantic(shop: Shop, version: str) -> None:
    with pytest.raises(UsageError):
        shop.publish(version=version)


@pytest.mark.parametrize("name", ["../../etc/passwd", "A" * 64, "abc", "", "a" * 63 + "/"])
def test_a_blob_is_named_by_its_digest_only(shop: Shop, name: str) -> None:
    shop.publish()
    assert blob_path(shop.folder / "releases", name) is None


def test_a_document_is_kept_beside_the_images(shop: Shop) -> None:
    digest = shop.store.keep_blob(b"plan")
    path = blob_path(shop.folder / "releases", digest.removeprefix("sha256:"))
    assert path is not None
    assert path.read_bytes() == b"plan"
    assert shop.store.keep_blob(b"plan") == digest
