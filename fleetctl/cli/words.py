"""What words on the command line mean: durations, shares, formats, selectors; raises what Typer can show."""

import re
from typing import Annotated

import typer

from fleetctl.errors import UsageError
from fleetctl.present.format import Format

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d|w)")


def duration(value: str | float) -> float:
    """Seconds of `1h30m`, `5s`, `30d`; a number needs its unit."""
    if not isinstance(value, str):
        return value
    text = value.removeprefix("=")
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise typer.BadParameter(f"`{text}` is not a duration: write 500ms, 5s, 10m, 2h or 30d")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def format_name(value: str | Format) -> Format:
    """The output format; `-o=json` loses its `=`."""
    text = str(value).removeprefix("=")
    try:
        return Format(text)
    except ValueError:
        raise typer.BadParameter(f"`{text}` is not one of {', '.join(Format)}") from None


def equals(value: str) -> str:
    """A value without the one `=` that kubectl's habit puts before it."""
    return value.removeprefix("=")


def column_names(value: str | None) -> tuple[str, ...]:
    """Keys between commas."""
    if value is None:
        return ()
    names = tuple(each.strip() for each in value.split(",") if each.strip())
    if not names:
        raise UsageError("`--columns` names no column", "name keys, as in --columns id,state")
    return names


def labels_of(words: list[str] | None) -> dict[str, str]:
    """Labels of `k=v` words; raises `UsageError` for a word without `=` and a key that is named twice."""
    labels: dict[str, str] = {}
    for word in words or ():
        key, separator, value = word.partition("=")
        if not separator or not key:
            raise UsageError(f"`{word}` is not KEY=VALUE", "as in --label site=oslo")
        if labels.setdefault(key, value) != value:
            raise UsageError(f"label `{key}` has two values", "name each label once")
    return labels


def complete_format(incomplete: str) -> list[str]:
    return [each for each in Format if each.startswith(incomplete)]


def complete_context(incomplete: str) -> list[str]:
    from fleetctl.cli.tab import contexts

    return contexts(incomplete)


def complete_device(incomplete: str) -> list[str]:
    from fleetctl.cli.tab import devices

    return devices(incomplete)


def complete_group(incomplete: str) -> list[str]:
    from fleetctl.cli.tab import groups

    return groups(incomplete)


def complete_selector(incomplete: str) -> list[str]:
    from fleetctl.cli.tab import selectors

    return selectors(incomplete)


Output = Annotated[
    Format | None,
    typer.Option(
        "--output",
        "-o",
        parser=format_name,
        metavar="FORMAT",
        help=f"Print as {', '.join(Format)} ($FLEETCTL_OUTPUT sets the default).",
        autocompletion=complete_format,
    ),
]
ColumnNames = Annotated[
    str | None,
    typer.Option("--columns", metavar="KEY,...", parser=equals, help="Show these keys only, dotted ones too."),
]
ContextName = Annotated[
    str | None,
    typer.Option(
        "--context",
        metavar="NAME",
        help="Use this context ($FLEETCTL_CONTEXT sets the default).",
        autocompletion=complete_context,
    ),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the chain of causes of an error.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before a write to more than one device.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would be written to which devices, and stop.")]
MaxDevices = Annotated[
    int | None, typer.Option("--max-devices", metavar="N", min=1, help="Refuse to write to more than this many devices.")
]

DeviceWord = Annotated[
    str,
    typer.Argument(
        metavar="DEVICE", help="A device id; `-` reads it from stdin.", autocompletion=complete_device, show_default=False
    ),
]
DeviceWords = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[DEVICE]...", help="Ids or globs; `-` reads ids from stdin, `@FILE` from a file.", autocompletion=complete_device
    ),
]
LimitWord = Annotated[
    str | None, typer.Option("--limit", metavar="N|N%", help="Of those, only so many or such a share, always the same ones.")
]
SelectorWord = Annotated[
    str | None,
    typer.Option(
        "--selector",
        "-l",
        metavar="SELECTOR",
        parser=equals,
        help="Choose devices: `type=sensor,site!=oslo`.",
        autocompletion=complete_selector,
    ),
]


Refresh = Annotated[bool, typer.Option("--refresh", help="Read the broker first.")]


def duration_option(*names: str, help: str, shown: str | bool = False) -> typer.models.OptionInfo:  # noqa: A002
    """An option whose value needs a unit; `shown` is its default in words."""
    option: typer.models.OptionInfo = typer.Option(*names, parser=duration, metavar="DURATION", help=help, show_default=shown)
    return option
