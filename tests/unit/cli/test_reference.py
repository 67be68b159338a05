"""What is generated for readers and for programs: docs/reference, docs/schemas. Rewrite it with FLEETCTL_WRITE_REFERENCE=1."""

import json
import os
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from fleetctl import errors
from fleetctl.cli import group, main
from fleetctl.cli.group import TABLE
from fleetctl.cli.parser import Command, Context
from fleetctl.cli.session import PLAN
from fleetctl.present.view import Field, View

ROOT = Path(__file__).parents[3]
WIDTH = 100
KINDS = {"any": None}


def shipped(path: str, text: str) -> None:
    """The file in the project is what is generated."""
    place = ROOT / path
    if os.environ.get("FLEETCTL_WRITE_REFERENCE"):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    assert place.read_text() == text, f"{path} is out of date: FLEETCTL_WRITE_REFERENCE=1 pytest tests/unit/cli/test_reference.py"


def commands(command: Command, ctx: Context) -> Iterator[tuple[str, str]]:
    """Every command with its help, the root first."""
    yield ctx.command_path, command.get_help(ctx)
    for name in getattr(command, "list_commands", lambda _: [])(ctx):
        child = command.get_command(ctx, name)  # type: ignore[attr-defined]
        yield from commands(child, Context(child, parent=ctx, info_name=name, terminal_width=WIDTH))


def everything() -> list[tuple[str, str]]:
    root = main.command()
    return list(commands(root, Context(root, info_name="fleetctl", terminal_width=WIDTH, **root.context_settings)))


def test_the_reference_of_commands() -> None:
    parts = ["# Commands\n\nGenerated from the program.\n"]
    parts += [f"## {path}\n\n```text\n{text}\n```\n" for path, text in everything()]
    shipped("docs/reference/commands.md", "\n".join(parts))


def test_every_verb_has_an_example_that_begins_with_it() -> None:
    for path, text in everything():
        if "COMMAND [ARGS]" in text.splitlines()[0]:
            continue
        assert f"$ {path}" in text, path


def test_every_option_says_what_it_does() -> None:
    for path, text in everything():
        for line in text.splitlines():
            assert not re.fullmatch(r"  --?\w[\w-]*( [A-Z<>a-z]+)?", line) or len(line) > 25, f"{path}: {line}"


STATUSES = [
    (0, "", "Done, or already so, or an empty list."),
    (70, "defect", "A defect in fleetctl: one line, the traceback in a log file."),
    (130, "", "Ctrl-C; what was done is saved, and the way on is printed."),
    (141, "", "The reader of stdout went away (silent)."),
]


def statuses() -> list[tuple[int, str, str]]:
    classes = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.FleetError)]
    found = [(each.status, each.code, (each.__doc__ or "").strip().splitlines()[0]) for each in classes]
    return sorted([*STATUSES, *found], key=lambda row: row[0])


def test_the_table_of_exit_statuses() -> None:
    rows = "".join(f"| {status} | {f'`{code}`' if code else ''} | {words} |\n" for status, code, words in statuses())
    head = "# Exit statuses\n\nGenerated from `fleetctl/errors.py`. With `-o json` or `-o jsonl` the last line of stderr is\n"
    shape = '`{"error":{"code","message","hint","status"}}`.\n\n| status | code | what happened |\n|--:|---|---|\n'
    shipped("docs/reference/exit-statuses.md", head + shape + rows)


def test_the_golden_exit_statuses() -> None:
    golden = json.loads((ROOT / "tests" / "golden" / "exit-statuses.json").read_text())
    assert {code or f"status{status}": status for status, code, _ in statuses()} == golden


