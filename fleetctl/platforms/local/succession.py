"""Authorities that come and go: made, followed by another, retired. What they have issued stays good until they are retired."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, cast

from fleetctl import files
from fleetctl.errors import ConfigError, Conflict, NotFound, UsageError
from fleetctl.keys.store import KeyType
from fleetctl.keys.stores import context_store
from fleetctl.model.certificate import Profile
from fleetctl.model.device import printable
from fleetctl.pki.authority import DEVICE_ROOT, FLEET_CA, PEM_LIMIT, Authority, create_issuing, create_root
from fleetctl.pki.extensions import permitted
from fleetctl.platforms.local.authorities import FIRST, record_authority, write_accepted
from fleetctl.platforms.local.issuing import row_of
from fleetctl.platforms.local.layout import KEYS, Layout
from fleetctl.platforms.local.lists import check_obeyed, write_lists
from fleetctl.platforms.local.running import have_it_read
from fleetctl.registry import Registry
from fleetctl.wire.document import rfc3339

if TYPE_CHECKING:
    from fleetctl.platforms.local.fleet import LocalFleet

KINDS = ("p256", "p384", "ed25519", "rsa3072")
STAYS = "sessions that are open already stay until they end; start the broker again to end them"


@dataclass(frozen=True, slots=True)
class AuthorityChange:
    """What became of an authority; `outcome` is `made`, `rotated`, `retired`, `registered`, `updated` or `unchanged`.

    `superseded` is the one that issued before, `certificates` how many good ones hang below the one that went.
    """

    name: str
    role: str
    outcome: str
    superseded: str | None
    certificates: int
    not_after: str
    broker_running: bool
    broker_reloaded: bool
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a new authority shall be: its kind of key, how many may stand below it, which names it may vouch for."""

    kty: str = "p256"
    path_length: int = 0
    permit: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kty not in KINDS:
            raise UsageError(f"{printable(self.kty)} is no kind of key", f"one of: {', '.join(KINDS)}")
        permitted(self.permit)


def init_authority(fleet: "LocalFleet", role: str, wanted: Wanted) -> AuthorityChange:
    """The first authority of a role; one that is there stays as it is. Those of devices and people come with the context."""
    _check_role(role)
    held = fleet.registry.signing_authority(role)
    if held is not None:
        return AuthorityChange(held.name, role, "unchanged", None, 0, _end(fleet.registry, held.name), False, False)
    return _make(fleet, role, FIRST[role], wanted, None)


def rotate(fleet: "LocalFleet", role: str, wanted: Wanted) -> AuthorityChange:
    """Another authority issues from now on; what the one before has issued is accepted until that is retired.

    Devices keep their root. People get an authority of their own: the services' certificates stay with `fleet-ca`, which
    devices hold.
    """
    _check_role(role)
    held = fleet.registry.signing_authority(role)
    if held is None:
        raise NotFound(f"there is no authority for {role} yet", f"make one: fleetctl certs ca init {role}")
    layout = Layout(fleet.context.folder)
    taken = {row.name for row in fleet.registry.authorities()}
    name = next(each for each in (f"{_stem(role)}-{n}" for n in count(2)) if each not in taken and not layout.has_key(each))
    return _make(fleet, role, name, wanted, held.name)


def retire(fleet: "LocalFleet", name: str, *, force: bool = False) -> AuthorityChange:
    """Let nobody in any more who shows a certificate of this authority.

    Raises:
        Conflict: it issues now, is the root, or good certificates hang below it and nobody forces it.
    """
    registry, layout = fleet.registry, Layout(fleet.context.folder)
    row = registry.authority(name)
    if row.state == "retired":
        return AuthorityChange(name, row.role, "unchanged", None, 0, _end(registry, name), False, False)
    if row.role != "registered" and row.state == "active":
        hint = f"let another follow it first: fleetctl certs ca rotate {row.role}"
        raise Conflict(f"authority `{name}` {'is the root of devices' if name == DEVICE_ROOT else 'issues now'}", hint)
    now = fleet.clock()
    good = registry.certified_by(name, rfc3339(now), "server" if name == FLEET_CA else None)
    if good and not force:
        raise Conflict(
            f"{good} good certificate{'' if good == 1 else 's'} below {printable(name)}",
            "renew them first: fleetctl certs renew; or shut their holders out: --force",
        )
    role = "devices" if row.role == "registered" else row.role
    with registry.transaction(), _restored(layout, role):
        registry.set_authority(name, "retired")
        write_accepted(registry, layout, role)
        numbers = write_lists(registry, layout, _signer(registry, role), now)
    change = AuthorityChange(name, row.role, "retired", None, good, _end(registry, name), False, False, STAYS)
    return tell(fleet, change, numbers)


