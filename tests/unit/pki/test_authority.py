"""What authorities put into certificates, and what they refuse."""

import ipaddress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from fleetctl.errors import ConfigError, Denied, UsageError
from fleetctl.keys.store import save_key
from fleetctl.model.certificate import BACKDATE, DAY, Profile
from fleetctl.model.device import DevicePath
from fleetctl.pki.authority import (
    DEVICE_ISSUING,
    DEVICE_ROOT,
    FLEET_CA,
    Authority,
    Request,
    common_names,
    create_issuing,
    create_root,
    device_request,
    issue,
    operator_request,
    pem,
    read_certificates,
    serial_of,
    server_request,
    validity_of,
)

NOW = 1_800_000_000.0
PATH = DevicePath("acme", "oslo", "pump", "p-1")


def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@pytest.fixture(scope="module")
def root() -> Authority:
    return create_root(DEVICE_ROOT, "acme", key(), NOW, 1)


@pytest.fixture(scope="module")
def issuing(root: Authority) -> Authority:
    return create_issuing(root, DEVICE_ISSUING, "acme", key(), NOW)


@pytest.fixture(scope="module")
def people() -> Authority:
    return create_root(FLEET_CA, "acme", key(), NOW, 0)


def test_the_root_lets_one_authority_stand_below_it_and_that_one_none(root: Authority, issuing: Authority) -> None:
    lengths = [
        authority.certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
        for authority in (root, issuing)
    ]
    assert lengths == [1, 0]
    issuing.certificate.verify_directly_issued_by(root.certificate)


def test_authorities_sign_certificates_and_lists_and_nothing_else(issuing: Authority) -> None:
    usage = issuing.certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.key_cert_sign
    assert usage.value.crl_sign
    assert not usage.value.digital_signature


def test_a_device_certificate_says_what_the_authority_decided(issuing: Authority) -> None:
    certificate = issue(issuing, device_request(PATH), key().public_key(), NOW)
    extensions = certificate.extensions
    assert common_names(certificate) == ["p-1"]
    assert len(certificate.subject.rdns) == 1
    assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["urn:fleetctl:acme/oslo/pump/p-1"]
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    span = validity_of(certificate)
    assert (span.not_before, span.not_after) == (NOW - BACKDATE, NOW + Profile.DEVICE.days * DAY)
    certificate.verify_directly_issued_by(issuing.certificate)


def test_a_server_certificate_is_for_servers_only_and_holds_every_name_once(people: Authority) -> None:
    names = ["broker.example.org", "localhost", "127.0.0.1", "::1", "localhost"]
    certificate = issue(people, server_request(names), key().public_key(), NOW)
    extensions = certificate.extensions
    assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.SERVER_AUTH]
    held = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert held.get_values_for_type(x509.DNSName) == ["broker.example.org", "localhost"]
    assert held.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")]


def test_a_server_with_a_name_too_long_for_a_common_name_gets_another(people: Authority) -> None:
    long = ".".join(["x" * 60] * 3)
    certificate = issue(people, server_request([long, "localhost"]), key().public_key(), NOW)
    assert common_names(certificate) == ["localhost"]


def test_an_operator_certificate_is_for_clients_only(people: Authority) -> None:
    certificate = issue(people, operator_request("acme", "op:alice"), key().public_key(), NOW)
    assert common_names(certificate) == ["op:alice"]
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]


@pytest.mark.parametrize("name", ["op:a", "a/b", "a+", "#", "a\0", "_fleet", ""])
def test_no_device_request_carries_a_name_with_power(name: str) -> None:
    with pytest.raises(UsageError):
        Request(Profile.DEVICE, name, ("urn:x:y",))


def test_a_request_without_an_alternative_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="no alternative name"):
        Request(Profile.DEVICE, "p-1", ())


def test_serial_numbers_are_random(issuing: Authority) -> None:
    public = key().public_key()
    serials = {serial_of(issue(issuing, device_request(PATH), public, NOW)) for _ in range(20)}
    assert len(serials) == 20
    assert all(len(serial) == 40 for serial in serials)
    assert len({serial[:4] for serial in serials}) > 10


def test_a_leaf_ends_with_its_authority(people: Authority) -> None:
    late = people.validity.not_after - 10
    assert validity_of(issue(people, operator_request("acme", "op:a"), key().public_key(), late)).not_after == late + 10


def test_an_authority_past_its_end_issues_nothing(people: Authority) -> None:
    with pytest.raises(ConfigError, match="not valid now"):
        issue(people, operator_request("acme", "op:a"), key().public_key(), people.validity.not_after + 1)


def test_an_authority_is_read_back_with_its_chain(tmp_path: Path, root: Authority, issuing: Authority) -> None:
    save_key(tmp_path / "i.key", issuing.key)
    save_key(tmp_path / "r.key", root.key)
    (tmp_path / "chain.pem").write_bytes(pem(*issuing.chain))
    assert Authority.load(DEVICE_ISSUING, tmp_path / "i.key", tmp_path / "chain.pem").chain == issuing.chain
    assert Authority.load(DEVICE_ROOT, tmp_path / "r.key", tmp_path / "chain.pem").chain == root.chain
    assert issuing.issuers == (issuing.certificate,)
    assert root.issuers == ()


def test_a_key_of_another_authority_is_refused(tmp_path: Path, root: Authority, issuing: Authority) -> None:
    save_key(tmp_path / "r.key", root.key)
    (tmp_path / "chain.pem").write_bytes(pem(*issuing.chain))
    with pytest.raises(ConfigError, match="is not that of `device-issuing`"):
        Authority.load(DEVICE_ISSUING, tmp_path / "r.key", tmp_path / "chain.pem")


def test_an_authority_under_another_name_is_refused(tmp_path: Path, people: Authority) -> None:
    save_key(tmp_path / "p.key", people.key)
    (tmp_path / "p.pem").write_bytes(pem(people.certificate))
    with pytest.raises(ConfigError, match="is not that of `device-root`"):
        Authority.load(DEVICE_ROOT, tmp_path / "p.key", tmp_path / "p.pem")


def test_a_key_that_others_can_read_is_refused(tmp_path: Path, people: Authority) -> None:
    save_key(tmp_path / "p.key", people.key)
    (tmp_path / "p.key").chmod(0o644)
    (tmp_path / "p.pem").write_bytes(pem(people.certificate))
    with pytest.raises(Denied):
        Authority.load(FLEET_CA, tmp_path / "p.key", tmp_path / "p.pem")


@pytest.mark.parametrize("data", [b"", b"garbage", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_file_without_a_certificate_is_a_configuration_error(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.pem").write_bytes(data)
    with pytest.raises(ConfigError, match="holds no PEM certificate"):
        read_certificates(tmp_path / "x.pem")
