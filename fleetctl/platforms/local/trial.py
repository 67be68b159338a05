"""A trial of rendered files: a mosquitto of its own on free ports, with the same files and the same user, for a moment."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from fleetctl import files
from fleetctl.mqtt.broker import BrokerConfig, Listener
from fleetctl.mqtt.endpoint import Endpoint
from fleetctl.mqtt.mosquitto import Mosquitto
from fleetctl.mqtt.settings import Finding
from fleetctl.platforms.local.brokerprobe import Canary, probe_canary, probe_people

LOOPBACK = "127.0.0.1"


def trial_config(config: BrokerConfig, folder: Path, locate: Callable[[str], Path]) -> BrokerConfig:
    """The same listeners on free ports of this machine alone, with the files where they are now."""
    ports = iter(_free_ports(len(config.listeners)))

    def move(listener: Listener) -> Listener:
        cert, key, ca, crl = (locate(str(path)) for path in (listener.cert, listener.key, listener.client_ca, listener.crl))
        return replace(listener, host=LOOPBACK, port=next(ports), cert=cert, key=key, client_ca=ca, crl=crl)

    device, fleet = move(config.device), move(config.fleet)
    claims = None if config.claims is None else move(config.claims)
    return BrokerConfig(device, fleet, folder, claims=claims)


def try_out(
    config: BrokerConfig, user: str | None, people: Endpoint, canary: Canary, ca: Path, name: str | None
) -> Iterator[Finding]:
    """Start it, have it read its files again as a reload does, and see whom it lets in under `name`, if it has one here.

    Raises:
        FleetError: it does not start, or lets nobody in after the reload; the end of its log is told.
    """
    folder = files.private_folder(config.folder)
    if user is not None and os.geteuid() == 0:
        folder.chmod(0o755)
    engine = Mosquitto(config, user=user)
    engine.start()
    try:
        engine.reload()
        if name is not None:
            yield from probe_people(replace(people, host=name, port=config.fleet.port))
            yield from probe_canary(canary, name, config.device.port, ca)
    finally:
        engine.stop()


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        return [held.enter_context(socket.create_server((LOOPBACK, 0))).getsockname()[1] for _ in range(count)]
