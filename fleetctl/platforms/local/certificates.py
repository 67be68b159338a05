"""The certificates of a local fleet: issued into bundles, listed, revoked."""

import builtins
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from cryptography.hazmat.primitives.asymmetric import ec

from fleetctl import files
from fleetctl.errors import Conflict, NotFound, UsageError
from fleetctl.keys.store import private_pem
from fleetctl.model.certificate import Profile, Reason, State, check_operator, is_operator, parse_serial, reason
from fleetctl.model.device import Device, LifeCycle, printable
from fleetctl.model.profile import ProvisioningProfile
from fleetctl.pki.authority import (
    PEM_LIMIT,
    issue,
    operator_request,
    pem,
    read_certificates,
    serial_of,
)
from fleetctl.pki.csr import checked_key, spki_of
from fleetctl.pki.extensions import SubjectKey
from fleetctl.platforms.local.bundling import Bundler
from fleetctl.platforms.local.held import good_row, state_of
from fleetctl.platforms.local.issuing import DeviceIssuer, Signer, check_fresh_key, check_may_hold, row_of
from fleetctl.platforms.local.layout import Layout
from fleetctl.platforms.local.revocation import Revocation, revoke
from fleetctl.platforms.local.staging import is_vacant, staged, write
from fleetctl.registry import CertificateRow
from fleetctl.registry.certificates import HOLD
from fleetctl.wire import bundle
from fleetctl.wire.document import rfc3339

if TYPE_CHECKING:
    from fleetctl.platforms.local.fleet import LocalFleet

