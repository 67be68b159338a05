"""Every command that a hint, a help text or a docstring names exists, and so do the options that it names."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from fleetctl.cli import main
from fleetctl.cli.parser import Command, Context

PACKAGE = Path(__file__).parents[3] / "fleetctl"
NAMED = re.compile(r"\bfleetctl ([a-z]+)((?: [^,;:|`\n]*)?)")
PROSE = {"cannot", "connects", "wrote", "dials", "is", "registry", "uses"}
QUOTED = re.compile(r"'[^']*'")


def commands() -> dict[str, Command]:
    """Every command by its words."""
    found: dict[str, Command] = {}

    def walk(command: Command, ctx: Context, words: str) -> None:
        found[words] = command
        for name in getattr(command, "list_commands", lambda _: [])(ctx):
            child = command.get_command(ctx, name)  # type: ignore[attr-defined]
            walk(child, Context(child, parent=ctx, info_name=name), f"{words} {name}".strip())

    root = main.command()
    walk(root, Context(root, info_name="fleetctl"), "")
    return found


def texts() -> Iterator[tuple[str, str]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield str(path.relative_to(PACKAGE)), node.value


def named(first: str, rest: str, known: dict[str, Command]) -> tuple[str, list[str]]:
    """The command that the words begin with, and the words behind it."""
    words = [first, *rest.split()]
    length = max((size for size in (1, 2, 3) if " ".join(words[:size]) in known), default=0)
    return " ".join(words[:length]), words[length:]


def test_every_command_that_is_named_exists() -> None:
    known = commands()
    wrong = []
    for place, text in texts():
        for first, rest in NAMED.findall(QUOTED.sub("", text)):
            words, behind = named(first, rest, known)
            if not words:
                if first not in PROSE:
                    wrong.append(f"{place}: fleetctl {first}")
                continue
            command = known[words]
            if hasattr(command, "list_commands") and behind and re.fullmatch("[a-z][a-z-]+", behind[0]):
                wrong.append(f"{place}: fleetctl {words} {behind[0]}")
                continue
            options = {opt for param in command.params for opt in (*param.opts, *param.secondary_opts)}
            used = [word.strip("'\"()").split("=")[0] for word in behind if word.startswith("--")]
            wrong += [f"{place}: fleetctl {words} {word}" for word in used if word not in options | {"--help"}]
    assert not wrong, "\n".join(wrong)
