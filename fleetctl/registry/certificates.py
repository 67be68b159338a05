"""Certificates in the registry: every one that was ever issued, and the numbers of the revocation lists."""

from dataclasses import astuple, dataclass

from fleetctl.errors import Conflict, NotFound
from fleetctl.model.device import printable
from fleetctl.registry.database import Database

_SELECT = """SELECT serial, authority, profile, subject, device_id, not_before, not_after, fingerprint, pem, revoked_at, reason
    FROM certificates"""


@dataclass(frozen=True, slots=True)
class CertificateRow:
    """A certificate that was issued: serial in hex, times RFC 3339 UTC; `device_id` is None for people and services."""

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


class Certificates(Database):
    def add_certificate(self, row: CertificateRow) -> None:
        """Raises `Conflict` if the serial was issued before."""
        with self.transaction():
            if self.read_one("SELECT 1 FROM certificates WHERE serial = ?", (row.serial,)):
                raise Conflict(f"certificate `{row.serial}` is in the registry already", "see fleetctl certs list")
            self.write("INSERT INTO certificates VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", astuple(row))

    def certificates(self, device_id: str | None = None) -> list[CertificateRow]:
        """All of them, or those of one device; the one that is valid longest comes last."""
        where, parameters = ("", ()) if device_id is None else (" WHERE device_id = ?", (device_id,))
        rows = self.read(_SELECT + where + " ORDER BY subject, not_after, serial", parameters)
        return [CertificateRow(*row) for row in rows]

    def certificate(self, serial: str) -> CertificateRow:
        """Raises `NotFound`."""
        row = self.read_one(_SELECT + " WHERE serial = ?", (serial,))
        if row is None:
            raise NotFound(f"no certificate with serial {printable(serial)}", "see fleetctl certs list")
        return CertificateRow(*row)

    def revoke_certificate(self, serial: str, reason: str, at: str) -> bool:
        """False if it was revoked already: the first reason and time stay."""
        with self.transaction():
            if self.certificate(serial).revoked_at is not None:
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

    def next_crl_number(self, authority: str, now: float) -> tuple[int, int]:
        """The number and `thisUpdate` (whole seconds since 1970) of the next list: both rise, even if the clock does not."""
        with self.transaction():
            held = self.read_one("SELECT number, this_update FROM crls WHERE authority = ?", (authority,))
            number, this_update = (1, int(now)) if held is None else (held[0] + 1, max(int(now), held[1] + 1))
            self.write("INSERT OR REPLACE INTO crls VALUES (?, ?, ?)", (authority, number, this_update))
        return number, this_update
