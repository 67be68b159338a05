"""The guides do what they say: their `console` blocks are typed into terminals, and the screens compared (see guide.py)."""

import os
import random
import re
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.e2e.guide import ROLLOUT, Step, normal, pattern_of, steps
from tests.e2e.terminal import MARK, Terminal, picture

GUIDES = Path(__file__).parents[2] / "docs/guides"
RUN_ELSEWHERE = {"sleepy-device.md"}
PORTS = (8883, 8884, 8885, 8886, 8887)
ALICE = "/home/alice"


def free_ports() -> int:
    """The first of three ports that nobody uses, of four digits like those of the guides."""
    for first in random.sample(range(2000, 8000), 200):
        with ExitStack() as stack, suppress(OSError):
            for port in range(first, first + len(PORTS)):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first
    raise AssertionError("no free ports")


class Reader:
    """Somebody who follows a guide to the letter."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.first = free_ports()
        tools = home / ".tools"
        tools.mkdir()
        (tools / "fleetctl").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m fleetctl "$@"\n')
        (tools / "fleetctl").chmod(0o755)
        kept = {key: value for key, value in os.environ.items() if not key.startswith("FLEETCTL_")}
        who = {"HOME": str(home), "USER": "alice", "LOGNAME": "alice", "TERM": "xterm", "LANG": "C.UTF-8"}
        self.environment = {**kept, **who, "PATH": f"{tools}:{kept['PATH']}"}
        self.folder = home / "fleet"
        self.folder.mkdir()
        self.stack = ExitStack()
        self.others: list[tuple[Step, Terminal]] = []
        self.rollouts: dict[str, str] = {}  # ids of the guide, and what they are here
        self.terminal = self.open()

    def open(self) -> Terminal:
        terminal = Terminal(self.folder, self.environment)
        self.stack.callback(terminal.close)
        return terminal

    def ours(self, command: str) -> str:
        for index, port in enumerate(PORTS):
            command = re.sub(rf"\b{port}\b", str(self.first + index), command)
        return re.sub(ROLLOUT, lambda found: self.rollouts.get(found[0], found[0]), command)

    def lines(self, text: str) -> list[str]:
        """What a terminal shows, as the guide would say it."""
        text = text.replace(str(self.home), ALICE)
        for index, port in enumerate(PORTS):
            text = re.sub(rf"\b{self.first + index}\b", str(port), text)
        return picture(text)

    def do(self, step: Step) -> list[str]:
        """Type one command, wait for it, and check what the terminal shows."""
        return self._start(step) if step.background else self._run(step)

    def _run(self, step: Step) -> list[str]:
        self.terminal.type(self.ours(step.command))
        done = self.terminal.until(MARK.search)
        lines = self.lines(MARK.sub("", self.terminal.text))
        assert done, self.told(step, "it did not end", lines)
        assert done[1] == "0" or not step.checked, self.told(step, f"it ended with {done[1]}", lines)
        self._check(step, re.fullmatch, lines)
        return lines

    def _start(self, step: Step) -> list[str]:
        terminal = self.open()
        self.others.append((step, terminal))
        terminal.type("exec " + self.ours(step.command))
        pattern = re.compile(pattern_of(step.shown))
        terminal.until(lambda text: pattern.match(joined(self.lines(text))))
        lines = self.lines(terminal.text)
        assert terminal.bash.poll() is None, self.told(step, "it did not stay", lines)
        self._check(step, re.match, lines)
        return lines

    def _check(self, step: Step, match: Callable[[str, str], re.Match[str] | None], lines: list[str]) -> None:
        if not match(pattern_of(step.shown), joined(lines)):
            pytest.fail(self.told(step, "the terminal shows something else", lines), pytrace=False)
        said, seen = (list(dict.fromkeys(re.findall(ROLLOUT, "\n".join(each)))) for each in (step.shown, lines))
        self.rollouts.update(zip(said, seen, strict=False))

    def told(self, step: Step, what: str, lines: list[str]) -> str:
        return "\n".join([f"line {step.line}: {what}", f"$ {step.command}", *lines, "--- the guide says", *step.shown])

    def leave(self) -> None:
        """Ctrl-C in every other terminal, the last one first."""
        for step, terminal in reversed(self.others):
            status = terminal.interrupt()
            assert status in {0, 130}, self.told(step, f"Ctrl-C: {status}", self.lines(terminal.text)[-10:])


def joined(lines: list[str]) -> str:
    return "".join(normal(line) + "\n" for line in lines)


@pytest.fixture
def reader() -> Iterator[Reader]:
    # a home as short as alice's: what is too long for a terminal is cut
    with tempfile.TemporaryDirectory() as home, (reader := Reader(Path(home))).stack:
        yield reader


@pytest.mark.parametrize("guide", sorted({path.name for path in GUIDES.glob("*.md")} - RUN_ELSEWHERE))
def test_a_guide_does_what_it_says(guide: str, reader: Reader) -> None:
    todo = steps((GUIDES / guide).read_text())
    assert todo, "nothing to run"
    for step in todo:
        reader.do(step)
    reader.leave()
