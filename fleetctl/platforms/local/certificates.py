"""The certificates of a local fleet: issued into bundles, listed, revoked."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec

from fleetctl import files
from fleetctl.errors import Conflict, FleetError, NotFound, UsageError
from fleetctl.keys.store import load_key, private_pem
from fleetctl.model.certificate import Profile, Reason, State, Validity, check_operator, is_operator, parse_serial, reason
from fleetctl.model.device import Device, LifeCycle, printable
from fleetctl.pki.authority import (
    DEVICE_ISSUING,
    FLEET_CA,
    PEM_LIMIT,
    Authority,
    Request,
    device_request,
    fingerprint,
    issue,
    operator_request,
    pem,
    read_certificates,
    serial_of,
)
from fleetctl.platforms.local.issuing import DeviceIssuer, row_of
from fleetctl.platforms.local.layout import Layout
from fleetctl.platforms.local.revocation import Revocation, revoke
from fleetctl.platforms.local.staging import is_vacant, staged, write
from fleetctl.registry import CertificateRow
from fleetctl.wire import bundle
from fleetctl.wire.bundle import BundleConfig, render_yaml
from fleetctl.wire.document import parse_rfc3339

if TYPE_CHECKING:
    from fleetctl.platforms.local.fleet import LocalFleet

HEARTBEAT = 60.0
OPERATOR_KEY = "operator.key"
OPERATOR_CERTIFICATE = "operator.pem"
OPERATOR_FILES = (OPERATOR_KEY, OPERATOR_CERTIFICATE, bundle.AUTHORITY)


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and the folder that it is in; `outcome` is `issued`, or `unchanged` where the folder held a good one."""

    subject: str
    serial: str
    outcome: str
    not_after: str
    bundle: str


@dataclass(frozen=True, slots=True)
class CertificateEntry:
    """A certificate as the registry knows it; `state` is that of this moment."""

    serial: str
    subject: str
    profile: str
    device_id: str | None
    authority: str
    state: State
    not_before: str
    not_after: str
    fingerprint: str
    revoked_at: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class CertificateDetail(CertificateEntry):
    """The same with the certificate itself."""

    pem: str


