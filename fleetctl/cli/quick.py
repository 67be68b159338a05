"""TAB over device ids, answered before a parser is loaded; whatever is not as simple as that is left to `cli.tab`."""

# pathlib alone would cost as much as the answer does
# ruff: noqa: PTH100, PTH111, PTH118, PTH123
import os
import sqlite3
from collections.abc import Mapping

MOST = 200
BEYOND = "\U0010ffff"
ONE = ("provision show", "provision status", "provision replace", "twin get", "twin edit", "twin history", "twin revert")
"""Verbs whose first word is a device."""
MANY = (
    *("provision list", "provision remove", "provision suspend", "provision resume", "provision decommission"),
    *("twin diff", "twin patch", "twin replace"),
)
"""Verbs all of whose words are devices."""


def answer(instruction: str, environ: Mapping[str, str]) -> str | None:
    """What the shell is told, None where a parser has to say."""
    words = _words(instruction, environ)
    if words is None or not _is_device(words[:-1]):
        return None
    ids = device_ids(words[-1], environ)
    if instruction != "complete_zsh":
        return "\n".join(ids)
    return "_arguments '*: :(({}))'".format("\n".join(f'"{each}"' for each in ids)) if ids else "_files"


def device_ids(beginning: str, environ: Mapping[str, str]) -> list[str]:
    """Ids of the devices of the current context that begin like this; none where it has no file."""
    statement = "SELECT id FROM devices WHERE id >= ? AND id < ? AND state <> 'retired' ORDER BY id LIMIT ?"
    path = registry(environ).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    try:
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=0.2)
    except sqlite3.Error:
        return []
    try:
        return [str(row[0]) for row in connection.execute(statement, (beginning, beginning + BEYOND, MOST))]
    except sqlite3.Error:
        return []
    finally:
        connection.close()


def registry(environ: Mapping[str, str]) -> str:
    """Where `config.locate` finds the registry's file, without what that imports."""
    moved = environ.get("FLEETCTL_HOME")
    user = environ.get("HOME") or os.path.expanduser("~")
    data = os.path.abspath(os.path.expanduser(moved)) if moved else os.path.join(user, ".local", "share", "fleetctl")
    current = os.path.join(data if moved else os.path.join(user, ".config", "fleetctl"), "current-context")
    name = environ.get("FLEETCTL_CONTEXT") or ""
    try:
        if not name:
            with open(current, encoding="utf-8") as file:
                name = file.read().strip()
    except (OSError, ValueError):
        pass
    return os.path.join(data, name or "default", "registry.db")


def _words(instruction: str, environ: Mapping[str, str]) -> list[str] | None:
    """The words up to the one that is completed, if none of them needs a shell's rules to be read."""
    if instruction == "complete_bash":
        words = environ.get("COMP_WORDS", "").split("\n")
        count = environ.get("COMP_CWORD", "")
        words = words[: int(count) + 1] if count.isdecimal() else []
    elif instruction == "complete_zsh" or environ.get("_TYPER_COMPLETE_FISH_ACTION") == "get-args":
        text = environ.get("_TYPER_COMPLETE_ARGS", "")
        words = [*text.split(), *([""] if text.endswith((" ", "\n")) else [])]
    else:
        return None
    plain = all(word.replace("-", "").replace("_", "").replace(".", "").isalnum() or not word for word in words)
    return words[1:] if len(words) > 2 and plain and not any(word.startswith("-") for word in words) else None


def _is_device(words: list[str]) -> bool:
    for size in (1, 2):
        verb, rest = " ".join(words[:size]), words[size:]
        if verb in MANY or (verb in ONE and not rest):
            return True
    return False


def main() -> bool:
    """Whether the shell has its answer."""
    said = answer(os.environ.get("_FLEETCTL_COMPLETE", ""), os.environ)
    if said is not None:
        os.write(1, f"{said}\n".encode())
    return said is not None
