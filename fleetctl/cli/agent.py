"""`fleetctl agent`: the reference device, once or many times."""

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fleetctl.cli.group import group
from fleetctl.cli.session import Session
from fleetctl.cli.verb import verb
from fleetctl.cli.words import duration_option
from fleetctl.errors import UsageError
from fleetctl.present.progress import counted
from fleetctl.present.text import cell
from fleetctl.present.view import Field, View

if TYPE_CHECKING:
    from fleetctl.agent.settings import Settings
    from fleetctl.wire.document import Json

SERIALS_LIMIT = 1 << 20
MOST_SERIALS = 10_000
COMMON = ("event", "deviceId", "time")


def _rest(event: object) -> str:
    return cell({key: value for key, value in event.items() if key not in COMMON}) if isinstance(event, dict) else "-"


EVENT = View(
    "agentEvent",
    (
        Field("time", help="By the device's clock.", nullable=True),
        Field("deviceId", header="DEVICE"),
        Field("event", help="boot, online, offline, enrolled, renewed, assignment, update, twin, command, …"),
        Field("*", help="What belongs to the event.", header="DETAILS", show=_rest),
    ),
    id="deviceId",
    open=True,
)
State = Annotated[Path | None, typer.Option("--state", metavar="DIR", help="Where slots, records and twins are kept.")]
RebootDelay = Annotated[float, duration_option("--reboot-delay", help="How long a reboot takes.", shown="1s")]
SelfTest = Annotated[
    str | None,
    typer.Option("--self-test", metavar="COMMAND", help="Run after an update; {image} is the new image; 0 is healthy."),
]
Heartbeat = Annotated[float | None, duration_option("--heartbeat", help="Between statuses; the bundle's by default.")]
Telemetry = Annotated[float, duration_option("--telemetry", help="Between readings, unless the fleet says.", shown="1m")]
Firmware = Annotated[str, typer.Option("--firmware", metavar="VERSION", help="What it runs before the first update.")]

app = group("Run the reference device, or simulate many.")


@verb(
    app,
    EVENT,
    name="run",
    example="""
    fleetctl agent run ./pump-7
    fleetctl agent run ./pump-7 --self-test 'sh {image} --check' -o jsonl
    fleetctl agent run ./claim --serial SN00042 --state ./sn00042
    """,
)
def run(
    session: Session,
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A folder that `provision add --bundle` wrote, or a claim.")],
    serial: Annotated[
        str | None, typer.Option("--serial", metavar="SN", help="With a claim: the serial number to enrol as.")
    ] = None,
    state: State = None,
    self_test: SelfTest = None,
    heartbeat: Heartbeat = None,
    telemetry: Telemetry = 60.0,
    reboot_delay: RebootDelay = 1.0,
    firmware: Firmware = "1.0.0",
) -> "Iterator[dict[str, Json]]":
    """Be the device of a bundle, until Ctrl-C; prints an event a line.

    With a claim it makes its own key, asks the fleet for an identity, and keeps it in its state.
    """
    from fleetctl.agent import run as agents

    with _stopping() as stop:
        settings = _settings(heartbeat, telemetry, reboot_delay, firmware)
        yield from agents.run(bundle, state, self_test, serial=serial, settings=settings, stop=stop)


