"""Keys on a token: made there, used there, and as good as any other key to whoever verifies."""

import re
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import NameOID

from fleetctl.agent.updater import read_offer
from fleetctl.errors import ConfigError, Conflict, Denied, NotFound
from fleetctl.keys import hsm
from fleetctl.keys.cose import Signer, trust_key, verify
from fleetctl.keys.store import KeyType, load_key, private_pem, public_pem
from fleetctl.keys.stores import TokenStore, context_store, open_reference, open_store, remember_store
from fleetctl.keys.trust import sign_assignment
from fleetctl.model.certificate import Reason
from fleetctl.model.device import DevicePath
from fleetctl.pki import crl
from fleetctl.pki.authority import DEVICE_ISSUING, DEVICE_ROOT, create_issuing, create_root, device_request, issue, pem
from fleetctl.wire import desired
from fleetctl.wire.assignment import Assignment
from fleetctl.wire.trust import TrustDocument
from tests.integration.keys.conftest import MODULE, PIN, Token

AAD = b"acme/oslo/pump/pump-1/ota/desired"


def store(token: Token, folder: Path) -> TokenStore:
    """A store whose labels nobody else has."""
    found = open_store(token.uri(f"{folder.name}-"), folder)
    assert isinstance(found, TokenStore)
    return found


def test_a_key_stays_on_the_token_and_its_folder_names_it(loaded: Token, tmp_path: Path) -> None:
    there = store(loaded, tmp_path)
    key = there.generate("root", "ed25519")
    remember_store(there, tmp_path)
    assert (there.exportable, there.signing) == (False, "ed25519")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["root.uri", "store"]
    assert (tmp_path / "root.uri").stat().st_mode & 0o777 == 0o600
    for opened in (
        load_key(tmp_path / "root.key"),
        context_store(tmp_path).open("root"),
        open_reference(loaded.uri(f"{tmp_path.name}-root")),
    ):
        assert public_pem(opened) == public_pem(key)
    for attempt in (private_pem, lambda each: each.private_bytes_raw()):
        with pytest.raises(Denied, match="never leaves it"):
            attempt(key)
    objects = re.split(r"(?=Private Key Object|Public Key Object)", loaded.objects())
    (mine,) = [each for each in objects if each.startswith("Private") and f"{tmp_path.name}-root" in each]
    assert "never extractable" in mine
    assert "always sensitive" in mine
    assert "Usage:      sign" in mine


@pytest.mark.parametrize("alg", ["ed25519", "p256"])
def test_a_token_signs_documents_that_anyone_verifies(loaded: Token, tmp_path: Path, alg: KeyType) -> None:
    import cwt

    signer = Signer(store(loaded, tmp_path).generate("rollout", alg))
    data = signer.sign(b"hello", AAD)
    assert verify(data, AAD, trust_key(signer.public_key, "rollout")) == b"hello"
    key = cwt.COSEKey.from_pem(public_pem(signer.public_key), kid=signer.kid)
    assert cwt.COSE.new(verify_kid=True).decode(data, key, external_aad=AAD) == b"hello"
    assert (signer.sign(b"hello", AAD) == data) is (alg == "ed25519")


@pytest.mark.parametrize("alg", ["p256", "ed25519", "rsa3072"])
def test_openssl_verifies_authority_leaf_and_list_of_a_token(loaded: Token, tmp_path: Path, alg: KeyType) -> None:
    there, now = store(loaded, tmp_path), time.time()
    below: KeyType = "p256" if alg == "rsa3072" else alg  # to make an RSA key takes seconds
    root = create_root(DEVICE_ROOT, "acme", there.generate(DEVICE_ROOT, alg), now, 1)
    issuing = create_issuing(root, DEVICE_ISSUING, "acme", there.generate(DEVICE_ISSUING, below), now)
    good, bad = (
        issue(issuing, device_request(DevicePath.parse(f"acme/oslo/pump/{name}")), device_key(), now) for name in ("p-1", "p-2")
    )
    date = int(crl.first_date(now))
    lists = [
        crl.build(root, [], 1, date),
        crl.build(issuing, [crl.Revoked(bad.serial_number, now, Reason.KEY_COMPROMISE)], 1, date),
    ]
    for name, data in (
        ("root", pem(root.certificate)),
        ("issuing", pem(issuing.certificate)),
        ("crl", b"".join(lists)),
        ("good", pem(good)),
        ("bad", pem(bad)),
    ):
        (tmp_path / f"{name}.pem").write_bytes(data)
    words = "verify -x509_strict -purpose sslclient -crl_check_all -CRLfile crl.pem -CAfile root.pem -untrusted issuing.pem"
    said = [
        subprocess.run(["openssl", *words.split(), f"{name}.pem"], cwd=tmp_path, capture_output=True, text=True, check=False)
        for name in ("good", "bad")
    ]
    assert said[0].stdout == "good.pem: OK\n", said[0].stderr
    assert "certificate revoked" in said[1].stderr
    request = x509.CertificateSigningRequestBuilder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "p-1")]))
    signed = request.sign(issuing.key, None if alg == "ed25519" else hashes.SHA256())
    assert signed.is_signature_valid


def device_key() -> ec.EllipticCurvePublicKey:
    return ec.generate_private_key(ec.SECP256R1()).public_key()


