"""Encrypted key files: OpenSSL reads ours, we read OpenSSL's, and no file costs more to open than a key is worth."""

import base64
import os
import stat
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from fleetctl.errors import ConfigError, Denied
from fleetctl.keys import pbes2
from fleetctl.keys.store import KeyType, Protection, generate_key, parse_key, private_der, private_pem, protection, public_pem

PASSWORD = b"correct horse battery"
TRADITIONAL = serialization.PrivateFormat.TraditionalOpenSSL


def encrypted(key: bytes, password: bytes = PASSWORD) -> bytes:
    return pbes2.encrypt(key, password, bytes(range(16)), bytes(range(16, 32)))


KEPT = encrypted(private_der(generate_key()))


def openssl(*words: str | Path, stdin: bytes = b"") -> bytes:
    return subprocess.run(["openssl", *map(str, words)], input=stdin, capture_output=True, check=True).stdout


@pytest.mark.parametrize("alg", ["ed25519", "p256"])
def test_openssl_opens_what_we_encrypt(tmp_path: Path, alg: KeyType) -> None:
    key = generate_key(alg)
    (tmp_path / "a.key").write_bytes(encrypted(private_der(key)))
    (tmp_path / "password").write_bytes(PASSWORD)
    opened = openssl("pkey", "-in", tmp_path / "a.key", "-passin", f"file:{tmp_path}/password", "-pubout")
    assert opened == public_pem(key)
    shown = openssl("asn1parse", "-in", tmp_path / "a.key").decode()
    assert ":PBES2" in shown
    assert ":scrypt" in shown
    assert ":aes-256-cbc" in shown
    assert f"INTEGER           :{pbes2.N:X}" in shown


def test_a_key_comes_back_with_its_password_only() -> None:
    key = generate_key()
    pem = encrypted(private_der(key))
    assert private_pem(parse_key(pem, password=lambda: PASSWORD)) == private_pem(key)
    with pytest.raises(Denied, match="passphrase is wrong") as caught:
        parse_key(pem, "key file `a.key`", lambda: b"incorrect horse")
    assert "horse" not in f"{caught.value}{caught.value.__cause__}"
    with pytest.raises(ConfigError, match="no unencrypted PEM"):
        parse_key(pem)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-scrypt"], Protection.ENCRYPTED),
        (["-v2", "aes-256-cbc", "-iter", "600000"], Protection.ENCRYPTED),
        (["-v2", "aes-256-cbc", "-iter", "599999"], Protection.WEAK),
        (["-v2", "aes-256-cbc"], Protection.WEAK),
        (["-scrypt", "-scrypt_N", "1024"], Protection.WEAK),
        (["-v1", "PBE-SHA1-3DES"], Protection.WEAK),
    ],
)
def test_what_openssl_encrypts_opens_but_is_called_what_it_is(tmp_path: Path, words: list[str], expected: Protection) -> None:
    key = generate_key("p256")
    pem = openssl("pkcs8", "-topk8", *words, "-passout", f"pass:{PASSWORD.decode()}", stdin=private_pem(key))
    (tmp_path / "a.key").write_bytes(pem)
    assert protection(tmp_path / "a.key") is expected
    assert public_pem(parse_key(pem, password=lambda: PASSWORD)) == public_pem(key)


def test_the_default_of_the_library_is_called_weak(tmp_path: Path) -> None:
    algorithm = serialization.BestAvailableEncryption(PASSWORD)
    key = ec.generate_private_key(ec.SECP256R1())
    for number, form in enumerate((serialization.PrivateFormat.PKCS8, TRADITIONAL)):
        path = tmp_path / f"{number}.key"
        path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, algorithm))
        assert protection(path) is Protection.WEAK
    with pytest.raises(ConfigError, match="in a way that is not read here"):
        parse_key(path.read_bytes(), password=lambda: PASSWORD)


def test_the_protection_of_plain_keys_and_of_keys_elsewhere_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.key").write_bytes(private_pem(generate_key()))
    (tmp_path / "b.key").write_bytes(KEPT)
    (tmp_path / "c.uri").write_text("pkcs11:token=fleet;object=c\n")
    told = [protection(tmp_path / f"{name}.key") for name in "abc"]
    assert told == [Protection.PLAIN, Protection.ENCRYPTED, Protection.HARDWARE]


def never() -> bytes:
    raise AssertionError("the password was asked for")


def tlv(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return bytes((tag, 0x82)) + len(content).to_bytes(2, "big") + content


def trap(kdf: str, *numbers: int) -> bytes:
    """An encrypted key that claims these costs."""
    integers = [tlv(2, number.to_bytes(8, "big", signed=True)) for number in numbers]
    derivation = tlv(0x30, tlv(6, bytes.fromhex(kdf)), tlv(0x30, tlv(4, bytes(16)), *integers))
    cipher = tlv(0x30, tlv(6, bytes.fromhex("60864801650304012a")), tlv(4, bytes(16)))
    scheme = tlv(0x30, tlv(6, bytes.fromhex("2a864886f70d01050d")), tlv(0x30, derivation, cipher))
    return pem(tlv(0x30, scheme, tlv(4, bytes(64))))


def pem(der: bytes) -> bytes:
    label = b"ENCRYPTED PRIVATE KEY-----\n"
    return b"-----BEGIN " + label + base64.encodebytes(der) + b"-----END " + label


SCRYPT, PBKDF2 = "2b06010401da47040b", "2a864886f70d01050c"


@pytest.mark.parametrize(
    ("kdf", "costs"),
    [
        (SCRYPT, (1 << 30, 8, 1)),
        (SCRYPT, (1 << 14, 8, 1 << 20)),
        (SCRYPT, (1 << 14, 1 << 20, 1)),
        (SCRYPT, (-1, 8, 1)),
        (SCRYPT, (0, 8, 1)),
        (PBKDF2, (10_000_001,)),
        (PBKDF2, (0,)),
    ],
)
def test_a_file_that_costs_too_much_is_refused_before_a_password_is_asked_for(kdf: str, costs: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"costs too much to open|in a way that is not read here"):
        parse_key(trap(kdf, *costs), password=never)


@given(st.binary(max_size=200))
def test_garbage_is_no_derivation(data: bytes) -> None:
    with suppress(ValueError):
        pbes2.derivation(data)


class Asked(Exception):
    """The password was asked for."""


def ask() -> bytes:
    raise Asked


@given(st.data())
def test_a_damaged_file_is_refused_or_costs_no_more_than_it_may(data: st.DataObject) -> None:
    der = bytearray(pbes2.der_of(KEPT))
    der[data.draw(st.integers(0, len(der) - 1))] ^= data.draw(st.integers(1, 255))
    damaged = bytes(der[: data.draw(st.integers(0, len(der)))])
    with suppress(ConfigError):
        try:
            parse_key(pem(damaged), password=ask)
        except Asked:
            assert pbes2.derivation(damaged).bearable


def test_a_file_is_private_whatever_encrypts_it(tmp_path: Path) -> None:
    from fleetctl.keys.stores import open_store

    old = os.umask(0)
    try:
        open_store("plain:", tmp_path).generate("a", "p256")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a.key").stat().st_mode) == 0o600


def test_rsa_is_for_authorities_and_long_enough() -> None:
    key = rsa.generate_private_key(65537, 3072)
    assert parse_key(private_pem(key)).public_key() == key.public_key()
    with pytest.raises(ConfigError, match="RSA of at least 3072 bits"):
        parse_key(private_pem(rsa.generate_private_key(65537, 2048)))
