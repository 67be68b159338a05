"""Certificate authorities of a fleet, and the certificates they issue: clean under `openssl verify -x509_strict` and GnuTLS.

Devices have a root and issuing authorities; people and services have one of their own, and so have claims, so that no name of one
kind can stand for another's. Who may vouch for clients only says so in its own certificate too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
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
    claim_name,
    device_uri,
    operator_uri,
    serial_text,
    validity,
)
from fleetctl.model.device import DevicePath, check_level, printable
from fleetctl.pki.extensions import (
    AuthorityKey,
    SubjectKey,
    authority_key_identifier,
    check_authority_key,
    check_constraints,
    digest_for,
    general_name,
    key_usage,
)

DEVICE_ROOT = "device-root"
DEVICE_ISSUING = "device-issuing"
FLEET_CA = "fleet-ca"
CLAIM_CA = "claim-ca"
PEM_LIMIT = 1 << 20
_NO_AUTHORITY = x509.BasicConstraints(ca=False, path_length=None)
_SIGNS = key_usage(digital_signature=True)


@dataclass(frozen=True, slots=True)
class Authority:
    """An authority that can sign: `chain` is its certificate and those above it, up to the root."""

    name: str
    key: AuthorityKey
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
    def load(cls, name: str, key: Path, certificates: Path) -> Self:
        """Read an authority whose certificate, and those above it, are somewhere in a file, in any order.

        Raises:
            ConfigError: no certificate there is of that name, or none belongs to the key.
            NotFound, Denied: a file is missing, or the key may be read by others.
        """
        held = read_certificates(certificates)
        named = [each for each in held if common_names(each) == [name]]
        if not named:
            raise ConfigError(
                f"the certificate in {printable(str(certificates))} is not that of `{name}`", f"ls -l {certificates}"
            )
        secret = load_key(key)
        own = next((each for each in named if each.public_key() == secret.public_key()), None)
        if own is None:
            raise ConfigError(
                f"the key {printable(str(key))} is not that of `{name}` in {printable(str(certificates))}",
                f"ls -l {certificates}",
            )
        check_authority_key(secret)
        return cls(name, secret, chain_of(own, held))


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


def claim_request(tenant: str, name: str) -> Request:
    """A claim named `name`: its common name is `claim:NAME`, which no device id can be."""
    common_name = claim_name(name)
    return Request(Profile.CLAIM, common_name, (operator_uri(tenant, common_name),))


def server_request(names: Sequence[str]) -> Request:
    """A server found under any of `names`; only these count, the common name is for people."""
    common_name = next((name for name in names if len(name) <= COMMON_NAME_LIMIT), "localhost")
    return Request(Profile.SERVER, common_name, tuple(dict.fromkeys(check_host(name) for name in names)))


def create_root(
    name: str,
    tenant: str,
    key: AuthorityKey,
    now: float,
    path_length: int,
    *,
    constraints: x509.NameConstraints | None = None,
    clients_only: bool = False,
) -> Authority:
    """A self-signed authority with at most `path_length` authorities between it and a leaf."""
    subject = _authority_name(name, tenant)
    builder = _authority(subject, key, subject, key, validity(Profile.AUTHORITY, now), path_length)
    return Authority(name, key, (_finished(builder, key, constraints, clients_only),))


def create_issuing(
    root: Authority,
    name: str,
    tenant: str,
    key: AuthorityKey,
    now: float,
    path_length: int = 0,
    *,
    constraints: x509.NameConstraints | None = None,
    clients_only: bool = True,
) -> Authority:
    """An authority below `root` that issues leaves only, unless `path_length` leaves room for others."""
    span = validity(Profile.AUTHORITY, now, root.validity)
    builder = _authority(_authority_name(name, tenant), key, root.certificate.subject, root.key, span, path_length)
    return Authority(name, key, (_finished(builder, root.key, constraints, clients_only), *root.chain))


def issue(
    authority: Authority, request: Request, public_key: SubjectKey, now: float, *, days: float | None = None
) -> x509.Certificate:
    """A leaf that says exactly what the authority decided: nothing is copied from whoever asked.

    It is good for `days`, else for as long as its profile says, and never longer than its authority.

    Raises:
        UsageError: the profile may not carry that name, or `days` is no life.
        ConfigError: the authority is not valid now, or may not vouch for such a name.
    """
    span = validity(request.profile, now, authority.validity, days)
    check_constraints(authority.chain, request.common_name, request.profile)
    usage = ExtendedKeyUsageOID.SERVER_AUTH if request.profile is Profile.SERVER else ExtendedKeyUsageOID.CLIENT_AUTH
    names = x509.SubjectAlternativeName([general_name(name, request.profile) for name in request.alternatives])
    extensions: list[x509.Extension[x509.ExtensionType]] = [
        x509.Extension(x509.BasicConstraints.oid, True, _NO_AUTHORITY),
        x509.Extension(x509.KeyUsage.oid, True, _SIGNS),
        x509.Extension(x509.ExtendedKeyUsage.oid, False, x509.ExtendedKeyUsage([usage])),
        x509.Extension(x509.SubjectAlternativeName.oid, False, names),
        x509.Extension(x509.SubjectKeyIdentifier.oid, False, x509.SubjectKeyIdentifier.from_public_key(public_key)),
        x509.Extension(x509.AuthorityKeyIdentifier.oid, False, authority_key_identifier(authority.certificate)),
    ]
    # all extensions at once: every one that is added makes another builder, which takes a tenth of the time
    builder = _builder(_leaf_name(request.common_name), public_key, authority.certificate.subject, span, extensions)
    return builder.sign(authority.key, digest_for(authority.key))


def chain_of(certificate: x509.Certificate, among: Sequence[x509.Certificate]) -> tuple[x509.Certificate, ...]:
    """A certificate and those above it, as far as they are `among` these: found by who signed whom, not by their order."""
    chain = [certificate]
    while chain[-1].issuer != chain[-1].subject:
        above = next((each for each in among if each not in chain and _signed(chain[-1], each)), None)
        if above is None:
            break
        chain.append(above)
    return tuple(chain)


def _signed(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    if certificate.issuer != issuer.subject:
        return False
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, TypeError, ValueError):
        return False
    return True


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


def _authority(
    subject: x509.Name, key: AuthorityKey, issuer: x509.Name, issuer_key: AuthorityKey, span: Validity, path_length: int
) -> x509.CertificateBuilder:
    check_authority_key(key)
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    return (
        _builder(subject, key.public_key(), issuer, span)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(identifier, critical=False)
    )


def _finished(
    builder: x509.CertificateBuilder, issuer_key: AuthorityKey, constraints: x509.NameConstraints | None, clients_only: bool
) -> x509.Certificate:
    """Signed, with what narrows down whom it may vouch for: OpenSSL and GnuTLS hold a chain to the key usage of all in it."""
    if constraints is not None:
        builder = builder.add_extension(constraints, critical=True)
    if clients_only:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
    return builder.sign(issuer_key, digest_for(issuer_key))


def _builder(
    subject: x509.Name,
    public_key: SubjectKey,
    issuer: x509.Name,
    span: Validity,
    extensions: Sequence[x509.Extension[x509.ExtensionType]] = (),
) -> x509.CertificateBuilder:
    serial, begin, end = x509.random_serial_number(), moment(span.not_before), moment(span.not_after)
    return x509.CertificateBuilder(issuer, subject, public_key, serial, begin, end, list(extensions))