def test_a_label_counts_once_and_what_was_there_first_stays(loaded: Token, tmp_path: Path) -> None:
    first = store(loaded, tmp_path).generate("root", "p256")
    other = tmp_path / "other"
    other.mkdir()
    second = open_store(loaded.uri(f"{tmp_path.name}-"), other)
    with pytest.raises(Conflict, match="exists already"):
        second.generate("root", "p256")
    second.discard("root")
    assert public_pem(load_key(tmp_path / "root.key")) == public_pem(first)
    assert list(other.iterdir()) == []
    store(loaded, tmp_path).discard("root")
    assert f"{tmp_path.name}-root" not in loaded.objects()
    with pytest.raises(NotFound):
        load_key(tmp_path / "root.key")


def test_a_key_that_is_not_there_is_named(loaded: Token) -> None:
    with pytest.raises(NotFound, match="no key `nothing` on token `fleet keys`") as caught:
        open_reference(loaded.uri("nothing"))
    assert "pkcs11-tool" in caught.value.hint


def test_two_keys_of_one_label_are_an_error_of_whoever_made_them(loaded: Token, tmp_path: Path) -> None:
    label = f"{tmp_path.name}-twice"
    made = [Token(loaded.folder).uri(label)] * 2
    for _ in made:
        words = ["pkcs11-tool", "--module", MODULE, "-l", "--pin", "env:PIN", "--keypairgen", "--key-type", "EC:prime256v1"]
        words += ["--token-label", "fleet keys", "--label", label]
        subprocess.run(words, env={**loaded.environment, "PIN": PIN}, capture_output=True, check=True)
    with pytest.raises(ConfigError, match="more than one key"):
        open_reference(made[0])


def test_a_key_of_a_kind_that_is_not_used_here_is_refused(loaded: Token, tmp_path: Path) -> None:
    label = f"{tmp_path.name}-p384"
    words = ["pkcs11-tool", "--module", MODULE, "-l", "--pin", "env:PIN", "--keypairgen", "--key-type", "EC:secp384r1"]
    words += ["--token-label", "fleet keys", "--label", label]
    subprocess.run(words, env={**loaded.environment, "PIN": PIN}, capture_output=True, check=True)
    with pytest.raises(ConfigError, match="neither Ed25519 nor P-256 nor RSA"):
        open_reference(loaded.uri(label))


def test_what_cryptography_would_write_into_a_file_is_refused(loaded: Token, tmp_path: Path) -> None:
    key = store(loaded, tmp_path).generate("ca", "p256")
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    with pytest.raises(Denied):
        key.private_numbers()
    with pytest.raises(Denied):
        key.exchange(ec.ECDH(), device_key())
    with pytest.raises((Denied, TypeError, ValueError)):
        pkcs12.serialize_key_and_certificates(b"x", key, None, None, serialization.NoEncryption())


@pytest.mark.parametrize(
    ("uri", "error", "words"),
    [
        ("pkcs11:token=nowhere?module-path=" + MODULE, NotFound, "no token `nowhere`"),
        ("pkcs11:serial=00?module-path=" + MODULE, NotFound, "no token `serial 00`"),
        ("pkcs11:token=fleet%20keys", ConfigError, "no PKCS #11 module"),
        ("pkcs11:token=fleet%20keys?module-path=/no/such.so", ConfigError, "does not exist"),
    ],
)
def test_a_token_or_module_that_is_absent_is_named(
    loaded: Token, tmp_path: Path, uri: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        open_store(uri, tmp_path).generate("root", "p256")
    assert list(tmp_path.iterdir()) == []


def test_the_variable_names_the_module_before_the_uri(loaded: Token, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEETCTL_PKCS11_MODULE", "/no/such.so")
    with pytest.raises(ConfigError, match=r"`/no/such\.so` does not exist"):
        open_reference(loaded.uri("root"))


def test_a_token_is_logged_in_to_once(loaded: Token, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = store(loaded, tmp_path)
    there.generate("a", "p256")
    monkeypatch.delenv("FLEETCTL_PIN_FILE")
    there.generate("b", "p256")
    assert hsm.open_key(there._place("a")).key_size == 256  # type: ignore[union-attr]


def test_many_threads_sign_at_once(loaded: Token, tmp_path: Path) -> None:
    signer = Signer(store(loaded, tmp_path).generate("rollout", "p256"))
    with ThreadPoolExecutor(8) as pool:
        signed = list(pool.map(lambda number: signer.sign(b"%d" % number, AAD), range(100)))
    assert [verify(each, AAD, signer.public_key) for each in signed] == [b"%d" % number for number in range(100)]


def test_an_assignment_that_a_p256_key_signs_twice_is_the_same_to_a_device(loaded: Token, tmp_path: Path) -> None:
    """Its bytes differ, its content does not: a driver that takes over may say it again."""
    path = DevicePath.parse("acme/oslo/pump/pump-1")
    signer = Signer(store(loaded, tmp_path).generate("rollout", "p256"))
    trust = TrustDocument(1, "acme", (trust_key(signer.public_key, "rollout"),))
    cancel = Assignment("acme", "pump-1", "r-1", 7, "cancel", 1, bytes(32))
    first, second = (desired.pack(sign_assignment(cancel, path, signer), b"") for _ in range(2))
    assert first != second
    assert read_offer(first, trust, path, None) == read_offer(second, trust, path, None)
