"""Devices as they are named on a command line: ids, globs, `-` for stdin, `@FILE`, and `-l`."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

from fleetctl.errors import FleetError, UsageError
from fleetctl.model.device import printable

FILE_LIMIT = 64 * 1024 * 1024


def expand(words: Iterable[str] | None, stdin: TextIO) -> list[str]:
    """The ids and globs that the words stand for, each once, in their order.

    Raises `UsageError` for a file that cannot be read, for an empty one, and for stdin that nobody feeds.
    """
    found = (name for word in words or () for name in _names(word, stdin))
    return list(dict.fromkeys(found))


def _names(word: str, stdin: TextIO) -> Iterator[str]:
    if word == "-":
        if stdin.isatty():
            raise UsageError("`-` reads ids from stdin, which is a terminal", "fleetctl provision list -o name | fleetctl …")
        yield from _lines(_read(stdin), "stdin")
    elif word.startswith("@"):
        yield from _lines(_text(word[1:]), word[1:])
    elif not word:
        raise UsageError("an empty word names no device", "see fleetctl provision list")
    else:
        yield word


def _read(stdin: TextIO) -> str:
    try:
        return stdin.read(FILE_LIMIT)
    except UnicodeDecodeError as error:
        raise UsageError("what comes from stdin is not text", "an id on each line") from error


def _text(name: str) -> str:
    try:
        with Path(name).open(encoding="utf-8") as file:
            return file.read(FILE_LIMIT)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UsageError(f"{printable(name)} cannot be read: {why}", "@FILE names a file with an id on each line") from error


def _lines(text: str, where: str) -> Iterator[str]:
    names = [line.strip() for line in text.splitlines()]
    names = [name for name in names if name and not name.startswith("#")]
    if not names:
        raise UsageError(f"no device is named in {printable(where)}", "write an id on each line")
    yield from names


def ids_of_plan(file: Path) -> list[str]:
    """The devices that a plan file names, for the question before it; whoever starts it verifies the plan itself."""
    from fleetctl.files import read_limited
    from fleetctl.wire.plan import PLAN_LIMIT, PlanFile

    return [target.id for target in PlanFile.decode(read_limited(file, 3 * PLAN_LIMIT)).plan.targets]


def payload_of(word: str, stdin: TextIO, limit: int) -> bytes:
    """What a payload word stands for: text, `@FILE`, or `-` for stdin."""
    try:
        if word == "-":
            data = getattr(stdin, "buffer", stdin).read(limit + 1)
        elif word.startswith("@"):
            with Path(word[1:]).open("rb") as file:
                data = file.read(limit + 1)
        else:
            data = word
        found = data.encode(errors="surrogateescape") if isinstance(data, str) else bytes(data)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "its name is wrong"
        raise UsageError(f"{printable(word[1:])} cannot be read: {why}", "@FILE names a file to send") from error
    if len(found) > limit:
        raise FleetError(f"the payload is larger than {limit} bytes", "devices take no more than that")
    return found
