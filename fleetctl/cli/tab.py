"""Completion: what TAB is answered. It reads names, never a broker, and draws nothing."""

import sqlite3
from contextlib import closing
from pathlib import Path

import typer.completion
from typer._click.shell_completion import add_completion_class
from typer._completion_classes import FishComplete, ZshComplete

from fleetctl import config
from fleetctl.cli.parser import Command, CompletionItem
from fleetctl.errors import FleetError

MOST = 200


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
    add_completion_class(Zsh, "zsh")
    add_completion_class(Fish, "fish")
    return typer.completion.shell_complete(command, {}, "fleetctl", variable, instruction)


def contexts(incomplete: str) -> list[str]:
    """Contexts, by the folders that they have."""
    try:
        folders = [each for each in config.home().data.iterdir() if each.name.startswith(incomplete)]
        return sorted(each.name for each in folders if (each / "registry.db").exists())
    except OSError:
        return []


def devices(incomplete: str) -> list[str]:
    """Device ids of the current context that begin like this."""
    try:
        return _ids(config.locate().registry, incomplete)
    except (FleetError, sqlite3.Error):
        return []


def _ids(path: Path, incomplete: str) -> list[str]:
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=0.2)) as registry:
        query = "SELECT id FROM devices WHERE state <> 'retired' AND substr(id, 1, length(?)) = ? ORDER BY id LIMIT ?"
        return [str(row[0]) for row in registry.execute(query, (incomplete, incomplete, MOST))]
