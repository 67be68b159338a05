"""A desired document in an editor: what somebody typed is never lost, whatever is wrong with it."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fleetctl.cli.session import Session
from fleetctl.cli.twinning import FILE_LIMIT, read_document
from fleetctl.errors import ConfigError, Conflict, FleetError, Pending
from fleetctl.files import read_limited, write_atomic
from fleetctl.model.device import Device, printable
from fleetctl.model.twin import check_document, same
from fleetctl.platforms.twins import TwinChange

if TYPE_CHECKING:
    from fleetctl.platforms.twins import Twin


def edited(session: Session, device: Device, reason: str | None) -> list[TwinChange]:
    """Replace the desired document by what an editor makes of it.

    What cannot be used is opened again where somebody is there to mend it; else its file stays, and the error names it.
    """
    twin = session.twins.get(device.id)
    path = _draft(device.id, twin.desired)
    try:
        changes = _rounds(session, device, twin, path, reason)
    except FleetError as error:
        if isinstance(error, Pending) or _is_untouched(path, twin.desired):
            _remove(path)
        elif isinstance(error, Conflict):
            error.hint = f"see what it is now: fleetctl twin get {device.id}; your text is kept in {path}"
        else:
            error.hint = f"mend it and: fleetctl twin replace {device.id} -f {path} --if-version {twin.version}"
        raise
    _remove(path)
    return changes


def _rounds(session: Session, device: Device, twin: "Twin", path: Path, reason: str | None) -> list[TwinChange]:
    said: bytes | None = None
    while True:
        _open(session, path)
        before, said = said, read_limited(path, FILE_LIMIT)
        try:
            return _apply(session, device, twin, said, reason)
        except (Conflict, Pending):
            raise
        except FleetError as error:
            if not session.terminal.can_ask or said == before:
                raise
            session.say(f"{error.message}\n{error.hint}")
            session.confirm("Edit it again?")


def _apply(session: Session, device: Device, twin: "Twin", text: bytes, reason: str | None) -> list[TwinChange]:
    document = check_document(read_document(text, "the edited document"))
    if same(document, twin.desired):
        return [TwinChange(device.id, twin.version, "unchanged")]
    return list(session.twins.replace([device], document, if_version=twin.version, reason=reason))


def _open(session: Session, path: Path) -> None:
    """Raises `ConfigError` for an editor that cannot be run, `FleetError` for one that fails."""
    words = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    before = signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is meant for the editor, which begins with the default
    try:
        done = subprocess.run([*shlex.split(words), str(path)], check=False, stdout=session.terminal.stderr)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"editor {printable(words)} cannot be run: {why.lower()}", "export EDITOR=nano") from error
    finally:
        signal.signal(signal.SIGINT, before)
    if done.returncode:
        raise FleetError(f"nothing was done: editor {printable(words)} ended with {done.returncode}", "try again")


def _draft(device_id: str, document: Mapping[str, Any]) -> Path:
    """A private file of its own folder: editors leave copies beside what they edit."""
    path = Path(tempfile.mkdtemp(prefix="fleetctl-")) / f"{device_id}.json"
    write_atomic(path, _text(document).encode(), 0o600)
    return path


def _text(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _is_untouched(path: Path, document: Mapping[str, Any]) -> bool:
    """Whether nobody has typed anything."""
    try:
        return path.read_text(encoding="utf-8") == _text(document)
    except (OSError, ValueError):
        return False


def _remove(path: Path) -> None:
    shutil.rmtree(path.parent, ignore_errors=True)
