"""Who subscribed to what: a tree of filters, walked once per published topic."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Subscription:
    """How one filter of one session is served (MQTT 5.0 section 3.8.3.1); `identifier` 0 is none."""

    filter: str
    qos: int
    no_local: bool = False
    retain_as_published: bool = False
    identifier: int = 0


@dataclass(slots=True)
class _Node(Generic[S]):
    children: dict[str, "_Node[S]"] = field(default_factory=dict)
    subscribers: dict[S, Subscription] = field(default_factory=dict)


class Router(Generic[S]):
    """Subscriptions of subscribers `S`, found by topic."""

    def __init__(self) -> None:
        self._root: _Node[S] = _Node()

    def add(self, subscriber: S, subscription: Subscription) -> None:
        """Remember a subscription; one with the same filter is replaced."""
        node = self._root
        for level in subscription.filter.split("/"):
            node = node.children.setdefault(level, _Node())
        node.subscribers[subscriber] = subscription

    def remove(self, subscriber: S, pattern: str) -> None:
        levels = pattern.split("/")
        path = [self._root]
        for level in levels:
            child = path[-1].children.get(level)
            if child is None:
                return
            path.append(child)
        path[-1].subscribers.pop(subscriber, None)
        for level, node, parent in zip(reversed(levels), reversed(path), reversed(path[:-1]), strict=False):
            if node.children or node.subscribers:
                return
            del parent.children[level]

    def match(self, topic: str) -> Iterator[tuple[S, Subscription]]:
        """Every subscription whose filter matches; wildcards at the first level leave `$` topics out (section 4.7.2)."""
        nodes = [self._root]
        for depth, level in enumerate(topic.split("/")):
            wild = depth > 0 or not topic.startswith("$")
            following: list[_Node[S]] = []
            for node in nodes:
                if wild and (rest := node.children.get("#")):
                    yield from rest.subscribers.items()
                keys = (level, "+") if wild else (level,)
                following.extend(child for key in keys if (child := node.children.get(key)))
            nodes = following
        for node in nodes:
            yield from node.subscribers.items()
            if rest := node.children.get("#"):
                yield from rest.subscribers.items()
