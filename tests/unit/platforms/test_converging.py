"""Waiting for devices to converge, with a clock that nobody waits for."""

from collections.abc import Collection, Sequence

import pytest

from fleetctl.errors import Partial, Pending
from fleetctl.model.device import Device, DevicePath
from fleetctl.platforms.converging import LOOK_AGAIN, until_converged
from fleetctl.platforms.twins import TwinConvergence

DEVICES = [Device(DevicePath("acme", "oslo", "pump", name)) for name in ("p1", "p2")]


class Script:
    """Who says what, and when: `said` reaches the fleet, `lost` only whoever reads."""

    def __init__(self, said: dict[float, dict[str, str]], lost: dict[float, dict[str, str]] | None = None) -> None:
        self.said, self.lost = said, lost or {}
        self.clock = 0.0
        self.outcomes = {"p1": "waiting", "p2": "waiting"}
        self.reads: list[tuple[float, list[str]]] = []

    def now(self) -> float:
        return self.clock

    def read(self, devices: Sequence[Device]) -> None:
        self.reads.append((self.clock, [device.id for device in devices]))
        for at, outcomes in {**self.said, **self.lost}.items():
            if at <= self.clock:
                self.outcomes.update(outcomes)

    def listen(self, timeout: float) -> Collection[str]:
        at = min((each for each in self.said if each > self.clock), default=self.clock + timeout)
        if at > self.clock + timeout or at not in self.said:
            self.clock += timeout
            return ()
        self.clock = at
        self.outcomes.update(self.said[at])
        return list(self.said[at])

    def state(self, device: Device) -> TwinConvergence:
        return TwinConvergence(device.id, self.outcomes[device.id], 1, 1, None)


def told(script: Script, timeout: float) -> list[tuple[float, str, str]]:
    return [(script.clock, each.id, each.outcome) for each in until_converged(script, DEVICES, timeout)]


def test_each_device_is_told_when_it_says_so() -> None:
    script = Script({1.0: {"p2": "converged"}, 2.0: {"p1": "converged"}})

    assert told(script, 60) == [(1.0, "p2", "converged"), (2.0, "p1", "converged")]
    assert script.reads == [(0.0, ["p1", "p2"])]


def test_what_was_lost_on_the_way_is_read_after_a_silence() -> None:
    script = Script({1.0: {"p2": "converged"}}, lost={2.0: {"p1": "converged"}})

    assert told(script, 60) == [(1.0, "p2", "converged"), (1.0 + LOOK_AGAIN, "p1", "converged")]
    assert script.reads[1:] == [(1.0 + LOOK_AGAIN, ["p1"])]


def test_everybody_is_read_before_the_deadline_is_held_against_them() -> None:
    script = Script({}, lost={0.5: {"p1": "converged"}})
    found = until_converged(script, DEVICES, 3)

    assert [next(found).outcome, next(found).outcome] == ["converged", "waiting"]
    with pytest.raises(Pending):
        next(found)
    assert script.clock == 3.0


def test_who_refuses_is_told_at_once_and_the_others_are_waited_for() -> None:
    script = Script({1.0: {"p1": "refused"}, 2.0: {"p2": "converged"}})
    with pytest.raises(Partial, match=r"1 of 2 devices refused what is desired$"):
        told(script, 60)
    assert script.clock == 2.0


def test_a_fleet_that_never_stops_talking_does_not_move_the_deadline() -> None:
    script = Script({number / 10: {"p2": "converged"} for number in range(1, 100)})
    with pytest.raises(Pending):
        told(script, 2)
    assert script.clock <= 2.1
