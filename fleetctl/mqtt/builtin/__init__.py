"""The broker for machines without mosquitto."""

from fleetctl.mqtt.builtin.broker import NOTICE, BuiltinBroker

__all__ = ["NOTICE", "BuiltinBroker"]
