"""The demo: from an empty machine to a staged rollout that succeeds, and one that stops itself, with real parts throughout."""

import signal
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import Any

from fleetctl import config
from fleetctl.demo import firmware, place
from fleetctl.demo.processes import Child, child
from fleetctl.errors import FleetError, Halted
from fleetctl.model.rollout import Parameters
from fleetctl.platforms.local.fleet import LocalFleet
from fleetctl.platforms.local.init import create_context
from fleetctl.platforms.protocol import Targets
from fleetctl.platforms.updates import PlanOptions, RolloutEntry, RolloutRef

NAME = "demo"
DEVICE_TYPE = "pump"
SITES = ("oslo", "bergen", "lyon")
HEARTBEAT = 0.5
READY = 20.0
ENDS = (("2.0.0", firmware.HEALTHY, "completed"), ("3.0.0", firmware.BROKEN, "halted"))
PARAMETERS = Parameters(
    accept_within=20.0, finish_within=20.0, soak=1.0, heartbeat=HEARTBEAT, heartbeats=1, stale_after=6.0, max_attempts=1
)

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Stage:
    """The demo as it runs: its fleet, where its files are, and how another terminal reaches it."""

    fleet: LocalFleet
    folder: Path
    url: str
    engine: str


def run(devices: int = 30, *, engine: str | None = None, keep: bool = False) -> Iterator[Record]:
    """Yield an event for everything that happens; the record without `event` is the summary.

    With `keep` it stays until interrupted, and an event `kept` has the lines that let another terminal talk to it.

    Raises:
        FleetError: a rollout did not end as it should.
    """
    begun = monotonic()
    with ExitStack() as stack:
        stack.enter_context(_ends_on_signals())
        folder = stack.enter_context(place.home())
        yield {"event": "began", "folder": str(folder), "devices": devices}
        stage = yield from _build(stack, folder, engine)
        yield from _populate(stack, stage, devices)
        entries = []
        for version, self_test, expected in ENDS:
            entry = yield from _roll_out(stage, version, self_test)
            if entry.state != expected or not entry.settled:
                raise FleetError(f"the rollout of `{entry.release}` is {entry.state}, not {expected}: {entry.reason}")
            entries.append(entry)
        yield _fallen_back(stage, entries)
        summary = _summary(stage, devices, entries, monotonic() - begun)
        yield summary
        if keep:
            yield {"event": "kept", "lines": _lines(stage)}
            signal.pause()


def _build(stack: ExitStack, folder: Path, engine: str | None) -> Generator[Record, None, Stage]:
    port = place.free_ports()
    environ = {"FLEETCTL_HOME": str(folder)}
    create_context(NAME, "acme", f"mqtts://{place.HOST}:{port}", "demo", environ=environ)
    yield {"event": "initialized", "context": NAME, "tenant": "acme"}
    words = ["broker", "run", "--context", NAME, "-o", "jsonl", *(["--engine", engine] if engine else [])]
    broker = stack.enter_context(child("broker", words, environ, folder / "broker.log"))
    listening = broker.wait_for("listening", READY)
    fleet = stack.enter_context(LocalFleet(config.load_context(NAME, environ)))
    yield {**listening, "event": "broker"}
    return Stage(fleet, folder, listening["deviceUrl"], listening["engine"])


def _populate(stack: ExitStack, stage: Stage, devices: int) -> Iterator[Record]:
    bundles = stage.folder / "bundles"
    names = [f"{DEVICE_TYPE}-{number:02d}" for number in range(1, devices + 1)]
    for number, name in enumerate(names):
        site = SITES[number % len(SITES)]
        stage.fleet.devices.add(name, device_type=DEVICE_TYPE, location=site, labels={"site": site}, bundle=bundles / name)
    yield {"event": "provisioned", "devices": devices}
    words = ["agent", "simulate", *(str(bundles / name) for name in names), "--state", str(stage.folder / "devices")]
    words += ["--self-test", "sh {image}", "--heartbeat", f"{HEARTBEAT}s", "--reboot-delay", "200ms", "-o", "jsonl"]
    environ = {"FLEETCTL_HOME": str(stage.folder)}
    agents = stack.enter_context(child("devices", words, environ, stage.folder / "devices.log"))
    yield from _await_online(agents, devices)


def _await_online(agents: Child, devices: int) -> Iterator[Record]:
    seen: set[str] = set()
    while len(seen) < devices:
        seen.add(agents.wait_for("online", READY)["deviceId"])
    yield {"event": "online", "devices": devices}


def _roll_out(stage: Stage, version: str, self_test: str) -> Generator[Record, None, RolloutEntry]:
    updates = stage.fleet.updates
    file = stage.folder / f"firmware-{version}.bin"
    file.write_bytes(firmware.image(version, self_test))
    release = updates.publish(file, DEVICE_TYPE, version)
    yield {"event": "published", "release": release.name, "digest": release.digest}
    targets = stage.fleet.devices.resolve(Targets(selector=f"type={DEVICE_TYPE}"))
    plan = updates.plan(release.name, targets, PlanOptions(parameters=PARAMETERS))
    yield {"event": "planned", "rolloutId": plan.id, "release": plan.release, "devices": plan.targets, "waves": list(plan.waves)}
    entry = None
    try:
        for record in updates.start(RolloutRef(plan.id), wait=True, timeout=60.0):
            if isinstance(record, RolloutEntry):
                entry = record
                yield _ended(record)
            else:
                yield record
    except Halted:
        pass
    if entry is None:
        raise FleetError(f"the rollout of `{release.name}` did not begin")
    return entry


def _fallen_back(stage: Stage, entries: Sequence[RolloutEntry]) -> Record:
    """What devices run after a release that they gave up; raises `FleetError` unless it is the one before."""
    good = entries[0].release.partition("@")[2]
    targets = Targets(selector=f"type={DEVICE_TYPE}")
    stage.fleet.devices.refresh(stage.fleet.devices.resolve(targets))
    others = [device.id for device in stage.fleet.devices.list(targets) if device.firmware != good]
    if others:
        raise FleetError(f"{len(others)} devices do not run {good}: {', '.join(others[:5])}")
    return {"event": "fellBack", "devices": entries[-1].failed, "release": entries[0].release}


def _ended(entry: RolloutEntry) -> Record:
    return {"event": "ended", **_rollout(entry)}


def _rollout(entry: RolloutEntry) -> dict[str, object]:
    return {
        "id": entry.id,
        "release": entry.release,
        "state": entry.state,
        "succeeded": entry.succeeded,
        "failed": entry.failed,
        "untouched": entry.untouched,
    }


def _summary(stage: Stage, devices: int, entries: Sequence[RolloutEntry], seconds: float) -> Record:
    return {
        "broker": {"engine": stage.engine, "url": stage.url},
        "devices": devices,
        "rollouts": [_rollout(entry) for entry in entries],
        "seconds": round(seconds, 1),
    }


def _lines(stage: Stage) -> list[str]:
    return [
        f"export FLEETCTL_HOME={stage.folder}",
        "fleetctl provision list --refresh",
        "fleetctl tail --channel telemetry --count 5",
        f"fleetctl publish {DEVICE_TYPE}-01 commands/ping --wait",
        "fleetctl ota list",
    ]


@contextmanager
def _ends_on_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the demo as Ctrl-C does, so that everything is cleared away."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    handlers: dict[signal.Signals, Callable[..., object] | int | None] = {}
    for number in (signal.SIGTERM, signal.SIGHUP):
        handlers[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
