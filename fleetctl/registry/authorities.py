"""Certificate authorities in the registry, and when their revocation lists are due."""

from collections.abc import Iterator
from typing import NamedTuple

from fleetctl.errors import Conflict, NotFound
from fleetctl.model.device import LifeCycle, printable
from fleetctl.registry.database import Database, Row, upsert

DAY = 86400
FIRST_LIFETIME = 3651 * DAY
"""Seconds from `thisUpdate`: how long the lists of schema 1 are good, which did not say it in the registry."""
_SELECT = "SELECT name, role, kind, state, profile, pem, created_at FROM authorities"
_LISTS = """SELECT crls.authority, number, this_update, next_update FROM crls
    LEFT JOIN authorities ON authorities.name = crls.authority WHERE COALESCE(authorities.state, 'active') != 'retired'"""
_OUT = ", ".join(f"'{state}'" for state in LifeCycle if not state.believed)
# the order of the tables is the one that an index serves: this is asked every few seconds
_DENIED = f"""SELECT DISTINCT c.device_id FROM authorities a CROSS JOIN certificates c ON c.authority = a.name
    CROSS JOIN devices d ON d.id = c.device_id WHERE a.role = 'registered' AND a.state <> 'retired' AND c.revoked_at IS NOT NULL
    AND (d.state <> 'retired' OR c.not_after > ?) AND (d.state IN ({_OUT})
    OR NOT EXISTS (SELECT 1 FROM certificates good WHERE good.device_id = d.id AND good.revoked_at IS NULL))"""  # noqa: S608


class AuthorityRow(NamedTuple):
    """An authority: `pem` is its certificate, of a registered one with those above it; `profile` is for its devices."""

    name: str
    role: str
    kind: str
    state: str
    profile: str | None
    pem: str
    created_at: str


class ListRow(NamedTuple):
    """A revocation list as it was last made; times are seconds since 1970."""

    authority: str
    number: int
    this_update: int
    next_update: int

    @property
    def half(self) -> int:
        """When it should be made again; `thisUpdate` is a day before it was made."""
        return (self.this_update + DAY + self.next_update) // 2

    def ended(self, now: float) -> bool:
        return now >= self.next_update


class RevokedRow(NamedTuple):
    """What a list says of one certificate."""

    serial: str
    revoked_at: str
    reason: str | None


class Authorities(Database):
    def add_authority(self, row: AuthorityRow) -> None:
        """Raises `Conflict` if the name is taken."""
        with self.transaction():
            if self.read_one("SELECT 1 FROM authorities WHERE name = ?", (row.name,)):
                raise Conflict(f"authority {printable(row.name)} is in the registry already", "see fleetctl certs ca list")
            self.write("INSERT INTO authorities VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    def authorities(self, *roles: str) -> list[AuthorityRow]:
        """All of them, or those of some roles: active ones first, what issues before the root that it hangs below."""
        where = f" WHERE role IN ({', '.join('?' * len(roles))})" if roles else ""
        order = " ORDER BY role = 'registered', kind, state, created_at DESC, name"
        return [AuthorityRow(*row) for row in self.read(_SELECT + where + order, roles)]

    def authority(self, name: str) -> AuthorityRow:
        """Raises `NotFound`."""
        row = self.read_one(_SELECT + " WHERE name = ?", (name,))
        if row is None:
            raise NotFound(f"no authority named {printable(name)}", "see fleetctl certs ca list")
        return AuthorityRow(*row)

    def signing_authority(self, role: str) -> AuthorityRow | None:
        """The one that issues for `devices`, `people` or `claims` now."""
        kind = "issuing" if role == "devices" else "root"
        row = self.read_one(_SELECT + " WHERE role = ? AND kind = ? AND state = 'active'", (role, kind))
        return None if row is None else AuthorityRow(*row)

    def set_authority(self, name: str, state: str, pem: str | None = None) -> bool:
        """Change its state, and its certificate where one is given; False if it has it already."""
        with self.transaction():
            held = self.authority(name)
            if (held.state, held.pem) == (state, pem or held.pem):
                return False
            self.write("UPDATE authorities SET state = ?, pem = ? WHERE name = ?", (state, pem or held.pem, name))
        return True

    def certified_by(self, authority: str, now: str, but: str | None = None) -> int:
        """How many of its certificates are good (neither revoked nor ended): leaves of any profile `but` one."""
        statement = """SELECT COUNT(*) FROM certificates
            WHERE authority = ? AND profile NOT IN ('authority', ?) AND not_after >= ?
            AND (revoked_at IS NULL OR reason = 'certificateHold')"""
        row = self.read_one(statement, (authority, but or "", now))
        return int(row[0]) if row else 0

    def revocations(self, authority: str, since: str) -> Iterator[RevokedRow]:
        """What the authority's list must name: revoked, and not ended before `since`; oldest first."""
        statement = """SELECT serial, revoked_at, reason FROM certificates
            WHERE authority = ? AND revoked_at IS NOT NULL AND not_after >= ? ORDER BY revoked_at, serial"""
        return (RevokedRow(*row) for row in self.read(statement, (authority, since)))

    def denied(self, now: str) -> frozenset[str]:
        """Devices to keep out that no list of ours keeps out: a registered authority's certificate of theirs is revoked here.

        It counts though it has expired, for its authority may have renewed it without telling; not that of a retired device, of
        which there are ever more.
        """
        if not self.read_one("SELECT 1 FROM authorities WHERE role = 'registered' AND state <> 'retired'"):
            return frozenset()
        return frozenset(row[0] for row in self.read(_DENIED, (now,)))

    def crl(self, authority: str) -> ListRow | None:
        """None where it has no list yet."""
        row = self.read_one("SELECT authority, number, this_update, next_update FROM crls WHERE authority = ?", (authority,))
        return None if row is None else _list(row)

    def lists(self) -> list[ListRow]:
        """The list of every authority that is not retired, the first to end first."""
        return sorted(map(_list, self.read(_LISTS)), key=lambda each: each.next_update)

    def keep_crl(self, authority: str, number: int, this_update: int, next_update: int) -> None:
        """Write down a list that somebody else made."""
        row = (authority, number, this_update, next_update)
        self.write(upsert("crls", "authority", "number", "this_update", "next_update"), row)

    def lists_due(self, now: float) -> list[ListRow]:
        """Those past half of their life: one look at a table of a few rows."""
        return [each for each in self.lists() if each.half <= now]


def _list(row: Row) -> ListRow:
    return ListRow(row[0], row[1], row[2], row[2] + FIRST_LIFETIME if row[3] is None else row[3])
