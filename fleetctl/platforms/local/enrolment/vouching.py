"""Whether a certificate that somebody else's authority issued may be believed: chain, time, use, list, and who has its key."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID

from fleetctl.errors import Malformed, Untrusted
from fleetctl.model.certificate import State
from fleetctl.model.device import DevicePath, printable
from fleetctl.pki import crl
from fleetctl.pki.authority import common_names, validity_of
from fleetctl.pki.csr import checked_key

CHAIN_LIMIT = 49152
LONGEST_CHAIN = 4
PURPOSE = b"fleetctl/identify\0"
_UNREADABLE = (
    ValueError,
    TypeError,
    OverflowError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What a part of a certificate raises that its maker has broken: such parts are read when they are asked for."""


@dataclass(frozen=True, slots=True)
class Voucher:
    """An authority that devices may come with: its certificate, and the list of what it took back."""

    name: str
    profile: str | None
    certificate: x509.Certificate
    revocations: Path


def read_chain(text: str) -> list[x509.Certificate]:
    """Leaf first; raises `Malformed`."""
    if len(text) > CHAIN_LIMIT:
        raise Malformed(f"the chain has more than {CHAIN_LIMIT} bytes")
    try:
        chain = x509.load_pem_x509_certificates(text.encode())
    except _UNREADABLE as error:
        raise Malformed("the chain is not PEM certificates") from error
    if len(chain) > LONGEST_CHAIN:
        raise Malformed(f"the chain has more than {LONGEST_CHAIN} certificates")
    return chain


def identify_message(path: DevicePath, nonce: bytes) -> bytes:
    """What a device signs to show that it has the key: bound to its address and to this moment."""
    return PURPOSE + str(path).encode() + b"\0" + nonce


def check(path: DevicePath, chain: Sequence[x509.Certificate], vouchers: Sequence[Voucher], now: float) -> Voucher:
    """Who vouches for the first certificate of a chain.

    Raises:
        Untrusted: saying which proof is missing.
        Malformed: a part of the chain does not parse.
    """
    try:
        return _check(path, chain, vouchers, now)
    except _UNREADABLE as error:
        raise Malformed("the chain holds a certificate that does not parse") from error


def _check(path: DevicePath, chain: Sequence[x509.Certificate], vouchers: Sequence[Voucher], now: float) -> Voucher:
    leaf = chain[0]
    # 1. it is for this device, a client, and good now
    if common_names(leaf) != [path.device_id]:
        raise Untrusted("the certificate is another's")
    if validity_of(leaf).state(now) is not State.VALID:
        raise Untrusted("the certificate is not valid now")
    if _is_authority(leaf) or not _is_client(leaf):
        raise Untrusted("the certificate is not a client's")
    # 2. its key is strong enough
    checked_key(leaf.public_key())
    # 3. an authority that was registered has issued it, or has issued who did
    for voucher in vouchers:
        above = _path(leaf, chain[1:], voucher.certificate)
        if above is None:
            continue
        if any(validity_of(each).state(now) is not State.VALID for each in above):
            raise Untrusted(f"an authority below {printable(voucher.name)} is not valid now")
        # 4. nothing on the way was taken back
        taken_back = crl.read_serials(voucher.revocations) if voucher.revocations.exists() else set()
        if any(each.serial_number in taken_back for each in (leaf, *above[:-1])):
            raise Untrusted("the certificate is revoked")
        return voucher
    raise Untrusted("no authority that was registered has issued it")


def check_signature(path: DevicePath, certificate: x509.Certificate, nonce: bytes, signature: bytes) -> None:
    """Raises `Untrusted` unless the certificate's key has signed `identify_message`."""
    key, message = certificate.public_key(), identify_message(path, nonce)
    try:
        match key:
            case ec.EllipticCurvePublicKey():
                key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
            case Ed25519PublicKey():
                key.verify(signature, message)
            case rsa.RSAPublicKey():
                key.verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
            case _:
                raise Untrusted("the key is of no kind that is accepted")
    except InvalidSignature as error:
        raise Untrusted("the device does not have the key of its certificate") from error


def _path(leaf: x509.Certificate, others: Sequence[x509.Certificate], anchor: x509.Certificate) -> list[x509.Certificate] | None:
    """The authorities above a leaf, up to the anchor; None where they do not lead there."""
    above: list[x509.Certificate] = []
    current = leaf
    while len(above) < LONGEST_CHAIN:
        if _issued(anchor, current, len(above)):
            return [*above, anchor]
        found = next((each for each in others if each not in above and _issued(each, current, len(above))), None)
        if found is None:
            return None
        above.append(found)
        current = found
    return None


def _issued(issuer: x509.Certificate, subject: x509.Certificate, below: int) -> bool:
    """Whether an authority has issued it and may, with `below` authorities between it and the leaf."""
    try:
        constraints = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
        subject.verify_directly_issued_by(issuer)
    except (x509.ExtensionNotFound, ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return constraints.ca and (constraints.path_length is None or constraints.path_length >= below) and _may_sign(issuer)


def _may_sign(issuer: x509.Certificate) -> bool:
    try:
        return issuer.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound:
        return True


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _is_client(certificate: x509.Certificate) -> bool:
    try:
        return ExtendedKeyUsageOID.CLIENT_AUTH in certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
