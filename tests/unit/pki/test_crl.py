"""Revocation lists: their lines, numbers and dates."""

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from fleetctl.errors import ConfigError, Unavailable
from fleetctl.model.certificate import Reason
from fleetctl.pki import crl
from fleetctl.pki.authority import Authority, create_root

NOW = 1_800_000_000.0


@pytest.fixture(scope="module")
def authority() -> Authority:
    return create_root("fleet-ca", "acme", ec.generate_private_key(ec.SECP256R1()), NOW, 0)


def parsed(data: bytes) -> x509.CertificateRevocationList:
    return x509.load_pem_x509_crl(data)


def test_an_empty_list_is_a_list(authority: Authority) -> None:
    made = parsed(crl.build(authority, [], 1, int(crl.first_date(NOW))))
    assert list(made) == []
    assert made.is_signature_valid(authority.key.public_key())
    assert made.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 1


def test_a_list_is_good_for_a_year_from_now_and_began_a_day_ago(authority: Authority) -> None:
    made = parsed(crl.build(authority, [], 1, int(crl.first_date(NOW))))
    assert made.last_update_utc.timestamp() == NOW - crl.BACKDATE
    assert made.next_update_utc is not None
    assert made.next_update_utc.timestamp() == NOW + crl.LIFETIME


def test_lines_carry_serial_time_and_reason(authority: Authority) -> None:
    lines = [crl.Revoked(7, NOW + 0.9, Reason.KEY_COMPROMISE), crl.Revoked(8, NOW, Reason.UNSPECIFIED)]
    made = parsed(crl.build(authority, lines, 2, int(NOW)))
    first, second = made
    assert (first.serial_number, first.revocation_date_utc.timestamp()) == (7, NOW)
    assert first.extensions.get_extension_for_class(x509.CRLReason).value.reason is x509.ReasonFlags.key_compromise
    # RFC 5280 section 5.3.1: rather no reason than `unspecified`
    assert len(second.extensions) == 0


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_can_be_written(authority: Authority, reason: Reason) -> None:
    assert len(list(parsed(crl.build(authority, [crl.Revoked(1, NOW, reason)], 1, int(NOW))))) == 1


def test_a_list_from_the_future_is_refused_before_it_locks_everybody_out() -> None:
    crl.check_date("fleet-ca", int(NOW), NOW)
    with pytest.raises(Unavailable, match="1 s in the future"):
        crl.check_date("fleet-ca", int(NOW) + 1, NOW)


def test_a_file_of_several_lists_is_read_entire(tmp_path: Path, authority: Authority) -> None:
    other = create_root("device-root", "acme", ec.generate_private_key(ec.SECP256R1()), NOW, 1)
    path = tmp_path / "crl.pem"
    path.write_bytes(
        crl.build(authority, [crl.Revoked(7, NOW, Reason.SUPERSEDED)], 3, int(NOW))
        + crl.build(other, [crl.Revoked(9, NOW, Reason.SUPERSEDED)], 5, int(NOW))
    )
    assert crl.read_numbers(path) == {"fleet-ca": 3, "device-root": 5}
    assert crl.read_serials(path) == {7, 9}


@pytest.mark.parametrize("data", [b"", b"hello", b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"])
def test_a_damaged_file_is_a_configuration_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "crl.pem"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match="revocation lists"):
        crl.read_numbers(path)


def test_many_lines_do_not_make_it_slow(authority: Authority) -> None:
    lines = [crl.Revoked(serial, NOW, Reason.UNSPECIFIED) for serial in range(1, 20_001)]
    assert len(list(parsed(crl.build(authority, lines, 1, int(NOW))))) == 20_000
