"""The sockets of the broker: asyncio, TLS, and back-pressure. One event loop, no decisions."""

import asyncio
import contextlib
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import cast

from fleetctl.mqtt.builtin.connection import ADMINISTRATIVE_ACTION, SHUTTING_DOWN, Connection, Door
from fleetctl.mqtt.builtin.hub import Hub
from fleetctl.mqtt.builtin.limits import Limits
from fleetctl.mqtt.builtin.policy import identity_of

BACKLOG = 512
CHUNK = 64 << 10
HIGH_WATER = 512 << 10
HANDSHAKE_SECONDS = 10.0
LINGER_SECONDS = 2.0
REST_SECONDS = 0.01
TICK_SECONDS = 0.25
TICKS_PER_SWEEP = 240

Revoked = Callable[[bytes], bool]


@dataclass(frozen=True, slots=True)
class Gate:
    """A listener's sockets, which stay open while contexts come and go."""

    door: Door
    sockets: Sequence[socket.socket]


@dataclass
class Server:
    """All listeners and all clients of one hub; to be used from its event loop only."""

    gates: Sequence[Gate]
    limits: Limits
    hub: Hub = field(init=False)
    visitors: set["Visitor"] = field(default_factory=set)
    by_certificate: Counter[bytes] = field(default_factory=Counter)
    transient: int = 0
    revoked: Revoked | None = None
    denied: Sequence[frozenset[str]] = ()
    _servers: list[asyncio.Server] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.hub = Hub(self.limits, asyncio.get_running_loop().time)

    def admit(self, visitor: "Visitor") -> bool:
        """Whether there is room for it; one certificate does not take all of it, nor do the devices."""
        limits, door = self.limits, visitor.door
        reserved = limits.fleet_reserve if door.identity_is_client_id or door.transient else 0
        share = limits.device_connections if door.identity_is_client_id else limits.fleet_connections
        if door.transient:
            share = limits.claim_connections if self.transient < limits.all_claim_connections else 0
        if len(self.visitors) >= limits.connections - reserved or self.by_certificate[visitor.certificate] >= share:
            return False
        if self.revoked is not None and self.revoked(visitor.certificate):
            return False
        self.visitors.add(visitor)
        self.transient += visitor.door.transient
        self.by_certificate[visitor.certificate] += 1
        return True

    def dismiss(self, visitor: "Visitor") -> None:
        if visitor not in self.visitors:
            return
        self.visitors.discard(visitor)
        self.transient -= visitor.door.transient
        self.by_certificate[visitor.certificate] -= 1
        if not self.by_certificate[visitor.certificate]:
            del self.by_certificate[visitor.certificate]

    async def listen(self, contexts: Sequence[ssl.SSLContext]) -> None:
        """Greet whoever comes from now on with these contexts, one for each gate."""
        loop = asyncio.get_running_loop()
        before, self._servers = self._servers, []
        for gate, context in zip(self.gates, contexts, strict=True):
            for listening in gate.sockets:
                server = await loop.create_server(
                    partial(Visitor, self, gate.door),
                    sock=listening.dup(),
                    ssl=context,
                    backlog=BACKLOG,
                    ssl_handshake_timeout=HANDSHAKE_SECONDS,
                    ssl_shutdown_timeout=LINGER_SECONDS,
                )
                self._servers.append(server)
        for server in before:
            server.close()

    def denies(self, door: Door, identity: str | None) -> bool:
        """Whether the identity may do nothing at this door, whatever its certificate says."""
        gates = zip(self.gates, self.denied, strict=False)
        return any(gate.door is door and identity in names for gate, names in gates)

    def cut(self, revoked: Revoked, denied: Sequence[frozenset[str]]) -> int:
        """End the sessions of certificates that are revoked now, and of identities that are denied at the gate of the same place.

        Both are remembered, to ask about handshakes that are under way.
        """
        self.revoked, self.denied = revoked, denied
        cut = [each for each in self.visitors if revoked(each.certificate) or self.denies(each.door, each.identity)]
        for visitor in cut:
            visitor.connection.end(ADMINISTRATIVE_ACTION)
        return len(cut)

    async def tick(self) -> None:
        """Keep time until cancelled."""
        count = 0
        while True:
            await asyncio.sleep(TICK_SECONDS)
            for visitor in list(self.visitors):
                visitor.connection.tick()
            self.hub.tick()
            count += 1
            if count % TICKS_PER_SWEEP == 0:
                self.hub.retained.drop_expired(self.hub.clock())

    async def close(self) -> None:
        """Say goodbye to everybody and wait a moment for them to hear it."""
        for server in self._servers:
            server.close()
        for visitor in list(self.visitors):
            visitor.connection.end(SHUTTING_DOWN)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while self.visitors:
                    await asyncio.sleep(0.01)
        for visitor in list(self.visitors):
            visitor.abort()
        await asyncio.sleep(0)


class Visitor(asyncio.Protocol):
    """One client's socket; implements `connection.Channel`. Writes of one turn of the loop leave together."""

    connection: Connection

    def __init__(self, server: Server, door: Door) -> None:
        self._server = server
        self.door = door
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._pending: list[bytes] = []
        self._size = 0
        self._paused = False
        self._resting = False
        self._replaying = False
        self._closing = False
        self.certificate = b""
        self.identity: str | None = None

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        tls: ssl.SSLObject = transport.get_extra_info("ssl_object")
        self.certificate = tls.getpeercert(binary_form=True) or b""
        self.identity = identity_of(tls.getpeercert() or {})
        denied = self._server.denies(self.door, self.identity)
        self.connection = Connection(self._server.hub, self, self.door, self.identity, denied=denied)
        if not self._server.admit(self):
            self.connection.closed = True
            self._transport.abort()
            return
        self._transport.set_write_buffer_limits(high=HIGH_WATER)

    def data_received(self, data: bytes) -> None:
        self.connection.receive(data)
        if self.connection.busy and not self._replaying:
            self._replaying = True
            self._choose_to_read()
            self._loop.call_soon(self._go_on)
        if self.connection.hasty:
            self.connection.hasty = False
            self._resting = True
            self._choose_to_read()
            self._loop.call_later(REST_SECONDS, self._end_rest)

    def _go_on(self) -> None:
        """One slice of retained messages a turn: the others are served in between."""
        self.connection.go_on()
        self._replaying = self.connection.busy
        if self._replaying:
            self._loop.call_soon(self._go_on)
        else:
            self._choose_to_read()

    def _end_rest(self) -> None:
        self._resting = False
        self._choose_to_read()

    def _choose_to_read(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if self._paused or self._resting or self._replaying:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def connection_lost(self, _error: Exception | None) -> None:
        self._closing = True
        self._pending.clear()
        self._server.dismiss(self)
        self.connection.closed = True
        self.connection.lost()

    def pause_writing(self) -> None:
        """A client that does not read is not read from either: otherwise its pings would fill the memory with answers."""
        self._paused = True
        self._choose_to_read()

    def resume_writing(self) -> None:
        self._paused = False
        self._choose_to_read()
        self._loop.call_soon(self.connection.writable)

    # -- connection.Channel

    @property
    def ready(self) -> bool:
        return not self._paused and not self._closing

    def write(self, data: bytes) -> None:
        if self._closing:
            return
        if not self._pending:
            self._loop.call_soon(self._flush)
        self._pending.append(data)
        self._size += len(data)
        if self._size >= CHUNK:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._closing = True
        if self._transport is not None:
            self._transport.close()
            self._loop.call_later(LINGER_SECONDS, self.abort)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _flush(self) -> None:
        if self._pending and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(self._pending))
        self._pending.clear()
        self._size = 0
