"""The command line for IoT fleets on any MQTT broker."""

__version__ = "0.1.0"
