"""The self-test of a new image: a command of the owner's that ends with status 0 where the image is healthy."""

import os
import select
import shlex
import signal
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import IO, TypeAlias

from fleetctl.errors import ConfigError

POLL_SECONDS = 0.05
OUTPUT_LIMIT = 200
CHUNK = 1 << 16
DRAIN = 16
"""Chunks that are read after the end: as much as a pipe can hold."""


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
        return _run([word.replace("{image}", str(trial.image)) for word in words], trial, timeout)

    return run


class _Tail:
    """The end of what comes through a pipe; the rest is read and forgotten, so that no flood fills a disk or memory."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._descriptor = pipe.fileno()
        self._kept = b""
        os.set_blocking(self._descriptor, False)
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLIN)

    def read(self, seconds: float) -> bool:
        """Wait for output and take what has come, at most a chunk; false once nobody can write any more."""
        if not self._poll.poll(seconds * 1000):
            return True
        with suppress(BlockingIOError):
            chunk = os.read(self._descriptor, CHUNK)
            self._kept = (self._kept + chunk)[-OUTPUT_LIMIT:]
            return bool(chunk)
        return True

    def words(self) -> str:
        words = "".join(c if c.isprintable() else " " for c in self._kept.decode(errors="replace")).strip()
        return f": {words}" if words else ""


def _run(arguments: list[str], trial: Trial, timeout: float) -> Health:
    told = {"FLEETCTL_IMAGE": str(trial.image), "FLEETCTL_SLOT": trial.slot, "FLEETCTL_VERSION": trial.version}
    try:
        process = subprocess.Popen(
            arguments,
            env={**os.environ, **told},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        return Health(False, f"the self-test does not start: {getattr(error, 'strerror', None) or error}")
    with process:
        if process.stdout is None:
            raise RuntimeError("the self-test has no output")
        tail = _Tail(process.stdout)
        ended = _wait(process.pid, tail, trial.stop, monotonic() + timeout)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        status = process.wait()
        _drain(tail)
    if not ended:
        return Health(False, f"the self-test did not end within {timeout:g} s")
    if status == 0:
        return Health(True)
    how = f"ended with status {status}" if status > 0 else f"was killed by signal {-status}"
    return Health(False, f"the self-test {how}{tail.words()}")


def _wait(pid: int, tail: _Tail, stop: threading.Event, deadline: float) -> bool:
    """Whether it ended by itself in time; it is not reaped yet, so that its process group cannot be another's by now."""
    written = True
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        left = min(deadline - monotonic(), POLL_SECONDS)
        if left <= 0 or stop.is_set():
            return False
        if written:
            written = tail.read(left)
        else:
            stop.wait(left)
    return True


def _drain(tail: _Tail) -> None:
    """Its last words; what left its process group may still write, and is not waited for."""
    for _ in range(DRAIN):
        if not tail.read(0):
            return
