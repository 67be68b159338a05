"""What certificates, requests and revocation lists say, put into words; nothing is believed, and nothing hostile gets further."""

import base64
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import AttributeOID, ExtendedKeyUsageOID, SignatureAlgorithmOID

from fleetctl.errors import Malformed
from fleetctl.model.certificate import serial_text
from fleetctl.pki.csr import normalised, spki_of, weakness
from fleetctl.wire.document import rfc3339

LIMIT = 64 << 20
MOST = 1000
TEXT_LIMIT = 2000
NUMBER_BITS = 160
"""RFC 5280 section 5.2.3: a list's number has at most 20 octets."""
_LABEL_LIMIT = 40
_BROKEN = (ValueError, TypeError, OverflowError, UnsupportedAlgorithm, x509.InvalidVersion, x509.UnsupportedGeneralNameType)
_USES = {
    ExtendedKeyUsageOID.CLIENT_AUTH: "clientAuth",
    ExtendedKeyUsageOID.SERVER_AUTH: "serverAuth",
    ExtendedKeyUsageOID.CODE_SIGNING: "codeSigning",
    ExtendedKeyUsageOID.EMAIL_PROTECTION: "emailProtection",
    ExtendedKeyUsageOID.TIME_STAMPING: "timeStamping",
    ExtendedKeyUsageOID.OCSP_SIGNING: "ocspSigning",
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE: "any",
}
_SIGNATURES = {
    SignatureAlgorithmOID.ECDSA_WITH_SHA256: "ecdsa-with-SHA256",
    SignatureAlgorithmOID.ECDSA_WITH_SHA384: "ecdsa-with-SHA384",
    SignatureAlgorithmOID.ECDSA_WITH_SHA512: "ecdsa-with-SHA512",
    SignatureAlgorithmOID.ECDSA_WITH_SHA1: "ecdsa-with-SHA1",
    SignatureAlgorithmOID.RSA_WITH_SHA256: "rsa-with-SHA256",
    SignatureAlgorithmOID.RSA_WITH_SHA384: "rsa-with-SHA384",
    SignatureAlgorithmOID.RSA_WITH_SHA512: "rsa-with-SHA512",
    SignatureAlgorithmOID.RSA_WITH_SHA1: "rsa-with-SHA1",
    SignatureAlgorithmOID.RSA_WITH_MD5: "rsa-with-MD5",
    SignatureAlgorithmOID.RSASSA_PSS: "rsa-pss",
    SignatureAlgorithmOID.ED25519: "ed25519",
    SignatureAlgorithmOID.ED448: "ed448",
}
_HINT = "look at it with openssl asn1parse -in FILE"

T = TypeVar("T")
E = TypeVar("E", bound=x509.ExtensionType)


@dataclass(frozen=True, slots=True)
class Inspected:
    """One object of a file: `kind` is certificate, request, list, or privateKey, of which nothing is shown.

    `entries` counts what a list names; `problems` is what does not parse, or is too weak to be trusted.
    """

    kind: str
    subject: str | None = None
    issuer: str | None = None
    serial: str | None = None
    not_before: str | None = None
    not_after: str | None = None
    key_type: str | None = None
    signature_algorithm: str | None = None
    san: tuple[str, ...] | None = None
    usages: tuple[str, ...] | None = None
    is_authority: bool | None = None
    path_length: int | None = None
    fingerprint: str | None = None
    spki: str | None = None
    number: int | None = None
    entries: int | None = None
    challenge: bool | None = None
    problems: tuple[str, ...] = ()


def inspect(data: bytes) -> list[Inspected]:
    """Every object in PEM or the one in DER; raises `Malformed` where there is none, or too much."""
    if len(data) > LIMIT:
        raise Malformed(f"that is more than {LIMIT} bytes", "name the right file")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library warns of what is noted here among the problems
        return list(_of_pem(data)) if b"-----BEGIN " in data else [_of_der(data)]


def certificates_in(data: bytes) -> list[x509.Certificate]:
    """Every certificate in PEM, or the one in DER; raises `Malformed`."""
    if len(data) > LIMIT:
        raise Malformed(f"that is more than {LIMIT} bytes", "name the right file")
    bodies = (body for label, body in _blocks(data) if label.endswith("CERTIFICATE"))
    try:
        ders = [_decoded(each) for each in islice(bodies, MOST)] if b"-----BEGIN " in data else [data]
        found = [x509.load_der_x509_certificate(each) for each in ders]
    except _BROKEN as error:
        raise Malformed("it holds something else than a certificate", _HINT) from error
    if not found:
        raise Malformed("it holds no certificate", "see what it holds: fleetctl certs inspect FILE")
    return found


