"""Every way to fail: one class per remedy, each with its exit status."""

from collections.abc import Mapping
from typing import ClassVar


class FleetError(Exception):
    """The operation failed.

    `message` is lower case, names its subject in backticks and has no final stop; `hint` is a command that would fix it;
    `record` is a result that is printed all the same (a diff, a report).
    """

    code: ClassVar[str] = "failed"
    status: ClassVar[int] = 1

    def __init__(self, message: str, hint: str = "", *, record: Mapping[str, object] | list[object] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.record = record


class Malformed(FleetError):
    """A payload, document or file does not parse; on a topic it is dropped and counted."""

    code = "malformed"


class UsageError(FleetError):
    """The words of the command are wrong."""

    code, status = "usage", 2


class ConfigError(FleetError):
    """The configuration is wrong."""

    code, status = "config", 2


class NotFound(FleetError):
    """No such device, context or release; nothing to change."""

    code, status = "notFound", 3


class Denied(FleetError):
    """Not authenticated, not allowed, or our own certificate was refused."""

    code, status = "denied", 4


class Conflict(FleetError):
    """Someone else changed it first, or it exists already and differs."""

    code, status = "conflict", 5


class Unavailable(FleetError):
    """Broker, registry or platform unreachable, or timed out before anything happened."""

    code, status = "unavailable", 6


class Untrusted(FleetError):
    """A signature, chain, digest, host name or version-rollback check of theirs failed."""

    code, status = "untrusted", 7


class Partial(FleetError):
    """Some devices did it, some did not."""

    code, status = "partial", 8


class Halted(FleetError):
    """A rollout was stopped by its failure test, or aborted."""

    code, status = "halted", 9


class Pending(FleetError):
    """A deadline passed, or it waits for a person: the outcome is not known yet."""

    code, status = "pending", 10


class Findings(FleetError):
    """A check found something to act on."""

    code, status = "findings", 11
