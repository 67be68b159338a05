"""Who may read and write which topic: one table that every broker engine obeys (docs/protocol.md, "Names and identity")."""

from dataclasses import dataclass
from enum import StrEnum

from fleetctl.model.topic import matches

IDENTITY = "%u"
CLIENT = "%c"
_FORBIDDEN = frozenset("/+#\0")


class Action(StrEnum):
    READ = "read"
    WRITE = "write"


@dataclass(frozen=True, slots=True)
class Rule:
    """One permission: `pattern` is a topic filter in which the level `%u` is the proven identity and `%c` the client id."""

    action: Action
    pattern: str

    def allows(self, identity: str, action: Action, topic: str, client_id: str = "") -> bool:
        if action != self.action or not is_one_level(identity):
            return False
        filled = fill(self.pattern, identity, client_id)
        return filled is not None and matches(filled, topic)


def is_one_level(name: str) -> bool:
    """Whether `name` stands for exactly one level of a topic wherever it is put."""
    return bool(name) and not _FORBIDDEN & set(name)


def fill(pattern: str, identity: str, client_id: str = "") -> str | None:
    """The topic filter of one client; None where its client id would be more than the one level that it stands for."""
    levels = pattern.split("/")
    if CLIENT in levels and not is_one_level(client_id):
        return None
    known = {IDENTITY: identity, CLIENT: client_id}
    return "/".join(known.get(level, level) for level in levels)


def device_rules(tenant: str) -> tuple[Rule, ...]:
    """What a device may do: its own topics and the tenant's trust document, nothing else."""
    base = f"{tenant}/+/+/{IDENTITY}"
    writes = ("status", "telemetry", "alerts", "twin/reported", "ota/status", "commands/+/reply")
    reads = ("twin/desired", "ota/desired", "commands/+", "status")
    return (
        *(Rule(Action.WRITE, f"{base}/{suffix}") for suffix in writes),
        *(Rule(Action.READ, f"{base}/{suffix}") for suffix in reads),
        Rule(Action.READ, f"{tenant}/_fleet/trust"),
    )


def fleet_rules(tenant: str) -> tuple[Rule, ...]:
    """What operators, CI and services may do: everything below their tenant."""
    return (Rule(Action.READ, f"{tenant}/#"), Rule(Action.WRITE, f"{tenant}/#"))


def claim_rules(tenant: str) -> tuple[Rule, ...]:
    """What a device that holds a claim may do: ask for its own identity, as the serial number that is its client id."""
    base = f"{tenant}/_fleet/provision/{IDENTITY}/{CLIENT}"
    return (Rule(Action.WRITE, f"{base}/request"), Rule(Action.READ, f"{base}/reply"))


def allowed(rules: tuple[Rule, ...], identity: str, action: Action, topic: str, client_id: str = "") -> bool:
    """Whether any rule permits it: what no rule names is denied."""
    return any(rule.allows(identity, action, topic, client_id) for rule in rules)
