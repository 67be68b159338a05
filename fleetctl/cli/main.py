"""The root command, and the one place where errors end."""

import errno
import io
import os
import select
import sys
from typing import Annotated

import typer

from fleetctl import __version__
from fleetctl.cli.group import LazyGroup
from fleetctl.cli.parser import Command
from fleetctl.cli.words import ContextName
from fleetctl.errors import FleetError

INTERRUPTED = 130
READER_GONE = 141
COMPLETION = "_FLEETCTL_COMPLETE"

app = typer.Typer(
    cls=LazyGroup,
    help="The command line for IoT fleets on any MQTT broker: identity, twins, and rollouts that stop themselves.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\nExamples:\n  $ fleetctl demo\n  $ fleetctl init prod --tenant acme\n  $ fleetctl provision list -o json",
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"fleetctl {__version__}")
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    context: ContextName = None,
    version: Annotated[bool, typer.Option("--version", is_eager=True, callback=_version, help="Show the version.")] = False,
) -> None:
    ctx.obj = {"context": context}


def run(words: list[str]) -> int:
    """Do what the words say; the exit status, with every error reported."""
    try:
        _write_what_can_be_written()
        status = _dispatch(words)
        sys.stdout.flush()
    except KeyboardInterrupt as stop:
        return _interrupted(str(stop))
    except OSError as error:
        if _reader_is_gone():
            _drop_output()
            return READER_GONE
        if error.errno == errno.ENOSPC and error.filename is None:
            _drop_output()
            return _failed(FleetError("the output cannot be written: no space left", "df -h"), words)
        return _failed(error, words)
    except Exception as error:
        return _failed(error, words)
    return status


def _write_what_can_be_written() -> None:
    """A terminal or a locale that lacks a character gets an escape, not an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def command() -> Command:
    """The root command, with completion."""
    made: Command = typer.main.get_command(app)
    return made


def _dispatch(words: list[str]) -> int:
    made = command()
    instruction = os.environ.get(COMPLETION)
    if instruction:
        from fleetctl.cli.tab import complete

        return complete(made, COMPLETION, instruction)
    try:
        with made.make_context("fleetctl", words) as ctx:
            made.invoke(ctx)
    except typer.Exit as leave:
        return leave.exit_code
    return 0


def _failed(error: Exception, words: list[str]) -> int:
    from fleetctl.cli.failure import failure_of, is_help, report, trace, wants_json

    if is_help(error):
        sys.stderr.write(f"{error}\n")
        return 2
    failure = failure_of(error)
    if "--debug" in words:
        sys.stderr.write(trace(error))
    report(failure, sys.stderr, wants_json(words))
    return failure.status


def _interrupted(hint: str) -> int:
    # Ctrl-C in the middle of an exec of text, as making a dataclass is one, has CPython end by the signal whatever became of the
    # exception; one that goes well takes that back
    exec("")  # noqa: S102
    sys.stderr.write("\ninterrupted\n" + (f"\nhint: {hint}\n" if hint else ""))
    return INTERRUPTED


def _reader_is_gone() -> bool:
    poll = select.poll()
    poll.register(1, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _drop_output() -> None:
    """Keep the interpreter from writing at its end what could not be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