@dataclass(frozen=True)
class LocalCertificates:
    """Certificates of a context that owns its authorities."""

    fleet: "LocalFleet"

    @cached_property
    def _layout(self) -> Layout:
        return Layout(self.fleet.context.folder)

    @cached_property
    def issuer(self) -> DeviceIssuer:
        """Certificates for devices, in transactions of the caller's."""
        return DeviceIssuer(self.fleet)

    @cached_property
    def _device_authority(self) -> Authority:
        return self._layout.authority(DEVICE_ISSUING)

    @cached_property
    def _fleet_authority(self) -> Authority:
        return self._layout.authority(FLEET_CA)

    def issue(self, name: str, folder: Path | None = None) -> Issued:
        """A key and a certificate for a device, or for an operator named `op:NAME`, in a folder of their own.

        Raises:
            NotFound: no such device.
            Conflict: the folder holds something else.
        """
        if not name.startswith("op:"):
            return self.issue_bundle(self.fleet.registry.active_device(name), folder or Path(name))
        check_operator(name)
        return self._issue_operator(name, folder or Path(name.replace(":", "-")))

    def issue_bundle(self, device: Device, folder: Path, *, heartbeat: float = HEARTBEAT) -> Issued:
        """The folder that is all a device needs; `heartbeat` is seconds.

        A folder that holds a good bundle of this device stays as it is; raises `Conflict` where it holds anything else.
        """
        if device.state is not LifeCycle.ACTIVE:
            raise Conflict(f"device `{device.id}` is retired", "add a device with another id: fleetctl provision add")
        held = self._held(folder, bundle.FILES, device.id)
        if held is not None:
            return held
        context = self.fleet.context
        config = BundleConfig.of(device.path, context.device_broker, context.artifacts, heartbeat)
        public = {
            bundle.AUTHORITY: self._layout.fleet_ca,
            bundle.TRUST: self._layout.trust,
            bundle.ROOT: self._layout.root_key,
        }
        contents = {name: files.read_limited(path, PEM_LIMIT) for name, path in public.items()}
        contents[bundle.CONFIG] = render_yaml(config).encode()
        return self._make(folder, self._device_authority, device_request(device.path), device.id, bundle.FILES, contents)

    def list(self, name: str | None = None) -> Sequence[CertificateEntry]:
        """All of them, or those of one device or operator; raises `NotFound`."""
        now = self.fleet.clock()
        rows = self.fleet.registry.certificates() if name is None else self._of(name)
        return [entry(row, now) for row in rows]

    def show(self, name: str) -> CertificateDetail:
        """The certificate with a serial number, else the one of a device or operator that is good for longest."""
        now = self.fleet.clock()
        rows = self._of(name)
        good = [row for row in rows if row.revoked_at is None] or rows
        if not good:
            raise NotFound(f"device {printable(name)} has no certificate", f"issue one with fleetctl certs issue {name}")
        return CertificateDetail(*_values(good[-1], now), good[-1].pem)

    def revoke(self, name: str, why: str = Reason.UNSPECIFIED) -> Sequence[Revocation]:
        """Revoke every good certificate of a device or operator, or the one with a serial number.

        Raises:
            NotFound: nobody and nothing has that name.
            Conflict: it is the certificate that this context uses.
            FleetError: revoked, but a local broker that runs did not take the list.
        """
        return self.revoke_all([name], why)

    def revoke_all(self, names: Sequence[str], why: str = Reason.UNSPECIFIED) -> Sequence[Revocation]:
        """The same for many, with one list and one word to the broker."""
        wanted = reason(why)
        rows = list({row.serial: row for name in names for row in self._revocable(name)}.values())
        self._check_not_ours(rows)
        return revoke(self.fleet, rows, wanted) if rows else []

    def _check_not_ours(self, rows: Sequence[CertificateRow]) -> None:
        """Whoever revokes the certificate that this context connects with locks itself out."""
        cert = self.fleet.context.cert
        if cert is None or not cert.is_file():
            return
        ours = serial_of(read_certificates(cert)[0])
        for row in rows:
            if row.serial == ours and row.revoked_at is None:
                raise Conflict(
                    f"certificate `{row.serial}` of `{row.subject}` is the one that context `{self.fleet.context.name}` uses",
                    "issue another first: fleetctl certs issue op:NEW --bundle DIR; it says how to use it",
                )

    def _revocable(self, name: str) -> Sequence[CertificateRow]:
        rows = self._of(name)
        if any(row.profile == Profile.AUTHORITY for row in rows):
            raise UsageError(
                f"certificate {printable(name)} is an authority's: revoking it would revoke all it has issued",
                "make a new context with fleetctl init",
            )
        if not rows:
            raise NotFound(f"device {printable(name)} has no certificate", f"see fleetctl certs list {name}")
        return [row for row in rows if row.revoked_at is None] or rows[-1:]

    def _of(self, name: str) -> Sequence[CertificateRow]:
        registry = self.fleet.registry
        if is_operator(name):
            rows = [row for row in registry.certificates() if row.subject == name]
            if rows:
                return rows
            raise NotFound(f"no certificate of operator {printable(name)}", "see fleetctl certs list")
        serial = parse_serial(name)
        try:
            registry.device(name)
        except NotFound:
            if serial is None:
                raise
            return [registry.certificate(serial)]
        return registry.certificates(name)

    def _issue_operator(self, name: str, folder: Path) -> Issued:
        held = self._held(folder, OPERATOR_FILES, name)
        if held is not None:
            return held
        contents = {bundle.AUTHORITY: files.read_limited(self._layout.fleet_ca, PEM_LIMIT)}
        request = operator_request(self.fleet.tenant, name)
        return self._make(folder, self._fleet_authority, request, None, OPERATOR_FILES, contents)

    def _make(
        self,
        folder: Path,
        authority: Authority,
        request: Request,
        device_id: str | None,
        names: Sequence[str],
        contents: dict[str, bytes],
    ) -> Issued:
        """The registry and the folder together: a certificate that the registry does not know could not be revoked by name."""
        secret = ec.generate_private_key(ec.SECP256R1())
        certificate = issue(authority, request, secret.public_key(), self.fleet.clock())
        row = row_of(certificate, authority.name, request.profile, device_id)
        key_name, certificate_name = names[:2]
        with self.fleet.registry.transaction():
            self.fleet.registry.add_certificate(row)
            with staged(folder) as fresh:
                write(fresh / key_name, private_pem(secret), 0o600)
                write(fresh / certificate_name, pem(certificate, *authority.issuers))
                for name, data in contents.items():
                    write(fresh / name, data)
        return Issued(request.common_name, row.serial, "issued", row.not_after, str(folder))

    def _held(self, folder: Path, names: Sequence[str], subject: str) -> Issued | None:
        """What a folder from an earlier run holds, if it is whole and still good; None where there is nothing."""
        if is_vacant(folder):
            return None
        row = self._good(folder, names, subject)
        if row is None:
            raise Conflict(
                f"{printable(str(folder))} exists already and holds no good bundle of `{subject}`",
                f"name another folder, or move it away: mv {folder} {folder}.old",
            )
        return Issued(subject, row.serial, "unchanged", row.not_after, str(folder))

    def _good(self, folder: Path, names: Sequence[str], subject: str) -> CertificateRow | None:
        if not all((folder / name).is_file() for name in names):
            return None
        try:
            certificate = read_certificates(folder / names[1])[0]
            row = self.fleet.registry.certificate(serial_of(certificate))
            belongs = load_key(folder / names[0]).public_key() == certificate.public_key()
        except FleetError:
            return None
        same = row.fingerprint == fingerprint(certificate) and row.subject == subject and belongs
        return row if same and entry(row, self.fleet.clock()).state is State.VALID else None


def entry(row: CertificateRow, now: float) -> CertificateEntry:
    return CertificateEntry(*_values(row, now))


def _values(
    row: CertificateRow, now: float
) -> tuple[str, str, str, str | None, str, State, str, str, str, str | None, str | None]:
    span = Validity(int(parse_rfc3339(row.not_before)), int(parse_rfc3339(row.not_after)))
    state = span.state(now, revoked=row.revoked_at is not None)
    head = (row.serial, row.subject, row.profile, row.device_id, row.authority, state)
    return (*head, row.not_before, row.not_after, row.fingerprint, row.revoked_at, row.reason)
