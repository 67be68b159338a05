"""Certificates for many devices at once: a transaction a page, one sync at the end, and a repeat goes on where it was stopped."""

import itertools
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cryptography.hazmat.primitives.asymmetric import ec

from fleetctl import files
from fleetctl.errors import Conflict, FleetError, Partial, UsageError
from fleetctl.keys.store import private_pem
from fleetctl.model.device import Device, DevicePath, LifeCycle, printable
from fleetctl.model.profile import ProvisioningProfile
from fleetctl.platforms.device_records import RefusedRow
from fleetctl.platforms.local.archive import Archive
from fleetctl.platforms.local.bundling import Bundler
from fleetctl.platforms.local.held import good_row
from fleetctl.platforms.local.issuing import check_may_hold
from fleetctl.platforms.rows import DEVICES, Row, read_rows
from fleetctl.wire import bundle
from fleetctl.wire.document import rfc3339

if TYPE_CHECKING:
    from fleetctl.platforms.local.fleet import LocalFleet

PAGE = 500
ERRORS_SHOWN = 100
MOST = 1_000_000
MARK = ".issuing"
"""In a folder of bundles while a batch is written: what is not whole there was left by one that was stopped."""


@dataclass(frozen=True, slots=True)
class BulkIssued:
    """What became of a batch: devices added, certificates issued, bundles that were there, lines refused; where bundles are."""

    added: int
    issued: int
    unchanged: int
    refused: int
    errors: tuple[RefusedRow, ...]
    place: str


class Sink(Protocol):
    """Where bundles go."""

    def holds(self, device_id: str) -> bool: ...
    def put(self, name: str, contents: Mapping[str, bytes]) -> None: ...
    def page(self) -> None: ...


def numbered(prefix: str, count: int, device_type: str, location: str) -> Iterator[Row]:
    """`prefix` with 1 to `count` after it, all of one width; raises `UsageError`."""
    if not 1 <= count <= MOST:
        raise UsageError(f"`--count {count}` is not between 1 and {MOST}", "issue in parts")
    width = len(str(count))
    for number in range(1, count + 1):
        yield Row(number, {"id": f"{prefix}{number:0{width}d}", "type": device_type, "location": location}, {})


def listed(path: Path) -> Iterator[Row]:
    """The devices of a .csv or .jsonl file; raises `UsageError` or `NotFound`."""
    return read_rows(path, DEVICES)


