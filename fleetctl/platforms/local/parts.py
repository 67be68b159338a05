"""One archive of the factory: the sealed bundles, labels to print, and a manifest of what is in it."""

import csv
import io
import os
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fleetctl.model.certificate import device_uri
from fleetctl.model.device import Device
from fleetctl.platforms.local.sealing import Seal
from fleetctl.platforms.local.staging import sync_folder
from fleetctl.registry import CertificateRow
from fleetctl.wire import bundle
from fleetctl.wire.document import digest, dump_json, rfc3339

LABELS = "labels.csv"
MANIFEST = "manifest.json"
BUNDLES = "bundles.tar"
COLUMNS = ("serial", "id", "type", "fingerprint", "enrolment")


@dataclass(frozen=True, slots=True)
class Made:
    """One device with its certificate and the files of its bundle, its key among them."""

    device: Device
    certificate: CertificateRow
    contents: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Part:
    """What one archive is of; `at` is seconds since 1970."""

    batch: str
    name: str
    firmware: str
    seal: Seal
    made: tuple[Made, ...]
    at: float
    actor: str

    def files(self) -> dict[str, bytes]:
        """The files of its folder: only the archive holds secrets, and it is sealed."""
        sealed = self.seal.close(self._tar())
        archive = BUNDLES + self.seal.suffix
        return {archive: sealed, LABELS: self._labels(), MANIFEST: self._manifest(archive, sealed)}

    def _tar(self) -> bytes:
        """A folder for each device, named as it is; in memory only."""
        whole = io.BytesIO()
        with tarfile.open(fileobj=whole, mode="w:gz", compresslevel=1, format=tarfile.USTAR_FORMAT) as archive:
            for each in self.made:
                for name, data in each.contents.items():
                    member = tarfile.TarInfo(f"{each.device.id}/{name}")
                    member.size, member.mtime = len(data), int(self.at)
                    member.mode = 0o600 if name == bundle.KEY else 0o644
                    archive.addfile(member, io.BytesIO(data))
        return whole.getvalue()

    def _labels(self) -> bytes:
        """A line for each device; the enrolment text is short enough for a QR code: its address, and its certificate's digest."""
        text = io.StringIO()
        lines = csv.writer(text, lineterminator="\n")
        lines.writerow(COLUMNS)
        for each in self.made:
            path, seal = each.device.path, each.certificate.fingerprint
            enrolment = f"{device_uri(path)}#{seal}"
            lines.writerow((each.device.serial, each.device.id, path.device_type, seal, enrolment))
        return text.getvalue().encode()

    def _manifest(self, archive: str, sealed: bytes) -> bytes:
        devices = [
            {
                "serial": each.device.serial,
                "id": each.device.id,
                "path": str(each.device.path),
                "certificate": each.certificate.serial,
                "fingerprint": each.certificate.fingerprint,
                "notAfter": each.certificate.not_after,
            }
            for each in self.made
        ]
        head = {"batch": self.batch, "name": self.name, "archive": archive, "digest": digest(sealed), "firmware": self.firmware}
        return dump_json({**head, "createdAt": rfc3339(self.at), "actor": self.actor, "devices": devices}) + b"\n"


def mode_of(name: str) -> int:
    """The mode of a file of a part: what is sealed is nobody else's business all the same."""
    return 0o600 if name.startswith(BUNDLES) else 0o644


def sync(folder: Path) -> None:
    """Return when the files of a folder, and the folder, are on the disk."""
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    sync_folder(folder)
    sync_folder(folder.parent)
