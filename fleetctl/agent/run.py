"""Run one agent, or many in one process, and yield what they tell (`{"event", "deviceId", "time", …}`)."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from time import monotonic, time

from fleetctl.agent.actor import Actor
from fleetctl.agent.applicant import Applicant
from fleetctl.agent.device import Device, Event
from fleetctl.agent.enrolment import Claim, is_claim
from fleetctl.agent.home import Home, has_identity
from fleetctl.agent.identity import Identity
from fleetctl.agent.loop import Loop, Member
from fleetctl.agent.selftest import from_command
from fleetctl.agent.sensors import Sensors, of_machine, of_simulation
from fleetctl.agent.settings import Settings
from fleetctl.agent.storage import Storage
from fleetctl.agent.updater import Clock
from fleetctl.errors import Conflict, UsageError
from fleetctl.model.device import check_level

STATE = "state"


@dataclass(frozen=True, slots=True)
class _Place:
    """One device: where its state is, and what it begins with: a home, or a claim and a serial number."""

    state: Path
    home: Home | None
    claim: Claim | None = None
    serial: str = ""


def run(
    bundle: Path,
    state: Path | None = None,
    self_test: str | None = None,
    *,
    serial: str | None = None,
    settings: Settings | None = None,
    stop: threading.Event | None = None,
) -> Iterator[Event]:
    """Be the device of a bundle until `stop` is set; `state` defaults to a folder in the bundle.

    With a claim bundle it enrols first, as `serial`, unless its state holds an identity already.

    Raises (before the first event):
        ConfigError, NotFound, Denied, Untrusted: the bundle, the state or the self-test is not what it must be.
        Conflict: another agent uses the state.
        UsageError: a claim without a serial number, or a bundle with one.
    Raises (later):
        Denied, Conflict: the fleet has refused to enrol the device, for good.
    """
    chosen = _settings(settings, self_test, of_machine)
    if serial is not None and not (bundle / "device.yaml").exists():
        place = _claimant(bundle, serial, state or bundle / STATE / check_level("serial", serial), chosen)
    elif serial is not None:
        raise UsageError(f"`{bundle}` is the bundle of one device: it has its name already", f"fleetctl agent run {bundle}")
    elif is_claim(bundle):
        raise UsageError(f"`{bundle}` is a claim: name the device", f"fleetctl agent run {bundle} --serial SN")
    else:
        home = state or bundle / STATE
        place = _Place(home, Home(home, bundle, _now(chosen)))
    yield from _run([place], chosen, stop or threading.Event())


def simulate(
    bundles: Sequence[Path],
    state: Path,
    self_test: str | None = None,
    *,
    settings: Settings | None = None,
    stop: threading.Event | None = None,
) -> Iterator[Event]:
    """Be the devices of many bundles; each keeps its state in a folder of its own under `state`, named by its id.

    Raises what `run` raises, and `Conflict` where two bundles are of one device.
    """
    chosen = _settings(settings, self_test, of_simulation)
    places: dict[Path, _Place] = {}
    for bundle in bundles:
        device = Identity.load(bundle).config.device.device_id
        folder = state / device
        if folder in places:
            raise Conflict(f"two bundles are of device `{device}`", "name each device once")
        places[folder] = _Place(folder, Home(folder, bundle, _now(chosen)))
    yield from _run(list(places.values()), chosen, stop or threading.Event())


def simulate_claim(
    claim: Path,
    serials: Sequence[str],
    state: Path,
    self_test: str | None = None,
    *,
    settings: Settings | None = None,
    stop: threading.Event | None = None,
) -> Iterator[Event]:
    """Enrol many devices with one claim, and be them; each keeps its state in a folder under `state`, named by its serial.

    Raises what `run` raises; a refused device ends alone, and the run when all have.
    """
    chosen = _settings(settings, self_test, of_simulation)
    places = [_claimant(claim, serial, state / check_level("serial", serial), chosen) for serial in dict.fromkeys(serials)]
    yield from _run(places, chosen, stop or threading.Event())


def _claimant(folder: Path, serial: str, state: Path, settings: Settings) -> _Place:
    if has_identity(state):
        return _Place(state, Home(state, None, _now(settings)))
    return _Place(state, None, Claim.load(folder), serial)


def _settings(settings: Settings | None, self_test: str | None, sensors: Sensors) -> Settings:
    chosen = settings or Settings()
    test = chosen.self_test if self_test is None else from_command(self_test, chosen.self_test_timeout)
    return replace(chosen, self_test=test, sensors=chosen.sensors or sensors)


def _run(places: Sequence[_Place], settings: Settings, stop: threading.Event) -> Iterator[Event]:
    clock = Clock(time if settings.clock else _no_clock, monotonic)
    with ExitStack() as held:
        storages = [Storage(place.state, slot_size=settings.slot_size) for place in places]
        for storage in storages:
            held.enter_context(storage.claim())
        loop = Loop(clock, Random())  # noqa: S311
        pairs = zip(places, storages, strict=True)
        yield from loop.run([_member(loop, place, storage, settings) for place, storage in pairs], stop)


def _member(loop: Loop, place: _Place, storage: Storage, settings: Settings) -> Member:
    def become(home: Home | None = None) -> Actor:
        lived = home or Home(place.state, None, loop.clock.wall())
        lived.identities.tidy()
        return Actor(loop, lived, partial(_boot, lived, settings, storage, loop))

    if place.claim is None:
        return become(place.home)
    return Applicant(loop, place.claim, place.serial, place.state, settings, become)


def _boot(home: Home, settings: Settings, storage: Storage, loop: Loop, identity: Identity) -> Device:
    device = Device(identity, settings, storage, loop.clock, loop.chance)
    for flaw in home.flaws:
        device.tell("error", reason=f"an identity does not count: {flaw}")
    return device


def _now(settings: Settings) -> float | None:
    return time() if settings.clock else None


def _no_clock() -> None:
    return None
