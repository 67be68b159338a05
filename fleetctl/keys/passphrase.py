"""Passphrases and PINs: from a private file, the environment or the terminal, never from an argument list."""

import getpass
import os
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from fleetctl import files
from fleetctl.errors import ConfigError
from fleetctl.model.device import printable

FOR_PASSPHRASE = ("FLEETCTL_PASSPHRASE_FILE", "FLEETCTL_PASSPHRASE")
FOR_PIN = ("FLEETCTL_PIN_FILE", "FLEETCTL_PIN")
"""Variables: the first names a file, the second holds the secret itself."""
LEAST_LENGTH = 8
_LIMIT = 4096


@dataclass(frozen=True, slots=True)
class Pin:
    """A PIN, and whether a person typed it just now: only then may it be a token's last try."""

    text: str = field(repr=False)
    typed: bool


def passphrase(place: str) -> str:
    """The passphrase of the keys in `place`, as messages name it.

    Raises:
        ConfigError: there is none, and nobody to ask.
        NotFound, Denied: the file that should hold it is missing, or may be read by others.
    """
    return _given(*FOR_PASSPHRASE) or _typed(place, f"passphrase of the keys in {place}: ")


def new_passphrase(place: str) -> str:
    """A passphrase for keys that are to be made: typed twice, and not too short; raises as above."""
    text = _given(*FOR_PASSPHRASE) or _typed(place, "new passphrase for the keys: ", "once more: ")
    if len(text) < LEAST_LENGTH:
        raise ConfigError(
            f"the passphrase has fewer than {LEAST_LENGTH} characters", "take a longer one: openssl rand -base64 18"
        )
    return text


def pin(token: str, source: str | None = None) -> Pin:
    """The PIN of a token; `source` is a reference (`env:NAME`, `file:PATH`) that goes before the environment; raises as above."""
    given = _referred(source) if source else _given(*FOR_PIN)
    return Pin(given, typed=False) if given else Pin(_ask(f"PIN of token {token}: ", FOR_PIN[0]), typed=True)


def _given(file_variable: str, variable: str) -> str:
    path = os.environ.get(file_variable)
    return _from_file(Path(path)) if path else os.environ.get(variable, "")


def _referred(source: str) -> str:
    scheme, _, place = source.partition(":")
    if scheme == "file" and place:
        return _from_file(Path(place))
    text = os.environ.get(place, "") if scheme == "env" else ""
    if not text:
        raise ConfigError(f"the PIN is not at {printable(source)}", "name env:NAME or file:PATH in pin-source")
    return text


def _from_file(path: Path) -> str:
    """The first line of a private file."""
    try:
        text = files.read_private(path.expanduser(), _LIMIT).decode()
    except UnicodeDecodeError:
        text = ""  # its text would carry the secret into a traceback
    line = next(iter(text.splitlines()), "")
    if not line:
        raise ConfigError(f"file {printable(str(path))} has no secret in its first line", f"write it there: editor {path}")
    return line


@cache
def _memory() -> dict[str, str]:
    """What was typed for which place; a process that opens three keys asks once, and forgets when it ends."""
    return {}


def _typed(place: str, prompt: str, again: str = "") -> str:
    memory = _memory()
    if place not in memory:
        text = _ask(prompt, FOR_PASSPHRASE[0])
        if again and _ask(again, FOR_PASSPHRASE[0]) != text:
            raise ConfigError("the two passphrases differ", "run it again, and type the same twice")
        memory[place] = text
    return memory[place]


def _ask(prompt: str, variable: str) -> str:
    what = prompt.removesuffix(": ")
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise ConfigError(f"no {what}: there is no terminal to ask on", f"export {variable}=PATH, a file that only you can read")
    try:
        text = getpass.getpass(prompt)
    except EOFError:
        text = ""
    if not text:
        raise ConfigError(f"no {what}: nothing was typed", f"type it, or export {variable}=PATH")
    return text
