"""Files that are either whole or not there, with the mode they shall have from the moment they exist."""

import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fleetctl.errors import ConfigError, Conflict, Denied, FleetError, Malformed, NotFound
from fleetctl.model.device import printable


def write_atomic(path: Path, data: bytes, mode: int = 0o644, *, replace: bool = True) -> None:
    """Write `data` under a temporary name in the same folder, sync it, and give it its name; readers see the old file or the new.

    Raises:
        Conflict: `replace` is false and the file exists.
        NotFound, Denied, ConfigError, FleetError: the folder does not exist, may not be written, is none, or is full.
    """
    temporary = path.with_name(f".{path.name[:200]}.{secrets.token_hex(8)}")
    try:
        _write_new(temporary, data, mode)
        try:
            if replace:
                temporary.replace(path)
            else:
                path.hardlink_to(temporary)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)
    except FileExistsError as error:
        raise Conflict(f"file {printable(str(path))} exists already", f"move it away first: mv {path} {path}.old") from error
    except OSError as error:
        raise _translated(error, path, "write") from error


def read_limited(path: Path, limit: int) -> bytes:
    """The whole file; raises `Malformed` when it has more than `limit` bytes, `NotFound` or `Denied` when it cannot be read."""
    return _read(path, limit)[0]


def read_private(path: Path, limit: int) -> bytes:
    """The same for a file that holds a secret: raises `Denied` where its mode lets others use it."""
    data, mode = _read(path, limit)
    if mode & 0o077:
        raise Denied(f"file {printable(str(path))} can be used by others (mode {mode:04o})", f"chmod 600 {path}")
    return data


def private_folder(path: Path) -> Path:
    """Make sure that the folder exists; one that is created here only its owner may enter."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _translated(error, path, "create") from error
    return path


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold `path` for this process alone, waiting for whoever holds it; the system lets go when the process ends."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _translated(error, path, "lock") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _read(path: Path, limit: int) -> tuple[bytes, int]:
    try:
        with path.open("rb") as file:
            data, mode = file.read(limit + 1), stat.S_IMODE(os.fstat(file.fileno()).st_mode)
    except OSError as error:
        raise _translated(error, path, "read") from error
    if len(data) > limit:
        raise Malformed(f"file {printable(str(path))} has more than {limit} bytes", "name the right file")
    return data, mode


def _write_new(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def sync_folder(path: Path) -> None:
    """Make durable which names a folder holds."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _translated(error: OSError, path: Path, verb: str) -> FleetError:
    message = f"cannot {verb} {printable(str(path))}: {(error.strerror or 'unknown reason').lower()}"
    match error:
        case FileNotFoundError():
            return NotFound(message, f"check the path: ls -ld {path.parent}")
        case PermissionError():
            return Denied(message, f"check who may use it: ls -ld {path} {path.parent}")
        case IsADirectoryError() | NotADirectoryError():
            return ConfigError(message, f"see what is there: ls -ld {path}")
    return FleetError(message, f"check the disk and the path: df {path.parent}")