def _of_pem(data: bytes) -> Iterator[Inspected]:
    found = 0
    for label, body in _blocks(data):
        read = _READERS.get(label)
        if read is None and not label.endswith("PRIVATE KEY"):
            continue
        found += 1
        if found > MOST:
            raise Malformed(f"there are more than {MOST} objects in it", "split the file")
        yield Inspected("privateKey") if read is None else _parsed(read, body, label.lower())
    if not found:
        raise Malformed("it holds no certificate, request or revocation list", _HINT)


def _blocks(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Label and text of each block of PEM; every byte is looked at once, whatever the file is."""
    begin, dashes, at = b"-----BEGIN ", b"-----", 0
    while (start := data.find(begin, at)) >= 0:
        named = start + len(begin)
        text = data.find(dashes, named, named + _LABEL_LIMIT + len(dashes))
        label = data[named:text] if text >= 0 else b""
        end = data.find(b"-----END " + label + dashes, text) if label else -1
        if end < 0:
            raise Malformed("a block of PEM in it has no end", _HINT)
        yield label.decode("ascii", errors="replace"), data[text + len(dashes) : end]
        at = end


def certificate_words(certificate: x509.Certificate) -> Inspected:
    """What a certificate says."""
    reading = _Reading()
    read = reading.read
    key = read("key", certificate.public_key)
    constraints = reading.extension(certificate, x509.BasicConstraints)
    return Inspected(
        "certificate",
        subject=read("subject", lambda: _name(certificate.subject)),
        issuer=read("issuer", lambda: _name(certificate.issuer)),
        serial=read("serial", lambda: serial_text(certificate.serial_number)),
        not_before=read("begin", lambda: _time(certificate.not_valid_before_utc)),
        not_after=read("end", lambda: _time(certificate.not_valid_after_utc)),
        key_type=reading.key(key),
        spki=None if key is None else read("key", lambda: spki_of(key)),
        signature_algorithm=reading.signature(lambda: certificate.signature_hash_algorithm, certificate),
        san=_names(reading.extension(certificate, x509.SubjectAlternativeName)),
        usages=_usages(reading.extension(certificate, x509.KeyUsage), reading.extension(certificate, x509.ExtendedKeyUsage)),
        is_authority=constraints.ca if constraints is not None else False,
        path_length=None if constraints is None else constraints.path_length,
        fingerprint=f"sha256:{certificate.fingerprint(hashes.SHA256()).hex()}",
        problems=tuple(reading.problems),
    )


def _request_words(request: x509.CertificateSigningRequest) -> Inspected:
    reading = _Reading()
    read = reading.read
    key = read("key", request.public_key)
    if not read("signature", lambda: request.is_signature_valid):
        reading.problems.append("its signature is not that of its key")
    return Inspected(
        "request",
        subject=read("subject", lambda: _name(request.subject)),
        key_type=reading.key(key),
        spki=None if key is None else read("key", lambda: spki_of(key)),
        signature_algorithm=reading.signature(lambda: request.signature_hash_algorithm, request),
        san=_names(reading.extension(request, x509.SubjectAlternativeName)),
        usages=_usages(reading.extension(request, x509.KeyUsage), reading.extension(request, x509.ExtendedKeyUsage)),
        challenge=_is_challenged(read("attributes", lambda: request.attributes)),
        problems=tuple(reading.problems),
    )


def _is_challenged(attributes: x509.Attributes | None) -> bool:
    return any(each.oid == AttributeOID.CHALLENGE_PASSWORD for each in attributes or ())


def _list_words(crl: x509.CertificateRevocationList) -> Inspected:
    reading = _Reading()
    read = reading.read
    number = reading.extension(crl, x509.CRLNumber)
    return Inspected(
        "list",
        issuer=read("issuer", lambda: _name(crl.issuer)),
        not_before=read("begin", lambda: _time(crl.last_update_utc)),
        not_after=read("end", lambda: _time(crl.next_update_utc)),
        signature_algorithm=reading.signature(lambda: crl.signature_hash_algorithm, crl),
        fingerprint=f"sha256:{crl.fingerprint(hashes.SHA256()).hex()}",
        number=None if number is None else reading.number(number.crl_number),
        entries=read("entries", lambda: len(crl)),
        problems=tuple(reading.problems),
    )


class _Reading:
    """Reads the parts of one object; what does not parse is noted, and the rest is read all the same."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def read(self, what: str, get: Callable[[], T]) -> T | None:
        try:
            return get()
        except _BROKEN:
            self.problems.append(f"its {what} does not parse")
            return None

    def extension(self, holder: "_Extended", kind: type[E]) -> E | None:
        try:
            return holder.extensions.get_extension_for_class(kind).value
        except x509.ExtensionNotFound:
            return None
        except (*_BROKEN, x509.DuplicateExtension):
            if "its extensions do not parse" not in self.problems:
                self.problems.append("its extensions do not parse")
            return None

    def key(self, key: object) -> str | None:
        flaw = None if key is None else weakness(key)
        if flaw is not None:
            self.problems.append(f"its key is too weak: {flaw}")
        return None if key is None else key_words(key)

    def signature(self, get: Callable[[], hashes.HashAlgorithm | None], holder: "_Extended") -> str | None:
        digest = self.read("signature", get)
        if digest is not None and digest.name in ("md5", "sha1"):
            self.problems.append(f"its signature is over {digest.name}, which proves nothing")
        oid = holder.signature_algorithm_oid
        return _SIGNATURES.get(oid, oid.dotted_string)

    def number(self, number: int) -> int | None:
        if 0 <= number.bit_length() <= NUMBER_BITS:
            return number
        self.problems.append("its number is too long")
        return None


_Extended = x509.Certificate | x509.CertificateSigningRequest | x509.CertificateRevocationList


def key_words(key: object) -> str:
    """The kind of a key with its size: `secp256r1`, `ed25519`, `rsa2048`."""
    match key:
        case ec.EllipticCurvePublicKey():
            return key.curve.name
        case rsa.RSAPublicKey():
            return f"rsa{key.key_size}"
    return type(key).__name__.removesuffix("PublicKey").lower()


def _of_der(data: bytes) -> Inspected:
    for read in (_read_certificate_der, _read_request_der, _read_list_der):
        try:
            return read(data)
        except _BROKEN:
            continue
    raise Malformed("that is neither PEM nor a certificate, request or revocation list in DER", _HINT)


def _parsed(read: Callable[[bytes], Inspected], body: bytes, what: str) -> Inspected:
    try:
        return read(_decoded(body))
    except _BROKEN as error:
        raise Malformed(f"the {what} in it does not parse", _HINT) from error


def _decoded(body: bytes) -> bytes:
    return base64.b64decode(b"".join(body.split()), validate=True)


def _read_certificate_der(der: bytes) -> Inspected:
    return certificate_words(x509.load_der_x509_certificate(der))


def _read_request_der(der: bytes) -> Inspected:
    return _request_words(x509.load_der_x509_csr(normalised(der)))


def _read_list_der(der: bytes) -> Inspected:
    return _list_words(x509.load_der_x509_crl(der))


_READERS: dict[str, Callable[[bytes], Inspected]] = {
    "CERTIFICATE": _read_certificate_der,
    "X509 CERTIFICATE": _read_certificate_der,
    "CERTIFICATE REQUEST": _read_request_der,
    "NEW CERTIFICATE REQUEST": _read_request_der,
    "X509 CRL": _read_list_der,
}


def _name(name: x509.Name) -> str:
    return name.rfc4514_string()[:TEXT_LIMIT]


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else rfc3339(moment.timestamp())


def _names(names: x509.SubjectAlternativeName | None) -> tuple[str, ...]:
    return () if names is None else tuple(_general(each)[:TEXT_LIMIT] for each in list(names)[:MOST])


def _general(name: x509.GeneralName) -> str:
    match name:
        case x509.DNSName():
            return f"dns:{name.value}"
        case x509.IPAddress():
            return f"ip:{name.value}"
        case x509.UniformResourceIdentifier():
            return f"uri:{name.value}"
        case x509.RFC822Name():
            return f"email:{name.value}"
    return type(name).__name__


def _usages(usage: x509.KeyUsage | None, extended: x509.ExtendedKeyUsage | None) -> tuple[str, ...]:
    bits = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "key_cert_sign")
    words: list[str] = [] if usage is None else [_camel(bit) for bit in (*bits, "crl_sign") if getattr(usage, bit)]
    return (*words, *(_USES.get(each, each.dotted_string) for each in list(extended or ())[:MOST]))


def _camel(text: str) -> str:
    first, *rest = text.split("_")
    return first + "".join(word.capitalize() for word in rest)
