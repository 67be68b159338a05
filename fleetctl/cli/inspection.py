"""Look at certificates."""

from fleetctl.cli.group import group

app = group("Look at certificates.")
