"""Completion: what TAB is answered. It reads names, never a broker, and draws nothing."""

import os
import re
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing

import typer.completion
from typer._click.shell_completion import add_completion_class
from typer._completion_classes import BashComplete, FishComplete, ZshComplete

from fleetctl import config
from fleetctl.cli.parser import Command, CompletionItem
from fleetctl.cli.quick import BEYOND, MOST, device_ids
from fleetctl.errors import FleetError

FIELDS = ("type", "location", "status", "firmware", "idle", "id", "group")
STATUSES = ("online", "offline", "stale", "unknown")
PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._/+:@-")
"""What a value may be made of without being quoted."""
_PART = re.compile(r"(?P<before>.*[,(\s])?(?P<field>[A-Za-z0-9._/-]*)(?:(?P<operator>!=|==|=)(?P<value>[^,()\s]*))?", re.DOTALL)
_LIST = re.compile(r"([A-Za-z][A-Za-z0-9._/-]*)\s+(?:not)?in\s*\([^()]*$")


class Bash(BashComplete):
    """Typer's, for a shell that takes `site=oslo` for three words."""

    def get_completion_args(self) -> tuple[list[str], str]:
        args, incomplete = super().get_completion_args()
        words: list[str] = []
        for word in [*args, *([incomplete] if incomplete else [])]:
            is_glued = bool(words) and (word == "=" or words[-1].endswith("=")) and not words[-1].startswith("-")
            words[-1:] = [words[-1] + word] if is_glued else [*words[-1:], word]
        return (words[:-1], words[-1]) if incomplete else (words, "")

    def complete(self) -> str:
        incomplete = self.get_completion_args()[1]
        beginning = "" if incomplete.startswith("-") else incomplete[: incomplete.rfind("=") + 1]
        is_split = bool(beginning) and os.environ.get("COMP_WORDS", "").endswith(incomplete) is False
        lines = super().complete().splitlines()
        return "\n".join(each.removeprefix(beginning) if is_split else each for each in lines)


class Zsh(ZshComplete):
    """Typer's, without rich to clean the help of markup that ours does not have."""

    def format_completion(self, item: CompletionItem) -> str:
        help_text = (item.help or "").replace('"', "'").replace("$", "").replace("`", "'").replace(":", "")
        value = str(item.value).replace(":", "\\\\:")
        return f'"{value}":"{help_text}"' if help_text else f'"{value}"'


class Fish(FishComplete):
    """Typer's, without rich."""

    def format_completion(self, item: CompletionItem) -> str:
        return f"{item.value}\t{' '.join(item.help.split())}" if item.help else str(item.value)


def complete(command: Command, variable: str, instruction: str) -> int:
    """Answer a shell; silence where nothing can be known."""
    add_completion_class(Bash, "bash")
    add_completion_class(Zsh, "zsh")
    add_completion_class(Fish, "fish")
    return typer.completion.shell_complete(command, {}, "fleetctl", variable, instruction)


def contexts(incomplete: str) -> list[str]:
    """Contexts, by the folders that they have."""
    try:
        folders = [each for each in config.home().data.iterdir() if each.name.startswith(incomplete)]
        return sorted(each.name for each in folders if (each / "registry.db").exists() or (each / "keys").is_dir())
    except OSError:
        return []


def devices(incomplete: str) -> list[str]:
    """Device ids of the current context that begin like this."""
    return device_ids(incomplete, os.environ)


def groups(incomplete: str) -> list[str]:
    """Groups of the current context that begin like this."""
    return _read(lambda registry: _distinct(registry, "groups", "name", incomplete))


def selectors(incomplete: str) -> list[str]:
    """What a selector may go on with: a field with its operator, or a value after one."""
    found = _PART.fullmatch(incomplete)
    if found is None:
        return []
    before, field, operator, value = found["before"] or "", found["field"], found["operator"], found["value"]
    if operator is None:
        listed = _LIST.search(before)
        if listed is None:
            return [before + each + sign for each in _fields(field) for sign in ("=", "!=")]
        return [before + each for each in _values(listed[1], field)]
    return [f"{before}{field}{operator}{each}" for each in _values(field, value)]


def _fields(beginning: str) -> list[str]:
    keys = _read(lambda registry: _distinct(registry, "labels", "key", beginning))
    return [each for each in FIELDS if each.startswith(beginning)] + [each for each in keys if each not in FIELDS]


def _values(field: str, beginning: str) -> list[str]:
    if field == "status":
        return [each for each in STATUSES if each.startswith(beginning)]
    if field == "id":
        return devices(beginning)
    if field in ("type", "location"):
        return _read(lambda registry: _distinct(registry, "devices", field, beginning))
    if field == "firmware":
        return _read(lambda registry: _distinct(registry, "presence", "firmware", beginning or "!"))
    key = field.removeprefix("label.")
    saved = groups(beginning) if field == "group" else []
    labels = _read(lambda registry: _distinct(registry, "labels", "value", beginning, "key = ? AND", (key,)))
    return saved + [each for each in labels if each not in saved and set(each) <= PLAIN]


def _read(question: Callable[[sqlite3.Connection], list[str]]) -> list[str]:
    """What the file of the current context answers; nothing where there is none, as with a registry in PostgreSQL."""
    try:
        path = config.locate().folder / "registry.db"
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=0.2)) as registry:
            return question(registry)
    except (FleetError, sqlite3.Error):
        return []


def _distinct(
    registry: sqlite3.Connection, table: str, column: str, beginning: str, where: str = "", given: tuple[str, ...] = ()
) -> list[str]:
    """The values of an indexed column that begin like this: one look at the index for each, however many rows have it."""
    least = f"SELECT min({column}) FROM {table} WHERE {where} {column}"  # noqa: S608
    statement = f"""WITH RECURSIVE seen(value) AS (
        {least} >= ? UNION ALL SELECT ({least} > seen.value) FROM seen WHERE seen.value IS NOT NULL
    ) SELECT value FROM seen WHERE value < ? LIMIT ?"""  # noqa: S608
    return _column(registry.execute(statement, (*given, beginning, *given, beginning + BEYOND, MOST)))


def _column(rows: Iterable[tuple[object, ...]]) -> list[str]:
    return [str(row[0]) for row in rows]
