"""What the documents name exists: commands, options, links; the README keeps its promises."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.guide import blocks, steps

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    ROOT / "README.md",
    *(path for kind in ("guides", "concepts") for path in sorted((ROOT / "docs" / kind).glob("*.md"))),
]


@pytest.mark.parametrize(
    "line",
    [
        "python3 -m venv ~/.fleetctl && ~/.fleetctl/bin/pip install . && ~/.fleetctl/bin/fleetctl demo",
        "tests/run",
    ],
)
def test_the_readme_has_the_two_commands(line: str) -> None:
    assert [line] in [lines for _, words, lines in blocks((ROOT / "README.md").read_text()) if words == "sh"]


def test_the_session_of_the_readme_is_one_that_is_run() -> None:
    run = {(step.command, tuple(step.shown)) for step in steps((ROOT / "docs/guides/getting-started.md").read_text())}
    session = steps((ROOT / "README.md").read_text())
    assert session
    assert [step.command for step in session if (step.command, tuple(step.shown)) not in run] == []


def named(text: str) -> Iterator[str]:
    """Every `fleetctl …` that a document names in its text or in a block that is not run."""
    for line in text.splitlines():
        found = re.match(r"\$ .*?(\bfleetctl .*)", line)
        yield from re.split(r" (?:&&|\||;|&) ", found[1])[:1] if found else re.findall(r"(?<!`)`(fleetctl [^`]+)`", line)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_and_option_that_a_document_names_exists(document: Path) -> None:
    reference = dict(
        re.findall(
            r"^## (fleetctl[^\n]*)\n(.*?)(?=^## |\Z)", (ROOT / "docs/reference/commands.md").read_text(), re.MULTILINE | re.DOTALL
        )
    )
    for command in named(document.read_text()):
        words = re.split(r"\s+", re.sub(r"--context \S+ ", "", command))
        if words == ["fleetctl"]:
            continue
        verb = max((name for name in reference if words[: len(name.split())] == name.split()), key=len)
        assert verb != "fleetctl" or words[1].startswith("-"), f"`{command}`: no such command"
        for option in re.findall(r"(?<=\s)--[a-z-]+", command):
            assert re.search(rf"{option}\b", reference[verb]), f"`{command}`: no option {option}"


@pytest.mark.parametrize("document", [*DOCUMENTS, ROOT / "docs/index.md"], ids=lambda path: path.name)
def test_every_link_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []
