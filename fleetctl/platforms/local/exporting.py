"""An identity in the forms that other programs take; every file that holds a key is its owner's alone."""

import io
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509

from fleetctl import files
from fleetctl.errors import ConfigError, Conflict, NotFound, UsageError
from fleetctl.keys import secrets
from fleetctl.keys.store import PrivateKey, load_key
from fleetctl.model.device import printable
from fleetctl.pki.authority import chain_of, common_names, pem, read_certificates
from fleetctl.pki.pkcs12 import archive
from fleetctl.platforms.local.certificates import OPERATOR_FILES, OPERATOR_KEY
from fleetctl.platforms.local.judging import trust_of
from fleetctl.wire import bundle

if TYPE_CHECKING:
    from fleetctl.platforms.local.fleet import LocalFleet

FORMATS = ("p12", "pem", "bundle")
LIMIT = 1 << 20


@dataclass(frozen=True, slots=True)
class Exported:
    """A file that was written: `format` is p12, pem or bundle; `secret` where it holds a key, `encrypted` where that is kept."""

    subject: str
    format: str
    file: str
    secret: bool
    encrypted: bool


def export_chain(fleet: "LocalFleet", name: str, target: Path) -> Exported:
    """Write the certificate of a device, an operator or a serial number with what is between it and the root: no key.

    Raises:
        NotFound: nobody has that name. Conflict: the file exists.
    """
    shown = fleet.certificates.show(name)
    leaf = x509.load_pem_x509_certificate(shown.pem.encode())
    trust = trust_of(fleet, (), fleet.clock())
    chain = chain_of(leaf, [*trust.others, *trust.anchors])
    files.write_atomic(target, pem(*(each for each in chain if each not in trust.anchors)), replace=False)
    return Exported(shown.subject, "pem", str(target), secret=False, encrypted=False)


def export_bundle(form: str, folder: Path, target: Path, passphrase: Callable[[], str]) -> Exported:
    """Write the identity in a folder as p12 or bundle; `passphrase` is asked for where one is needed.

    Raises:
        NotFound: the folder is no bundle. ConfigError: its key is not that of its certificate.
        Conflict: the file exists.
    """
    names = _names(folder)
    if target.exists() or target.is_symlink():
        raise Conflict(f"{printable(str(target))} exists already", f"name another, or move it away: mv {target} {target}.old")
    key, chain = _identity(folder, names)
    subject = next(iter(common_names(chain[0])), "")
    data = archive(subject, key, chain, passphrase()) if form == "p12" else _tar(folder, names)
    files.write_atomic(target, data, 0o600, replace=False)
    return Exported(subject, form, str(target), secret=True, encrypted=form == "p12")


def passphrase_at(reference: str) -> str:
    """The passphrase that env:NAME, file:PATH or keyring:SERVICE/USER leads to; a file must be its owner's alone."""
    scheme, _, place = reference.partition(":")
    if scheme == "file" and place:
        files.read_private(Path(place).expanduser(), secrets.SECRET_LIMIT)
    return secrets.resolve(reference)


def _names(folder: Path) -> tuple[str, ...]:
    for names in (bundle.FILES, bundle.CLAIM_FILES, OPERATOR_FILES):
        if (folder / names[0]).is_file():
            return names
    raise NotFound(
        f"{printable(str(folder))} is no folder with a key: keys are only where the bundle was made",
        f"name that folder, with its {bundle.KEY} or {OPERATOR_KEY}; of a certificate alone: fleetctl certs export pem NAME",
    )


def _identity(folder: Path, names: Sequence[str]) -> tuple[PrivateKey, Sequence[x509.Certificate]]:
    key, chain = load_key(folder / names[0]), read_certificates(folder / names[1])
    if key.public_key() != chain[0].public_key():
        raise ConfigError(f"key and certificate in {printable(str(folder))} do not match", f"fleetctl certs rekey {folder}")
    return key, chain


def check_format(form: str) -> str:
    if form not in FORMATS:
        raise UsageError(f"{printable(form)} is no form of an identity", f"one of: {', '.join(FORMATS)}")
    return form


def _tar(folder: Path, names: tuple[str, ...]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as made:
        for name in names:
            data = files.read_limited(folder / name, LIMIT)
            member = tarfile.TarInfo(f"{folder.absolute().name}/{name}")
            member.size, member.mode = len(data), 0o600 if name.endswith(".key") else 0o644
            made.addfile(member, io.BytesIO(data))
    return out.getvalue()
