"""One loop for many devices: one selector, one thread; connecting and slow work go to small pools and come back as calls."""

import heapq
import itertools
import selectors
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from random import Random
from typing import Protocol, TypeVar

from fleetctl.agent.device import Event
from fleetctl.agent.pool import Pool
from fleetctl.agent.updater import Clock
from fleetctl.errors import FleetError

CONNECTING = 8
WORKING = 8
POLL = 0.2
GOODBYE = 5.0

Result = TypeVar("Result")


class Member(Protocol):
    """What the loop serves: a device, or one that is still to become one."""

    alarm: float
    watched: int
    interest: int

    @property
    def up(self) -> bool: ...

    def begin(self) -> None: ...

    def take_events(self) -> list[Event]: ...

    def serve(self, readable: bool, writable: bool) -> None: ...

    def turn(self) -> None: ...

    def halt(self) -> None: ...

    def part(self) -> None: ...

    def end(self) -> None: ...


class Loop:
    """Runs its members until it is told to stop or the last has left, and yields what they tell."""

    def __init__(self, clock: Clock, chance: Random) -> None:
        self.clock, self.chance = clock, chance
        self._selector = selectors.DefaultSelector()
        self._ear, self._mouth = socket.socketpair()
        self._ear.setblocking(False)
        self._mouth.setblocking(False)
        self._selector.register(self._ear, selectors.EVENT_READ)
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._alarms: list[tuple[float, int, Member]] = []
        self._numbers = itertools.count()
        self._touched: dict[Member, None] = {}
        self._members: dict[Member, None] = {}
        self._failure: FleetError | None = None
        self._connecting = Pool("connect", CONNECTING)
        self._working = Pool("work", WORKING)

    # -- what actors use

    def call_soon(self, call: Callable[[], None]) -> None:
        """Run `call` in the loop's thread; the only method that another thread may use."""
        self._calls.put(call)
        with suppress(OSError):
            self._mouth.send(b"\0")

    def connect(self, work: Callable[[], Result], then: Callable[[Result], None]) -> None:
        """Run `work`, which must not raise, in a thread for connecting, and `then` with its result in the loop's."""
        self._connecting.submit(lambda: self.call_soon(partial(then, work())))

    def work(self, work: Callable[[], Result], then: Callable[[Result], None]) -> None:
        """The same for what takes long."""
        self._working.submit(lambda: self.call_soon(partial(then, work())))

    def touch(self, member: Member) -> None:
        """It has something to tell."""
        self._touched[member] = None

    def join(self, member: Member) -> None:
        """Serve one more from now on; raises what its `begin` raises."""
        member.begin()
        self._members[member] = None
        self.touch(member)

    def leave(self, member: Member, error: FleetError | None = None) -> None:
        """Serve it no longer; the first `error` is what the loop raises when nobody is left."""
        self._failure = self._failure or error
        self._members.pop(member, None)
        member.alarm = -1.0
        self.touch(member)

    def wake(self, actor: Member, at: float) -> None:
        """Have the actor's `turn` called at a monotonic time; only the last wish counts."""
        actor.alarm = at
        self._touched[actor] = None
        heapq.heappush(self._alarms, (at, next(self._numbers), actor))

    def watch(self, actor: Member, descriptor: int, write: bool) -> None:
        """Watch a socket of the actor; -1 watches none."""
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if write else 0)
        if (actor.watched, actor.interest) == (descriptor, wanted):
            return
        if actor.watched >= 0 and actor.watched != descriptor:
            with suppress(KeyError, ValueError, OSError):
                self._selector.unregister(actor.watched)
        if descriptor >= 0:
            change = self._selector.modify if actor.watched == descriptor else self._selector.register
            change(descriptor, wanted, actor)
        actor.watched, actor.interest = descriptor, wanted

    # -- the loop

    def run(self, members: Iterable[Member], stop: threading.Event) -> Iterator[Event]:
        """Serve them until `stop` is set, then let them say goodbye; also on KeyboardInterrupt and when abandoned.

        Raises the first error with which a member left, when all have.
        """
        self._members = dict.fromkeys(members)
        try:
            for member in list(self._members):
                member.begin()
            while self._members and not stop.is_set():
                touched, self._touched = self._touched, {}
                yield from _events(touched)
                self._turn()
        finally:
            left = not self._members
            self._end()
        yield from _events(self._touched | self._members)
        if left and self._failure is not None:
            raise self._failure

    def _turn(self) -> None:
        now = self.clock.monotonic()
        first = self._alarms[0][0] if self._alarms else now + POLL
        for key, mask in self._selector.select(max(0.0, min(first - now, POLL))):
            if key.data is None:
                with suppress(BlockingIOError):
                    self._ear.recv(65536)
            else:
                key.data.serve(bool(mask & selectors.EVENT_READ), bool(mask & selectors.EVENT_WRITE))
        self._answer_calls()
        now = self.clock.monotonic()
        while self._alarms and self._alarms[0][0] <= now:
            at, _, actor = heapq.heappop(self._alarms)
            if at == actor.alarm:
                actor.turn()

    def _answer_calls(self) -> None:
        with suppress(Empty):
            while True:
                self._calls.get_nowait()()

    def _end(self) -> None:
        """Stop work, part from the broker in parallel, leave no descriptor."""
        for member in self._members:
            member.halt()
            if member.up:
                self._connecting.submit(member.part)
        self._connecting.close(GOODBYE)
        self._working.close(GOODBYE)
        self._answer_calls()
        for member in self._members:
            member.end()
        self._selector.close()
        self._ear.close()
        self._mouth.close()


def _events(members: Iterable[Member]) -> Iterator[Event]:
    for member in members:
        yield from member.take_events()