@dataclass
class BulkIssuer:
    """Provisions devices and issues one certificate to each; `rows` of devices that have their bundle change nothing."""

    fleet: "LocalFleet"
    profile: ProvisioningProfile | None = None
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("added", "issued", "unchanged", "refused"), 0))
    errors: list[RefusedRow] = field(default_factory=list)

    def into_folder(self, rows: Iterable[Row], folder: Path) -> Iterator[int]:
        """A folder in `folder` for each; yields how many more are done, page by page."""
        return self._into(rows, _folder(self.fleet, folder))

    def into_archive(self, rows: Iterable[Row], path: Path) -> Iterator[int]:
        """All of them in one archive."""
        registry = self.fleet.registry

        def known(name: str, data: bytes) -> bool:
            return any(row.pem.encode() in data for row in registry.certificates(name) if row.revoked_at is None)

        return self._into(rows, Archive(path, self.fleet.clock(), known))

    def report(self, place: Path) -> BulkIssued:
        """What was done; raises `Partial` or `FleetError` with it where lines were refused."""
        counts = self.counts
        done = BulkIssued(
            counts["added"], counts["issued"], counts["unchanged"], counts["refused"], tuple(self.errors), str(place)
        )
        if not done.refused:
            return done
        first = done.errors[0]
        kind = Partial if done.issued + done.unchanged else FleetError
        record = {key: counts[key] for key in counts} | {
            "errors": [{"line": each.line, "id": each.id, "error": each.error} for each in done.errors],
            "place": done.place,
        }
        raise kind(
            f"{done.refused} of the devices were refused, the first at line {first.line}: {first.error}",
            "mend them and repeat it: what is done already stays as it is",
            record=record,
        )

    def _into(self, rows: Iterable[Row], opened: "AbstractContextManager[Sink]") -> Iterator[int]:
        registry, rest = self.fleet.registry, iter(rows)
        with opened as sink:
            while page := list(itertools.islice(rest, PAGE)):
                with registry.transaction():
                    for row in page:
                        self._take(row, sink)
                    sink.page()
                yield len(page)

    def _take(self, row: Row, sink: Sink) -> None:
        try:
            if row.error:
                raise UsageError(row.error)
            outcomes = self._provide(row, sink)
        except FleetError as error:
            if type(error) is FleetError or error.status > Conflict.status:
                raise
            self.counts["refused"] += 1
            if len(self.errors) < ERRORS_SHOWN:
                self.errors.append(RefusedRow(row.line, row.name, error.message))
            return
        for outcome in outcomes:
            self.counts[outcome] += 1

    def _provide(self, row: Row, sink: Sink) -> Sequence[str]:
        fleet, registry = self.fleet, self.fleet.registry
        path = DevicePath(fleet.context.tenant, row.fields["location"], row.fields["type"], row.fields["id"])
        profile = self.profile
        if profile is not None and not profile.takes(path.device_id):
            raise UsageError(f"profile `{profile.name}` takes no device called `{path.device_id}`")
        labels = {**(profile.labels if profile else {}), **row.labels}
        device = Device(path, labels, created_at=self._now, profile=profile.name if profile else None)
        with registry.transaction():
            added = registry.add_device(device, actor=fleet.actor)
            if not added:
                device = registry.device(device.id)
                check_may_hold(device)
                if sink.holds(device.id):
                    return ["unchanged"]
            secret = ec.generate_private_key(ec.SECP256R1())
            issuer = fleet.certificates.issuer
            issued = issuer.issue(device, secret.public_key(), days=profile.days if profile else None)
            private = {bundle.KEY: private_pem(secret), bundle.CERTIFICATE: issuer.chain(issued)}
            sink.put(device.id, private | self._bundler.contents(path))
            if not added and device.state in (LifeCycle.MANUFACTURED, LifeCycle.REVOKED):
                registry.move_device(device.id, LifeCycle.CLAIMED, event="issued", at=self._now, actor=fleet.actor)
        return ["added", "issued"] if added else ["issued"]

    @cached_property
    def _bundler(self) -> Bundler:
        return Bundler(self.fleet, self.profile)

    @cached_property
    def _now(self) -> str:
        return rfc3339(self.fleet.clock())


@dataclass(frozen=True)
class _Folder:
    """A folder of bundles: each under a temporary name until it is whole; nothing is synced before the end."""

    fleet: "LocalFleet"
    folder: Path
    resumed: bool

    def holds(self, device_id: str) -> bool:
        target = self.folder / device_id
        if not target.exists():
            return False
        if good_row(self.fleet, target, bundle.FILES, device_id) is not None:
            return True
        if self.resumed and {each.name for each in target.iterdir()} <= set(bundle.FILES):
            return False
        raise Conflict(
            f"{printable(str(target))} exists already and holds no good bundle of `{device_id}`",
            f"name another folder, or move it away: mv {target} {target}.old",
        )

    def put(self, name: str, contents: Mapping[str, bytes]) -> None:
        fresh, target = self.folder / f".{name}.new", self.folder / name
        if target.exists() and self.holds(name):
            raise Conflict(f"{printable(str(target))} exists already")
        shutil.rmtree(target, ignore_errors=True)
        shutil.rmtree(fresh, ignore_errors=True)
        try:
            fresh.mkdir(0o700)
            for each, data in contents.items():
                _write(fresh / each, data, 0o600 if each == bundle.KEY else 0o644)
            fresh.rename(target)
        except OSError as error:
            reason = (error.strerror or "unknown reason").lower()
            raise FleetError(f"cannot write {printable(str(target))}: {reason}", f"df {self.folder}") from error

    def page(self) -> None:
        """What a stopped batch leaves is made anew: that needs no sync before the end."""


@contextmanager
def _folder(fleet: "LocalFleet", folder: Path) -> Iterator[_Folder]:
    mark = files.private_folder(folder) / MARK
    resumed = mark.exists()
    with files.lock(mark):
        yield _Folder(fleet, folder, resumed)
        os.sync()
        mark.unlink(missing_ok=True)


def _write(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)
