"""What is amiss with the certificates, keys and lists of a context, before it stops anybody: findings, never changes."""

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509

from fleetctl.errors import Findings, FleetError, NotFound
from fleetctl.keys.store import load_key
from fleetctl.model.certificate import DAY, Profile, State, check_subject
from fleetctl.model.device import LifeCycle, printable
from fleetctl.pki import crl
from fleetctl.pki.authority import common_names, read_certificates, validity_of
from fleetctl.pki.csr import weakness
from fleetctl.platforms.local.held import state_of, validity_of_row
from fleetctl.platforms.local.issuing import KeyIndex
from fleetctl.platforms.local.layout import KEYS, Layout
from fleetctl.registry import CertificateRow
from fleetctl.wire.document import rfc3339

if TYPE_CHECKING:
    from fleetctl.platforms.local.fleet import LocalFleet

SOON = 30 * DAY
LIFE_SHARE = 3
"""A certificate that lives shorter than thrice `SOON` counts as ending in the last third of its life."""
LIST_SOON = 7 * DAY
_ERROR, _WARNING = "error", "warning"
_CLEAR = b"-----BEGIN PRIVATE KEY-----"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is amiss: `severity` is error or warning, `hint` what to do about it."""

    subject: str
    code: str
    severity: str
    detail: str
    hint: str


def check(fleet: "LocalFleet", names: Sequence[str] = (), *, strict: bool = False) -> list[Finding]:
    """Everything, or the certificates of devices, operators and serial numbers alone; `strict` minds keys that are not encrypted.

    Raises:
        Findings: something is amiss; the error carries all of it. NotFound: no such device, operator or serial.
    """
    found = list(_of_names(fleet, names) if names else _of_everything(fleet, strict=strict))
    if not found:
        return found
    record: list[object] = [
        {"subject": each.subject, "code": each.code, "severity": each.severity, "detail": each.detail, "hint": each.hint}
        for each in found
    ]
    errors = sum(each.severity == _ERROR for each in found)
    first = found[0]
    raise Findings(
        f"{errors} errors and {len(found) - errors} warnings, the first: {first.subject}, {first.detail}",
        first.hint,
        record=record,
    )


def _of_names(fleet: "LocalFleet", names: Sequence[str]) -> Iterator[Finding]:
    KeyIndex(fleet.registry).fill()
    rows = [fleet.registry.certificate(each.serial) for name in names for each in fleet.certificates.list(name)]
    yield from _of_rows(fleet, rows)
    for name in names:
        if not fleet.certificates.list(name):
            hint = f"fleetctl certs issue {name}"
            yield Finding(name, "noCertificate", _WARNING, "it has no certificate", hint)


def _of_everything(fleet: "LocalFleet", *, strict: bool) -> Iterator[Finding]:
    KeyIndex(fleet.registry).fill()
    yield from _of_rows(fleet, fleet.registry.certificates())
    yield from _of_keys(fleet, strict=strict)
    yield from _of_pairs(fleet)
    yield from _of_lists(fleet)


def _of_rows(fleet: "LocalFleet", rows: Sequence[CertificateRow]) -> Iterator[Finding]:
    """Of each subject only the certificate that ends last counts: those before it were replaced."""
    now = fleet.clock()
    retired = {record.device.id for record in fleet.registry.records(retired=True) if record.device.state is LifeCycle.RETIRED}
    last: dict[tuple[str, str, str | None], CertificateRow] = {}
    for row in sorted(rows, key=lambda each: each.not_after):
        if row.revoked_at is None and row.device_id not in retired:
            last[row.profile, row.subject, row.authority if row.profile == Profile.AUTHORITY else None] = row
    for row in last.values():
        yield from _ending(row, now)
        yield from _content(row)
        yield from _shared(fleet, row)


def _ending(row: CertificateRow, now: float) -> Iterator[Finding]:
    span, state = validity_of_row(row), state_of(row, now)
    hint = _remedy(row)
    if state is State.EXPIRED:
        yield Finding(row.subject, "expired", _ERROR, f"its certificate expired at {row.not_after}", hint)
    elif state is State.NOT_YET_VALID:
        yield Finding(row.subject, "notYetValid", _WARNING, f"its certificate begins at {row.not_before}", "date -u")
    elif span.not_after - now < min(SOON, (span.not_after - span.not_before) / LIFE_SHARE):
        yield Finding(row.subject, "expiring", _WARNING, f"its certificate ends at {row.not_after}", hint)


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
    folder = fleet.context.folder / KEYS
    own = [path for path in (fleet.context.key,) if path is not None and path.parent != folder]
    try:
        paths = [*sorted(path for path in folder.iterdir() if path.suffix in (".key", ".uri", ".prev", ".new")), *own]
        status = folder.stat()
    except OSError:
        yield Finding(str(folder), "missingKey", _ERROR, "the folder of keys is not there", "restore it from a backup")
        return
    if status.st_mode & 0o077:
        yield Finding(str(folder), "unprotectedKey", _ERROR, f"others may enter (mode {_mode(status)})", f"chmod 700 {folder}")
    for path in paths:
        yield from _of_key(path, strict=strict)


def _of_key(path: Path, *, strict: bool) -> Iterator[Finding]:
    try:
        status = path.stat()
        clear = strict and _is_clear(path)
    except OSError as error:
        yield Finding(str(path), "missingKey", _ERROR, (error.strerror or "it cannot be read").lower(), f"ls -l {path}")
        return
    if status.st_mode & 0o077:
        yield Finding(str(path), "unprotectedKey", _ERROR, f"others may use it (mode {_mode(status)})", f"chmod 600 {path}")
    if status.st_uid != os.getuid():
        yield Finding(str(path), "foreignKey", _ERROR, f"it belongs to user {status.st_uid}", f"chown {os.getuid()} {path}")
    if clear:
        hint = "keep keys encrypted: fleetctl init NAME --keystore file:"
        yield Finding(str(path), "unencryptedKey", _WARNING, "it is not encrypted at rest", hint)


def _is_clear(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_CLEAR)) == _CLEAR


def _mode(status: os.stat_result) -> str:
    return f"{stat.S_IMODE(status.st_mode):04o}"


def _of_pairs(fleet: "LocalFleet") -> Iterator[Finding]:
    """The identities that this context uses: the operator's, and that of its servers."""
    layout, context = Layout(fleet.context.folder), fleet.context
    pairs = [(layout.key("broker"), layout.public("broker.pem"), "fleetctl certs ca show")]
    if context.key is not None and context.cert is not None:
        pairs.append((context.key, context.cert, "fleetctl certs issue op:NAME --bundle DIR"))
    for key, path, hint in pairs:
        try:
            certificate = read_certificates(path)[0]
            fits = load_key(key).public_key() == certificate.public_key()
        except NotFound as error:
            yield Finding(str(path), "missingKey", _ERROR, error.message, error.hint)
            continue
        except FleetError as error:
            yield Finding(str(path), "keyMismatch", _ERROR, error.message, error.hint)
            continue
        if not fits:
            yield Finding(str(path), "keyMismatch", _ERROR, f"the key {printable(str(key))} is another's", hint)
        end = validity_of(certificate).not_after
        if end < fleet.clock():
            yield Finding(str(path), "expired", _ERROR, f"it expired at {rfc3339(end)}", "fleetctl certs renew")


def _of_lists(fleet: "LocalFleet") -> Iterator[Finding]:
    layout, now = Layout(fleet.context.folder), fleet.clock()
    hint = "fleetctl certs crl build"
    for path in dict.fromkeys(layout.lists(role) for role in ("devices", "people", "claims")):
        if not path.exists():
            if path != layout.claim_lists or layout.claim_ca.exists():
                yield Finding(str(path), "listMissing", _ERROR, "the revocation lists are not there", hint)
            continue
        try:
            held = crl.read_held(path)
        except FleetError as error:
            yield Finding(str(path), "listMissing", _ERROR, error.message, hint)
            continue
        for name, one in held.items():
            if one.next_update < now:
                detail = f"its revocation list ended at {rfc3339(one.next_update)}: nobody is let in"
                yield Finding(name, "listExpired", _ERROR, detail, hint)
            elif one.next_update - now < LIST_SOON:
                yield Finding(name, "listExpiring", _WARNING, f"its revocation list ends at {rfc3339(one.next_update)}", hint)