@verb(
    app,
    EVENT,
    name="simulate",
    example="""
    fleetctl agent simulate -n 30 --type pump --location oslo
    fleetctl agent simulate ./bundles/* --state ./state
    fleetctl agent simulate --claim ./claim --serials SN001..SN100
    """,
)
def simulate(
    session: Session,
    bundles: Annotated[list[Path] | None, typer.Argument(metavar="[BUNDLE]...", help="Bundles that exist already.")] = None,
    count: Annotated[int | None, typer.Option("-n", "--count", metavar="N", min=1, help="Provision so many and be them.")] = None,
    device_type: Annotated[str, typer.Option("--type", metavar="TYPE", help="With -n: their type.")] = "sensor",
    location: Annotated[str, typer.Option("--location", metavar="PLACE", help="With -n: their location.")] = "lab",
    claim: Annotated[
        Path | None, typer.Option("--claim", metavar="BUNDLE", help="Enrol with this claim and be what comes of it.")
    ] = None,
    serials: Annotated[
        str | None, typer.Option("--serials", metavar="FROM..TO|FILE", help="With --claim: a range, or a file, one a line.")
    ] = None,
    prefix: Annotated[str, typer.Option("--prefix", metavar="TEXT", help="With -n: how their ids begin.")] = "sim-",
    state: State = None,
    self_test: SelfTest = None,
    heartbeat: Heartbeat = None,
    telemetry: Telemetry = 60.0,
    reboot_delay: RebootDelay = 1.0,
    firmware: Firmware = "1.0.0",
) -> "Iterator[dict[str, Json]]":
    """Be many devices in one process, until Ctrl-C; prints an event a line."""
    from fleetctl.agent import run as agents

    if sum((bool(bundles), bool(count), claim is not None)) != 1 or (claim is None) != (serials is None):
        raise UsageError("name bundles, or say how many devices, or name a claim and serials", "fleetctl agent simulate -n 30")
    if claim is not None:
        numbers = serial_numbers(serials or "")
        with _stopping() as stop:
            settings = _settings(heartbeat, telemetry, reboot_delay, firmware)
            yield from agents.simulate_claim(claim, numbers, state or Path("state"), self_test, settings=settings, stop=stop)
        return
    home = state or (session.context.folder / "simulated" if count else Path("state"))
    folders = bundles or _provisioned(session, count or 0, prefix, device_type, location, home / "bundles")
    with _stopping() as stop:
        settings = _settings(heartbeat, telemetry, reboot_delay, firmware)
        yield from agents.simulate(folders, home / "state" if count else home, self_test, settings=settings, stop=stop)


def _provisioned(session: Session, count: int, prefix: str, device_type: str, location: str, home: Path) -> Sequence[Path]:
    """Bundles of `count` devices, provisioned where they were not yet."""
    names = [f"{prefix}{index:03d}" for index in range(1, count + 1)]
    for name in counted(names, "provisioning", count, session.terminal.stderr):
        if not (home / name / "device.yaml").exists():
            session.devices.add(name, device_type=device_type, location=location, labels={}, bundle=home / name)
    return [home / name for name in names]


def serial_numbers(text: str) -> Sequence[str]:
    """What `SN001..SN100` names, or the lines of a file; raises `UsageError`."""
    from fleetctl import files

    if ".." not in text or Path(text).exists():
        lines = files.read_limited(Path(text), SERIALS_LIMIT).decode(errors="replace").splitlines()
        found = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    else:
        found = _range(*text.split("..", 1))
    if not found:
        raise UsageError(f"`{text}` names no serial number", "write --serials SN001..SN100")
    return found


def _range(first: str, last: str) -> list[str]:
    """From one number to another of the same form, as `SN001..SN100`."""
    width = len(first) - len(first.rstrip("0123456789"))
    stem = first[: len(first) - width]
    if not width or not last.startswith(stem) or not last[len(stem) :].isdecimal():
        raise UsageError(f"`{first}..{last}` is no range of serial numbers", "write --serials SN001..SN100")
    low, high = int(first[len(stem) :]), int(last[len(stem) :])
    if high - low >= MOST_SERIALS:
        raise UsageError(f"`{first}..{last}` names more than {MOST_SERIALS} serial numbers", "take fewer at a time")
    return [f"{stem}{number:0{width}d}" for number in range(low, high + 1)]


def _settings(heartbeat: float | None, telemetry: float, reboot_delay: float, firmware: str) -> "Settings":
    from fleetctl.agent.settings import Settings

    return Settings(heartbeat=heartbeat, telemetry=telemetry, reboot_delay=reboot_delay, firmware_version=firmware)


@contextmanager
def _stopping() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, so that devices say goodbye; Ctrl-C is passed on when they have."""
    stop = threading.Event()
    seen: list[int] = []

    def tell(number: int, _frame: object) -> None:
        seen.append(number)
        stop.set()

    before = {number: signal.signal(number, tell) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if signal.SIGINT in seen:
        raise KeyboardInterrupt
