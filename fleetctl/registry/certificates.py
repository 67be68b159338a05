"""Certificates in the registry: every one that was ever issued, and the numbers of the revocation lists."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from operator import attrgetter

from fleetctl.errors import Conflict, FleetError, NotFound
from fleetctl.model.device import printable
from fleetctl.registry.database import Database, marks, upsert

_SELECT = """SELECT serial, authority, profile, subject, device_id, not_before, not_after, fingerprint, pem, revoked_at, reason,
    spki, replaces, proven_at FROM certificates"""
_CURRENT = """ AS c WHERE serial > ? AND revoked_at IS NULL
    AND NOT EXISTS (SELECT 1 FROM devices WHERE id = c.device_id AND state = 'retired')
    AND NOT EXISTS (SELECT 1 FROM certificates AS n WHERE n.device_id = c.device_id AND n.subject = c.subject
        AND n.revoked_at IS NULL AND (n.not_after, n.serial) > (c.not_after, c.serial))
    ORDER BY serial LIMIT 500"""


@dataclass(frozen=True, slots=True)
class CertificateRow:
    """A certificate that was issued: serial in hex, times RFC 3339 UTC; `device_id` is None for people and services.

    `spki` is the SHA-256 of its public key in hex (None in what schema 1 wrote), `replaces` the serial of the one that it renews,
    `proven_at` when somebody connected with it.
    """

    serial: str
    authority: str
    profile: str
    subject: str
    device_id: str | None
    not_before: str
    not_after: str
    fingerprint: str
    pem: str
    revoked_at: str | None = None
    reason: str | None = None
    spki: str | None = None
    replaces: str | None = None
    proven_at: str | None = None


_FIELDS = [each.name for each in fields(CertificateRow)]
_values = attrgetter(*_FIELDS)
_INSERT = f"INSERT INTO certificates VALUES ({marks(_FIELDS)}) ON CONFLICT DO NOTHING"  # noqa: S608

HOLD = "certificateHold"


class Certificates(Database):
    def add_certificate(self, row: CertificateRow) -> None:
        """Raises `Conflict` if the serial was issued before."""
        added = self.write(_INSERT, _values(row))
        if not added:
            self._refuse(row)

    def _refuse(self, row: CertificateRow) -> None:
        if self.read_one("SELECT 1 FROM certificates WHERE serial = ?", (row.serial,)):
            raise Conflict(f"certificate `{row.serial}` is in the registry already", "see fleetctl certs list")
        raise FleetError(f"certificate `{row.serial}` cannot be kept: a part of it is missing")

    def certificates(self, device_id: str | None = None) -> list[CertificateRow]:
        """All of them, or those of one device; the one that is valid longest comes last."""
        where, parameters = ("", ()) if device_id is None else (" WHERE device_id = ?", (device_id,))
        rows = self.read(_SELECT + where + " ORDER BY subject, not_after, serial", parameters)
        return [CertificateRow(*row) for row in rows]

    def current_certificates(self) -> Iterator[CertificateRow]:
        """Those that count: neither revoked nor outlived by another of the same device; of retired devices none. Page by page."""
        last = ""
        while page := self.read(_SELECT + _CURRENT, (last,)):
            yield from (CertificateRow(*row) for row in page)
            last = page[-1][0]

    def certificate(self, serial: str) -> CertificateRow:
        """Raises `NotFound`."""
        row = self.read_one(_SELECT + " WHERE serial = ?", (serial,))
        if row is None:
            raise NotFound(f"no certificate with serial {printable(serial)}", "see fleetctl certs list")
        return CertificateRow(*row)

    def certificates_by_key(self, spki: str) -> list[CertificateRow]:
        """Every certificate that was issued for a public key."""
        return [CertificateRow(*row) for row in self.read(_SELECT + " WHERE spki = ? ORDER BY not_after, serial", (spki,))]

    def certificates_without_key(self) -> list[CertificateRow]:
        """Those of schema 1, whose key nobody has written down yet."""
        return [CertificateRow(*row) for row in self.read(_SELECT + " WHERE spki IS NULL ORDER BY serial")]

    def keep_key(self, serial: str, spki: str) -> None:
        """Write down the key of a certificate that has none in the registry."""
        self.write("UPDATE certificates SET spki = ? WHERE serial = ? AND spki IS NULL", (spki, serial))

    def expiring(self, before: str) -> list[CertificateRow]:
        """Those that are not revoked and end before a time, the first to end first."""
        rows = self.read(_SELECT + " WHERE not_after < ? AND revoked_at IS NULL ORDER BY not_after, serial", (before,))
        return [CertificateRow(*row) for row in rows]

    def prove_certificate(self, serial: str, at: str) -> bool:
        """Somebody connected with it; False if that is known already."""
        changed = self.write("UPDATE certificates SET proven_at = ? WHERE serial = ? AND proven_at IS NULL", (at, serial))
        return changed > 0

    def hold_certificate(self, serial: str, at: str) -> bool:
        """Revoke for a while; False if it is revoked or on hold already."""
        return self.revoke_certificate(serial, HOLD, at)

    def release_certificate(self, serial: str) -> bool:
        """End a hold; False if there is none."""
        clear = "UPDATE certificates SET revoked_at = NULL, reason = NULL WHERE serial = ? AND reason = ?"
        return self.write(clear, (serial, HOLD)) > 0

    def revoke_certificate(self, serial: str, reason: str, at: str) -> bool:
        """False if it was revoked already: the first reason and time stay, unless it was on hold."""
        with self.transaction():
            held = self.certificate(serial)
            if held.revoked_at is not None and (held.reason != HOLD or reason == HOLD):
                return False
            self.write("UPDATE certificates SET revoked_at = ?, reason = ? WHERE serial = ?", (at, reason, serial))
        return True

    def revoked(self, authority: str) -> list[CertificateRow]:
        """What the authority's revocation list names, oldest first."""
        rows = self.read(
            _SELECT + " WHERE authority = ? AND revoked_at IS NOT NULL ORDER BY revoked_at, serial",
            (authority,),
        )
        return [CertificateRow(*row) for row in rows]

    def next_crl_number(self, authority: str, now: float, lifetime: int | None = None) -> tuple[int, int]:
        """The number and `thisUpdate` (whole seconds since 1970) of the next list: both rise, even if the clock does not.

        `lifetime` is how many seconds after `thisUpdate` the list says that it ends.
        """
        with self.transaction():
            held = self.read_one("SELECT number, this_update FROM crls WHERE authority = ?", (authority,))
            number, this_update = (1, int(now)) if held is None else (held[0] + 1, max(int(now), held[1] + 1))
            end = None if lifetime is None else this_update + lifetime
            self.write(upsert("crls", "authority", "number", "this_update", "next_update"), (authority, number, this_update, end))
        return number, this_update
