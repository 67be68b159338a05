"""Errors, put into words and an exit status: once, here."""

import os
import re
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from fleetctl import __version__
from fleetctl.cli.parser import ClickException, NoArgsIsHelpError, UsageError
from fleetctl.errors import FleetError
from fleetctl.present.text import json_text, safe

DEFECT = 70
_SECRETS = re.compile(
    r"-----BEGIN[^-]*PRIVATE KEY-----.*?(?:-----END[^-]*-----|\Z)|(?<=://)[^/\s@]+@|(?i:(?<=password=)\S+)", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Failure:
    """What the person and the script are told."""

    code: str
    message: str
    hint: str
    status: int


def failure_of(error: Exception) -> Failure:
    """The failure that an exception is; writes the traceback of a defect to a log file."""
    if isinstance(error, FleetError):
        return Failure(error.code, error.message, error.hint, error.status)
    if isinstance(error, ClickException):
        return _usage(error)
    log = write_log(error)
    where = f"{type(error).__name__} in {_place(error)}"
    return Failure("defect", f"a defect in fleetctl: {where}", f"report it with the traceback in {log}", DEFECT)


def report(failure: Failure, out: TextIO, as_json: bool) -> None:
    """Print `error:` and `hint:`, and for programs one JSON line as the last."""
    hint = f"\nhint: {safe(failure.hint)}\n" if failure.hint else ""
    out.write(f"error: {safe(failure.message)}\n{hint}")
    if as_json:
        told = {"code": failure.code, "message": failure.message, "hint": failure.hint or None, "status": failure.status}
        out.write(json_text({"error": told}) + "\n")
    out.flush()


def is_help(error: Exception) -> bool:
    """Whether it is a group without a verb, whose message is its help."""
    return isinstance(error, NoArgsIsHelpError)


def _usage(error: ClickException) -> Failure:
    text = error.format_message().strip().rstrip(".")
    message = re.sub(r"'([^']*)'", r"`\1`", text[:1].lower() + text[1:])
    ctx = error.ctx if isinstance(error, UsageError) else None
    return Failure("usage", message, f"{ctx.command_path if ctx else 'fleetctl'} --help", 2)


def _place(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if f"{os.sep}fleetctl{os.sep}" in frame.filename] or frames
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "fleetctl"


def write_log(error: Exception) -> Path:
    """Write the traceback, without arguments and secrets, to a file that only its owner reads; return where."""
    text = f"fleetctl {__version__}, Python {sys.version.split()[0]}\n" + trace(error)
    name = f"defect-{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}.log"
    for folder in (_data_folder() / "logs", Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with os.fdopen(os.open(folder / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
                file.write(text)
            return folder / name
        except OSError:
            continue
    return Path("(no folder could be written)")


def trace(error: Exception) -> str:
    """The traceback with its causes, secrets blotted out."""
    return _SECRETS.sub("(secret)", "".join(traceback.format_exception(error)))


def _data_folder() -> Path:
    moved = os.environ.get("FLEETCTL_HOME")
    return Path(moved) if moved else Path.home() / ".local" / "share" / "fleetctl"


def wants_json(words: list[str]) -> bool:
    """Whether these words, or the environment, ask for JSON; parsing may have failed."""
    asked = os.environ.get("FLEETCTL_OUTPUT", "")
    before = words[: words.index("--")] if "--" in words else words
    for index, word in enumerate(before):
        if word in ("-o", "--output"):
            asked = before[index + 1] if index + 1 < len(before) else ""
        elif word.startswith("--output="):
            asked = word.removeprefix("--output=")
        elif word.startswith("-o"):
            asked = word.removeprefix("-o")
    return asked.removeprefix("=") in ("json", "jsonl")
