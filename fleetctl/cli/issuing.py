"""Issue and renew certificates."""

from fleetctl.cli.group import group

app = group("Issue and renew certificates.")
