"""What is amiss with the certificates, keys and lists of a context, before it stops anybody: findings, never changes."""

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509

from fleetctl.errors import Findings, FleetError, NotFound
from fleetctl.keys.store import Protection, load_key, protection
from fleetctl.model.certificate import DAY, Profile, State, Validity, check_subject
from fleetctl.model.device import printable
from fleetctl.pki import crl
from fleetctl.pki.authority import common_names, read_certificates, validity_of
from fleetctl.pki.csr import weakness
from fleetctl.platforms.local.held import state_of, validity_of_row
from fleetctl.platforms.local.issuing import KeyIndex
from fleetctl.platforms.local.layout import KEYS, Layout
from fleetctl.platforms.local.lists import lists_of
from fleetctl.registry import CertificateRow
from fleetctl.wire.document import rfc3339

if TYPE_CHECKING:
    from fleetctl.platforms.local.fleet import LocalFleet

SOON = 30 * DAY
LIFE_SHARE = 3
"""A certificate that lives shorter than thrice `SOON` counts as ending in the last third of its life."""
_ERROR, _WARNING = "error", "warning"
_BUILD = "fleetctl certs crl build"
_NEW_CONTEXT = "no verb issues it again: make a new context with fleetctl init, before it ends"
_ENCRYPTED = "keep keys encrypted: fleetctl init NAME --tenant TENANT --keystore file:"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is amiss: `severity` is error or warning, `hint` what to do about it."""

    subject: str
    code: str
    severity: str
    detail: str
    hint: str


def check(fleet: "LocalFleet", names: Sequence[str] = (), *, strict: bool = False, within: float | None = None) -> list[Finding]:
    """Everything, or the certificates of devices, operators and serial numbers alone.

    `strict` minds keys that are not encrypted; `within` is what counts as near the end of a life.

    Raises:
        Findings: something is amiss; the error carries all of it. NotFound: no such device, operator or serial.
    """
    found = list(_of_names(fleet, names, within) if names else _of_everything(fleet, within, strict=strict))
    if not found:
        return found
    found.sort(key=lambda each: (each.severity, each.subject))
    errors = sum(each.severity == _ERROR for each in found)
    first = found[0]
    counted = f"{_count(errors, 'error')}, {_count(len(found) - errors, 'warning')}"
    raise Findings(
        f"{counted}; the first: {printable(first.subject)}, {first.detail}",
        first.hint,
        record=[asdict(each) for each in found],
    )


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _of_names(fleet: "LocalFleet", names: Sequence[str], within: float | None) -> Iterator[Finding]:
    KeyIndex(fleet.registry).fill()
    for name in names:
        rows = [fleet.registry.certificate(each.serial) for each in fleet.certificates.list(name)]
        if not rows:
            yield Finding(name, "noCertificate", _WARNING, "it has no certificate", f"fleetctl certs issue {name}")
        good = [row for row in rows if row.revoked_at is None]
        if rows and not good:
            yield Finding(name, "revoked", _WARNING, "all its certificates are revoked", f"fleetctl certs issue {name}")
        yield from _of_rows(fleet, sorted(good, key=lambda each: each.not_after)[-1:], within)


def _of_everything(fleet: "LocalFleet", within: float | None, *, strict: bool) -> Iterator[Finding]:
    KeyIndex(fleet.registry).fill()
    yield from _of_rows(fleet, _current(fleet), within)
    yield from _of_keys(fleet, strict=strict)
    yield from _of_pairs(fleet, within)
    yield from _of_lists(fleet)


def _current(fleet: "LocalFleet") -> Iterator[CertificateRow]:
    """Of each subject only the certificate that ends last: those before it were replaced. Only people are kept in memory."""
    retired = {row.name for row in fleet.registry.authorities() if row.state == "retired"}
    last: dict[tuple[str, str], CertificateRow] = {}
    for row in fleet.registry.current_certificates():
        if row.device_id is not None:
            yield row
        elif row.subject not in retired and row.not_after >= last.setdefault((row.profile, row.subject), row).not_after:
            last[row.profile, row.subject] = row
    yield from sorted(last.values(), key=lambda each: (each.profile, each.subject))


def _of_rows(fleet: "LocalFleet", rows: Iterable[CertificateRow], within: float | None) -> Iterator[Finding]:
    for row in rows:
        yield from _ending(row, fleet.clock(), within)
        yield from _content(row)
        yield from _shared(fleet, row)


def _ending(row: CertificateRow, now: float, within: float | None) -> Iterator[Finding]:
    span, hint = validity_of_row(row), _remedy(row)
    if state_of(row, now) is State.NOT_YET_VALID:
        yield Finding(row.subject, "notYetValid", _WARNING, f"its certificate begins at {row.not_before}", "date -u")
    else:
        yield from _ends(row.subject, span, now, within, hint)


def _ends(subject: str, span: Validity, now: float, within: float | None, hint: str) -> Iterator[Finding]:
    """Whether a certificate has ended, or does so soon."""
    soon = min(SOON, (span.not_after - span.not_before) / LIFE_SHARE) if within is None else within
    if now > span.not_after:
        yield Finding(subject, "expired", _ERROR, f"its certificate expired at {rfc3339(span.not_after)}", hint)
    elif span.not_after - now < soon:
        yield Finding(subject, "expiring", _WARNING, f"its certificate ends at {rfc3339(span.not_after)}", hint)


def _remedy(row: CertificateRow) -> str:
    match row.profile:
        case Profile.DEVICE:
            return f"fleetctl certs renew {row.device_id or row.subject}"
        case Profile.OPERATOR:
            return "fleetctl certs renew, or for a folder: fleetctl certs renew DIR"
        case Profile.AUTHORITY:
            return "fleetctl certs ca rotate"
    return "issue it anew"


def _content(row: CertificateRow) -> Iterator[Finding]:
    hint = f"revoke it: fleetctl certs revoke {row.serial}"
    try:
        certificate = x509.load_pem_x509_certificate(row.pem.encode())
        names, flaw, digest = common_names(certificate), weakness(certificate.public_key()), certificate.signature_hash_algorithm
    except ValueError:
        yield Finding(row.subject, "malformed", _ERROR, f"certificate {row.serial} does not parse", hint)
        return
    if flaw is not None:
        yield Finding(row.subject, "weakKey", _ERROR, flaw, hint)
    if digest is not None and digest.name in ("md5", "sha1"):
        yield Finding(row.subject, "weakSignature", _ERROR, f"it is signed over {digest.name}", hint)
    if names != [row.subject] or not _is_name(row):
        yield Finding(row.subject, "badCommonName", _ERROR, f"it names {', '.join(map(printable, names)) or 'nobody'}", hint)


def _is_name(row: CertificateRow) -> bool:
    try:
        check_subject(Profile(row.profile), row.subject)
    except (FleetError, ValueError):
        return False
    return True


def _shared(fleet: "LocalFleet", row: CertificateRow) -> Iterator[Finding]:
    others = {each.subject for each in fleet.registry.certificates_by_key(row.spki or "") if each.revoked_at is None}
    for other in sorted(others - {row.subject}):
        yield Finding(
            row.subject, "duplicateKey", _ERROR, f"its key is that of `{other}` too", f"fleetctl certs rekey {row.subject}"
        )


def _of_keys(fleet: "LocalFleet", *, strict: bool) -> Iterator[Finding]:
    folder, own = fleet.context.folder / KEYS, fleet.context.key
    try:
        status = folder.stat()
        paths = sorted(path for path in folder.iterdir() if path.is_file())
    except OSError:
        yield Finding(str(folder), "missingKey", _ERROR, "the folder of keys is not there", "restore it from a backup")
        return
    if status.st_mode & 0o077:
        yield Finding(str(folder), "unprotectedKey", _ERROR, f"others may enter (mode {_mode(status)})", f"chmod 700 {folder}")
    for path in [*paths, *([own] if own is not None and own.parent != folder else [])]:
        yield from _of_key(path)
    if strict:
        yield from _unencrypted(fleet)


def _of_key(path: Path) -> Iterator[Finding]:
    try:
        status = path.stat()
    except OSError as error:
        yield Finding(str(path), "missingKey", _ERROR, (error.strerror or "it cannot be read").lower(), f"ls -l {path}")
        return
    if status.st_mode & 0o077:
        yield Finding(str(path), "unprotectedKey", _ERROR, f"others may use it (mode {_mode(status)})", f"chmod 600 {path}")
    if status.st_uid != os.getuid():
        yield Finding(str(path), "foreignKey", _ERROR, f"it belongs to user {status.st_uid}", f"chown {os.getuid()} {path}")


def _unencrypted(fleet: "LocalFleet") -> Iterator[Finding]:
    """Keys of authorities that whoever has the file can use, or soon guess."""
    for path in _authority_keys(fleet):
        if protection(path) is Protection.PLAIN:
            yield Finding(str(path), "unencryptedKey", _WARNING, "it is not encrypted at rest", _ENCRYPTED)
        elif protection(path) is Protection.WEAK:
            yield Finding(str(path), "weakEncryption", _WARNING, "its passphrase is soon guessed: too few rounds", _ENCRYPTED)


def _authority_keys(fleet: "LocalFleet") -> Iterator[Path]:
    layout = Layout(fleet.context.folder)
    for row in fleet.registry.authorities("devices", "people", "claims"):
        if layout.key(row.name).exists():
            yield layout.key(row.name)


def _mode(status: os.stat_result) -> str:
    return f"{stat.S_IMODE(status.st_mode):04o}"


def _of_pairs(fleet: "LocalFleet", within: float | None) -> Iterator[Finding]:
    """The identities that this context uses: those of the operator and the servers, and its authorities."""
    layout, context, now = Layout(fleet.context.folder), fleet.context, fleet.clock()
    pairs = [(layout.key("broker"), layout.public("broker.pem"), _NEW_CONTEXT)]
    if context.key is not None and context.cert is not None:
        pairs.append((context.key, context.cert, "fleetctl certs renew"))
    for key, path, hint in pairs:
        try:
            certificate = read_certificates(path)[0]
            yield from _fits(key, certificate, str(path), hint)
        except NotFound as error:
            yield Finding(str(path), "missingKey", _ERROR, error.message, error.hint)
        except FleetError as error:
            yield Finding(str(path), "keyMismatch", _ERROR, error.message, error.hint)
        else:
            yield from _ends(str(path), validity_of(certificate), now, within, hint)
    for key in _authority_keys(fleet):
        certificate = x509.load_pem_x509_certificate(fleet.registry.authority(key.stem).pem.encode())
        try:
            yield from _fits(key, certificate, key.stem, f"restore it from a backup: {key}")
        except FleetError as error:
            yield Finding(key.stem, "keyMismatch", _ERROR, error.message, error.hint)


def _fits(key: Path, certificate: x509.Certificate, subject: str, hint: str) -> Iterator[Finding]:
    """Whether a key is that of a certificate, where that can be told without a passphrase, a token, or a mode to be mended."""
    if protection(key) is not Protection.PLAIN or key.stat().st_mode & 0o077:
        return
    if load_key(key).public_key() != certificate.public_key():
        yield Finding(subject, "keyMismatch", _ERROR, f"the key {printable(str(key))} is another's", hint)


def _of_lists(fleet: "LocalFleet") -> Iterator[Finding]:
    """The list of every authority that somebody is let in by: whether its file holds it, and how old it is."""
    layout, now = Layout(fleet.context.folder), fleet.clock()
    broken: set[Path] = set()
    for row in sorted(fleet.registry.lists()):
        path, _ = lists_of(fleet.registry, layout, row.authority)
        try:
            held = crl.read_held(path).get(row.authority)
        except FleetError as error:
            if path not in broken:
                yield Finding(str(path), "listMissing", _ERROR, error.message, _BUILD)
            broken.add(path)
            continue
        if held is None or held.number < row.number:
            yield Finding(row.authority, "listMissing", _ERROR, f"its newest list is not in {printable(str(path))}", _BUILD)
        elif row.ended(now):
            detail = f"its revocation list ended at {rfc3339(row.next_update)}: nobody is let in"
            yield Finding(row.authority, "listExpired", _ERROR, detail, _BUILD)
        elif row.half <= now:
            detail = f"its revocation list is past half of its life, and ends at {rfc3339(row.next_update)}"
            yield Finding(row.authority, "listDue", _WARNING, detail, _BUILD)
