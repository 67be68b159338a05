"""One-time enrolment tokens in the registry: their digests, never themselves."""

from fleetctl.registry.database import Database


class Tokens(Database):
    pass
