"""One-time tokens with which a device enrols over EST."""

from fleetctl.cli.group import group

app = group("One-time tokens with which a device enrols over EST.")
