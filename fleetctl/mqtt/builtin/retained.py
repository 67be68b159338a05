"""The last retained message of every topic: a tree of topics, walked once per filter."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from fleetctl.mqtt.builtin.limits import DEVICES_SHARE, Limits
from fleetctl.mqtt.builtin.message import Message

NODE_BYTES = 256


def cost(message: Message) -> int:
    """About the bytes that it takes with its place in the tree."""
    return message.size + NODE_BYTES * (message.topic.count("/") + 1)


@dataclass(slots=True)
class _Share:
    """What one owner, or all together, have stored."""

    messages: int = 0
    bytes: int = 0

    def add(self, message: Message, sign: int) -> None:
        self.messages += sign
        self.bytes += sign * cost(message)

    def fits(self, message: Message, before: Message | None, messages: float, size: float) -> bool:
        """Whether there is room for it instead of the one before, which may be none of this share."""
        grown = self.bytes + cost(message) - (cost(before) if before else 0)
        return grown <= size and self.messages + (before is None) <= messages


@dataclass(slots=True)
class _Node:
    children: dict[str, "_Node"] = field(default_factory=dict)
    message: Message | None = None


class Retained:
    """At most so many messages and bytes of them, some of which devices leave to the fleet, and little of each device."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._root = _Node()
        self._topics: dict[str, Message] = {}
        self._all = _Share()
        self._shares: dict[str, _Share] = {}

    def __len__(self) -> int:
        return len(self._topics)

    def store(self, message: Message) -> bool:
        """Keep it instead of the one before, or clear its topic when it is empty; False where there is no room."""
        if not message.payload:
            self.clear(message.topic)
            return True
        before = self._topics.get(message.topic)
        if not self._fits(message, before):
            return False
        if before is not None:
            self._count(before, -1)
        self._count(message, 1)
        node = self._root
        for level in message.topic.split("/"):
            node = node.children.setdefault(level, _Node())
        node.message = self._topics[message.topic] = message
        return True

    def _fits(self, message: Message, before: Message | None) -> bool:
        limits, owner = self._limits, message.owner
        share = DEVICES_SHARE if owner else 1
        if not self._all.fits(message, before, limits.retained_messages * share, limits.retained_bytes * share):
            return False
        own = self._shares.get(owner, _Share()) if owner else None
        mine = before if before is not None and before.owner == owner else None
        return own is None or own.fits(message, mine, limits.device_retained_messages, limits.device_retained_bytes)

    def _count(self, message: Message, sign: int) -> None:
        self._all.add(message, sign)
        if message.owner is None:
            return
        own = self._shares.setdefault(message.owner, _Share())
        own.add(message, sign)
        if not own.messages:
            del self._shares[message.owner]

    def clear(self, topic: str) -> None:
        message = self._topics.pop(topic, None)
        if message is None:
            return
        self._count(message, -1)
        levels = topic.split("/")
        path = [self._root]
        for level in levels:
            path.append(path[-1].children[level])
        path[-1].message = None
        for level, node, parent in zip(reversed(levels), reversed(path), reversed(path[:-1]), strict=False):
            if node.children or node.message:
                return
            del parent.children[level]

    def drop_expired(self, now: float) -> None:
        for topic in [topic for topic, message in self._topics.items() if message.expired(now)]:
            self.clear(topic)

    def match(self, pattern: str, now: float) -> Iterator[Message]:
        """The messages on topics that the filter matches."""
        for node in self._nodes(pattern):
            if node.message is not None and not node.message.expired(now):
                yield node.message

    def _nodes(self, pattern: str) -> Iterator[_Node]:
        nodes = [self._root]
        for depth, level in enumerate(pattern.split("/")):
            if level == "#":
                yield from _below(nodes, depth)
                return
            if level == "+":
                nodes = [child for node in nodes for child in _children(node, depth)]
            else:
                nodes = [child for node in nodes if (child := node.children.get(level))]
        yield from nodes


def _children(node: _Node, depth: int) -> Iterator[_Node]:
    """What a wildcard at `depth` matches: not the `$` topics at the first level."""
    for level, child in node.children.items():
        if depth or not level.startswith("$"):
            yield child


def _below(nodes: list[_Node], depth: int) -> Iterator[_Node]:
    pending = [child for node in nodes for child in _children(node, depth)]
    if depth:
        yield from nodes
    while pending:
        node = pending.pop()
        yield node
        pending.extend(node.children.values())
