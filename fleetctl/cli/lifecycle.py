"""The life of a device."""

from fleetctl.cli.group import group

app = group("The life of a device.")
