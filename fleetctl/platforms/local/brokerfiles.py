"""The files that a mosquitto configuration names, as the broker's user will find them: keys, certificates, authorities, lists."""

import os
import pwd
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from fleetctl.errors import FleetError
from fleetctl.model.device import printable
from fleetctl.mqtt.settings import Finding, Section, Severity
from fleetctl.pki import crl
from fleetctl.pki.authority import common_names, read_certificates

EXPIRING = timedelta(days=30)
FILES = ("cafile", "certfile", "keyfile", "crlfile", "acl_file", "psk_file", "password_file")
RENEW = "fleetctl certs renew broker"
REBUILD = "fleetctl certs crl build"
Report = Callable[[str, Severity, str, str], Finding]


@dataclass(frozen=True, slots=True)
class Reader:
    """Whom mosquitto becomes before it reads its files."""

    uid: int
    gids: frozenset[int]
    name: str

    @classmethod
    def named(cls, name: str) -> "Reader | None":
        """None where this system does not know that user."""
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            return None
        return cls(found.pw_uid, frozenset(os.getgrouplist(name, found.pw_gid)), name)

    def may_read(self, path: Path) -> bool:
        """Whether the modes of the file and of every folder above it let this user read it."""
        if self.uid == 0:
            return True
        whole = path.resolve()
        return self._has(whole, stat.S_IROTH) and all(self._has(parent, stat.S_IXOTH) for parent in whole.parents)

    def _has(self, path: Path, right: int) -> bool:
        found = path.stat()
        shift = 6 if found.st_uid == self.uid else 3 if found.st_gid in self.gids else 0
        return bool(found.st_mode & (right << shift))


def check_files(
    section: Section, locate: Callable[[str], Path], reader: Reader | None, hosts: Sequence[str], now: float
) -> Iterator[Finding]:
    """What is wrong with the files of one listener; `hosts` are the names by which clients dial it."""

    def report(code: str, severity: Severity, detail: str, hint: str) -> Finding:
        return Finding(code, severity, section.port, detail, hint)

    paths = {name: locate(section.settings[name]) for name in FILES if name in section.settings}
    present = {name: path for name, path in paths.items() if path.is_file()}
    for name, path in paths.items():
        if name not in present:
            yield report(
                "file_missing", Severity.ERROR, f"`{name}` {printable(str(path))} is not there", "fleetctl broker render"
            )
        elif reader is not None and not reader.may_read(path):
            code = "key_unreadable" if name == "keyfile" else "file_unreadable"
            detail = f"user `{reader.name}` may not read {printable(str(path))}: at the next start or reload everybody is refused"
            yield report(code, Severity.ERROR, detail, f"chown {reader.name} {path}; ls -ld {path.parent}")
    if "keyfile" in present:
        yield from _check_key(present["keyfile"], present.get("certfile"), report)
    if "certfile" in present:
        yield from _check_certificate(present["certfile"], hosts, now, report)
    if "cafile" in present and "crlfile" in present:
        yield from _check_lists(present["cafile"], present["crlfile"], now, report)


def _check_key(path: Path, cert: Path | None, report: Report) -> Iterator[Finding]:
    if path.stat().st_mode & 0o077:
        detail = f"{printable(str(path))} can be used by others (mode {stat.S_IMODE(path.stat().st_mode):04o})"
        yield report("key_exposed", Severity.ERROR, detail, f"chmod 600 {path}")
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm, OSError) as error:
        yield report("key_unusable", Severity.ERROR, f"{printable(str(path))} is no plain key: {_first_line(error)}", RENEW)
        return
    try:
        matches = cert is None or read_certificates(cert)[0].public_key() == key.public_key()
    except FleetError:
        return
    if not matches:
        detail = f"{printable(str(path))} is not the key of `{cert}`: at the next start or reload everybody is refused"
        yield report("key_mismatch", Severity.ERROR, detail, RENEW)


def _check_certificate(path: Path, hosts: Sequence[str], now: float, report: Report) -> Iterator[Finding]:
    try:
        leaf = read_certificates(path)[0]
    except FleetError as error:
        yield report("file_damaged", Severity.ERROR, error.message, error.hint)
        return
    moment, ends = datetime.fromtimestamp(now, UTC), leaf.not_valid_after_utc
    if ends <= moment:
        yield report("certificate_expired", Severity.ERROR, f"{printable(str(path))} expired on {ends:%Y-%m-%d}", RENEW)
    elif ends - moment < EXPIRING:
        yield report("certificate_expiring", Severity.WARNING, f"{printable(str(path))} ends on {ends:%Y-%m-%d}", RENEW)
    if leaf.not_valid_before_utc > moment:
        yield report("certificate_early", Severity.ERROR, f"{printable(str(path))} is not valid yet", "date -u")
    names = names_of(leaf)
    for host in sorted(set(hosts)):
        if host not in names:
            detail = f"clients dial `{host}`, but {printable(str(path))} is for {', '.join(map(printable, names)) or 'no name'}"
            yield report("certificate_wrong_host", Severity.ERROR, detail, RENEW)


def _check_lists(ca: Path, lists: Path, now: float, report: Report) -> Iterator[Finding]:
    try:
        authorities = [each for each in read_certificates(ca) if _is_authority(each)]
        found = crl.read_parsed(lists)
    except FleetError as error:
        yield report("file_damaged", Severity.ERROR, error.message, error.hint)
        return
    held = [each for each in found if any(crl.is_own(each, authority) for authority in authorities)]
    for authority in authorities:
        name = printable(_name(authority))
        own = [each for each in held if crl.is_own(each, authority)]
        if own:
            yield from _check_dates(max(own, key=lambda each: each.last_update_utc), name, now, report)
        elif any(_issued(each, authority) for each in authorities if each != authority):
            detail = f"there is no list of {name}: an authority that it revokes stays accepted"
            yield report("crl_missing", Severity.WARNING, detail, REBUILD)
        else:
            detail = f"there is no list of {name}: every certificate that it issued is refused"
            yield report("crl_missing", Severity.ERROR, detail, REBUILD)


def _check_dates(found: x509.CertificateRevocationList, name: str, now: float, report: Report) -> Iterator[Finding]:
    moment, begins, ends = datetime.fromtimestamp(now, UTC), found.last_update_utc, found.next_update_utc
    if begins > moment:
        yield report("crl_early", Severity.ERROR, f"the list of {name} begins in the future: everybody is refused", "date -u")
    if ends is None:
        return
    if ends <= moment:
        detail = f"the list of {name} ended on {ends:%Y-%m-%d}: everybody is refused at the next start or reload"
        yield report("crl_expired", Severity.ERROR, detail, REBUILD)
    elif moment > ends - (ends - begins - timedelta(seconds=crl.BACKDATE)) / 2:
        detail = f"the list of {name} is past half of its life, it ends on {ends:%Y-%m-%d}"
        yield report("crl_past_half_life", Severity.WARNING, detail, REBUILD)


def authorities_of(section: Section, locate: Callable[[str], Path]) -> dict[bytes, str]:
    """The authorities that a listener accepts, by certificate; none where the file cannot be read."""
    try:
        found = read_certificates(locate(section.settings["cafile"]))
    except (KeyError, FleetError):
        return {}
    return {each.tbs_certificate_bytes: _name(each) for each in found}


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def _issued(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def names_of(certificate: x509.Certificate) -> list[str]:
    """The host names and addresses that a server's certificate is for."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    return [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]


def _name(certificate: x509.Certificate) -> str:
    return next(iter(common_names(certificate)), "")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:100].lower()
