"""What a run in the factory was about to do: read by the next one, if it was stopped."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fleetctl import files
from fleetctl.wire.document import dump_json, parse_json
from fleetctl.wire.fields import Fields, object_fields

LIMIT = 65_536


@dataclass(frozen=True, slots=True)
class Pending:
    """An archive on its way into the folder `out`; its first certificate tells whether its devices are made."""

    out: Path
    name: str
    certificate: str


@dataclass(frozen=True, slots=True)
class Journal:
    """One file for each batch: how many archives it has, and the one that is on its way."""

    folder: Path
    batch: str

    @property
    def path(self) -> Path:
        return self.folder / f"{self.batch}.json"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nobody else works on this batch."""
        files.private_folder(self.folder)
        with files.lock(self.folder / f"{self.batch}.lock"):
            yield

    def next_name(self, out: Path) -> tuple[int, str]:
        """The number and the name of the next archive: no folder in `out` has that name."""
        number = self._number() + 1
        while (out / self._name(number)).exists():
            number += 1
        return number, self._name(number)

    def write(self, number: int, pending: Pending | None) -> None:
        told = None
        if pending is not None:
            told = {"out": str(pending.out.absolute()), "name": pending.name, "certificate": pending.certificate}
        document = {"archives": number, "pending": told}
        files.write_atomic(self.path, dump_json(document), 0o600)

    def forget(self) -> None:
        self.write(self._number(), None)

    def pending(self) -> Pending | None:
        """Raises `Malformed` for a file that says something else."""
        fields = self._read()
        if fields is None or fields.absent("pending"):
            return None
        told = object_fields(f"`{self.path}`", fields.mapping("pending"))
        return Pending(Path(told.text("out", limit=4096)), told.text("name"), told.text("certificate"))

    def _number(self) -> int:
        fields = self._read()
        return 0 if fields is None else fields.integer("archives")

    def _read(self) -> Fields | None:
        if not self.path.exists():
            return None
        return object_fields(f"`{self.path}`", parse_json(files.read_limited(self.path, LIMIT)))

    def _name(self, number: int) -> str:
        return f"{self.batch}-{number:04d}"
