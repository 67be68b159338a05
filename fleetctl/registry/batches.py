"""Factory batches and provisioning profiles in the registry."""

from fleetctl.registry.database import Database


class Batches(Database):
    pass
