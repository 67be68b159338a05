"""The authorities of a context: who issues to devices, people and claims now, and whom their listeners accept."""

from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509

from fleetctl import files
from fleetctl.errors import NotFound
from fleetctl.pki import crl
from fleetctl.pki.authority import CLAIM_CA, DEVICE_ISSUING, DEVICE_ROOT, FLEET_CA, Authority, fingerprint, pem, validity_of
from fleetctl.platforms.local.layout import Layout
from fleetctl.registry import AuthorityRow, Registry
from fleetctl.wire.document import rfc3339

if TYPE_CHECKING:
    from fleetctl.platforms.local.fleet import LocalFleet

FIRST = {"devices": DEVICE_ISSUING, "people": FLEET_CA, "claims": CLAIM_CA}
"""What the first authority that issues to each role is called."""


def active(fleet: "LocalFleet", role: str) -> Authority:
    """The one that issues for `devices`, `people` or `claims` now, ready to sign.

    Raises:
        NotFound: there is none for that role yet.
        ConfigError, Denied: its key or certificate is not as it was made.
    """
    row = fleet.registry.signing_authority(role)
    if row is None:
        raise NotFound(f"there is no authority for {role} yet", f"make one: fleetctl certs ca init {role}")
    return Layout(fleet.context.folder).authority(row.name)


def row_of_authority(authority: Authority, role: str, kind: str | None = None) -> AuthorityRow:
    """What the registry keeps of an authority that was made just now."""
    root = authority.name == DEVICE_ROOT or len(authority.chain) == 1
    text = pem(authority.certificate).decode()
    made = rfc3339(validity_of(authority.certificate).not_before)
    return AuthorityRow(authority.name, role, kind or ("root" if root else "issuing"), "active", None, text, made)


def record_authority(registry: Registry, authority: Authority, role: str) -> None:
    """Let the registry know an authority of `devices`, `people` or `claims`; its certificate is a row of its own there."""
    registry.add_authority(row_of_authority(authority, role))


def write_accepted(registry: Registry, layout: Layout, role: str) -> None:
    """Make the file anew of what the listener of a role accepts: whoever issues now first, then those superseded, the root last.

    `fleet-ca.pem` is not touched: devices and operators hold it as the services' authority, whoever issues to people.
    """
    found = dict.fromkeys(each for row in accepted(registry, role) for each in x509.load_pem_x509_certificates(row.pem.encode()))
    files.write_atomic(layout.accepted(role), pem(*found))


def accepted(registry: Registry, role: str) -> list[AuthorityRow]:
    """The authorities whose holders the listener of a role lets in."""
    roles = ("devices", "registered") if role == "devices" else (role,)
    return [row for row in registry.authorities(*roles) if row.state != "retired"]


def registered_list(layout: Layout, certificate: x509.Certificate) -> Path:
    """Where the list of a registered authority is kept as it came."""
    return layout.public(f"registered-{fingerprint(certificate).removeprefix('sha256:')[:16]}.crl.pem")


def registered_lists(registry: Registry, layout: Layout) -> dict[str, crl.Held]:
    """The lists of the registered authorities, by name."""
    found: dict[str, crl.Held] = {}
    for row in registry.authorities("registered"):
        path = registered_list(layout, x509.load_pem_x509_certificate(row.pem.encode()))
        found |= {name: held for name, held in crl.read_held(path).items() if name == row.name}
    return found
