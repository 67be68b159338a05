"""Many bundles in one file: a tar archive, written from front to back and taken up again where an earlier run was stopped."""

import contextlib
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from fleetctl.errors import Conflict, FleetError
from fleetctl.model.device import printable
from fleetctl.platforms.local.staging import sync_folder

BLOCK = 512
_FOLDER, _FILE = b"5", b"0"
_OWNER = b"0000000\0" * 2
_REST = b"\0" * 100 + b"ustar\00000" + b"\0" * 247
_REST_SUM = sum(_REST) + 8 * ord(" ")
"""What the rest counts in the sum of a header, in which the sum itself stands for eight spaces."""
_SECRET_MODES = {_FOLDER: 0o700, _FILE: 0o600}


@dataclass
class Archive:
    """An archive under a temporary name beside `path`, private from the start; leaving the block well gives it its name.

    `keep` gives `PATH.partial` to the next run where the block fails; what that holds and `known` accepts is kept.
    """

    path: Path
    now: float
    known: Callable[[str, bytes], bool]
    held: frozenset[str] = frozenset()

    def __enter__(self) -> Self:
        if self.path.exists():
            raise Conflict(
                f"{printable(str(self.path))} exists already", f"name another, or move it away: mv {self.path} {self.path}.old"
            )
        try:
            descriptor = os.open(self._partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise self._failed(error) from error
        self._file: BinaryIO = os.fdopen(descriptor, "r+b")
        end, names = _kept(self._file, self.known)
        self._file.seek(end)
        self._file.truncate()
        self.held = frozenset(names)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        with self._file:
            if kind is None:
                self._file.write(b"\0" * (2 * BLOCK))
                self.page()
        if kind is None:
            self._partial.rename(self.path)
            sync_folder(self.path.parent)

    def holds(self, device_id: str) -> bool:
        return device_id in self.held

    def put(self, name: str, contents: Mapping[str, bytes]) -> None:
        """A folder and its files, all for the owner only."""
        parts = [_header(f"{name}/", 0, _FOLDER, self.now)]
        for each, data in contents.items():
            parts += (_header(f"{name}/{each}", len(data), _FILE, self.now), data, b"\0" * (-len(data) % BLOCK))
        try:
            self._file.write(b"".join(parts))
        except OSError as error:
            raise self._failed(error) from error

    def page(self) -> None:
        """Return when everything so far is on the disk."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._failed(error) from error

    @property
    def _partial(self) -> Path:
        return self.path.with_name(f"{self.path.name}.partial")

    def _failed(self, error: OSError) -> FleetError:
        reason = (error.strerror or "unknown reason").lower()
        return FleetError(f"cannot write {printable(str(self._partial))}: {reason}", f"df {self.path.parent}")


def _kept(file: BinaryIO, known: Callable[[str, bytes], bool]) -> tuple[int, list[str]]:
    """Where the last folder ends that is whole and known, and the names of the folders up to there."""
    end, names = 0, []
    for name, after, contents in _folders(file):
        if not any(known(name, data) for data in contents.values()):
            break
        end = after
        names.append(name)
    return end, names


def _folders(file: BinaryIO) -> Iterator[tuple[str, int, dict[str, bytes]]]:
    """Name, end and files of each folder that another one, or the end of the file, follows."""
    name, end, contents = "", 0, dict[str, bytes]()
    with contextlib.suppress(tarfile.TarError, EOFError, OSError), tarfile.open(fileobj=file, mode="r:") as archive:
        for member in archive:
            if member.isdir():
                if contents:
                    yield name, end, contents
                name, contents = member.name, {}
                continue
            stream = archive.extractfile(member)
            data = b"" if stream is None else stream.read()
            if len(data) != member.size:
                return
            contents[member.name] = data
            end = member.offset_data + member.size + -member.size % BLOCK
    if contents:
        yield name, end, contents


def _header(name: str, size: int, kind: bytes, now: float) -> bytes:
    """A header of POSIX.1-1988 (ustar)."""
    raw = name.encode("ascii")
    if len(raw) > 100:
        raise Conflict(f"{printable(name)} is too long for an archive", "write bundles into a folder: --bundle DIR")
    start = raw.ljust(100, b"\0") + b"%07o\0" % _SECRET_MODES[kind] + _OWNER + b"%011o\0%011o\0" % (size, int(now))
    return start + b"%06o\0 " % (sum(start) + _REST_SUM + kind[0]) + kind + _REST
