"""Enrolments and claims in the registry."""

from fleetctl.registry.database import Database


class Enrolments(Database):
    pass
