"""Where connections meet: sessions, subscriptions, retained messages and wills. No sockets, and the clock is an argument."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from fleetctl.mqtt.builtin.limits import Limits
from fleetctl.mqtt.builtin.message import Delivery, Message
from fleetctl.mqtt.builtin.policy import Policy
from fleetctl.mqtt.builtin.retained import Retained
from fleetctl.mqtt.builtin.router import Router, Subscription
from fleetctl.mqtt.builtin.sessions import Ledger, Link, Session, Testament

SESSION_TAKEN_OVER = 0x8E
RETAIN_ALWAYS, RETAIN_IF_NEW = 0, 1


@dataclass(frozen=True, slots=True)
class Arrival:
    """What a CONNECT asks of its session."""

    client_id: str
    policy: Policy
    clean_start: bool
    expiry: int
    will: Testament | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a message: `refused`, or delivered to `reached` sessions of which some are `congested`."""

    reached: int = 0
    congested: bool = False
    refused: bool = False


class Hub:
    """All that the connections of one broker share."""

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self.limits = limits
        self.clock = clock
        self.retained = Retained(limits)
        self.sessions: dict[str, Session] = {}
        self._router: Router[Session] = Router()
        self._ledger = Ledger(limits.all_queues_bytes)

    def attach(self, link: Link, arrival: Arrival) -> tuple[Session, bool] | None:
        """The session for a new connection, and whether it existed; None where there are too many.

        Another connection of this client id is cut. A session is never handed from one identity to another.
        """
        before = self.sessions.get(arrival.client_id)
        if before is None and len(self.sessions) >= self.limits.sessions:
            return None
        resumed = before is not None and not arrival.clean_start and before.policy.identity == arrival.policy.identity
        if before is not None:
            self._take_over(before, resumed=resumed)
        if before is None or not resumed:
            before = Session(arrival.client_id, arrival.policy, self.limits, self._ledger)
            self.sessions[arrival.client_id] = before
        before.link, before.ended_at = link, None
        before.policy, before.expiry, before.will = arrival.policy, arrival.expiry, arrival.will
        before.resume()
        return before, resumed

    def _take_over(self, session: Session, *, resumed: bool) -> None:
        """Section 3.1.3.2.2: the will of a connection that is cut is sent, unless its session goes on and it may wait."""
        link, session.link = session.link, None
        if link is not None:
            link.end(SESSION_TAKEN_OVER)
        if resumed:
            will, session.will = session.will, None
            if link is not None and will is not None and not will.delay:
                self._publish_will(session, will)
        else:
            self.end_session(session)

    def detach(self, session: Session, link: Link, *, with_will: bool) -> None:
        """The connection has ended; harmless when another one serves the session already."""
        if session.link is not link:
            return
        session.link, session.ended_at = None, self.clock()
        if not with_will:
            session.will = None
        if session.expiry == 0:
            self.end_session(session)
            return
        session.rest()
        if session.will is not None and not session.will.delay:
            will, session.will = session.will, None
            self._publish_will(session, will)

    def end_session(self, session: Session) -> None:
        """Forget it; a will that was still waiting is published now."""
        if self.sessions.get(session.client_id) is session:
            del self.sessions[session.client_id]
        for pattern in session.subscriptions:
            self._router.remove(session, pattern)
        session.subscriptions.clear()
        session.clear()
        will, session.will = session.will, None
        if will is not None:
            self._publish_will(session, will)

    def _publish_will(self, session: Session, will: Testament) -> None:
        if session.policy.may_write(will.message.topic):
            expires_at = None if will.lifetime is None else self.clock() + will.lifetime
            self.publish(replace(will.message, expires_at=expires_at))

    def publish(self, message: Message) -> Outcome:
        """Deliver it, and retain it where it asks for that; without room for that it is refused."""
        now = self.clock()
        if message.retain and not message.expired(now) and not self.retained.store(message):
            return Outcome(refused=True)
        wanted: dict[Session, list[Subscription]] = {}
        for session, subscription in self._router.match(message.topic):
            if not (subscription.no_local and session.client_id == message.origin):
                wanted.setdefault(session, []).append(subscription)
        readers = [session for session in wanted if session.policy.may_read(message.topic)]
        for session in readers:
            session.offer(_delivery(message, wanted[session]), now)
        return Outcome(len(readers), congested=any(session.congested for session in readers))

    def subscribe(self, session: Session, subscription: Subscription, retain_handling: int) -> Iterator[Delivery]:
        """Add or replace a subscription; returns the retained messages that it asks for, found while they are taken."""
        known = subscription.filter in session.subscriptions
        session.subscriptions[subscription.filter] = subscription
        self._router.add(session, subscription)
        if retain_handling == RETAIN_ALWAYS or (retain_handling == RETAIN_IF_NEW and not known):
            return self._retained_for(session, subscription)
        return iter(())

    def _retained_for(self, session: Session, subscription: Subscription) -> Iterator[Delivery]:
        identifiers = (subscription.identifier,) if subscription.identifier else ()
        for message in self.retained.match(subscription.filter, self.clock()):
            if subscription.no_local and message.origin == session.client_id:
                continue
            if session.policy.may_read(message.topic):
                yield Delivery(message, min(message.qos, subscription.qos), retain=True, identifiers=identifiers)

    def unsubscribe(self, session: Session, pattern: str) -> bool:
        """Whether there was such a subscription."""
        if session.subscriptions.pop(pattern, None) is None:
            return False
        self._router.remove(session, pattern)
        return True

    def tick(self) -> None:
        """Publish the wills and end the sessions whose time has come."""
        now = self.clock()
        for session in list(self.sessions.values()):
            if session.ended_at is None:
                continue
            if session.ended_at + session.expiry <= now:
                self.end_session(session)
            elif session.will is not None and session.ended_at + session.will.delay <= now:
                will, session.will = session.will, None
                self._publish_will(session, will)


def _delivery(message: Message, subscriptions: list[Subscription]) -> Delivery:
    """One copy for overlapping subscriptions: the highest QoS, all identifiers (section 3.3.4)."""
    return Delivery(
        message,
        min(message.qos, max(subscription.qos for subscription in subscriptions)),
        retain=message.retain and any(subscription.retain_as_published for subscription in subscriptions),
        identifiers=tuple(subscription.identifier for subscription in subscriptions if subscription.identifier),
    )
