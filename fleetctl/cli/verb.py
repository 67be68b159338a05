"""The one clever place: a function that takes words and returns a record becomes a command."""

import inspect
import os
import shutil
import sys
from collections.abc import Callable, Generator, Sequence
from inspect import Parameter
from typing import Any, TypeVar

import typer

from fleetctl.cli.group import App
from fleetctl.cli.session import PLAN, Options, Planned, Session
from fleetctl.cli.words import ColumnNames, ContextName, Debug, DryRun, MaxDevices, Output, Yes, column_names
from fleetctl.errors import FleetError, UsageError
from fleetctl.model.device import printable
from fleetctl.present.format import Format
from fleetctl.present.render import Page, render
from fleetctl.present.view import Rows, View

F = TypeVar("F", bound=Callable[..., Any])
VARIABLE = "FLEETCTL_OUTPUT"


def verb(
    app: App, view: View, *, name: str, example: str, writes: bool = False, final: bool = False, other: View | None = None
) -> Callable[[F], F]:
    """Register a function as the verb `name` of `app`.

    Its first parameter is the `Session`; what it returns (a record, a list or an iterator of records) is printed as `view`
    says. `writes` adds `--yes`, `--dry-run` and `--max-devices`; `final` lets a stream be printed as its last record.
    `other` is a second kind of record that the verb may return.
    """

    def register(function: F) -> F:
        app.add(name, lambda: _command(function, view, other, writes, final), _examples(example))
        return function

    return register


def _examples(text: str) -> str:
    lines = [line.strip() for line in text.strip().splitlines()]
    return "\n".join(["\b", "Examples:", *(f"  $ {line}" for line in lines)])


def _command(function: Callable[..., Any], view: View, other: View | None, writes: bool, final: bool) -> Callable[..., None]:
    common = [*_COMMON, *(_WRITES if writes else [])]
    own = list(inspect.signature(function).parameters.values())[1:]

    def command(**given: Any) -> None:
        ctx = given.pop("ctx")
        said = {each.name: given.pop(each.name) for each in common}
        page = _page(said.pop("output"), said.pop("columns"))
        said.pop("debug")
        if page.columns:
            _check_columns(page.columns, [view, *([other] if other else []), *([PLAN] if said.get("dry_run") else [])])
        said["context"] = said["context"] or (ctx.find_root().obj or {}).get("context")
        _run(lambda session: function(session, **given), view, page, Options(format=page.format, **said), final)

    taken = [Parameter("ctx", Parameter.KEYWORD_ONLY, annotation=typer.Context)]
    parameters = [*taken, *(each.replace(kind=Parameter.KEYWORD_ONLY) for each in own), *common]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    command.__doc__ = function.__doc__
    return command


def _run(work: Callable[[Session], object], view: View, page: Page, options: Options, final: bool) -> None:
    session = Session(options)
    result: object = None
    try:
        result = work(session)
        render(result, view, page, final=final)
    except Planned as planned:
        render(planned.writes, PLAN, page)
    except FleetError as error:
        if error.record is not None:
            render(error.record, view, page)
        raise
    except KeyboardInterrupt:
        raise KeyboardInterrupt(session.again) from None
    finally:
        stream = result.records if isinstance(result, Rows) else result
        if isinstance(stream, Generator):
            stream.close()  # a stream that was interrupted ends while what it uses is still open
        session.close()


def _check_columns(names: Sequence[str], views: Sequence[View]) -> None:
    """Raises `UsageError` for a column whose first key no view has; events may have any key."""
    known = dict.fromkeys(each.key for view in views for each in view.fields if each.key != "*")
    for name in names:
        if not any(view.open for view in views) and name.split(".")[0] not in known:
            raise UsageError(f"no column {printable(name)}", f"the columns are {', '.join(known)}")


def _page(output: Format | None, columns: str | None) -> Page:
    limit = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    return Page(sys.stdout, output or _default_format(), column_names(columns), limit)


def _default_format() -> Format:
    text = os.environ.get(VARIABLE, "")
    try:
        return Format(text or "table")
    except ValueError:
        raise UsageError(f"{printable(text)} in `{VARIABLE}` is no format", f"export {VARIABLE}=json") from None


def _option(name: str, annotation: object, default: object = None) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


_COMMON = [
    _option("output", Output),
    _option("columns", ColumnNames),
    _option("context", ContextName),
    _option("debug", Debug, False),
]
_WRITES = [_option("yes", Yes, False), _option("dry_run", DryRun, False), _option("max_devices", MaxDevices)]
