"""Devices made in numbers."""

from fleetctl.cli.group import group

app = group("Devices made in numbers.")
