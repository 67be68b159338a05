"""An identity on this machine in the forms that other programs take; every file that holds a key is its owner's alone."""

import io
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fleetctl import files
from fleetctl.errors import ConfigError, NotFound, UsageError
from fleetctl.keys.store import load_key, private_pem
from fleetctl.model.device import printable
from fleetctl.pki.authority import common_names, pem, read_certificates
from fleetctl.pki.pkcs12 import archive
from fleetctl.platforms.local.certificates import OPERATOR_FILES, OPERATOR_KEY
from fleetctl.wire import bundle

if TYPE_CHECKING:
    from collections.abc import Callable

FORMATS = ("p12", "pem", "bundle")
LIMIT = 1 << 20


@dataclass(frozen=True, slots=True)
class Exported:
    """A file that was written: `format` is p12, pem or bundle."""

    subject: str
    format: str
    file: str
    encrypted: bool


def export(name: str, form: str, folder: Path, target: Path, passphrase: "Callable[[], str]") -> Exported:
    """Write the identity in `folder`, which must be that of `name`; `passphrase` is asked for where one is needed.

    Raises:
        NotFound: the folder is no bundle. UsageError: it is somebody else's, or there is no such form.
        Conflict: the file exists.
    """
    if form not in FORMATS:
        raise UsageError(f"{printable(form)} is no form of an identity", f"one of: {', '.join(FORMATS)}")
    names = bundle.FILES if (folder / bundle.KEY).exists() else OPERATOR_FILES
    key_path, certificate_path = folder / names[0], folder / names[1]
    if not key_path.exists():
        raise NotFound(f"{printable(str(folder))} holds no key", f"it would be {bundle.KEY} or {OPERATOR_KEY}: ls {folder}")
    key, chain = load_key(key_path), read_certificates(certificate_path)
    if common_names(chain[0]) != [name]:
        raise UsageError(
            f"{printable(str(folder))} is not the bundle of {printable(name)}", f"it is that of {common_names(chain[0])}"
        )
    if key.public_key() != chain[0].public_key():
        raise ConfigError(f"key and certificate in {printable(str(folder))} do not match", f"fleetctl certs rekey {folder}")
    match form:
        case "p12":
            data = archive(name, key, chain, passphrase())
        case "pem":
            data = private_pem(key) + pem(*chain)
        case _:
            data = _tar(folder, names)
    files.write_atomic(target, data, 0o600, replace=False)
    return Exported(name, form, str(target), form == "p12")


def _tar(folder: Path, names: tuple[str, ...]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as made:
        for name in names:
            data = files.read_limited(folder / name, LIMIT)
            member = tarfile.TarInfo(f"{folder.absolute().name}/{name}")
            member.size, member.mode = len(data), 0o600 if name.endswith(".key") else 0o644
            made.addfile(member, io.BytesIO(data))
    return out.getvalue()
