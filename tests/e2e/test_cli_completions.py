"""Completion as the three shells do it, with the files that the project ships."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = {"bash": "fleetctl.bash", "zsh": "_fleetctl", "fish": "fleetctl.fish"}

ZSH = r"""
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell 'PS1=; autoload -Uz compinit; compinit -u -D; source "$COMPLETIONS/_fleetctl"; echo REA''DY'
zpty -r -m shell seen '*READY*' || exit 3
zpty -n -w shell $'fleetctl tw\t'
zpty -r -m shell seen '*twin*' || exit 4
print -r -- "$seen"
zpty -d shell
"""


def shell(*command: str, code: int = 0) -> str:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "COMPLETIONS": str(ROOT / "completions"),
        "TERM": "dumb",
    }
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def program(name: str) -> str:
    found = shutil.which(name)
    assert found, f"`{name}` is missing: tests/run installs it"
    return found


@pytest.mark.parametrize("name", FILES)
def test_the_shipped_file_is_what_the_program_generates(name: str) -> None:
    made = shell("env", f"_FLEETCTL_COMPLETE=source_{name}", "fleetctl")
    assert (ROOT / "completions" / FILES[name]).read_text() == made.strip() + "\n"


def bash(*words: str) -> list[str]:
    line = shlex.join(words)
    code = (
        'source "$COMPLETIONS/fleetctl.bash"; '
        f"COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _fleetctl_completion fleetctl; "
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    return shell(program("bash"), "--norc", "-c", code).split()


def test_bash_completes_groups_verbs_options_and_formats() -> None:
    assert bash("fleetctl", "tw") == ["twin"]
    verbs = {"get", "set", "unset", "diff", "edit", "patch", "replace", "history", "revert", "schema", "wait", "watch"}
    assert set(bash("fleetctl", "twin", "")) == verbs
    assert "--selector" in bash("fleetctl", "provision", "list", "--s")
    assert bash("fleetctl", "provision", "list", "-o", "js") == ["json", "jsonl"]


def test_bash_completes_devices_of_the_context() -> None:
    shell("fleetctl", "init", "--tenant", "acme")
    shell("fleetctl", "provision", "add", "pump-7", "--type", "pump", "--location", "oslo")
    assert bash("fleetctl", "twin", "get", "pu") == ["pump-7"]
    assert bash("fleetctl", "twin", "get", "'") == ["pump-7"]


def test_zsh_completes() -> None:
    assert "fleetctl twin" in shell(program("zsh"), "-f", "-c", ZSH)


def test_fish_completes_with_descriptions() -> None:
    code = 'source "$COMPLETIONS/fleetctl.fish"; complete -C "fleetctl tw"'
    assert shell(program("fish"), "--no-config", "-c", code) == "twin\tGet, set and compare desired and reported state.\n"
