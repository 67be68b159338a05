"""What one identity may do at one listener: the rules of `fleetctl.model.access`, whose permissions are remembered by topic."""

from collections.abc import Mapping
from itertools import zip_longest

from fleetctl.model.access import Action, Rule, allowed, fill, is_one_level
from fleetctl.model.topic import RETAINED_CHANNELS, split

REMEMBERED = 256


class Policy:
    """Rules bound to an identity and its client id; those of a `device` bound what it may ask for, not only what it gets."""

    def __init__(self, rules: tuple[Rule, ...], identity: str, client_id: str = "", *, device: bool = False) -> None:
        self.identity = identity
        self.device = device
        self._client_id = client_id
        self._rules = rules
        self._granted: set[tuple[Action, str]] = set()

    def may_write(self, topic: str) -> bool:
        return self._ask(Action.WRITE, topic)

    def may_read(self, topic: str) -> bool:
        return self._ask(Action.READ, topic)

    def may_subscribe(self, pattern: str) -> bool:
        """Whether the filter could ever deliver something readable, and for a device nothing else; each delivery is judged."""
        fits = covers if self.device else overlaps
        readable = (rule.pattern for rule in self._rules if rule.action == Action.READ)
        filled = (fill(each, self.identity, self._client_id) for each in readable)
        return any(each is not None and fits(each, pattern) for each in filled)

    def may_retain(self, topic: str) -> bool:
        """Whether what is written there may stay: a device's telemetry, alerts and replies are for who listens now."""
        place = split(topic) if self.device else None
        return not self.device or (place is not None and place[1] in RETAINED_CHANNELS)

    def _ask(self, action: Action, topic: str) -> bool:
        if (action, topic) in self._granted:
            return True
        if not allowed(self._rules, self.identity, action, topic, self._client_id):
            return False
        if len(self._granted) >= REMEMBERED:
            self._granted.clear()
        self._granted.add((action, topic))
        return True


def covers(wide: str, narrow: str) -> bool:
    """Whether every topic that matches `narrow` matches `wide`."""
    if _hides(wide, narrow):
        return False
    for left, right in zip_longest(wide.split("/"), narrow.split("/")):
        if left == "#":
            return True
        if left is None or right is None or right == "#" or left not in ("+", right):
            return False
    return True


def overlaps(one: str, other: str) -> bool:
    """Whether some topic matches both filters."""
    if _hides(one, other) or _hides(other, one):
        return False
    for left, right in zip_longest(one.split("/"), other.split("/")):
        if "#" in (left, right):
            return True
        if left is None or right is None or ("+" not in (left, right) and left != right):
            return False
    return True


def _hides(pattern: str, other: str) -> bool:
    return other.startswith("$") and pattern[:1] in ("+", "#")


def identity_of(certificate: Mapping[str, object]) -> str | None:
    """The one common name of a verified certificate (as `ssl` describes it); None where it is unfit to be in a topic."""
    subject = certificate.get("subject")
    if not isinstance(subject, tuple):
        return None
    names = [value for part in subject for key, value in part if key == "commonName"]
    if len(names) != 1 or not is_one_level(names[0]) or not names[0].isprintable():
        return None
    return str(names[0])
