"""Devices made in numbers: keys, certificates and bundles in sealed archives, each device once, whatever interrupts it.

An archive is made in one transaction of the registry:
1. Its keys and certificates are made in memory, and the registry has them, as far as the transaction goes.
2. The journal names the archive and its first certificate.
3. The archive lies beside its place under a hidden name, on the disk.
4. The transaction ends: now the devices are made.
5. The archive gets its name, and the journal forgets it.
Stopped before 4, the next run throws the hidden archive away; stopped after it, the next run gives it its name.
"""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec

from fleetctl import files
from fleetctl.errors import FleetError
from fleetctl.keys.store import private_pem
from fleetctl.model.batch import check_batch, explained
from fleetctl.model.device import LifeCycle, printable
from fleetctl.model.profile import ProvisioningProfile
from fleetctl.platforms.local import parts
from fleetctl.platforms.local.bundling import Bundler
from fleetctl.platforms.local.journal import Journal, Pending
from fleetctl.platforms.local.parts import Made, Part
from fleetctl.platforms.local.sealing import Seal
from fleetctl.platforms.local.staging import sync_folder, write
from fleetctl.wire import bundle
from fleetctl.wire.document import rfc3339

if TYPE_CHECKING:
    from fleetctl.platforms.local.fleet import LocalFleet


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be made: devices of a batch, `count` at most, `size` in one archive, with the digest of their first firmware."""

    batch: str
    out: Path
    firmware: str
    seal: Seal
    count: int | None = None
    size: int = 500


@dataclass(frozen=True, slots=True)
class Manufactured:
    """What was made now: `archives` are folders in `folder`; `left` devices of the batch are still to be made."""

    batch: str
    made: int
    left: int
    firmware: str
    folder: str
    archives: tuple[str, ...]


def manufacture(fleet: "LocalFleet", order: Order, progress: Callable[[int], None] = lambda _: None) -> Manufactured:
    """Make the devices of a batch that have no certificate yet; repeating it after a crash finishes it.

    Raises:
        NotFound: no such batch.
        Conflict: the batch is closed, not open yet, or full.
        FleetError: an archive of an earlier run is where it cannot be reached.
    """
    return Factory(fleet, order).run(progress)


@dataclass(frozen=True)
class Factory:
    """One run for one batch; `run` lets nobody else make devices of it meanwhile."""

    fleet: "LocalFleet"
    order: Order

    def run(self, progress: Callable[[int], None]) -> Manufactured:
        self.fleet.registry.batch(self.order.batch)
        files.private_folder(self.order.out)
        done: list[str] = []
        made = 0
        with self._journal.held():
            found = self._finish()
            for name, count in self._archives():
                progress(count)
                made += count
                done.append(name)
        left = len(self.fleet.registry.waiting_in_batch(self.order.batch, -1))
        whole = [*([found] if found else []), *done]
        return Manufactured(self.order.batch, made, left, self.order.firmware, str(self.order.out), tuple(whole))

    def _archives(self) -> Iterator[tuple[str, int]]:
        made = 0
        while (size := self._size(made)) > 0:
            try:
                done = self._archive(size, raises=not made)
            except BaseException:
                with contextlib.suppress(FleetError):
                    self._finish()
                raise
            if done is None:
                return
            self._finish()
            made += done[1]
            yield done

    def _size(self, made: int) -> int:
        """How many the next archive may hold."""
        return self.order.size if self.order.count is None else min(self.order.size, self.order.count - made)

    def _archive(self, size: int, *, raises: bool) -> tuple[str, int] | None:
        """Steps 1 to 4; None where there is nothing left to make."""
        registry = self.fleet.registry
        with registry.transaction():
            room = self._room(size, raises=raises)
            names = registry.waiting_in_batch(self.order.batch, room) if room else []
            if not names:
                return None
            number, name = self._journal.next_name(self.order.out)
            made = [self._make(device_id, name) for device_id in names]
            contents = self._part(name, made).files()
            self._journal.write(number, Pending(self.order.out, name, made[0].certificate.serial))
            _store(self.order.out / hidden(name), contents)
        return name, len(made)

    def _room(self, size: int, *, raises: bool) -> int:
        """How many of `size` the batch lets in now; raises `Conflict` for none, where `raises`."""
        registry, name = self.fleet.registry, self.order.batch
        batch, used = registry.batch(name), registry.batch_used(name)
        refusal = check_batch(batch, self.fleet.clock(), used)
        if refusal is None:
            return size if batch.quota is None else min(size, batch.quota - used)
        if raises and registry.waiting_in_batch(name, 1):
            raise explained(batch, refusal, used)
        return 0

    def _make(self, device_id: str, archive: str) -> Made:
        """Key, certificate and bundle of one device; the registry says what firmware it has and where it is."""
        registry = self.fleet.registry
        device = registry.device(device_id)
        secret = ec.generate_private_key(ec.SECP256R1())
        issuer = self.fleet.certificates.issuer
        row = issuer.issue(device, secret.public_key(), days=self._profile.days if self._profile else None)
        reason = f"archive {archive}, firmware {self.order.firmware}"
        at = rfc3339(self.fleet.clock())
        registry.move_device(device_id, LifeCycle.CLAIMED, event="manufactured", at=at, reason=reason, actor=self.fleet.actor)
        contents = {bundle.KEY: private_pem(secret), bundle.CERTIFICATE: issuer.chain(row)}
        return Made(device, row, {**contents, **self._bundler.contents(device.path)})

    def _part(self, name: str, made: list[Made]) -> Part:
        at = self.fleet.clock()
        return Part(self.order.batch, name, self.order.firmware, self.order.seal, tuple(made), at, self.fleet.actor)

    def _finish(self) -> str | None:
        """Step 5 of what is on its way, or the undoing of it; the name of an archive that is whole now.

        Raises:
            FleetError: its devices are made, and it is not where it was written.
        """
        pending = self._journal.pending()
        if pending is None:
            return None
        staged, final = pending.out / hidden(pending.name), pending.out / pending.name
        if not self._is_made(pending):
            shutil.rmtree(staged, ignore_errors=True)
            self._journal.forget()
            return None
        if not final.exists():
            _name(staged, final, self._journal.path)
        self._journal.forget()
        return pending.name

    def _is_made(self, pending: Pending) -> bool:
        row = self.fleet.registry.read_one("SELECT 1 FROM certificates WHERE serial = ?", (pending.certificate,))
        return row is not None

    @cached_property
    def _journal(self) -> Journal:
        return Journal(self.fleet.context.folder / "manufacture", self.order.batch)

    @cached_property
    def _profile(self) -> ProvisioningProfile | None:
        name = self.fleet.registry.batch(self.order.batch).profile
        return None if name is None else self.fleet.registry.profile(name)

    @cached_property
    def _bundler(self) -> Bundler:
        return Bundler(self.fleet, self._profile)


def hidden(name: str) -> str:
    return f".{name}.pending"


def _store(folder: Path, contents: dict[str, bytes]) -> None:
    """Step 3: a new private folder with these files, on the disk when this returns."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(mode=0o700)
        for name, data in contents.items():
            write(folder / name, data, parts.mode_of(name))
        parts.sync(folder)
    except OSError as error:
        reason = (error.strerror or "unknown reason").lower()
        raise FleetError(f"cannot write {printable(str(folder))}: {reason}", f"df {folder.parent}") from error


def _name(staged: Path, final: Path, journal: Path) -> None:
    try:
        staged.rename(final)
        sync_folder(final.parent)
    except OSError as error:
        raise FleetError(
            f"the devices of archive `{final.name}` are made, but it is not in {printable(str(final.parent))} any more",
            f"bring that folder back and repeat this; if it is lost: rm {journal}, then fleetctl provision reset its devices",
        ) from error
