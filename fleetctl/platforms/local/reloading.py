"""How a broker that is not ours is told to read its files again."""

import os
import pwd
import shlex
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fleetctl import files
from fleetctl.errors import ConfigError, Conflict, FleetError, NotFound, UsageError
from fleetctl.mqtt.settings import Finding

COMMAND_SECONDS = 60.0
SETTLE_SECONDS = 3.0
PAUSE = 0.1
PID_BYTES = 32


@dataclass(frozen=True, slots=True)
class Reload:
    """By SIGHUP to the process that a file names, or by a command; within `seconds` it must be well again."""

    pid_file: Path | None = None
    command: str | None = None
    seconds: float = SETTLE_SECONDS
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        if (self.pid_file is None) == (self.command is None):
            raise UsageError("say how the broker is told to read its files: --pid-file FILE or --reload COMMAND")

    @property
    def words(self) -> str:
        return f"SIGHUP to the process in {self.pid_file}" if self.pid_file else str(self.command)

    def check(self) -> None:
        """Raise `NotFound`, `Conflict` or `ConfigError` where it could not be told, before anything is touched."""
        if self.pid_file is not None:
            self._pid(self.pid_file)
        elif not self._words():
            raise ConfigError("the reload command is empty", "--reload 'systemctl reload mosquitto'")

    def user(self) -> str | None:
        """Whom the broker runs as; None where nobody can tell."""
        if self.pid_file is None:
            return None
        try:
            status = Path(f"/proc/{self._pid(self.pid_file)}/status").read_text()
            return pwd.getpwuid(int(status.partition("\nUid:")[2].split()[1])).pw_name
        except (OSError, KeyError, ValueError, IndexError):
            return None

    def send(self) -> None:
        """Raises `FleetError` where it was not told."""
        if self.pid_file is not None:
            os.kill(self._pid(self.pid_file), signal.SIGHUP)
            return
        try:
            done = subprocess.run(
                self._words(), capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False, stdin=subprocess.DEVNULL
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise FleetError(f"`{self.command}` did not run: {error}".lower(), "try it by hand") from error
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise FleetError(f"`{self.command}` ended with status {done.returncode}: {said}", "try it by hand")

    def settle(self, probe: Callable[[], list[Finding]]) -> list[Finding]:
        """What is wrong once the broker has had time: its loop handles the signal behind the connections of the moment."""
        deadline = self.clock() + self.seconds
        probe()
        while True:
            self.sleep(PAUSE)
            found = probe()
            if not found or self.clock() > deadline:
                return found

    def _words(self) -> list[str]:
        try:
            return shlex.split(self.command or "")
        except ValueError as error:
            raise ConfigError(f"`{self.command}` is no command: {error}".lower(), "check its quotes") from error

    def _pid(self, path: Path) -> int:
        text = files.read_limited(path, PID_BYTES).decode(errors="replace").strip()
        if not text.isdigit() or int(text) < 2:
            raise ConfigError(f"`{path}` holds no process id", f"cat {path}")
        name = _process_name(int(text))
        if name is None:
            raise NotFound(f"no process {text}, which `{path}` names: the broker does not run", "start it")
        if name and name != "mosquitto":
            raise Conflict(f"process {text}, which `{path}` names, is `{name}`, no mosquitto", f"ps -p {text}")
        return int(text)


def _process_name(pid: int) -> str | None:
    """None where there is no such process; empty where this system does not tell."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