def tell(fleet: "LocalFleet", change: AuthorityChange, numbers: dict[str, int]) -> AuthorityChange:
    """Have a running broker read authorities and lists; raises `FleetError` with the record where it does not."""
    told = have_it_read(fleet.context.folder, numbers)
    done = replace(change, broker_running=told.running, broker_reloaded=told.reloaded)
    if told.running and change.role == "claims" and change.outcome == "made":
        return replace(done, detail="the claims listener opens when the broker is started again: fleetctl broker run")
    check_obeyed(told, [done])
    return done if told.running else replace(done, detail=None)


def _make(fleet: "LocalFleet", role: str, name: str, wanted: Wanted, before: str | None) -> AuthorityChange:
    """Key, certificate, rows, files and list together or not at all."""
    registry, layout, now = fleet.registry, Layout(fleet.context.folder), fleet.clock()
    store = context_store(layout.folder / KEYS)
    with registry.transaction(), _restored(layout, role):
        made = _signed(fleet, role, name, wanted)
        try:
            if before is not None:
                registry.set_authority(before, "superseded")
            issuer = made.name if len(made.chain) == 1 else DEVICE_ROOT
            registry.add_certificate(row_of(made.certificate, issuer, Profile.AUTHORITY))
            record_authority(registry, made, role)
            write_accepted(registry, layout, role)
            numbers = write_lists(registry, layout, name, now)
        except BaseException:
            store.discard(name)
            raise
    below = 0 if before is None else registry.certified_by(before, rfc3339(now))
    outcome = "made" if before is None else "rotated"
    return tell(fleet, AuthorityChange(name, role, outcome, before, below, _end(registry, name), False, False), numbers)


def _signed(fleet: "LocalFleet", role: str, name: str, wanted: Wanted) -> Authority:
    layout, tenant, now = Layout(fleet.context.folder), fleet.tenant, fleet.clock()
    store, constraints = context_store(layout.folder / KEYS), permitted(wanted.permit)
    if role != "devices":
        key = store.generate(name, cast(KeyType, wanted.kty))
        return create_root(name, tenant, key, now, wanted.path_length, constraints=constraints, clients_only=True)
    if wanted.path_length:
        raise UsageError("the root of devices leaves no room below its issuing authorities", "leave out --path-length")
    if not layout.has_key(DEVICE_ROOT):
        raise ConfigError("the key of the root of devices is not here", f"bring {layout.key(DEVICE_ROOT)} back for once")
    root = layout.authority(DEVICE_ROOT)
    return create_issuing(root, name, tenant, store.generate(name, cast(KeyType, wanted.kty)), now, constraints=constraints)


@contextmanager
def _restored(layout: Layout, role: str) -> Iterator[None]:
    """The file of what a listener accepts is as it was where the block fails."""
    path = layout.accepted(role)
    before = files.read_limited(path, PEM_LIMIT) if path.exists() else None
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True) if before is None else files.write_atomic(path, before)
        raise


def _check_role(role: str) -> None:
    if role not in FIRST:
        raise UsageError(f"{printable(role)} is no role of an authority", f"one of: {', '.join(FIRST)}")


def _stem(role: str) -> str:
    return "people" if role == "people" else FIRST[role]


def _signer(registry: Registry, role: str) -> str:
    row = registry.signing_authority(role)
    return FIRST[role] if row is None else row.name


def _end(registry: Registry, name: str) -> str:
    from cryptography import x509

    end = x509.load_pem_x509_certificate(registry.authority(name).pem.encode()).not_valid_after_utc
    return rfc3339(end.timestamp())
