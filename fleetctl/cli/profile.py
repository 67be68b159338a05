"""Provisioning profiles: what a new device is given."""

from fleetctl.cli.group import group

app = group("Provisioning profiles: what a new device is given.")
