"""The certificate authorities of a fleet."""

from fleetctl.cli.group import group

app = group("The certificate authorities of a fleet.")
