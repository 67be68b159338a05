"""`broker run`: the local broker of a context, supervised in the foreground until somebody ends it."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue
from time import monotonic

from fleetctl.config import Context
from fleetctl.errors import FleetError
from fleetctl.mqtt.broker import Broker, BrokerConfig, BrokerEngine, check_config, check_ports, choose_engine
from fleetctl.pki import crl
from fleetctl.platforms.local.listeners import broker_config, check_certificate, denied, denying, digest, gather, unopened
from fleetctl.platforms.local.projections import Restored
from fleetctl.platforms.local.refreshing import FAILED, Refreshing
from fleetctl.platforms.local.restoring import DONE, Requests, Restoring
from fleetctl.platforms.local.running import BrokerState, claimed, publish

LOOK_SECONDS = 0.5
DENIED_SECONDS = 2.0
STOPS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True, slots=True)
class BrokerEvent:
    """`listening`, `restored`, `restoreFailed`, `reloaded`, `reloadFailed`, `refreshFailed`, `restartNeeded` or `stopped`.

    Retained messages and sessions live in memory (`in_memory`); `restored` says how many desired `twins` the registry has put
    back, and whether the `trust` document. `claims_url` is None where devices cannot enrol over MQTT.
    """

    event: str
    engine: BrokerEngine
    device_url: str
    fleet_url: str
    crl_numbers: dict[str, int] = field(default_factory=dict)
    in_memory: bool = True
    error: str | None = None
    twins: int | None = None
    trust: bool | None = None
    claims_url: str | None = None


def run_broker(
    context: Context, engine: str | None = None, *, listen: str | None = None, requests: Requests | None = None
) -> Iterator[BrokerEvent]:
    """Run the broker of a context, and say what happens, until SIGTERM or until the iterator is closed; SIGINT is raised again.

    `requests` takes the place of signals, which only the main thread receives.

    Raises:
        Conflict: it runs already.
        Unavailable: a port is taken.
        ConfigError: the engine is not installed, a file of the context is missing, or the broker's certificate has expired.
        FleetError: the broker ended by itself.
    """
    config = broker_config(context, listen)
    chosen = choose_engine(engine)
    check_certificate(config)
    with _received(requests) as received, Refreshing(context, received) as refreshing, claimed(context.folder, context.name):
        state = BrokerState(os.getpid(), chosen, context.device_broker, context.broker, denied=digest(config.device.denied))
        publish(context.folder, state)
        check_ports(config)
        gather(context)
        check_config(config)
        broker = _make(chosen, config)
        # before the start: a list that is written meanwhile is newer than what we say that we have read
        lists = _numbers(config)
        broker.start()
        restoring = Restoring(context, received)
        try:
            yield from _Supervisor(context, config, broker, state, received, restoring, refreshing).run(lists)
        finally:
            refreshing.end()
            restoring.end(broker.stop)


@dataclass(slots=True)
class _Supervisor:
    context: Context
    config: BrokerConfig
    broker: Broker
    state: BrokerState
    requests: Requests
    restoring: Restoring
    refreshing: Refreshing
    looked: float = field(default_factory=monotonic)

    def run(self, lists: dict[str, int]) -> Iterator[BrokerEvent]:
        yield self._say("listening", lists)
        self.restoring.begin()
        self.refreshing.begin()
        while True:
            asked = self._asked()
            if not asked and self.broker.wait(0):
                raise FleetError("the broker ended by itself", f"see {self.config.folder}")
            if DONE in asked:
                yield self._restored()
            if FAILED in asked:
                yield replace(self._event("refreshFailed"), error=self.refreshing.failure)
            if asked & set(STOPS):
                yield self._event("stopped")
                if signal.SIGINT in asked:
                    raise KeyboardInterrupt
                return
            if signal.SIGHUP in asked or self._is_behind():
                yield self._reload()
                if closed := unopened(self.context, self.config):
                    yield replace(self._event("restartNeeded"), error=closed)

    def _restored(self) -> BrokerEvent:
        done = self.restoring.outcome
        if isinstance(done, Restored):
            return replace(self._event("restored"), twins=done.twins, trust=done.trust)
        return replace(self._event("restoreFailed"), error=str(done))

    def _reload(self) -> BrokerEvent:
        """Many requests may be served by one reload, because the numbers are read before it and never after."""
        try:
            gather(self.context)
            lists, self.config = _numbers(self.config), denying(self.config, denied(self.context))
            self.broker.reload(self.config)
        except FleetError as error:
            return self._say("reloadFailed", dict(self.state.lists), reloads=self.state.reloads + 1, error=error.message)
        self.state = replace(self.state, denied=digest(self.config.device.denied))
        return self._say("reloaded", lists, reloads=self.state.reloads + 1)

    def _is_behind(self) -> bool:
        """Whether somebody has become denied, or is no longer, and nobody has told: a new certificate of ours brings one back."""
        if monotonic() < self.looked + DENIED_SECONDS:
            return False
        self.looked = monotonic()
        try:
            return denied(self.context) != self.config.device.denied
        except FleetError:
            return False

    def _asked(self) -> set[int]:
        asked: set[int] = set()
        try:
            asked.add(self.requests.get(timeout=LOOK_SECONDS))
            while True:
                asked.add(self.requests.get_nowait())
        except Empty:
            return asked

    def _say(self, event: str, lists: dict[str, int], *, reloads: int = 0, error: str | None = None) -> BrokerEvent:
        held = self.state
        self.state = replace(held, lists=lists, reloads=reloads, error=error)
        try:
            publish(self.context.folder, self.state)
        except FleetError as failure:
            # whoever waits for this state gives up and says so; clients need not suffer for it
            self.state = replace(self.state, error=failure.message)
        return self._event(event)

    def _event(self, event: str) -> BrokerEvent:
        state = self.state
        engine: BrokerEngine = "builtin" if state.engine == "builtin" else "mosquitto"
        claims = self.context.claims if self.config.claims else None
        lists = dict(state.lists)
        return BrokerEvent(event, engine, state.device_url, state.fleet_url, lists, error=state.error, claims_url=claims)


def _make(engine: BrokerEngine, config: BrokerConfig) -> Broker:
    if engine == "builtin":
        from fleetctl.mqtt.builtin import BuiltinBroker

        return BuiltinBroker(config)
    from fleetctl.mqtt.mosquitto import Mosquitto

    return Mosquitto(config)


def _numbers(config: BrokerConfig) -> dict[str, int]:
    return {name: number for listener in config.listeners for name, number in crl.read_numbers(listener.crl).items()}


@contextmanager
def _received(requests: Requests | None) -> Iterator[Requests]:
    """The requests as they come; the handlers only note a signal, which they may do at any moment."""
    if requests is not None:
        yield requests
        return
    noted: Requests = SimpleQueue()
    before = {number: signal.signal(number, lambda number, _: noted.put(number)) for number in (signal.SIGHUP, *STOPS)}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
