"""Run one agent, or many in one process, and yield what they tell (`{"event", "deviceId", "time", …}`)."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from time import monotonic, time

from fleetctl.agent.actor import Actor
from fleetctl.agent.device import Device, Event
from fleetctl.agent.identity import Identity
from fleetctl.agent.loop import Loop
from fleetctl.agent.selftest import from_command
from fleetctl.agent.sensors import Sensors, of_machine, of_simulation
from fleetctl.agent.settings import Settings
from fleetctl.agent.storage import Storage
from fleetctl.agent.updater import Clock
from fleetctl.errors import Conflict

STATE = "state"


def run(
    bundle: Path,
    state: Path | None = None,
    self_test: str | None = None,
    *,
    settings: Settings | None = None,
    stop: threading.Event | None = None,
) -> Iterator[Event]:
    """Be the device of a bundle until `stop` is set; `state` defaults to a folder in the bundle.

    Raises (before the first event):
        ConfigError, NotFound, Denied, Untrusted: the bundle, the state or the self-test is not what it must be.
        Conflict: another agent uses the state.
    """
    chosen = _settings(settings, self_test, of_machine)
    identity = Identity.load(bundle)
    yield from _run([(identity, state or bundle / STATE)], chosen, stop or threading.Event())


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
    places: dict[Path, Identity] = {}
    for bundle in bundles:
        identity = Identity.load(bundle)
        place = state / identity.config.device.device_id
        if place in places:
            raise Conflict(f"two bundles are of device `{identity.config.device.device_id}`", "name each device once")
        places[place] = identity
    yield from _run([(identity, place) for place, identity in places.items()], chosen, stop or threading.Event())


def _settings(settings: Settings | None, self_test: str | None, sensors: Sensors) -> Settings:
    chosen = settings or Settings()
    test = chosen.self_test if self_test is None else from_command(self_test, chosen.self_test_timeout)
    return replace(chosen, self_test=test, sensors=chosen.sensors or sensors)


def _run(devices: list[tuple[Identity, Path]], settings: Settings, stop: threading.Event) -> Iterator[Event]:
    clock = Clock(time if settings.clock else _no_clock, monotonic)
    chance = Random()  # noqa: S311
    with ExitStack() as held:
        storages = [Storage(folder, slot_size=settings.slot_size) for _, folder in devices]
        for storage in storages:
            held.enter_context(storage.claim())
        loop = Loop(clock, chance)
        starts = (
            partial(Device, identity, settings, storage, clock, chance)
            for (identity, _), storage in zip(devices, storages, strict=True)
        )
        yield from loop.run([Actor(loop, start) for start in starts], stop)


def _no_clock() -> None:
    return None
