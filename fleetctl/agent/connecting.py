"""Connecting a device, for a thread of the pool: an answer, never an exception."""

from collections.abc import Callable
from functools import partial

from fleetctl.agent.device import Device
from fleetctl.agent.identity import Identity
from fleetctl.errors import FleetError
from fleetctl.mqtt.connection import Connection
from fleetctl.mqtt.endpoint import Endpoint
from fleetctl.mqtt.message import Will

KEEPALIVE = 30


def connecting(device: Device, identity: Identity, will: Will | None = None) -> Callable[[], Connection | FleetError]:
    """What connects a device by an identity, by default with the will of its next session."""
    said = device.next_will() if will is None else will
    return partial(_connected, identity.endpoint, device.id, said, device.settings.connect_timeout)


def _connected(endpoint: Endpoint, client_id: str, will: Will, timeout: float) -> Connection | FleetError:
    try:
        connection = Connection(endpoint, client_id, will=will, keepalive=KEEPALIVE)
        connection.connect(timeout)
    except FleetError as error:
        return error
    except Exception as error:
        return FleetError(f"connecting failed: {type(error).__name__}: {error}")
    return connection
