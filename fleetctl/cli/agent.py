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

COMMON = ("event", "deviceId", "time")


def _rest(event: object) -> str:
    return cell({key: value for key, value in event.items() if key not in COMMON}) if isinstance(event, dict) else "-"


EVENT = View(
    "agentEvent",
    (
        Field("time", help="By the device's clock.", nullable=True),
        Field("deviceId", header="DEVICE"),
        Field("event", help="boot, online, offline, assignment, update, twin, trust, command, dropped, …"),
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
Telemetry = Annotated[float, duration_option("--telemetry", help="Between messages of readings.", shown="1m")]
Firmware = Annotated[str, typer.Option("--firmware", metavar="VERSION", help="What it runs before the first update.")]

app = group("Run the reference device, or simulate many.")


@verb(
    app,
    EVENT,
    name="run",
    example="""
    fleetctl agent run ./pump-7
    fleetctl agent run ./pump-7 --self-test 'sh {image} --check' -o jsonl
    """,
)
def run(
    session: Session,
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A folder that `provision add --bundle` wrote.")],
    state: State = None,
    self_test: SelfTest = None,
    heartbeat: Heartbeat = None,
    telemetry: Telemetry = 60.0,
    reboot_delay: RebootDelay = 1.0,
    firmware: Firmware = "1.0.0",
) -> "Iterator[dict[str, Json]]":
    """Be the device of a bundle, until Ctrl-C; prints an event a line."""
    from fleetctl.agent import run as agents

    with _stopping() as stop:
        settings = _settings(heartbeat, telemetry, reboot_delay, firmware)
        yield from agents.run(bundle, state, self_test, settings=settings, stop=stop)


@verb(
    app,
    EVENT,
    name="simulate",
    example="""
    fleetctl agent simulate -n 30 --type pump --location oslo
    fleetctl agent simulate ./bundles/* --state ./state
    """,
)
def simulate(
    session: Session,
    bundles: Annotated[list[Path] | None, typer.Argument(metavar="[BUNDLE]...", help="Bundles that exist already.")] = None,
    count: Annotated[int | None, typer.Option("-n", "--count", metavar="N", min=1, help="Provision so many and be them.")] = None,
    device_type: Annotated[str, typer.Option("--type", metavar="TYPE", help="With -n: their type.")] = "sensor",
    location: Annotated[str, typer.Option("--location", metavar="PLACE", help="With -n: their location.")] = "lab",
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

    if bool(bundles) == bool(count):
        raise UsageError("name bundles, or say how many devices", "fleetctl agent simulate -n 30")
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
