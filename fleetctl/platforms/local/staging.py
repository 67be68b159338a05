"""Folders that are either whole or not there."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fleetctl import files
from fleetctl.errors import Conflict, Denied, FleetError
from fleetctl.model.device import printable


@contextmanager
def staged(target: Path, prefix: str | None = None) -> Iterator[Path]:
    """A private folder beside `target` that takes its name when the block ends well, and is gone when it does not.

    Raises:
        Conflict: something that is not an empty folder has the name already.
    """
    files.private_folder(target.parent)
    fresh = _make(target, prefix)
    try:
        yield fresh
        _sync(fresh)
        _rename(fresh, target)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    sync_folder(target.parent)


def is_vacant(target: Path) -> bool:
    """Whether `staged` may give that name: nothing, or an empty folder, has it."""
    try:
        return not (target.exists() or target.is_symlink()) or (target.is_dir() and not any(target.iterdir()))
    except OSError as error:
        raise Denied(f"cannot look into {printable(str(target))}: {_reason(error)}", f"ls -ld {target}") from error


def _make(target: Path, prefix: str | None) -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix=prefix or f".{target.name[:64]}.", dir=target.parent))
    except OSError as error:
        raise FleetError(f"cannot write {printable(str(target))}: {_reason(error)}", f"ls -ld {target.parent}") from error


def _rename(fresh: Path, target: Path) -> None:
    try:
        fresh.rename(target)
    except (FileExistsError, NotADirectoryError) as error:
        raise _taken(target) from error
    except OSError as error:
        if target.exists():
            raise _taken(target) from error
        raise FleetError(f"cannot write {printable(str(target))}: {_reason(error)}", f"ls -ld {target.parent}") from error


def _taken(target: Path) -> Conflict:
    return Conflict(f"{printable(str(target))} exists already", f"name another, or move it away: mv {target} {target}.old")


def write(path: Path, data: bytes, mode: int = 0o644) -> None:
    """A new file in a folder that nobody else uses yet; synced with the folder."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def _sync(folder: Path) -> None:
    for root, _folders, names in os.walk(folder):
        for name in names:
            _sync_path(Path(root) / name, os.O_RDONLY)
        sync_folder(Path(root))


def sync_folder(path: Path) -> None:
    """Return when the names in a folder are on the disk."""
    _sync_path(path, os.O_RDONLY | os.O_DIRECTORY)


def _sync_path(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: OSError) -> str:
    return (error.strerror or "unknown reason").lower()