Certify: TypeAlias = Callable[[SubjectKey], tuple[CertificateRow, bytes]]
"""Gives a key its certificate: the row that the registry keeps, and the chain in PEM, leaf first."""
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
    def _signer(self) -> Signer:
        return Signer(self.fleet, "people")

    def issue(self, name: str, folder: Path | None = None, *, profile: str | None = None) -> Issued:
        """A key and a certificate for a device, or for an operator named `op:NAME`, in a folder of their own.

        Raises:
            NotFound: no such device.
            Conflict: the folder holds something else.
        """
        if not name.startswith("op:"):
            return self._issue_device(self.fleet.registry.active_device(name), folder or Path(name), profile)
        if profile is not None:
            raise UsageError(f"`{name}` is no device, and profiles are theirs", f"fleetctl certs issue {name}")
        check_operator(name)
        return self._issue_operator(name, folder or Path(name.replace(":", "-")))

    def issue_bundle(self, device: Device, folder: Path, *, profile: ProvisioningProfile | None = None) -> Issued:
        """The folder that is all a device needs.

        A folder that holds a good bundle of this device stays as it is; raises `Conflict` where it holds anything else.
        """
        check_may_hold(device)
        held = self._held(folder, bundle.FILES, device.id)
        if held is not None:
            return held
        contents = Bundler(self.fleet, profile).contents(device.path)

        def certify(public_key: SubjectKey) -> tuple[CertificateRow, bytes]:
            row = self.issuer.issue(device, public_key, days=None if profile is None else profile.days)
            return row, self.issuer.chain(row)

        return self._make(folder, bundle.FILES, contents, certify)

    def list(
        self, name: str | None = None, *, within: float | None = None, state: str | None = None
    ) -> "builtins.list[CertificateEntry]":
        """All of them, or those of one device or operator; raises `NotFound`, or `UsageError` for a state that is none.

        With `within` those that are valid and end in so many seconds.
        """
        now = self.fleet.clock()
        wanted = None if state is None else _state(state)
        rows = self.fleet.registry.certificates() if name is None else self._of(name)
        if within is not None:
            end = rfc3339(now + within)
            rows = [row for row in rows if row.not_after < end and state_of(row, now) is State.VALID]
        return [each for each in (entry(row, now) for row in rows) if wanted in (None, each.state)]

    def show(self, name: str) -> CertificateDetail:
        """The certificate with a serial number, else the one of a device or operator that is good for longest."""
        now = self.fleet.clock()
        rows = self._of(name)
        good = [row for row in rows if row.revoked_at is None] or rows
        if not good:
            raise NotFound(f"device {printable(name)} has no certificate", f"issue one with fleetctl certs issue {name}")
        return CertificateDetail(*_values(good[-1], now), good[-1].pem)

    def revoke(self, name: str, why: str = Reason.UNSPECIFIED) -> Sequence[Revocation]:
        """Revoke every good certificate of a device or operator, those on hold too, or the one with a serial number.

        A device that has none left is `revoked`, until it is issued another or `provision reset` lets it enrol anew.

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
        if wanted is Reason.KEY_COMPROMISE:
            rows = self._with_successors(rows)
        self._check_not_ours(rows)
        return revoke(self.fleet, rows, wanted, moves=True) if rows else []

    def _with_successors(self, rows: Sequence[CertificateRow]) -> builtins.list[CertificateRow]:
        """These and what they were renewed to since: whoever had the key could have renewed it to another of theirs."""
        found = {row.serial: row for row in rows}
        pending = list(rows)
        while pending:
            row = pending.pop()
            for each in self._of(row.device_id or row.subject):
                if each.replaces == row.serial and each.serial not in found:
                    found[each.serial] = each
                    pending.append(each)
        return list(found.values())

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
        return [row for row in rows if row.revoked_at is None or row.reason == HOLD] or rows[-1:]

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

    def _issue_device(self, device: Device, folder: Path, profile: str | None) -> Issued:
        """A device that had none before counts as claimed until it is seen with this one."""
        fleet, registry = self.fleet, self.fleet.registry
        with registry.transaction():
            done = self.issue_bundle(device, folder, profile=None if profile is None else registry.profile(profile))
            if done.outcome == "issued" and device.state in (LifeCycle.MANUFACTURED, LifeCycle.REVOKED):
                registry.move_device(device.id, LifeCycle.CLAIMED, event="issued", at=rfc3339(fleet.clock()), actor=fleet.actor)
        return done

    def _issue_operator(self, name: str, folder: Path) -> Issued:
        held = self._held(folder, OPERATOR_FILES, name)
        if held is not None:
            return held
        contents = {bundle.AUTHORITY: files.read_limited(self._layout.fleet_ca, PEM_LIMIT)}
        return self._make(folder, OPERATOR_FILES, contents, lambda public_key: self.certify_operator(name, public_key))

    def certify_operator(self, name: str, public_key: SubjectKey, *, replaces: str | None = None) -> tuple[CertificateRow, bytes]:
        """A certificate for a person or a service, and that with what is between it and the root; raises `Conflict`."""
        authority, registry = self._signer.authority(), self.fleet.registry
        with registry.transaction():
            check_fresh_key(registry, spki_of(checked_key(public_key)), name, renews=replaces is not None)
            certificate = issue(authority, operator_request(self.fleet.tenant, name), public_key, self.fleet.clock())
            row = row_of(certificate, authority.name, Profile.OPERATOR, replaces=replaces)
            registry.add_certificate(row)
        return row, pem(certificate, *authority.issuers)

    def _make(self, folder: Path, names: Sequence[str], contents: dict[str, bytes], certify: Certify) -> Issued:
        """The registry and the folder together: a certificate that the registry does not know could not be revoked by name."""
        secret = ec.generate_private_key(ec.SECP256R1())
        key_name, certificate_name = names[:2]
        with self.fleet.registry.transaction():
            row, chain = certify(secret.public_key())
            with staged(folder) as fresh:
                write(fresh / key_name, private_pem(secret), 0o600)
                write(fresh / certificate_name, chain)
                for name, data in contents.items():
                    write(fresh / name, data)
        return Issued(row.subject, row.serial, "issued", row.not_after, str(folder))

    def _held(self, folder: Path, names: Sequence[str], subject: str) -> Issued | None:
        """What a folder from an earlier run holds, if it is whole and still good; None where there is nothing."""
        if is_vacant(folder):
            return None
        row = good_row(self.fleet, folder, names, subject)
        if row is None:
            raise Conflict(
                f"{printable(str(folder))} exists already and holds no good bundle of `{subject}`",
                f"name another folder, or move it away: mv {folder} {folder}.old",
            )
        return Issued(subject, row.serial, "unchanged", row.not_after, str(folder))


def entry(row: CertificateRow, now: float) -> CertificateEntry:
    return CertificateEntry(*_values(row, now))


def _values(
    row: CertificateRow, now: float
) -> tuple[str, str, str, str | None, str, State, str, str, str, str | None, str | None]:
    state = state_of(row, now)
    head = (row.serial, row.subject, row.profile, row.device_id, row.authority, state)
    return (*head, row.not_before, row.not_after, row.fingerprint, row.revoked_at, row.reason)


def _state(word: str) -> State:
    try:
        return State(word)
    except ValueError as error:
        raise UsageError(f"{printable(word)} is no state of a certificate", f"one of: {', '.join(State)}") from error
