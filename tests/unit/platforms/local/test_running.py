"""What other processes believe of the local broker."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue

import pytest

from fleetctl.errors import Conflict, Malformed
from fleetctl.platforms.local.running import STATE, BrokerState, claimed, have_it_read, publish, read_state, running

STATE_NOW = BrokerState(os.getpid(), "mosquitto", "mqtts://localhost:8883", "mqtts://localhost:8884", {"fleet-ca": 3}, 2)


class Clock:
    """Time that passes only when somebody sleeps; `then` runs once, at the first sleep."""

    def __init__(self, then: "list[BrokerState]", folder: Path) -> None:
        self.now = 0.0
        self._then = then
        self._folder = folder

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self._then:
            publish(self._folder, self._then.pop(0))


@pytest.fixture
def hangups() -> Iterator[SimpleQueue[int]]:
    heard: SimpleQueue[int] = SimpleQueue()
    before = signal.signal(signal.SIGHUP, lambda number, _: heard.put(number))
    yield heard
    signal.signal(signal.SIGHUP, before)


def test_a_state_is_read_back() -> None:
    failed = replace(STATE_NOW, error="no")
    assert BrokerState.decode(STATE_NOW.encode()) == STATE_NOW
    assert BrokerState.decode(failed.encode()) == failed


@pytest.mark.parametrize(
    "data", [b"", b"x", b"{}", b'{"pid":1}', b"[]", STATE_NOW.encode().replace(b'"mosquitto"', b"7"), b'{"pid":-5}', b'{"pid":0}']
)
def test_garbage_is_malformed_and_no_process_is_ever_signalled_for_it(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(Malformed):
        BrokerState.decode(data)
    (tmp_path / STATE).write_bytes(data)
    assert read_state(tmp_path) is None
    with claimed(tmp_path, "prod"):
        (tmp_path / STATE).write_bytes(data)
        assert running(tmp_path) is None


def test_a_state_counts_only_while_somebody_holds_the_lock(tmp_path: Path) -> None:
    publish(tmp_path, STATE_NOW)
    assert running(tmp_path) is None
    with claimed(tmp_path, "prod"):
        assert running(tmp_path) is None, "the state of the one before is gone"
        publish(tmp_path, STATE_NOW)
        assert running(tmp_path) == STATE_NOW
    assert running(tmp_path) is None
    assert not (tmp_path / STATE).exists()


def test_a_second_claim_is_a_conflict_and_does_not_disturb_the_first(tmp_path: Path) -> None:
    with claimed(tmp_path, "prod"):
        publish(tmp_path, STATE_NOW)
        with (
            pytest.raises(Conflict, match=r"process \d+, mqtts://localhost:8883") as caught,
            claimed(tmp_path, "prod", lambda _: None),
        ):
            pass
        assert caught.value.hint == f"stop it first: kill {os.getpid()}"
        assert running(tmp_path) == STATE_NOW


def test_without_a_broker_nobody_is_told(tmp_path: Path) -> None:
    told = have_it_read(tmp_path, {"fleet-ca": 1})
    assert (told.running, told.reloaded) == (False, False)


def test_a_broker_that_obeys_already_is_left_alone(tmp_path: Path, hangups: SimpleQueue[int]) -> None:
    with claimed(tmp_path, "prod"):
        publish(tmp_path, STATE_NOW)
        assert have_it_read(tmp_path, {"fleet-ca": 3}).reloaded
    assert hangups.empty()


def test_it_waits_until_the_broker_has_read_that_very_list(tmp_path: Path, hangups: SimpleQueue[int]) -> None:
    older, newer = replace(STATE_NOW, reloads=3), replace(STATE_NOW, lists={"fleet-ca": 5}, reloads=4)
    clock = Clock([older, newer], tmp_path)
    with claimed(tmp_path, "prod"):
        publish(tmp_path, STATE_NOW)
        told = have_it_read(tmp_path, {"fleet-ca": 4}, clock=clock, sleep=clock.sleep)
    assert (told.running, told.reloaded, told.engine, told.error) == (True, True, "mosquitto", None)
    assert hangups.get_nowait() == signal.SIGHUP


def test_an_error_of_this_reload_counts_and_one_of_an_earlier_does_not(tmp_path: Path, hangups: SimpleQueue[int]) -> None:
    failed = replace(STATE_NOW, error="it was bad before")
    clock = Clock([failed, replace(failed, reloads=3, error="it is bad now")], tmp_path)
    with claimed(tmp_path, "prod"):
        publish(tmp_path, failed)
        told = have_it_read(tmp_path, {"fleet-ca": 4}, clock=clock, sleep=clock.sleep)
    assert (told.running, told.reloaded, told.error) == (True, False, "it is bad now")
    assert not hangups.empty()


def test_a_broker_that_does_not_answer_is_given_up(tmp_path: Path, hangups: SimpleQueue[int]) -> None:
    clock = Clock([], tmp_path)
    with claimed(tmp_path, "prod"):
        publish(tmp_path, STATE_NOW)
        told = have_it_read(tmp_path, {"fleet-ca": 4}, timeout=5, clock=clock, sleep=clock.sleep)
    assert (told.running, told.reloaded, told.error) == (True, False, "it did not answer within 5 s")
    assert hangups.qsize() == 1
