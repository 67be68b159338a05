"""A person at a console: types a command, reads what it says, and looks at what is left on the disk."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAM = (sys.executable, "-m", "fleetctl")


@dataclass(frozen=True, slots=True)
class Said:
    """What a finished command said."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed with `-o json`; it must have succeeded."""
        assert self.status == 0, self.err
        return json.loads(self.out)

    @property
    def lines(self) -> list[dict[str, Any]]:
        """What it printed with `-o jsonl`."""
        return [json.loads(line) for line in self.out.splitlines()]

    def error(self, status: int, subject: str) -> dict[str, str]:
        """The one error that it told: a line for people that names the subject, a hint, and for programs the same."""
        assert "Traceback" not in self.out + self.err
        lines = self.err.splitlines()
        told = [line for line in lines if line.startswith("error: ")]
        assert (self.status, len(told)) == (status, 1), self.err
        found: dict[str, Any] = json.loads(lines[-1])["error"]
        assert set(found) == {"code", "message", "hint", "status"}
        assert told[0] == f"error: {found['message']}"
        assert found["hint"], f"no hint for {told[0]}"
        at = lines.index(told[0])
        assert lines[at + 1] == ""
        assert lines[at + 2].startswith("hint: ")
        assert len(lines) == at + 4
        assert found["status"] == status
        message: str = found["message"]
        assert not subject or subject in message.split("`")[1::2], message
        assert not message.endswith(".")
        assert message.isprintable()
        return found


@dataclass(frozen=True, slots=True)
class Console:
    """One terminal with a home of its own."""

    home: Path

    @property
    def folder(self) -> Path:
        """Where the context `default` keeps what it has."""
        return self.home / "default"

    @property
    def environ(self) -> Mapping[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FLEETCTL_")}
        return {**kept, "HOME": str(self.home), "FLEETCTL_HOME": str(self.home)}

    def run(self, *words: object, stdin: str | bytes = "", timeout: float = 60) -> Said:
        done = subprocess.run(
            [*PROGRAM, *map(str, words)],
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            capture_output=True,
            timeout=timeout,
            check=False,
            env=self.environ,
        )
        return Said(done.returncode, done.stdout.decode(), done.stderr.decode())

    def refused(self, status: int, subject: str, *words: object, **options: Any) -> dict[str, str]:
        """Type a command, with `-o jsonl`, that must print nothing and fail with that status and an error about that subject."""
        at = words.index("--") if "--" in words else len(words)
        said = self.run(*words[:at], "-o", "jsonl", *words[at:], **options)
        assert said.out == ""
        return said.error(status, subject)

    @contextmanager
    def start(self, *words: object) -> Iterator["subprocess.Popen[str]"]:
        """A command that goes on; killed at the end if it has not ended by then."""
        with subprocess.Popen(
            [*PROGRAM, *map(str, words)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environ,
            text=True,
        ) as running:
            try:
                yield running
            finally:
                if running.poll() is None:
                    running.kill()


def interrupt(running: "subprocess.Popen[str]", timeout: float = 20) -> Said:
    """Ctrl-C."""
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=timeout)
    return Said(running.returncode, out, err)


def files_of(folder: Path) -> dict[str, tuple[int, str]]:
    """Every file below a folder, with its mode and digest; SQLite's and locks' own files left out."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mode & 0o777, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(("-wal", "-shm", "lock"))
    }
