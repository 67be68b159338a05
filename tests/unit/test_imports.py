"""Modules import alone, and what must be fast loads nothing heavy."""

import pkgutil
import subprocess
import sys

import pytest

import fleetctl
from fleetctl.cli.group import TABLE, load
from fleetctl.cli.parser import Command

HEAVY = {"asyncio", "ssl", "rich", "paho", "httpx", "cryptography", "keyring", "pydantic", "yaml"}
MODULES = sorted(
    each.name for each in pkgutil.walk_packages(fleetctl.__path__, "fleetctl.") if not each.name.endswith("__main__")
)


def python(code: str, **environment: str) -> str:
    import os

    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_module_imports_alone() -> None:
    # a fork for each module starts where no module of ours is loaded
    code = f"""
import importlib, os, sys
failed = []
for name in {MODULES!r}:
    child = os.fork()
    if child == 0:
        try:
            importlib.import_module(name)
        except BaseException as error:
            print(name, repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        failed.append(name)
assert not failed, failed
"""
    python(code)


@pytest.mark.parametrize(("name", "module"), [(name, module) for name, module, _ in TABLE])
def test_every_lazy_command_resolves(name: str, module: str) -> None:
    assert isinstance(load(module, name), Command)


@pytest.mark.parametrize(
    "words", [["--version"], ["--help"], ["twin", "--help"], ["provision", "list", "--help"], ["ota", "start", "--help"]]
)
def test_help_loads_nothing_heavy(words: list[str]) -> None:
    code = f"""
import sys
sys.argv = ["fleetctl", *{words!r}]
from fleetctl.__main__ import main
status = main()
sys.stderr.write("loaded:" + " ".join(name for name in {sorted(HEAVY)!r} if name in sys.modules))
sys.exit(1 if any(name in sys.modules for name in {sorted(HEAVY)!r}) else status)
"""
    python(code)


@pytest.mark.parametrize(
    "environment",
    [
        {"_FLEETCTL_COMPLETE": "complete_bash", "COMP_WORDS": "fleetctl tw", "COMP_CWORD": "1"},
        {"_FLEETCTL_COMPLETE": "complete_bash", "COMP_WORDS": "fleetctl twin get pu", "COMP_CWORD": "3"},
        {"_FLEETCTL_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "fleetctl twin get --"},
        {
            "_FLEETCTL_COMPLETE": "complete_fish",
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
            "_TYPER_COMPLETE_ARGS": "fleetctl ota ",
        },
    ],
)
def test_tab_loads_nothing_heavy(environment: dict[str, str]) -> None:
    code = f"""
import sys
sys.argv = ["fleetctl"]
from fleetctl.__main__ import main
status = main()
found = [name for name in {sorted(HEAVY)!r} if name in sys.modules]
assert not found, found
"""
    python(code, **environment)
