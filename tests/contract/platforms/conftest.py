"""The same fleet twice: in memory, and on a registry file with a real mosquitto."""

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path
from typing import Protocol

import pytest

from fleetctl.config import Context
from fleetctl.errors import FleetError
from fleetctl.mqtt.endpoint import Endpoint
from fleetctl.mqtt.session import open_session
from fleetctl.platforms.devices import Devices
from fleetctl.platforms.local.fleet import LocalFleet
from fleetctl.platforms.memory import MemoryFleet
from fleetctl.platforms.messages import Messages
from fleetctl.platforms.twins import Twins
from fleetctl.registry import Registry

Answer = Callable[[str, bytes], list[tuple[str, bytes]]]


class Fleet(Protocol):
    """What a platform offers here."""

    @property
    def devices(self) -> Devices: ...
    @property
    def twins(self) -> Twins: ...
    @property
    def messages(self) -> Messages: ...


class Side(Protocol):
    """The devices' side of the fleet's broker."""

    @property
    def fleet(self) -> Fleet: ...
    def say(self, topic: str, payload: bytes, retain: bool = False) -> None: ...
    def retained(self, topic: str) -> bytes | None: ...
    def answering(self, filters: str, answer: Answer) -> AbstractContextManager[None]: ...
    def leave(self) -> None: ...
    def come_back(self) -> None: ...


class MemorySide:
    def __init__(self) -> None:
        self.memory = MemoryFleet("acme")

    @property
    def fleet(self) -> Fleet:
        return self.memory

    def say(self, topic: str, payload: bytes, retain: bool = False) -> None:
        self.memory.broker.publish(topic, payload, retain)

    def retained(self, topic: str) -> bytes | None:
        return self.memory.broker.retained.get(topic)

    @contextmanager
    def answering(self, filters: str, answer: Answer) -> Iterator[None]:
        inbox = self.memory.broker.subscribe([filters])

        def run() -> None:
            while (found := inbox.get())[0]:
                for topic, payload in answer(found[0], found[1]):
                    self.say(topic, payload)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            inbox.put(("", b"", False))
            thread.join()
            self.memory.broker.unsubscribe(inbox)

    def leave(self) -> None:
        self.memory.broker.is_up = False

    def come_back(self) -> None:
        self.memory.broker.is_up = True


class LocalSide:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        url = f"mqtt://127.0.0.1:{self.port}"
        Registry.create(folder / "registry.db", "acme").close()
        self.local = LocalFleet(Context("test", "acme", url, url, "", folder, certificates="external"))
        self.come_back()

    @property
    def fleet(self) -> Fleet:
        return self.local

    def say(self, topic: str, payload: bytes, retain: bool = False) -> None:
        with open_session(self._endpoint, "device") as session:
            session.publish(topic, payload, 1, retain)

    def retained(self, topic: str) -> bytes | None:
        with open_session(self._endpoint, "device") as session:
            message = session.read_retained([topic]).get(topic)
        return None if message is None else message.payload

    @contextmanager
    def answering(self, filters: str, answer: Answer) -> Iterator[None]:
        stop = threading.Event()
        with open_session(self._endpoint, "device") as session:
            session.subscribe([filters])

            def run() -> None:
                while not stop.is_set():
                    for message in session.receive(0.05):
                        for topic, payload in answer(message.topic, message.payload):
                            session.publish(topic, payload)

            thread = threading.Thread(target=run)
            thread.start()
            try:
                yield
            finally:
                stop.set()
                thread.join()

    def leave(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def come_back(self) -> None:
        config = self._folder / "mosquitto.conf"
        config.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 10000\n")
        log = (self._folder / "mosquitto.log").open("ab")
        with log:
            self._process = subprocess.Popen([_mosquitto(), "-c", str(config)], stdout=log, stderr=log)
        _wait_for(self.port)

    @property
    def _endpoint(self) -> Endpoint:
        return Endpoint("127.0.0.1", self.port, tls=False)

    def close(self) -> None:
        self.local.close()
        self.leave()


@pytest.fixture(params=["memory", "local"])
def side(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Side]:
    if request.param == "memory":
        yield MemorySide()
        return
    with closing(LocalSide(tmp_path)) as local:
        yield local


@pytest.fixture
def fleet(side: Side) -> Fleet:
    return side.fleet


def _mosquitto() -> str:
    found = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    if found is None:
        pytest.skip("mosquitto is not installed")
    return found


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with suppress(FleetError), open_session(Endpoint("127.0.0.1", port, tls=False), "probe", timeout=2):
            return
        time.sleep(0.02)
    raise AssertionError("mosquitto did not start")
