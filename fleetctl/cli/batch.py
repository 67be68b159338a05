"""Factory batches: serials that may enrol."""

from fleetctl.cli.group import group

app = group("Factory batches: serials that may enrol.")
