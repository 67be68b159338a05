"""A bash on a terminal, and what is seen on it."""

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

WIDTH = 100
PATIENCE = 60.0


def picture(text: str) -> list[str]:
    """The lines that a terminal shows, of unlimited height: what was drawn over is gone."""
    rows, row, column = [""], 0, 0
    for token in re.finditer(r"\x1b\[([\d;?]*)([A-Za-z])|[\r\n]|[^\x1b\r\n]+", text):
        number, code = token.groups()
        if token[0] == "\r":
            column = 0
        elif token[0] == "\n":
            row += 1
            rows += [""] * (row + 1 - len(rows))
        elif code == "A":
            row = max(0, row - int(number or 1))
        elif code == "K":
            rows[row] = "" if number == "2" else rows[row][:column]
        elif code is None:
            rows[row] = rows[row][:column].ljust(column) + token[0] + rows[row][column + len(token[0]) :]
            column += len(token[0])
    return rows if rows[-1] else rows[:-1]


MARK = re.compile("\x1e(\\d+)\x1e")
# it says how the last command ended, and leaves `$?` as it was
PROLOGUE = "mark() { local status=$?; printf '\\036%d\\036' $status; return $status; }\n"


class Terminal:
    """A bash that reads its commands from a pipe and sees a terminal everywhere else."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.seen = bytearray()
        self.outside, inside = pty.openpty()
        fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 50, WIDTH, 0, 0))
        typed, self.keys = os.pipe()
        self.bash = subprocess.Popen(
            ["bash", "--norc", f"/dev/fd/{typed}"],
            stdin=inside,
            stdout=inside,
            stderr=inside,
            cwd=folder,
            env=environment,
            pass_fds=(typed,),
            start_new_session=True,
        )
        os.close(inside)
        os.close(typed)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        os.write(self.keys, PROLOGUE.encode())

    def _read(self) -> None:
        with suppress(OSError):  # Linux reports the end of a terminal as an error
            while data := os.read(self.outside, 65536):
                self.seen += data

    def type(self, command: str) -> None:
        self.seen.clear()
        os.write(self.keys, f"{command}\nmark\n".encode())

    @property
    def text(self) -> str:
        return bytes(self.seen).decode(errors="replace")

    def until(self, there: Callable[[str], re.Match[str] | None]) -> re.Match[str] | None:
        """Wait for what is to appear; None where it does not, in time or before bash ended."""
        deadline = time.monotonic() + PATIENCE
        while not (found := there(self.text)) and time.monotonic() < deadline and self.bash.poll() is None:
            time.sleep(0.02)
        return found or there(self.text)

    def interrupt(self) -> int | None:
        """Ctrl-C, and how the command ended."""
        os.killpg(self.bash.pid, signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            return self.bash.wait(20)
        return None

    def close(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.bash.pid, signal.SIGKILL)
        self.bash.wait()
        os.close(self.keys)
        self.reader.join(10)
        os.close(self.outside)