ENVIRONMENT = {
    "FLEETCTL_HOME": "A folder for configuration and data, instead of `~/.config/fleetctl` and `~/.local/share/fleetctl`.",
    "FLEETCTL_CONTEXT": "The context that is used; `--context` wins over it, it wins over `fleetctl context use`.",
    "FLEETCTL_OUTPUT": "The output format where `-o` is not given.",
    "FLEETCTL_PASSPHRASE_FILE": "A file (mode 0600) whose first line opens encrypted keys; asked for on a terminal otherwise.",
    "FLEETCTL_PASSPHRASE": "The same as a text, where there is no such file.",
    "FLEETCTL_PIN_FILE": "A file (mode 0600) whose first line is the PIN of the PKCS #11 token.",
    "FLEETCTL_PIN": "The same as a text, where there is no such file.",
    "FLEETCTL_PKCS11_MODULE": "The PKCS #11 module to load, instead of the `module-path` of a `pkcs11:` URI.",
}
FOR_SELF_TESTS = {
    "FLEETCTL_IMAGE": "The path of the new image.",
    "FLEETCTL_SLOT": "The slot that it is in.",
    "FLEETCTL_VERSION": "Its version.",
}


def test_the_reference_of_the_environment() -> None:
    rows = "".join(f"| `{name}` | {words} |\n" for name, words in ENVIRONMENT.items())
    told = "".join(f"| `{name}` | {words} |\n" for name, words in FOR_SELF_TESTS.items())
    text = f"# Environment\n\n| variable | what it sets |\n|---|---|\n{rows}\n"
    text += f"What `agent run --self-test COMMAND` tells the command:\n\n| variable | what it is |\n|---|---|\n{told}"
    shipped("docs/reference/environment.md", text)


def test_no_variable_is_read_that_the_reference_does_not_name() -> None:
    text = "".join(path.read_text() for path in (ROOT / "fleetctl").rglob("*.py"))
    read = set(re.findall(r"\bFLEETCTL_[A-Z][A-Z0-9_]*\b", text)) - {"FLEETCTL_COMPLETE"}
    assert read == set(ENVIRONMENT) | set(FOR_SELF_TESTS)


def views() -> list[View]:
    modules = {"fleetctl.cli.ota"}
    pending = [module for _, module, _ in TABLE]
    while pending:
        app = import_module(modules_name := pending.pop()).app
        modules.add(modules_name)
        pending += [*app.also, *app.nested.values()]
    found = {PLAN.name: PLAN}
    for module in sorted(modules):
        for each in vars(import_module(module)).values():
            if isinstance(each, View):
                assert found.setdefault(each.name, each) is each, f"two views are called {each.name}"
    return [found[name] for name in sorted(found)]


def schema(view: View) -> dict[str, Any]:
    """The JSON Schema of one record of a view."""
    fields = [field for field in view.fields if field.key != "*"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": view.name,
        "type": "object",
        "properties": {field.key: _property(field) for field in fields},
        "required": [field.key for field in fields if not (view.open and field.nullable)],
    }


def _property(field: Field) -> dict[str, Any]:
    described = {"description": field.help} if field.help else {}
    if field.kind == "any":
        return described
    return {"type": [field.kind, "null"] if field.nullable else field.kind, **described}


@pytest.mark.parametrize("view", views(), ids=lambda view: view.name)
def test_the_schema_of_each_record(view: View) -> None:
    shipped(f"docs/schemas/{view.name}.json", json.dumps(schema(view), indent=2, ensure_ascii=False) + "\n")


def test_no_schema_is_left_behind() -> None:
    kept = {path.stem for path in (ROOT / "docs" / "schemas").glob("*.json")}
    assert {view.name for view in views()} == kept


def test_words_that_people_type_first_lead_to_commands_that_exist() -> None:
    known = {path.removeprefix("fleetctl ") for path, _ in everything()}
    for word, advice in group.ALIASES.items():
        assert word not in known
        assert " " not in word or word.split()[0] in known
        first = re.split(r"[ ,]", advice)
        assert advice.startswith("--") or first[0] in known or " ".join(first[:2]) in known, (word, advice)
