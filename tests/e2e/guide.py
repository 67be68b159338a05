"""A guide, read: its commands, and how what it shows is compared with what a terminal shows.

A block is one of three, by the words after the three ticks:
    console                    typed into the first terminal, one bash from the first line of the guide to the last
    console background         one command that gets a terminal of its own and stays; Ctrl-C ends it after the last line
    console not run: REASON    left alone

A command ends with 0, unless the next one is `echo $?`. The terminals are 100 columns wide and belong to a user `alice` with an
empty home. Ports 8883 to 8885 are replaced by free ones, there and back. Times, digests, ids, serial numbers, fractions and the
widths of columns may differ, and a rollout's id in a command is the one that was seen where the guide shows it. `…` stands for
whatever is there, on a line of its own for any number of lines.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise


@dataclass(slots=True)
class Step:
    """One command of a guide, and what its reader sees."""

    line: int
    command: str
    background: bool
    shown: list[str] = field(default_factory=list)
    checked: bool = True  # whether it must end with 0


def blocks(text: str) -> Iterator[tuple[int, str, list[str]]]:
    """The fenced blocks: line number, words after the ticks, lines."""
    inside, words, start, lines = False, "", 0, list[str]()
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("```"):
            if inside:
                yield start, words, lines
            inside, words, start, lines = not inside, line[3:].strip(), number, []
        elif inside:
            lines.append(line)
    assert not inside, f"the block of line {start} has no end"


def steps(text: str) -> list[Step]:
    """Every command of the `console` blocks that are run."""
    found: list[Step] = []
    for start, words, lines in blocks(text):
        kind = words.partition(" ")[2]
        if words.split(" ")[0] != "console" or re.fullmatch(r"not run: \S.*", kind):
            continue
        assert kind in ("", "background"), f"line {start}: `{words}` is no kind of block"
        here = list(commands(start, lines, kind == "background"))
        assert here, f"line {start}: no command"
        assert kind == "" or len(here) == 1, f"line {start}: one command belongs into a terminal of its own"
        for step, after in pairwise(here):
            step.checked = after.command != "echo $?"
        found += here
    return found


def commands(start: int, lines: list[str], background: bool) -> Iterator[Step]:
    step: Step | None = None
    for number, line in enumerate(lines, start + 1):
        if line.startswith("$ "):
            if step:
                yield step
            step = Step(number, line[2:], background)
        else:
            assert step, f"line {number}: output without a command"
            if step.command.endswith("\\") and not step.shown:
                step.command += "\n" + line
            else:
                step.shown.append(line)
    if step:
        yield step


ROLLOUT = r"\br-[0-9a-f]{8}\b"
SAME = (
    (r"\d{4}-\d\d-\d\dT[\d:.]+[Z…]", "TIME"),
    (r"sha256:[0-9a-f]*…?", "DIGEST"),
    (ROLLOUT, "ROLLOUT"),
    (r"\b[0-9a-f]{36,40}\b|\b[0-9a-f]{12,}…", "SERIAL"),
    (r"\b(?=[0-9a-f]*[a-f])(?=[0-9a-f]*\d)[0-9a-f]{16}\b", "ID"),
    (r"127\.0\.0\.1:\d+", "ADDRESS"),
    (r"(?<![\w.-])\d+\.\d+(?![\w.])|(?<=Seconds:  )\d+$", "FRACTION"),
    (r"\s+", " "),
)


def normal(line: str) -> str:
    """A line without what differs from run to run."""
    for pattern, word in SAME:
        line = re.sub(pattern, word, line)
    return line.strip()


def pattern_of(shown: list[str]) -> str:
    """A regular expression for the lines of a terminal, each ended by a line feed."""
    lines = map(normal, shown)
    return "".join("(?:.*\n)*?" if line == "…" else ".*".join(map(re.escape, line.split("…"))) + "\n" for line in lines)
