"""What there is: authorities with what hangs below them, and their lists with what a running broker obeys."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509

from fleetctl import files
from fleetctl.errors import ConfigError, Findings, NotFound
from fleetctl.keys.store import protection
from fleetctl.pki import crl
from fleetctl.pki.authority import fingerprint, pem, serial_of, validity_of
from fleetctl.pki.extensions import key_words
from fleetctl.platforms.local import running
from fleetctl.platforms.local.authorities import FIRST, accepted
from fleetctl.platforms.local.layout import Layout
from fleetctl.platforms.local.lists import check_obeyed, lists_of, write_lists
from fleetctl.registry import AuthorityRow
from fleetctl.registry.authorities import ListRow
from fleetctl.wire.document import rfc3339

if TYPE_CHECKING:
    from fleetctl.platforms.local.fleet import LocalFleet


@dataclass(frozen=True, slots=True)
class AuthorityEntry:
    """An authority; `store` is how its key is kept, `absent` where it is not here; `certificates` are good ones below it."""

    name: str
    role: str
    kind: str
    state: str
    key_type: str
    store: str
    not_before: str
    not_after: str
    certificates: int
    serial: str
    fingerprint: str
    profile: str | None


@dataclass(frozen=True, slots=True)
class Exported:
    """Certificates in PEM; `file` is where they were written."""

    name: str
    certificates: int
    pem: str
    file: str | None


@dataclass(frozen=True, slots=True)
class ListStatus:
    """A list: `state` is `good`, `due` (past half of its life), `ended` or `missing`; `obeyed` what a running broker has read."""

    authority: str
    number: int
    entries: int
    this_update: str
    next_update: str
    state: str
    obeyed: int | None


def entries(fleet: "LocalFleet", names: Sequence[str] = ()) -> list[AuthorityEntry]:
    """All authorities, or those named; raises `NotFound`."""
    registry = fleet.registry
    rows = [registry.authority(name) for name in names] if names else registry.authorities()
    return [_entry(fleet, row) for row in rows]


def _entry(fleet: "LocalFleet", row: AuthorityRow) -> AuthorityEntry:
    certificate = x509.load_pem_x509_certificate(row.pem.encode())
    span, layout = validity_of(certificate), Layout(fleet.context.folder)
    store = protection(layout.key(row.name)).value if row.role != "registered" and layout.has_key(row.name) else "absent"
    good = fleet.registry.certified_by(row.name, rfc3339(fleet.clock()))
    ends = (rfc3339(span.not_before), rfc3339(span.not_after), good, serial_of(certificate), fingerprint(certificate))
    return AuthorityEntry(row.name, row.role, row.kind, row.state, key_words(certificate.public_key()), store, *ends, row.profile)


def export(fleet: "LocalFleet", name: str, file: Path | None = None, *, root: bool = False) -> Exported:
    """What the listener of a role accepts, or one authority's certificate; with `root` only what is self-signed."""
    registry = fleet.registry
    rows = accepted(registry, name) if name in FIRST else [registry.authority(name)]
    if not rows:
        raise NotFound(f"there is no authority for {name} yet", f"make one: fleetctl certs ca init {name}")
    found = dict.fromkeys(each for row in rows for each in x509.load_pem_x509_certificates(row.pem.encode()))
    chosen = [each for each in found if not root or each.issuer == each.subject]
    if not chosen:
        raise NotFound(f"`{name}` is no root", "fleetctl certs ca export devices --root")
    data = pem(*chosen)
    if file is not None:
        files.write_atomic(file, data)
    return Exported(name, len(chosen), data.decode(), None if file is None else str(file))


def statuses(fleet: "LocalFleet") -> list[ListStatus]:
    """Raises `Findings`, with the record, for a list that is missing, past half of its life, or unknown to a running broker."""
    state = running.running(fleet.context.folder)
    rows = {row.authority: row for row in fleet.registry.lists()}
    found = [_status(fleet, name, rows.get(name), state) for name in _names(fleet)]
    late = [each.authority for each in found if each.state != "good" or each.obeyed not in (None, each.number)]
    if late:
        raise Findings(f"{len(late)} of {len(found)} lists need attention", "fleetctl certs crl build", record=[*found])
    return found


def _names(fleet: "LocalFleet") -> list[str]:
    return [row.name for row in fleet.registry.authorities() if row.state != "retired"]


def _status(fleet: "LocalFleet", name: str, row: ListRow | None, state: running.BrokerState | None) -> ListStatus:
    path, _ = lists_of(fleet.registry, Layout(fleet.context.folder), name)
    try:
        held = crl.read_held(path).get(name)
    except (ConfigError, NotFound):
        held = None
    obeyed = None if state is None else state.lists.get(name, 0)
    if held is None or row is None:
        return ListStatus(name, 0, 0, "", "", "missing", obeyed)
    now = fleet.clock()
    word = "ended" if row.ended(now) else "due" if row.half <= now else "good"
    return ListStatus(name, held.number, held.entries, rfc3339(held.this_update), rfc3339(held.next_update), word, obeyed)


def build(fleet: "LocalFleet", lifetime: float | None = None) -> list[ListStatus]:
    """Sign the list of every authority whose key is here again, and have a running broker read them.

    Raises:
        FleetError: the lists are made, but the broker that runs did not take them.
    """
    registry, layout, now = fleet.registry, Layout(fleet.context.folder), fleet.clock()
    numbers: dict[str, int] = {}
    for name in _names(fleet):
        if layout.has_key(name) and registry.authority(name).role != "registered":
            numbers |= write_lists(registry, layout, name, now, lifetime=None if lifetime is None else int(lifetime))
    told = running.have_it_read(fleet.context.folder, numbers)
    check_obeyed(told)
    state = running.running(fleet.context.folder)
    rows = {row.authority: row for row in registry.lists()}
    return [_status(fleet, name, rows.get(name), state) for name in _names(fleet)]
