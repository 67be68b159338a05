"""One-time enrolment tokens in the registry: their digests, never themselves."""

from typing import NamedTuple

from fleetctl.registry.database import Database

_SELECT = "SELECT digest, device_id, created_at, expires_at, used_at, certificate, actor FROM tokens"


class TokenRow(NamedTuple):
    """A token by the SHA-256 of its text; one that was used without a certificate was revoked."""

    digest: str
    device_id: str
    created_at: str
    expires_at: str
    used_at: str | None = None
    certificate: str | None = None
    actor: str | None = None


class Tokens(Database):
    def add_token(self, row: TokenRow) -> None:
        self.write("INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    def token(self, digest: str) -> TokenRow | None:
        row = self.read_one(_SELECT + " WHERE digest = ?", (digest,))
        return None if row is None else TokenRow(*row)

    def tokens(self, device_id: str | None = None) -> list[TokenRow]:
        """All of them, or those of one device; oldest first."""
        where, parameters = ("", ()) if device_id is None else (" WHERE device_id = ?", (device_id,))
        return [TokenRow(*row) for row in self.read(_SELECT + where + " ORDER BY created_at, digest", parameters)]

    def use_token(self, digest: str, certificate: str, at: str) -> bool:
        """Whether it was still there to be used: once, for one certificate."""
        statement = "UPDATE tokens SET used_at = ?, certificate = ? WHERE digest = ? AND used_at IS NULL"
        return self.write(statement, (at, certificate, digest)) > 0

    def revoke_token(self, digest: str, at: str) -> bool:
        """False if it was used or revoked before."""
        return self.write("UPDATE tokens SET used_at = ? WHERE digest = ? AND used_at IS NULL", (at, digest)) > 0

    def revoke_tokens(self, device_id: str, at: str) -> int:
        """Every unused one of a device; how many there were."""
        return self.write("UPDATE tokens SET used_at = ? WHERE device_id = ? AND used_at IS NULL", (at, device_id))

    def forget_tokens(self, before: str) -> int:
        """Remove those that have ended before a time without being used; how many there were."""
        return self.write("DELETE FROM tokens WHERE expires_at < ? AND certificate IS NULL", (before,))
