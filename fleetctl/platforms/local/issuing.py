"""Issuing to devices: the authority decides what a certificate says, and one key never stands for two names."""

from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from cryptography import x509

from fleetctl.errors import Conflict
from fleetctl.model.certificate import Profile, Reason
from fleetctl.model.device import Device, LifeCycle
from fleetctl.pki.authority import (
    Authority,
    common_names,
    device_request,
    fingerprint,
    issue,
    pem,
    serial_of,
    validity_of,
)
from fleetctl.pki.csr import checked_key, spki_of
from fleetctl.pki.extensions import SubjectKey
from fleetctl.platforms.local.authorities import active
from fleetctl.platforms.local.layout import Layout
from fleetctl.registry import CertificateRow, Registry
from fleetctl.wire.document import rfc3339

if TYPE_CHECKING:
    from fleetctl.platforms.local.fleet import LocalFleet

OWN_KEY = "make a key of its own: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out NEW.key"


def row_of(
    certificate: x509.Certificate,
    authority: str,
    profile: Profile,
    device_id: str | None = None,
    replaces: str | None = None,
    spki: str | None = None,
    subject: str | None = None,
) -> CertificateRow:
    """What the registry keeps of a certificate; `spki` and `subject` where they are known already: reading them takes time."""
    span = validity_of(certificate)
    return CertificateRow(
        serial_of(certificate),
        authority,
        profile.value,
        subject or common_names(certificate)[0],
        device_id,
        rfc3339(span.not_before),
        rfc3339(span.not_after),
        fingerprint(certificate),
        pem(certificate).decode(),
        spki=spki or spki_of(certificate.public_key()),
        replaces=replaces,
    )


def check_fresh_key(registry: Registry, spki: str, subject: str, *, renews: bool = False) -> None:
    """Raise `Conflict` where a key belongs to a certificate already; who renews may keep its own, unless that was compromised.

    Revoked and expired certificates count: a key that was given up is not taken up by another name.
    """
    for held in registry.certificates_by_key(spki):
        if held.reason == Reason.KEY_COMPROMISE:
            raise Conflict(f"the key is that of certificate `{held.serial}`, which was revoked: keyCompromise", OWN_KEY)
        if held.subject != subject or not renews:
            raise Conflict(f"the key is that of certificate `{held.serial}` of `{held.subject}` already", OWN_KEY)


@dataclass(frozen=True)
class DeviceIssuer:
    """Certificates for devices, in registry transactions of the caller's: rows that are not kept were never issued."""

    fleet: "LocalFleet"

    def issue(
        self, device: Device, public_key: SubjectKey, *, days: float | None = None, replaces: str | None = None
    ) -> CertificateRow:
        """A certificate for a device and its key; `replaces` is the serial of the one that it renews, whose key it may keep.

        A device that renews is `renewing` from now on.

        Raises:
            Conflict: the key belongs to another certificate, or the device is retired or suspended.
            WeakKey: the key is not strong enough.
        """
        checked_key(public_key)
        registry, now, spki = self.fleet.registry, self.fleet.clock(), spki_of(public_key)
        with nullcontext() if registry.within else registry.transaction():
            check_may_hold(replace(device, state=registry.device_state(device.id)))
            self._keyed.fill()
            check_fresh_key(registry, spki, device.id, renews=replaces is not None)
            authority = self.authority()
            certificate = issue(authority, device_request(device.path), public_key, now, days=days)
            row = row_of(certificate, authority.name, Profile.DEVICE, device.id, replaces, spki, device.id)
            registry.add_certificate(row)
            if replaces is not None and registry.device(device.id).state is LifeCycle.ACTIVE:
                registry.move_device(device.id, LifeCycle.RENEWING, event="renewing", at=rfc3339(now), actor=self.fleet.actor)
        return row

    def chain(self, row: CertificateRow) -> bytes:
        """The certificate with everything between it and the root, as PEM, leaf first."""
        if row.authority not in self._intermediates:
            self._intermediates[row.authority] = pem(*self._layout.authority(row.authority).issuers)
        return row.pem.encode() + self._intermediates[row.authority]

    def authority(self) -> Authority:
        """The one that signs for devices now."""
        return self._signer.authority()

    @cached_property
    def _signer(self) -> "Signer":
        return Signer(self.fleet, "devices")

    @cached_property
    def _intermediates(self) -> dict[str, bytes]:
        return {}

    @cached_property
    def _layout(self) -> Layout:
        return Layout(self.fleet.context.folder)

    @cached_property
    def _keyed(self) -> "KeyIndex":
        return KeyIndex(self.fleet.registry)


@dataclass
class Signer:
    """Who signs for a role: read once, and again when another has taken its place."""

    fleet: "LocalFleet"
    role: str
    held: Authority | None = None

    def authority(self) -> Authority:
        """Raises `NotFound` where there is none, `ConfigError` or `Denied` where it is not as it was made."""
        row = self.fleet.registry.signing_authority(self.role)
        if self.held is None or row is None or row.name != self.held.name:
            self.held = active(self.fleet, self.role)
        return self.held


@dataclass
class KeyIndex:
    """The keys of certificates from a registry of schema 1, which did not keep them: found out once, from the certificates."""

    registry: Registry
    done: bool = False

    def fill(self) -> int:
        """How many it found out."""
        if self.done:
            return 0
        rows = self.registry.certificates_without_key()
        with self.registry.transaction():
            for row in rows:
                certificate = x509.load_pem_x509_certificate(row.pem.encode())
                self.registry.keep_key(row.serial, spki_of(certificate.public_key()))
        self.done = True
        return len(rows)


def check_may_hold(device: Device) -> None:
    """Raise `Conflict` for a device that is given no certificate."""
    if device.state is LifeCycle.RETIRED:
        raise Conflict(f"device `{device.id}` is retired", "add a device with another id: fleetctl provision add")
    if device.state is LifeCycle.SUSPENDED:
        raise Conflict(f"device `{device.id}` is suspended", f"see why: fleetctl provision status {device.id}")
