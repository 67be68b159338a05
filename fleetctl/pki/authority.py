"""Certificate authorities of a fleet, and the certificates they issue: P-256, clean under `openssl verify -x509_strict`.

Devices have a root and an issuing authority; people and services have one of their own, so that no name of one kind can stand for
the other's.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fleetctl import files
from fleetctl.errors import ConfigError
from fleetctl.keys.store import load_key
from fleetctl.model.certificate import (
    COMMON_NAME_LIMIT,
    Profile,
    Validity,
    check_host,
    check_subject,
    device_uri,
    operator_uri,
    serial_text,
    validity,
)
from fleetctl.model.device import DevicePath, check_level, printable

DEVICE_ROOT = "device-root"
DEVICE_ISSUING = "device-issuing"
FLEET_CA = "fleet-ca"
PEM_LIMIT = 1 << 20


@dataclass(frozen=True, slots=True)
class Authority:
    """An authority that can sign: `chain` is its certificate and those above it, up to the root."""

    name: str
    key: ec.EllipticCurvePrivateKey
    chain: tuple[x509.Certificate, ...]

    @property
    def certificate(self) -> x509.Certificate:
        return self.chain[0]

    @property
    def validity(self) -> Validity:
        return validity_of(self.certificate)

    @property
    def issuers(self) -> tuple[x509.Certificate, ...]:
        """What a leaf must bring along: everything between it and the root, which the other side holds."""
        return self.chain[:-1]

    @classmethod
    def load(cls, name: str, key: Path, chain: Path, skip: int = 0) -> Self:
        """Read an authority whose certificate is the one after `skip` others in `chain`.

        Raises:
            ConfigError: key and certificate do not belong together, or the certificate is another authority's.
            NotFound, Denied: a file is missing, or the key may be read by others.
        """
        certificates = tuple(read_certificates(chain)[skip:])
        secret = load_key(key)
        if (
            not certificates
            or not isinstance(secret, ec.EllipticCurvePrivateKey)
            or certificates[0].public_key() != secret.public_key()
        ):
            raise ConfigError(
                f"the key {printable(str(key))} is not that of `{name}` in {printable(str(chain))}", f"ls -l {chain}"
            )
        if common_names(certificates[0]) != [name]:
            raise ConfigError(f"the certificate in {printable(str(chain))} is not that of `{name}`", f"ls -l {chain}")
        return cls(name, secret, certificates)


@dataclass(frozen=True, slots=True)
class Request:
    """A certificate that is wanted: `alternatives` are URIs for clients, host names and addresses for servers."""

    profile: Profile
    common_name: str
    alternatives: tuple[str, ...]

    def __post_init__(self) -> None:
        check_subject(self.profile, self.common_name)
        if not self.alternatives:
            raise ConfigError(f"a certificate for `{self.common_name}` would have no alternative name", "give it one")


def device_request(path: DevicePath) -> Request:
    return Request(Profile.DEVICE, path.device_id, (device_uri(path),))


def operator_request(tenant: str, name: str) -> Request:
    """`name` as in `op:alice`."""
    return Request(Profile.OPERATOR, name, (operator_uri(tenant, name),))


def server_request(names: Sequence[str]) -> Request:
    """A server found under any of `names`; only these count, the common name is for people."""
    common_name = next((name for name in names if len(name) <= COMMON_NAME_LIMIT), "localhost")
    return Request(Profile.SERVER, common_name, tuple(dict.fromkeys(check_host(name) for name in names)))


def create_root(name: str, tenant: str, key: ec.EllipticCurvePrivateKey, now: float, path_length: int) -> Authority:
    """A self-signed authority with at most `path_length` authorities between it and a leaf."""
    subject = _authority_name(name, tenant)
    certificate = _sign_authority(subject, key, subject, key, validity(Profile.AUTHORITY, now), path_length)
    return Authority(name, key, (certificate,))


def create_issuing(root: Authority, name: str, tenant: str, key: ec.EllipticCurvePrivateKey, now: float) -> Authority:
    """An authority below `root` that issues leaves only."""
    span = validity(Profile.AUTHORITY, now, root.validity)
    certificate = _sign_authority(_authority_name(name, tenant), key, root.certificate.subject, root.key, span, 0)
    return Authority(name, key, (certificate, *root.chain))


def issue(authority: Authority, request: Request, public_key: ec.EllipticCurvePublicKey, now: float) -> x509.Certificate:
    """A leaf that says exactly what the authority decided: nothing is copied from whoever asked.

    Raises:
        UsageError: the profile may not carry that name.
        ConfigError: the authority is not valid now.
    """
    span = validity(request.profile, now, authority.validity)
    usage = ExtendedKeyUsageOID.SERVER_AUTH if request.profile is Profile.SERVER else ExtendedKeyUsageOID.CLIENT_AUTH
    names = x509.SubjectAlternativeName([_general_name(name, request.profile) for name in request.alternatives])
    return (
        _builder(_leaf_name(request.common_name), public_key, authority.certificate.subject, span)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(names, critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(_authority_key_identifier(authority.certificate), critical=False)
        .sign(authority.key, hashes.SHA256())
    )


def pem(*certificates: x509.Certificate) -> bytes:
    """As files hold them: leaf first."""
    return b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in certificates)


def read_certificates(path: Path) -> Sequence[x509.Certificate]:
    """Every certificate in a PEM file, at least one; raises `ConfigError`, `NotFound` or `Denied`."""
    data = files.read_limited(path, PEM_LIMIT)
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise ConfigError(f"{printable(str(path))} holds no PEM certificate", f"openssl x509 -in {path} -noout") from error


def validity_of(certificate: x509.Certificate) -> Validity:
    return Validity(int(certificate.not_valid_before_utc.timestamp()), int(certificate.not_valid_after_utc.timestamp()))


def common_names(certificate: x509.Certificate) -> list[str]:
    return [str(attribute.value) for attribute in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]


def serial_of(certificate: x509.Certificate) -> str:
    return serial_text(certificate.serial_number)


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 over the certificate, as `openssl x509 -fingerprint -sha256` counts it."""
    return f"sha256:{certificate.fingerprint(hashes.SHA256()).hex()}"


def moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _authority_name(name: str, tenant: str) -> x509.Name:
    check_subject(Profile.AUTHORITY, name)
    check_level("tenant", tenant)
    organization = x509.NameAttribute(NameOID.ORGANIZATION_NAME, tenant)
    return x509.Name([organization, x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _leaf_name(common_name: str) -> x509.Name:
    """Exactly one common name: brokers take the first of several as the identity."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _sign_authority(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    span: Validity,
    path_length: int,
) -> x509.Certificate:
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    return (
        _builder(subject, key.public_key(), issuer, span)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(identifier, critical=False)
        .sign(issuer_key, hashes.SHA256())
    )


def _builder(
    subject: x509.Name, public_key: ec.EllipticCurvePublicKey, issuer: x509.Name, span: Validity
) -> x509.CertificateBuilder:
    return x509.CertificateBuilder(
        issuer, subject, public_key, x509.random_serial_number(), moment(span.not_before), moment(span.not_after)
    )


def _key_usage(*, digital_signature: bool = False, signs_certificates: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _authority_key_identifier(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _general_name(name: str, profile: Profile) -> x509.GeneralName:
    if profile is not Profile.SERVER:
        return x509.UniformResourceIdentifier(name)
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
