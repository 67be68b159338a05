"""Serve devices that enrol, and decide about them."""

from fleetctl.cli.group import group

app = group("Serve devices that enrol, and decide about them.")
