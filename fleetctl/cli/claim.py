"""Claims: certificates with which devices of a batch enrol."""

from fleetctl.cli.group import group

app = group("Claims: certificates with which devices of a batch enrol.")
