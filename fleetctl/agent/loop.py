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
from typing import TypeVar

from fleetctl.agent.actor import Actor, State
from fleetctl.agent.device import Event
from fleetctl.agent.pool import Pool
from fleetctl.agent.updater import Clock

CONNECTING = 8
WORKING = 8
POLL = 0.2
GOODBYE = 5.0

Result = TypeVar("Result")


class Loop:
    """Runs actors until it is told to stop, and yields what they tell."""

    def __init__(self, clock: Clock, chance: Random) -> None:
        self.clock, self.chance = clock, chance
        self._selector = selectors.DefaultSelector()
        self._ear, self._mouth = socket.socketpair()
        self._ear.setblocking(False)
        self._mouth.setblocking(False)
        self._selector.register(self._ear, selectors.EVENT_READ)
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._alarms: list[tuple[float, int, Actor]] = []
        self._numbers = itertools.count()
        self._touched: dict[Actor, None] = {}
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

    def wake(self, actor: Actor, at: float) -> None:
        """Have the actor's `turn` called at a monotonic time; only the last wish counts."""
        actor.alarm = at
        self._touched[actor] = None
        heapq.heappush(self._alarms, (at, next(self._numbers), actor))

    def watch(self, actor: Actor, descriptor: int, write: bool) -> None:
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

    def run(self, actors: Iterable[Actor], stop: threading.Event) -> Iterator[Event]:
        """Serve the actors until `stop` is set, then let them say goodbye; also on KeyboardInterrupt and when abandoned."""
        running = list(actors)
        try:
            for actor in running:
                actor.begin()
            while not stop.is_set():
                touched, self._touched = self._touched, {}
                yield from _events(touched)
                self._turn()
        finally:
            self._end(running)
        yield from _events(running)

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

    def _end(self, actors: list[Actor]) -> None:
        """Stop work, part from the broker in parallel, leave no descriptor."""
        for actor in actors:
            actor.halt()
            if actor.state is State.UP:
                self._connecting.submit(actor.part)
        self._connecting.close(GOODBYE)
        self._working.close(GOODBYE)
        self._answer_calls()
        for actor in actors:
            actor.end()
        self._selector.close()
        self._ear.close()
        self._mouth.close()


def _events(actors: Iterable[Actor]) -> Iterator[Event]:
    for actor in actors:
        yield from actor.take_events()
