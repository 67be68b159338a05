"""What is held of every target: compact arrays, and the counters that decisions read (constant time for an event)."""

from array import array
from collections.abc import Iterable, Iterator
from heapq import heappop, heappush
from math import ceil, inf, nan

from fleetctl.model.rollout.plan import Plan
from fleetctl.model.rollout.stages import CODES, EXPOSED, FAILED, FAILING, OCCUPYING, OTHER, QUEUED, REGRESSED, REJECTED, Stage

ONLINE, RUNNING, SEEN, CONFIRMED, COUNTED, SOAKING, RETURNED = (1 << bit for bit in range(7))
"""Flags: online; runs the image; presence known; the broker holds the offer; counted by the test; in its soak; queued again."""


class Ledger:
    """Arrays by position in the plan. Wave 0 is no wave; -1 is a boot count that is not known; times are seconds or nan."""

    def __init__(self, plan: Plan) -> None:
        size = plan.size
        self.size = size
        self.stage = bytearray(size)
        self.attempt = bytearray(size)
        self.phase = bytearray(size)
        self.code = bytearray(size)
        self.flags = bytearray(size)
        self.recalled = bytearray(size)
        self.sightings = bytearray(size)
        self.wave = array("H", bytes(2 * size))
        self.step = array("q", [-1]) * size
        self.accepted_boot = array("q", [-1]) * size
        self.boot = array("q", [-1]) * size
        self.session = array("q", [-1]) * size
        self.since = array("d", [nan]) * size
        self.due = array("d", [inf]) * size
        self.seen_at = array("d", [nan]) * size
        self.seen_stamp = array("d", [nan]) * size
        self.counted_at = array("d", [nan]) * size
        self.proof_stamp = array("d", [nan]) * size
        self.heartbeat = array("f", [plan.parameters.heartbeat]) * size
        self.strata, self.stratum = _interned(target.stratum for target in plan.targets)
        self.sites, self.site = _interned(target.site for target in plan.targets)
        self.totals = [0] * len(Stage)
        self.totals[QUEUED] = size
        self.waves: list[list[int]] = [list(self.totals)]
        self.exposed = 0
        self.moved = False
        self.found: set[int] = set()
        self.code_totals = [0] * (len(CODES) + 1)
        self.exposed_strata = [0] * max(1, len(self.strata))

    def move(self, index: int, stage: int) -> None:
        """Put a target into a stage; every counter follows."""
        before = self.stage[index]
        if before == stage:
            return
        self.moved = True
        self.stage[index] = stage
        self.totals[before] -= 1
        self.totals[stage] += 1
        row = self.waves[self.wave[index]]
        row[before] -= 1
        row[stage] += 1
        code = self.code[index]
        self.code_totals[code] += FAILING[stage] - FAILING[before]
        change = EXPOSED[stage] - EXPOSED[before]
        if change:
            self.exposed += change
            self.exposed_strata[self.stratum[index]] += change

    def blame(self, index: int, code: int) -> None:
        """Set why a target failed, or may yet fail."""
        if FAILING[self.stage[index]]:
            self.code_totals[self.code[index]] -= 1
            self.code_totals[code] += 1
        self.code[index] = code

    def enroll(self, index: int, wave: int) -> None:
        """Make a target a member of a wave."""
        stage = self.stage[index]
        self.waves[self.wave[index]][stage] -= 1
        while len(self.waves) <= wave:
            self.waves.append([0] * len(Stage))
        self.waves[wave][stage] += 1
        self.wave[index] = wave

    def occupied(self, wave: int) -> int:
        """How many places of a wave are taken."""
        return sum(count for stage, count in enumerate(self.waves[wave]) if OCCUPYING[stage])

    def exposed_in(self, wave: int) -> int:
        return sum(count for stage, count in enumerate(self.waves[wave]) if EXPOSED[stage])

    @property
    def firmware_failures(self) -> int:
        return self.totals[FAILED] + self.totals[REGRESSED]

    @property
    def other_failures(self) -> int:
        return self.totals[OTHER] + self.totals[REJECTED]

    @property
    def answered(self) -> int:
        """Devices that accepted or rejected."""
        return self.exposed + self.totals[REJECTED]

    def code_counts(self) -> dict[str, int]:
        """Failures by code, in every family."""
        return {str(CODES[number - 1]): count for number, count in enumerate(self.code_totals) if number and count}


def _interned(names: Iterable[str]) -> tuple[list[str], "array[int]"]:
    numbers: dict[str, int] = {}
    places = array("I", (numbers.setdefault(name, len(numbers)) for name in names))
    return list(numbers), places


class Timers:
    """Deadlines in buckets: 4 bytes for each, noticed at most one `quantum` late, never early."""

    def __init__(self, quantum: float) -> None:
        self._quantum = quantum
        self._buckets: dict[int, array[int]] = {}
        self._order: list[int] = []

    def add(self, index: int, at: float) -> None:
        number = ceil(at / self._quantum)
        bucket = self._buckets.get(number)
        if bucket is None:
            bucket = self._buckets[number] = array("I")
            heappush(self._order, number)
        bucket.append(index)

    def take(self, at: float) -> Iterator[int]:
        """The indices whose deadline may have passed; an index can come twice, or when it has a later deadline by now."""
        while self._order and self._order[0] * self._quantum <= at:
            yield from self._buckets.pop(heappop(self._order))
