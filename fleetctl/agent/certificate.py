"""The certificate of a device: what of it counts here, and what a new one must hold before it may be used."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fleetctl.errors import Malformed, Untrusted
from fleetctl.keys.store import PrivateKey, public_pem
from fleetctl.model.certificate import device_uri, serial_text
from fleetctl.model.device import DevicePath

CHAIN_LIMIT = 65536
LONGEST_CHAIN = 8
_READING_ERRORS = (ValueError, TypeError, OverflowError, x509.InvalidVersion)

Chain = Sequence[x509.Certificate]


@dataclass(frozen=True, slots=True)
class Credential:
    """What a certificate is called, and when it is good (Unix seconds)."""

    serial: str
    not_before: float
    not_after: float

    def at(self, share: float) -> float:
        """The moment when this share of its life is over."""
        return self.not_before + (self.not_after - self.not_before) * share


def parse_chain(pem: bytes) -> Chain:
    """The certificates of a PEM text, leaf first; raises `Malformed`."""
    if len(pem) > CHAIN_LIMIT:
        raise Malformed(f"the certificate has more than {CHAIN_LIMIT} bytes")
    try:
        chain = x509.load_pem_x509_certificates(pem)
    except _READING_ERRORS as error:
        raise Malformed("the certificate does not parse") from error
    if len(chain) > LONGEST_CHAIN:
        raise Malformed(f"the certificate comes with more than {LONGEST_CHAIN} others")
    return chain


def credential_of(chain: Chain) -> Credential:
    """Raises `Malformed` for what no authority may have issued."""
    try:
        begin, end = chain[0].not_valid_before_utc.timestamp(), chain[0].not_valid_after_utc.timestamp()
        return Credential(serial_text(chain[0].serial_number), begin, end)
    except _READING_ERRORS as error:
        raise Malformed("the certificate has no serial number or no validity that can be read") from error


def check_issued(chain: Chain, key: PrivateKey, path: DevicePath, now: float | None) -> Credential:
    """Whether a certificate that came is one for this device: its key, its name and address, its use, its chain, its time.

    Raises:
        Malformed, Untrusted: it is not; nothing of it may be stored.
    """
    try:
        _check(chain[0], key, path)
        for issued, issuer in pairwise(chain):
            issued.verify_directly_issued_by(issuer)
    except InvalidSignature as error:
        raise Untrusted("the certificate was not issued by the authority that came with it") from error
    except (*_READING_ERRORS, x509.ExtensionNotFound, x509.DuplicateExtension) as error:
        raise Untrusted("the certificate is not one of a device") from error
    credential = credential_of(chain)
    if credential.not_after <= credential.not_before or (now is not None and credential.not_after <= now):
        raise Untrusted("the certificate has expired already", "is the clock right? date -u")
    return credential


def chain_pem(chain: Chain) -> bytes:
    return b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in chain)


def completed(leaf: x509.Certificate, known: Chain) -> Chain:
    """The leaf and the authorities above it, as far as they are known, without the root."""
    chain = [leaf]
    while len(chain) < LONGEST_CHAIN:
        above = next((found for found in known if _issued(chain[-1], found)), None)
        if above is None or above.subject == above.issuer or above in chain:
            break
        chain.append(above)
    return chain


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (*_READING_ERRORS, InvalidSignature):
        return False
    return True


def _check(leaf: x509.Certificate, key: PrivateKey, path: DevicePath) -> None:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    if leaf.public_key().public_bytes(serialization.Encoding.PEM, form) != public_pem(key):
        raise Untrusted("the certificate is for another key")
    names = [str(name.value) for name in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if names != [path.device_id]:
        raise Untrusted("the certificate has the name of another device")
    alternatives = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    if alternatives.get_values_for_type(x509.UniformResourceIdentifier) != [device_uri(path)]:
        raise Untrusted("the certificate is for another address")
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    if ExtendedKeyUsageOID.CLIENT_AUTH not in usage:
        raise Untrusted("the certificate is not meant for clients")
