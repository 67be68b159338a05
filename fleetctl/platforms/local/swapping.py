"""A key and its certificate take the place of others together: whoever reads both at any moment reads a pair.

Two files cannot be renamed at once, but one link can: while they are swapped, both names are links into a folder whose one link
says which pair counts. Links with the old content come first, then that one link is turned, then plain files take their places.
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from fleetctl import files
from fleetctl.errors import FleetError
from fleetctl.model.device import printable
from fleetctl.platforms.local.staging import staged, sync_folder, write

LIMIT = 1 << 20
_OLD, _NEW, _NOW = "old", "new", "now"
_KEY, _CERTIFICATE = "key", "certificate"

Step: TypeAlias = Callable[[str], None]
"""Told each step that was made, by name."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Where a key and its certificate are; `.new` and `.prev` beside them are their successors and predecessors."""

    key: Path
    certificate: Path

    @property
    def new(self) -> "Pair":
        return Pair(beside(self.key, "new"), beside(self.certificate, "new"))

    @property
    def previous(self) -> "Pair":
        return Pair(beside(self.key, "prev"), beside(self.certificate, "prev"))

    @property
    def folder(self) -> Path:
        """What the links lead into while they are swapped."""
        return self.key.with_name(f".{self.key.name}.swap")


def beside(path: Path, word: str) -> Path:
    return path.with_name(f"{path.name}.{word}")


def swap(pair: Pair, step: Step) -> None:
    """Put the `.new` ones into their places, and keep those that were there as `.prev`; a new key is optional.

    Stopped at any point it leaves a pair, and `settle` finishes it.
    """
    certificate = files.read_limited(pair.new.certificate, LIMIT)
    files.write_atomic(pair.previous.certificate, files.read_limited(pair.certificate, LIMIT))
    step("certificate kept")
    if not pair.new.key.exists():
        pair.new.certificate.replace(pair.certificate)
        sync_folder(pair.certificate.parent)
        step("certificate placed")
        return
    old, new = (files.read_private(path, LIMIT) for path in (pair.key, pair.new.key))
    files.write_atomic(pair.previous.key, old, 0o600)
    step("key kept")
    with staged(pair.folder) as fresh:
        contents = {_OLD: (old, files.read_limited(pair.certificate, LIMIT)), _NEW: (new, certificate)}
        for name, (secret, public) in contents.items():
            (fresh / name).mkdir(0o700)
            write(fresh / name / _KEY, secret, 0o600)
            write(fresh / name / _CERTIFICATE, public)
        (fresh / _NOW).symlink_to(_OLD)
    step("prepared")
    settle(pair, step)


def settle(pair: Pair, step: Step) -> bool:
    """Finish a swap that was stopped; False if there was none."""
    now = pair.folder / _NOW
    if not pair.folder.exists():
        return False
    try:
        if now.is_symlink():
            _turn(pair, now, step)
        shutil.rmtree(pair.folder)
        for path in (pair.new.key, pair.new.certificate):
            path.unlink(missing_ok=True)
    except OSError as error:
        reason = (error.strerror or "unknown reason").lower()
        raise FleetError(f"cannot swap {printable(str(pair.certificate))}: {reason}", "free the disk, and repeat it") from error
    return True


def _turn(pair: Pair, now: Path, step: Step) -> None:
    if now.readlink() == Path(_OLD):
        _link(pair.key, now / _KEY)
        step("key linked")
        _link(pair.certificate, now / _CERTIFICATE)
        step("certificate linked")
        _link(now, Path(_NEW))
        step("turned")
    files.write_atomic(pair.key, files.read_limited(pair.folder / _NEW / _KEY, LIMIT), 0o600)
    step("key placed")
    files.write_atomic(pair.certificate, files.read_limited(pair.folder / _NEW / _CERTIFICATE, LIMIT))
    step("certificate placed")
    now.unlink()


def _link(path: Path, target: Path) -> None:
    """A link in the place of whatever is there, at once."""
    fresh = path.with_name(f".{path.name}.link")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(os.path.relpath(target, path.parent) if target.is_absolute() else target)
    fresh.rename(path)
