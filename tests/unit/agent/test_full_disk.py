"""A disk without room: what an update took is given back, and what cannot be stored is tried again ever more slowly."""

import threading
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from fleetctl.agent.actor import Actor
from fleetctl.agent.download import Artifacts
from fleetctl.agent.home import Home
from fleetctl.agent.selftest import always_healthy
from fleetctl.agent.storage import RESERVE, Storage
from fleetctl.agent.updater import Clock, Outcome
from fleetctl.agent.work import Job, perform
from fleetctl.errors import FleetError
from fleetctl.model.attempt import Code, Image, Phase, Slot
from fleetctl.model.update import Do

IMAGE = Image(f"sha256:{'0' * 64}", "2.0.0", 100_000)
FULL = Path("/dev/full")


def job(storage: Storage, do: Do) -> Job:
    nowhere = Artifacts("http://127.0.0.1:1", None, tries=1, pause=0.0)
    return Job(do, 1, IMAGE, Slot.B, storage, nowhere, always_healthy, threading.Event(), lambda _: None)


def prepared(folder: Path, free: int) -> Storage:
    storage = Storage(folder / "state", free=lambda _: free)
    storage.prepare(lambda: b"factory", "1.0.0")
    return storage


def test_an_image_that_does_not_fit_the_disk_is_not_fetched_and_what_was_fetched_goes(tmp_path: Path) -> None:
    storage = prepared(tmp_path, 2 * IMAGE.size - 10_000 + RESERVE - 1)
    storage.partial(IMAGE.digest).write_bytes(bytes(10_000))
    outcome = perform(job(storage, Do.FETCH))
    assert outcome is not None
    assert outcome.code is Code.NO_SPACE
    assert outcome.detail == "255536 bytes of disk are needed and 255535 are free"
    assert not storage.partial(IMAGE.digest).exists()


def test_an_image_that_just_fits_may_be_fetched(tmp_path: Path) -> None:
    prepared(tmp_path, 2 * IMAGE.size + RESERVE).check_space(Slot.B, IMAGE)


def test_a_slot_that_is_overwritten_counts_as_free(tmp_path: Path) -> None:
    storage = prepared(tmp_path, IMAGE.size + RESERVE)
    storage.slot(Slot.B).write_bytes(bytes(IMAGE.size + 1))
    storage.check_space(Slot.B, IMAGE)


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
def test_a_disk_that_fills_up_under_a_slot_gets_all_of_it_back(tmp_path: Path) -> None:
    storage = prepared(tmp_path, 0)
    storage.partial(IMAGE.digest).write_bytes(bytes(IMAGE.size))
    storage.slot(Slot.B).symlink_to(FULL)
    assert perform(job(storage, Do.WRITE)) == Outcome(Do.WRITE, Code.NO_SPACE, "no space left on device")
    assert not storage.partial(IMAGE.digest).exists()
    assert not storage.slot(Slot.B).is_symlink()


class HandLoop:
    """The loop of one actor, turned by hand: nothing connects, and work ends at once."""

    def __init__(self, clock: Clock, end: Callable[[], Outcome]) -> None:
        self.clock, self.chance = clock, Random(3)
        self.worked = 0
        self._end = end

    def connect(self, *_: object) -> None: ...
    def watch(self, *_: object) -> None: ...
    def wake(self, *_: object) -> None: ...

    def work(self, _work: object, then: Callable[[Outcome], None]) -> None:
        self.worked += 1
        then(self._end())


def test_what_cannot_be_stored_is_tried_ever_more_slowly_and_never_done_twice(
    bench: Any, keys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, full = bench.storage.save, False

    def scarce(record: Any) -> None:
        if full:
            raise FleetError("cannot write `state.json`: no space left on device")
        save(record)

    def end() -> Outcome:
        nonlocal full
        full = True
        return Outcome(Do.FETCH, Code.NO_SPACE, "no space left on device")

    monkeypatch.setattr(bench.storage, "save", scarce)
    loop = HandLoop(Clock(lambda: bench.now, lambda: bench.now), end)
    actor = Actor(loop, Home(bench.folder, identity=bench.identity), lambda _: bench.device)  # type: ignore[arg-type]
    actor.begin()
    bench.assign(keys.desired(keys.manifest(b"new image")))
    for _ in range(3000):
        bench.now += 0.1
        actor.turn()
    errors = bench.told("error")
    assert 5 < len(errors) < 20
    assert errors[-1]["retryIn"] > 20
    assert (loop.worked, bench.device.updater.phase) == (1, Phase.DOWNLOADING)
    full = False
    bench.now += 60.0
    actor.turn()
    assert (loop.worked, bench.device.updater.phase) == (1, Phase.FAILED)
    assert bench.told("update")[-1]["code"] == "NO_SPACE"
