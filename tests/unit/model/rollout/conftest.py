"""A rollout told event by event."""

from collections.abc import Callable, Sequence

import pytest

from fleetctl.model.device import DevicePath
from fleetctl.model.release import Release
from fleetctl.model.rollout import (
    Act,
    Candidate,
    Event,
    Offer,
    Offered,
    Parameters,
    Plan,
    Reported,
    Rollout,
    Sighted,
    Target,
    Tick,
    Withdraw,
    Withdrawn,
    make_plan,
)

NEW, OLD = "sha256:" + "a" * 64, "sha256:" + "b" * 64
QUICK = Parameters(soak=0, heartbeats=0, heartbeat=10, accept_within=100, finish_within=1000)


def plan_of(size: int, parameters: Parameters = QUICK, not_before: int | None = None, not_after: int | None = None) -> Plan:
    targets = [Target(DevicePath("acme", "hall", "pump", f"p{number}"), OLD, 7, "pump", "") for number in range(size)]
    release = Release.parse("pump@2.0.0")
    found = [Candidate(target) for target in targets]
    return make_plan(
        "r1",
        "acme",
        release,
        NEW,
        OLD,
        found,
        created_at=0,
        parameters=parameters,
        not_before=not_before,
        not_after=not_after,
    )


class Scene:
    """A rollout whose broker acknowledges at once; `acts` is all that it asked for."""

    def __init__(self, plan: Plan, retained: Sequence[Event] = (), start: float = 1.0) -> None:
        self.rollout = Rollout(plan)
        self.acts: list[Act] = []
        self.now = start
        for event in retained:
            self.fold(event)
        self.wait(0)

    def fold(self, event: Event) -> list[Act]:
        waiting, asked = [event], []
        while waiting:
            for act in self.rollout.fold(waiting.pop(0)):
                asked.append(act)
                if isinstance(act, Offer):
                    waiting.append(Offered(act.index, act.attempt, self.now))
                elif isinstance(act, Withdraw):
                    waiting.append(Withdrawn(act.index, act.attempt, self.now))
        self.acts += asked
        return asked

    def wait(self, seconds: float) -> list[Act]:
        self.now += seconds
        return self.fold(Tick(self.now))

    def report(
        self, index: int, phase: str, step: int = 5, code: str | None = None, attempt: int = 1, boot: int = 1
    ) -> list[Act]:
        return self.fold(Reported(index, attempt, step, phase, code, boot, None if phase == "rejected" else 1, self.now))

    def accept(self, index: int, attempt: int = 1) -> list[Act]:
        return self.report(index, "accepted", 1, attempt=attempt)

    def fail(self, index: int, code: str = "HEALTH_FAILED", attempt: int = 1) -> list[Act]:
        self.accept(index, attempt)
        return self.report(index, "rolled_back" if code in {"HEALTH_FAILED", "SILENT"} else "failed", 9, code, attempt)

    def sight(self, index: int, image: str = NEW, boot: int = 2, online: bool = True, heartbeat: float = 10) -> list[Act]:
        return self.fold(Sighted(index, image, boot, 1, online, heartbeat, self.now))

    def succeed(self, index: int, attempt: int = 1) -> list[Act]:
        self.accept(index, attempt)
        return self.report(index, "succeeded", 9, attempt=attempt, boot=2) + self.sight(index)

    @property
    def state(self) -> str:
        return str(self.rollout.state)

    @property
    def offers(self) -> list[int]:
        return [act.index for act in self.acts if isinstance(act, Offer)]

    def stage(self, index: int) -> str:
        return self.rollout.explain(index).stage


@pytest.fixture
def scene_of() -> Callable[..., Scene]:
    """Begin a rollout over so many pumps."""

    def begin(
        size: int, parameters: Parameters = QUICK, retained: Sequence[Event] = (), start: float = 1.0, **times: int
    ) -> Scene:
        return Scene(plan_of(size, parameters, **times), retained, start)

    return begin
