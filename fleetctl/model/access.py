"""Who may read and write which topic: one table that every broker engine obeys (docs/protocol.md, "Names and identity")."""

from dataclasses import dataclass
from enum import StrEnum

from fleetctl.model.topic import matches

IDENTITY = "%u"


class Action(StrEnum):
    READ = "read"
    WRITE = "write"


@dataclass(frozen=True, slots=True)
class Rule:
    """One permission: `pattern` is a topic filter in which the level `%u` stands for the authenticated identity."""

    action: Action
    pattern: str

    def allows(self, identity: str, action: Action, topic: str) -> bool:
        if action != self.action or not identity or set(identity) & set("/+#\0"):
            return False
        return matches("/".join(identity if level == IDENTITY else level for level in self.pattern.split("/")), topic)


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


def allowed(rules: tuple[Rule, ...], identity: str, action: Action, topic: str) -> bool:
    """Whether any rule permits it: what no rule names is denied."""
    return any(rule.allows(identity, action, topic) for rule in rules)
