"""The broker for machines without mosquitto: asyncio in a thread of its own, behind the face that every engine has."""

import asyncio
import contextlib
import os
import socket
import ssl
import threading
import traceback
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from fleetctl import files, tls
from fleetctl.errors import FleetError, Unavailable
from fleetctl.mqtt.broker import BrokerConfig, Listener, check_config, check_ports
from fleetctl.mqtt.builtin.connection import Door
from fleetctl.mqtt.builtin.limits import Limits
from fleetctl.mqtt.builtin.revocation import Lists
from fleetctl.mqtt.builtin.server import BACKLOG, Gate, Server

NOTICE = (
    "the built-in broker keeps everything in memory: retained messages and sessions are gone when it stops; "
    "it speaks MQTT 5 with QoS 0 and 1"
)
ANSWER_SECONDS = 10.0
LOG_BYTES = 1 << 20

T = TypeVar("T")


class BuiltinBroker:
    """MQTT 5 for the listeners of the contract; it ends with its process at the latest."""

    def __init__(self, config: BrokerConfig, limits: Limits | None = None) -> None:
        self._config = config
        self._limits = limits or Limits()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: Server | None = None
        self._stopping: asyncio.Event | None = None
        self._failure: BaseException | None = None
        self._lock = threading.Lock()
        self.ports: tuple[int, ...] = ()

    @property
    def log(self) -> Path:
        """Where defects of the broker are noted; absent while there are none."""
        return self._config.folder / "builtin.log"

    def start(self) -> None:
        """Return once all listeners answer a TLS handshake; raises `Unavailable` for a taken port, `ConfigError` for a file."""
        if self._thread is not None and self._thread.is_alive():
            raise FleetError("the broker runs already")
        check_config(self._config)
        check_ports(self._config)
        contexts = self._contexts()
        gates = _open_gates(self._config)
        self.ports = tuple(gate.sockets[0].getsockname()[1] for gate in gates)
        self._failure = None
        started: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(gates, contexts, started), name="broker", daemon=True)
        self._thread.start()
        started.result(ANSWER_SECONDS)

    def reload(self, config: BrokerConfig | None = None) -> None:
        """Read certificates, authorities and lists again, and cut the sessions of who is revoked or denied since."""
        with self._lock:
            self._config = config or self._config
            contexts = self._contexts()
            lists = Lists.read([listener.crl for listener in self._config.listeners])
            denied = [listener.denied for listener in self._config.listeners]

            async def swap(server: Server) -> None:
                await server.listen(contexts)
                server.cut(lists.name, denied)

            self._ask(swap)

    def wait(self, timeout: float | None = None) -> bool:
        """Whether it has ended, after at most `timeout` seconds; raises what ended it, where that was not `stop`."""
        if self._thread is None:
            return True
        self._thread.join(timeout)
        if self._thread.is_alive():
            return False
        if self._failure is not None:
            raise FleetError("the built-in broker ended by itself") from self._failure
        return True

    def stop(self) -> None:
        """End it; harmless when it has ended already."""
        thread, loop, stopping = self._thread, self._loop, self._stopping
        if thread is None or loop is None or stopping is None:
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(stopping.set)
        thread.join(ANSWER_SECONDS)

    def _contexts(self) -> list[ssl.SSLContext]:
        return [tls.server_context(one.cert, one.key, one.client_ca, one.crl) for one in self._config.listeners]

    def _ask(self, question: Callable[[Server], Awaitable[T]]) -> T:
        server, loop = self._server, self._loop
        if server is None or loop is None or self._thread is None or not self._thread.is_alive():
            raise Unavailable("the broker does not run", "start it with fleetctl broker run")

        async def answer() -> T:
            return await question(server)

        return asyncio.run_coroutine_threadsafe(answer(), loop).result(ANSWER_SECONDS)

    def _run(self, gates: list[Gate], contexts: list[ssl.SSLContext], started: "Future[None]") -> None:
        try:
            asyncio.run(self._serve(gates, contexts, started))
        except BaseException as error:
            if started.done():
                self._failure = error
            else:
                started.set_exception(error)
        finally:
            for gate in gates:
                for listening in gate.sockets:
                    listening.close()

    async def _serve(self, gates: list[Gate], contexts: list[ssl.SSLContext], started: "Future[None]") -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        self._loop.set_exception_handler(self._note)
        self._server = Server(gates, self._limits)
        self._server.denied = [listener.denied for listener in self._config.listeners]
        await self._server.listen(contexts)
        started.set_result(None)
        ticking = asyncio.create_task(self._server.tick())
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({ticking, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if ticking.done():
                ticking.result()
        finally:
            ticking.cancel()
            stopping.cancel()
            await self._server.close()

    def _note(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Keep a defect that cost one client its connection out of the terminal, and in the log."""
        error = context.get("exception")
        lines = traceback.format_exception(error) if isinstance(error, BaseException) else []
        with contextlib.suppress(OSError):
            files.private_folder(self._config.folder)
            opened = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(opened, "a", errors="backslashreplace") as log:
                if log.tell() < LOG_BYTES:
                    log.write("".join([f"{context.get('message')}\n", *lines]))


def _open_gates(config: BrokerConfig) -> list[Gate]:
    gates: list[Gate] = []
    try:
        for listener in config.listeners:
            door = Door(listener.rules, listener.identity_is_client_id, listener.transient)
            gates.append(Gate(door, _open_sockets(listener)))
    except BaseException:
        for gate in gates:
            for listening in gate.sockets:
                listening.close()
        raise
    return gates


def _open_sockets(listener: Listener) -> list[socket.socket]:
    """One for every address of the host; the port may have been taken since `check_ports` looked."""
    addresses = socket.getaddrinfo(listener.host, listener.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    opened: list[socket.socket] = []
    failure: OSError | None = None
    for family, _kind, _protocol, _name, address in addresses:
        if opened and listener.port == 0:
            break
        try:
            opened.append(socket.create_server(address[:2], family=family, backlog=BACKLOG))
        except OSError as error:
            failure = error
    if not opened:
        raise Unavailable(f"port {listener.port} of `{listener.host}` is taken") from failure
    return opened
