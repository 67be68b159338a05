"""Revocation lists: their state, and making them anew."""

from fleetctl.cli.group import group

app = group("Revocation lists: their state, and making them anew.")
