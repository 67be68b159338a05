"""Revocation lists of a context: one for every authority that a listener accepts, made from the registry, renewed in time."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fleetctl import files
from fleetctl.errors import ConfigError, FleetError, NotFound
from fleetctl.model.certificate import Reason
from fleetctl.model.device import printable
from fleetctl.pki import crl
from fleetctl.pki.authority import DEVICE_ROOT, FLEET_CA
from fleetctl.platforms.local.authorities import accepted, registered_lists
from fleetctl.platforms.local.layout import Layout
from fleetctl.platforms.local.running import Obedience, have_it_read
from fleetctl.registry import Registry
from fleetctl.wire.document import parse_rfc3339, rfc3339

if TYPE_CHECKING:
    from fleetctl.platforms.local.fleet import LocalFleet


def write_lists(
    registry: Registry,
    layout: Layout,
    authority: str,
    now: float,
    *,
    lifetime: int | None = None,
    extra: Mapping[str, Sequence[crl.Revoked]] | None = None,
) -> dict[str, int]:
    """Make this authority's list anew, in the file that it shares, and return the numbers in that file.

    Other lists there stay as they are, but for one that is missing; `extra` are lines beyond the registry's, by authority.
    The registry's transaction is the lock: two revocations never number or write in each other's way, and one that cannot write
    its file leaves the registry as it was.

    Raises:
        ConfigError: another authority's list is missing, and its key is not here to make one.
        Unavailable: the list would be dated in the future.
    """
    path, names = lists_of(registry, layout, authority)
    numbers: dict[str, int] = {}
    parts: list[bytes] = []
    with registry.transaction():
        held = _held(layout, path, registry)
        for name in names:
            if name == authority or (name not in held and layout.has_key(name)):
                numbers[name], made = _made(registry, layout, name, now, lifetime, (extra or {}).get(name, ()))
                parts.append(made)
            elif name in held:
                numbers[name] = held[name].number
                parts.append(held[name].pem)
            else:
                raise ConfigError(
                    f"`{path}` has no list of {printable(name)}, and its key is not here to make one",
                    f"bring {name}.key back for once",
                )
        files.write_atomic(path, b"".join(parts))
    return numbers


def lists_of(registry: Registry, layout: Layout, authority: str) -> tuple[Path, tuple[str, ...]]:
    """The file that an authority's list is in, and every authority whose list is in it."""
    try:
        role = registry.authority(authority).role
    except NotFound:
        return layout.lists_of(authority)
    names = [row.name for row in accepted(registry, role)]
    if role == "people" and FLEET_CA not in names:
        names.append(FLEET_CA)
    return layout.lists(role), tuple(names)


def _held(layout: Layout, path: Path, registry: Registry) -> dict[str, crl.Held]:
    """The lists that the file holds; those of registered authorities are kept by themselves too. A damaged file holds none."""
    try:
        held = crl.read_held(path)
    except (ConfigError, NotFound):
        held = {}
    return {**held, **(registered_lists(registry, layout) if path == layout.device_lists else {})}


def _made(
    registry: Registry, layout: Layout, name: str, now: float, lifetime: int | None, extra: Iterable[crl.Revoked]
) -> tuple[int, bytes]:
    """An entry leaves with the second list after its certificate's end (RFC 5280 section 3.3)."""
    last = registry.crl(name)
    span = lifetime or lifetime_of(name)
    number, this_update = registry.next_crl_number(name, crl.first_date(now), crl.BACKDATE + span)
    crl.check_date(name, this_update, now)
    since = rfc3339(last.this_update) if last else ""
    lines = [_line(row.serial, row.revoked_at, row.reason) for row in registry.revocations(name, since)]
    return number, crl.build(layout.authority(name), [*lines, *extra], number, this_update, span)


def lifetime_of(authority: str) -> int:
    """Seconds: the root of devices signs seldom, so that its key may be kept elsewhere."""
    return crl.OFFLINE_LIFETIME if authority == DEVICE_ROOT else crl.LIFETIME


def refresh_due(fleet: "LocalFleet") -> list[str]:
    """Sign every list again that is past half of its life and whose key is here, and have a running broker read them.

    Cheap where nothing is due. What cannot be signed now is left for the warnings that every command gives.

    Raises:
        FleetError: a list is signed, but the broker that runs did not take it.
    """
    registry, layout, now = fleet.registry, Layout(fleet.context.folder), fleet.clock()
    numbers: dict[str, int] = {}
    signed: list[str] = []
    for due in registry.lists_due(now):
        if not layout.has_key(due.authority):
            continue
        try:
            numbers |= write_lists(registry, layout, due.authority, now)
        except FleetError:
            continue
        signed.append(due.authority)
    if numbers:
        check_obeyed(have_it_read(fleet.context.folder, numbers))
    return signed


def check_obeyed(told: Obedience, record: "list[object] | None" = None) -> None:
    """Raise `FleetError` where a broker runs and has not read what is written."""
    if told.running and not told.reloaded:
        raise FleetError(
            f"the revocation list is written, but the broker that runs has not taken it: {told.error}",
            "stop the broker and start it again: fleetctl broker run",
            record=record,
        )


def _line(serial: str, revoked_at: str, reason: str | None) -> crl.Revoked:
    return crl.Revoked(int(serial, 16), parse_rfc3339(revoked_at), Reason(reason or Reason.UNSPECIFIED))
