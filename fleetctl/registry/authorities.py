"""Certificate authorities in the registry, and when their revocation lists are due."""

from fleetctl.registry.database import Database


class Authorities(Database):
    pass
