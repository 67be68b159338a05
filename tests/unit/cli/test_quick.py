"""TAB without a parser: it answers only what the parser would answer the same."""

from pathlib import Path

import pytest

from fleetctl import config
from fleetctl.cli import main, quick
from fleetctl.cli.parser import Context
from fleetctl.cli.words import complete_device


@pytest.mark.parametrize("path", [*quick.ONE, *quick.MANY])
def test_what_it_answers_are_devices(path: str) -> None:
    command = main.command()
    ctx = Context(command, info_name="fleetctl")
    for name in path.split():
        found = command.get_command(ctx, name)  # type: ignore[attr-defined]
        assert found is not None, path
        command, ctx = found, Context(found, parent=ctx, info_name=name)
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    assert arguments[0].metavar in ("DEVICE", "[DEVICE]..."), path
    assert (arguments[0].nargs == -1) == (path in quick.MANY), path
    assert complete_device("x") == []


@pytest.mark.parametrize("moved", [True, False])
@pytest.mark.parametrize("chosen", ["", "other"])
@pytest.mark.parametrize("current", ["", "third"])
def test_it_looks_where_the_configuration_does(tmp_path: Path, moved: bool, chosen: str, current: str) -> None:
    environ = {"HOME": str(tmp_path), "FLEETCTL_CONTEXT": chosen, **({"FLEETCTL_HOME": str(tmp_path / "f")} if moved else {})}
    paths = config.home(environ)
    for name in ("default", "other", "third"):
        paths.folder(name).mkdir(parents=True)
    paths.current.parent.mkdir(parents=True, exist_ok=True)
    if current:
        paths.current.write_text(f"{current}\n")
    assert quick.registry(environ) == str(config.locate(None, environ).folder / "registry.db")


@pytest.mark.parametrize(
    ("words", "is_quick"),
    [
        (["provision", "show", "pu"], True),
        (["provision", "show", ""], True),
        (["provision", "list", "a", "b"], True),
        (["provision", "show", "a", "b"], False),
        (["provision", "li"], False),
        (["provision", "list", "-l", "a"], False),
        (["provision", "list", "--re"], False),
        (["provision", "list", "'a"], False),
        (["certs", "show", "a"], False),
    ],
)
def test_what_is_not_simple_is_left_to_the_parser(words: list[str], is_quick: bool) -> None:
    bash = {"COMP_WORDS": "\n".join(("fleetctl", *words)), "COMP_CWORD": str(len(words))}
    zsh = {"_TYPER_COMPLETE_ARGS": " ".join(("fleetctl", *words))}
    assert (quick.answer("complete_bash", bash) is not None) == is_quick
    assert (quick.answer("complete_zsh", zsh) is not None) == is_quick
    assert quick.answer("complete_fish", {**zsh, "_TYPER_COMPLETE_FISH_ACTION": "is-args"}) is None
    assert quick.answer("source_bash", bash) is None
