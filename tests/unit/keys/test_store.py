import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from fleetctl.errors import ConfigError, Conflict, Denied, NotFound
from fleetctl.keys.store import KeyType, generate_key, load_key, load_public_key, parse_key, private_pem, public_pem, save_key


@pytest.mark.parametrize("alg", ["ed25519", "p256"])
def test_a_key_comes_back_from_its_file(tmp_path: Path, alg: KeyType) -> None:
    key = generate_key(alg)
    save_key(tmp_path / "a.key", key)
    assert private_pem(load_key(tmp_path / "a.key")) == private_pem(key)
    assert public_pem(load_public_key(public_pem(key))) == public_pem(key)


def test_a_key_file_is_private_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        save_key(tmp_path / "a.key", generate_key())
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a.key").stat().st_mode) == 0o600


def test_a_key_is_not_overwritten_by_chance(tmp_path: Path) -> None:
    first, second = generate_key(), generate_key()
    save_key(tmp_path / "a.key", first)
    with pytest.raises(Conflict):
        save_key(tmp_path / "a.key", second)
    assert private_pem(load_key(tmp_path / "a.key")) == private_pem(first)
    save_key(tmp_path / "a.key", second, replace=True)
    assert private_pem(load_key(tmp_path / "a.key")) == private_pem(second)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_key_that_others_can_use_is_denied(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "a.key"
    save_key(path, generate_key())
    path.chmod(mode)
    with pytest.raises(Denied) as caught:
        load_key(path)
    assert caught.value.hint == f"chmod 600 {path}"


def test_what_is_no_key_is_a_configuration_error(tmp_path: Path) -> None:
    encrypted = generate_key().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    for number, pem in enumerate(
        (
            b"",
            b"not a key",
            encrypted,
            public_pem(generate_key()),
            rsa.generate_private_key(65537, 2048).private_bytes(*plain),
            ec.generate_private_key(ec.SECP521R1()).private_bytes(*plain),
        )
    ):
        path = tmp_path / f"{number}.key"
        path.touch(0o600)
        path.write_bytes(pem)
        with pytest.raises(ConfigError) as caught:
            load_key(path)
        assert caught.value.hint


def test_a_missing_key_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        load_key(tmp_path / "a.key")


@pytest.mark.parametrize("pem", [b"", b"garbage", private_pem(generate_key())])
def test_what_is_no_public_key_is_named(pem: bytes) -> None:
    with pytest.raises(ConfigError, match=r"`root\.pub` is not a PEM public key"):
        load_public_key(pem, "`root.pub`")


def test_a_public_key_of_another_kind_is_refused() -> None:
    pem = (
        rsa.generate_private_key(65537, 2048)
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    with pytest.raises(ConfigError, match="neither Ed25519 nor P-256"):
        load_public_key(pem)


def test_a_key_may_come_from_elsewhere_than_a_file() -> None:
    key = generate_key()
    assert private_pem(parse_key(private_pem(key))) == private_pem(key)
    with pytest.raises(ConfigError, match="secret `env:KEY` holds no unencrypted PEM private key"):
        parse_key(b"hunter2", "secret `env:KEY`")
