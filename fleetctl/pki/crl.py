"""Certificate revocation lists (RFC 5280 section 5): one for every authority, each newer than the last.

Two clocks must be served. OpenSSL ignores a list whose `thisUpdate` is not above the one it holds, and whole seconds are all that
a list can say; so `thisUpdate` rises with every list, even within one second. And a list from the future locks everybody out; so
the first is dated a day back, which leaves 86,400 lists to be made at once before they would meet the present.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from fleetctl import files
from fleetctl.errors import ConfigError, Malformed, Unavailable
from fleetctl.model.certificate import DAY, Reason
from fleetctl.model.device import printable
from fleetctl.pki.authority import Authority, moment
from fleetctl.pki.extensions import SubjectKey, authority_key_identifier, digest_for

BACKDATE = DAY
LIFETIME = 365 * DAY
"""Seconds: a list that runs out locks the whole fleet out, so it is signed again at half of its life."""
OFFLINE_LIFETIME = 10 * 365 * DAY
"""The same for an authority whose key is meant to be brought out for this only."""
CRL_LIMIT = 64 << 20
_BEGIN = b"-----BEGIN X509 CRL-----"


@dataclass(frozen=True, slots=True)
class Revoked:
    """One line of a list; `at` is seconds since 1970."""

    serial: int
    at: float
    reason: Reason


def build(authority: Authority, revoked: Iterable[Revoked], number: int, this_update: int, lifetime: int = LIFETIME) -> bytes:
    """The list in PEM, good for `lifetime` seconds; the constructor takes all lines at once: adding them singly is quadratic."""
    crl = x509.CertificateRevocationListBuilder(
        authority.certificate.subject,
        moment(this_update),
        moment(this_update + BACKDATE + lifetime),
        [
            x509.Extension(x509.CRLNumber.oid, False, x509.CRLNumber(number)),
            x509.Extension(x509.AuthorityKeyIdentifier.oid, False, authority_key_identifier(authority.certificate)),
        ],
        [_line(each) for each in revoked],
    ).sign(authority.key, digest_for(authority.key))
    return crl.public_bytes(serialization.Encoding.PEM)


def check_date(authority: str, this_update: int, now: float) -> None:
    """Raise `Unavailable` for a list from the future: with it nobody would be let in."""
    if this_update > now:
        raise Unavailable(
            f"the next revocation list of `{authority}` would be dated {this_update - int(now)} s in the future",
            "if the clock was ahead before, it must catch up first: date -u",
        )


def first_date(now: float) -> float:
    """What `thisUpdate` starts from."""
    return now - BACKDATE


@dataclass(frozen=True, slots=True)
class Held:
    """A list as it is in a file; times are seconds since 1970."""

    number: int
    this_update: int
    next_update: int
    entries: int
    pem: bytes


def read_held(path: Path) -> dict[str, Held]:
    """Each authority's list in a file of several, by common name; raises `ConfigError`."""
    return {_issuer(each): held_of(each) for each in _read(path)}


def held_of(crl: x509.CertificateRevocationList) -> Held:
    """A list without an end is one that ended when it was made: the broker would not believe it."""
    begun = int(crl.last_update_utc.timestamp())
    end = begun if crl.next_update_utc is None else int(crl.next_update_utc.timestamp())
    return Held(_number(crl), begun, end, len(crl), crl.public_bytes(serialization.Encoding.PEM))


def read_parsed(path: Path) -> list[x509.CertificateRevocationList]:
    """Every list in a file, PEM or one in DER; raises `ConfigError`."""
    try:
        return [x509.load_der_x509_crl(files.read_limited(path, CRL_LIMIT))]
    except (ValueError, Malformed):
        return _read(path)


def read_numbers(path: Path) -> dict[str, int]:
    """The number of each authority's list in a file of several, by common name; raises `ConfigError`."""
    return {_issuer(crl): _number(crl) for crl in _read(path)}


def read_lists(path: Path) -> dict[str, tuple[int, bytes]]:
    """Number and PEM of each authority's list in a file of several, by common name; raises `ConfigError`."""
    return {_issuer(crl): (_number(crl), crl.public_bytes(serialization.Encoding.PEM)) for crl in _read(path)}


def read_serials(path: Path) -> set[int]:
    """Every serial number that a list in the file names; raises `ConfigError`."""
    return {each.serial_number for crl in _read(path) for each in crl}


def _read(path: Path) -> list[x509.CertificateRevocationList]:
    try:
        data = files.read_limited(path, CRL_LIMIT)
        lists = [x509.load_pem_x509_crl(_BEGIN + part) for part in data.split(_BEGIN)[1:]]
    except (ValueError, Malformed) as error:
        raise _damaged(path) from error
    if not lists:
        raise _damaged(path)
    return lists


def _damaged(path: Path) -> ConfigError:
    hint = f"openssl crl -in {path} -noout -text"
    return ConfigError(f"{printable(str(path))} is not a file of revocation lists", hint)


def is_own(crl: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    """Whether that authority has signed the list."""
    try:
        key = authority.public_key()
        return crl.issuer == authority.subject and isinstance(key, SubjectKey) and crl.is_signature_valid(key)
    except (UnsupportedAlgorithm, TypeError, ValueError):
        return False


def _issuer(crl: x509.CertificateRevocationList) -> str:
    names = crl.issuer.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""


def _number(crl: x509.CertificateRevocationList) -> int:
    try:
        return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except x509.ExtensionNotFound:
        return 0


def _line(revoked: Revoked) -> x509.RevokedCertificate:
    builder = x509.RevokedCertificateBuilder(revoked.serial, moment(int(revoked.at)))
    if revoked.reason is not Reason.UNSPECIFIED:
        builder = builder.add_extension(x509.CRLReason(x509.ReasonFlags(revoked.reason.value)), critical=False)
    return builder.build()
