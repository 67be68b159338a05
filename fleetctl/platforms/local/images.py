"""Which image a device leaves the factory with: named by its digest, or read to find that out."""

import hashlib
from pathlib import Path

from fleetctl.errors import NotFound, UsageError
from fleetctl.model.device import printable
from fleetctl.wire.fields import DIGEST


def image_digest(file: Path | None, said: str | None) -> str:
    """Raises `UsageError` unless exactly one of both is given, and for a digest that is none."""
    if (file is None) == (said is None):
        raise UsageError("the first firmware is named by a file or by its digest", "--firmware FILE, or --digest sha256:HEX")
    if file is not None:
        return _read(file)
    if said is None or not DIGEST.fullmatch(said):
        raise UsageError(f"{printable(said or '')} is not a digest", "sha256: and 64 hexadecimal digits in lower case")
    return said


def _read(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"
    except OSError as error:
        raise NotFound(f"file {printable(str(file))} cannot be read: {error.strerror}", f"ls -l {file}") from error
