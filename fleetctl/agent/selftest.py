"""The self-test of a new image: a command of the owner's that ends with status 0 where the image is healthy."""

import os
import shlex
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import BinaryIO, TypeAlias

from fleetctl.errors import ConfigError

POLL_SECONDS = 0.05
OUTPUT_LIMIT = 200


@dataclass(frozen=True, slots=True)
class Trial:
    """What is under test; `stop` is set when nobody waits for the answer any more."""

    image: Path
    slot: str
    version: str
    stop: threading.Event


@dataclass(frozen=True, slots=True)
class Health:
    healthy: bool
    detail: str = ""


SelfTest: TypeAlias = Callable[[Trial], Health]


def always_healthy(_trial: Trial) -> Health:
    """Without a self-test an image that starts and reads back as it was written counts as healthy."""
    return Health(True)


def from_command(command: str, timeout: float = 60.0) -> SelfTest:
    """A self-test that runs `command`; `{image}` in a word of it is the image's path.

    Raises:
        ConfigError: the command is empty or its quotes do not match.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ConfigError(f"the self-test `{command}` is no command: {str(error).lower()}", "quote it as for a shell") from error
    if not words:
        raise ConfigError("the self-test is empty", "--self-test 'sh {image} --check'")

    def run(trial: Trial) -> Health:
        with tempfile.TemporaryFile() as output:
            return _run([word.replace("{image}", str(trial.image)) for word in words], trial, timeout, output)

    return run


def _run(arguments: list[str], trial: Trial, timeout: float, output: BinaryIO) -> Health:
    told = {"FLEETCTL_IMAGE": str(trial.image), "FLEETCTL_SLOT": trial.slot, "FLEETCTL_VERSION": trial.version}
    try:
        process = subprocess.Popen(
            arguments,
            env={**os.environ, **told},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        return Health(False, f"the self-test does not start: {getattr(error, 'strerror', None) or error}")
    with process:
        status = _wait(process, trial.stop, monotonic() + timeout)
    if status is None:
        return Health(False, f"the self-test did not end within {timeout:g} s")
    if status == 0:
        return Health(True)
    ended = f"ended with status {status}" if status > 0 else f"was killed by signal {-status}"
    return Health(False, f"the self-test {ended}{_last_words(output)}")


def _wait(process: subprocess.Popen[bytes], stop: threading.Event, deadline: float) -> int | None:
    """The exit status; None where it and its children had to be killed, because time was up or nobody waits."""
    while not stop.is_set() and (left := deadline - monotonic()) > 0:
        with suppress(subprocess.TimeoutExpired):
            return process.wait(min(left, POLL_SECONDS))
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return None


def _last_words(output: BinaryIO) -> str:
    size = output.seek(0, os.SEEK_END)
    output.seek(max(0, size - OUTPUT_LIMIT))
    words = "".join(c if c.isprintable() else " " for c in output.read().decode(errors="replace")).strip()
    return f": {words}" if words else ""
