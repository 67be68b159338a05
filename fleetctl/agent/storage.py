"""A device's durable memory in a folder: two slots, the record of what is in them, a download under way.

state.json          the record, replaced atomically
slots/A/image       slots/B/image
download/<sha256>   an artifact, as far as it has come
twin.json           the last desired document that was applied
trust.cose          the last trust document that counted
reply.json          the reply to a command that a reboot interrupted
"""

import errno
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from fleetctl import files
from fleetctl.agent import record as codec
from fleetctl.errors import ConfigError, Conflict, Malformed, NotFound
from fleetctl.model import update
from fleetctl.model.attempt import Image, Record, Slot

CHUNK = 1 << 18
SLOT_SIZE = 256 << 20
RECORD_LIMIT = 1 << 20
RESERVE = 1 << 16
"""Bytes of disk that an update leaves for the record, the twin and the trust document."""

Writer: TypeAlias = Callable[[Path, bytes], None]


class Damaged(Exception):
    """What was read back is not what was written."""


def _free_bytes(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


class Storage:
    """One device's folder. `write` is the only way in which a small file changes; `free` asks the disk."""

    def __init__(
        self,
        folder: Path,
        write: Writer = files.write_atomic,
        slot_size: int = SLOT_SIZE,
        free: Callable[[Path], int] = _free_bytes,
    ) -> None:
        self.folder = folder
        self.slot_size = slot_size
        self._write = write
        self._free = free

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Hold the folder for this process; raises `Conflict` where another agent does."""
        files.private_folder(self.folder)
        with (self.folder / "lock").open("wb") as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise Conflict(f"another agent runs on `{self.folder}`", "end it, or name another --state") from error
            yield

    # -- the record

    def prepare(self, make_factory: Callable[[], bytes], version: str) -> None:
        """At the very first start: the factory image in slot A, then the record that says so."""
        for part in ("slots/A", "slots/B", "download"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        if (self.folder / "state.json").exists():
            return
        factory = make_factory()
        self._write(self.slot(Slot.A), factory)
        digest = f"sha256:{hashlib.sha256(factory).hexdigest()}"
        self.save(Record(a=Image(digest, version, len(factory))))

    def load(self) -> Record:
        """The record; raises `ConfigError` where the folder holds none that could have been written here."""
        path = self.folder / "state.json"
        hint = f"move `{self.folder}` away to begin again with the factory image"
        try:
            return codec.decode(files.read_limited(path, RECORD_LIMIT))
        except Malformed as error:
            raise ConfigError(f"`{path}` is damaged: {error.message}", hint) from error

    def save(self, record: Record) -> None:
        self._write(self.folder / "state.json", codec.encode(record))

    def boot(self) -> tuple[Record, tuple[Record, ...]]:
        """The bootloader: count the start and the try, check the trial image, and store it all before anything runs.

        Returns the record, and those on the way to it that say something new of the attempt.
        """
        held = self.load()
        trial = held.image(held.trial) if held.trial else None
        intact = trial is None or held.trial is None or self.digest(self.slot(held.trial)) == trial.digest
        records = update.boot(held, intact)
        self.save(records[-1])
        return records[-1], tuple(record for record in records if record.attempt != held.attempt)

    # -- images

    def slot(self, slot: Slot) -> Path:
        return self.folder / "slots" / slot / "image"

    def partial(self, digest: str) -> Path:
        """Where a download goes; raises `ValueError` for what is no digest."""
        kind, _, name = digest.partition(":")
        if kind != "sha256" or len(name) != 64 or set(name) - set("0123456789abcdef"):
            raise ValueError(f"{digest!r} is no sha256 digest")
        return self.folder / "download" / name

    def write_slot(self, slot: Slot, image: Image) -> None:
        """Overwrite a slot with what was downloaded and read it back; raises `Damaged`, and `OSError` when there is no space."""
        target = self.slot(slot)
        with self.partial(image.digest).open("rb") as source, target.open("wb") as sink:
            for chunk in _chunks(source.read):
                sink.write(chunk)
            sink.flush()
            os.fsync(sink.fileno())
        if self.digest(target) != image.digest:
            raise Damaged(f"slot {slot} does not read back as it was written")

    def digest(self, path: Path) -> str:
        """`sha256:<hex>` of a file; empty where there is none."""
        hashed = hashlib.sha256()
        try:
            with path.open("rb") as source:
                for chunk in _chunks(source.read):
                    hashed.update(chunk)
        except FileNotFoundError:
            return ""
        return f"sha256:{hashed.hexdigest()}"

    def check_space(self, slot: Slot, image: Image) -> None:
        """Raise `OSError` (no space) unless the rest of a download, its copy in the slot and the small documents fit."""
        missing = sum(max(0, image.size - _length(path)) for path in (self.partial(image.digest), self.slot(slot)))
        free = self._free(self.folder)
        if missing and missing + RESERVE > free:
            raise OSError(errno.ENOSPC, f"{missing + RESERVE} bytes of disk are needed and {free} are free")

    def give_up(self, slot: Slot) -> None:
        """Free what an update that does not fit has taken: its download, and the slot that it was filling."""
        self.drop_downloads()
        self.slot(slot).unlink(missing_ok=True)

    def drop_downloads(self, keep: str = "") -> None:
        """Remove what was downloaded, except the artifact with the digest `keep`."""
        for path in (self.folder / "download").iterdir():
            if not keep or path != self.partial(keep):
                path.unlink(missing_ok=True)

    # -- small documents

    def read(self, name: str, limit: int) -> bytes | None:
        """A small document, or None where there is none that is readable and within the limit."""
        try:
            return files.read_limited(self.folder / name, limit)
        except (NotFound, Malformed):
            return None

    def write(self, name: str, data: bytes) -> None:
        self._write(self.folder / name, data)

    def remove(self, name: str) -> None:
        (self.folder / name).unlink(missing_ok=True)


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _chunks(read: Callable[[int], bytes]) -> Iterator[bytes]:
    while chunk := read(CHUNK):
        yield chunk
