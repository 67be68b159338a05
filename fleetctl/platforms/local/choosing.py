"""Which devices of a registry a verb is meant for: by its indexes where they decide, by looking at each where they do not."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fleetctl.model.presence import view as presence_view
from fleetctl.platforms.protocol import Targets
from fleetctl.platforms.targets import exact_ids, is_glob

if TYPE_CHECKING:
    from fleetctl.model.criteria import DeviceView
    from fleetctl.model.selector import Selector, Share
    from fleetctl.registry import DeviceRecord, Registry


def chosen(registry: "Registry", targets: Targets, now: float, *, retired: bool = False) -> Iterator["DeviceRecord"]:
    """In the order of the ids that are named, else of all ids; pages of them, never all of them, are in memory.

    Raises:
        NotFound: an id that was named is not there.
        UsageError: the selector or the limit is wrong; raised before a device is read.
    """
    if targets.is_everything and targets.limit is None:
        return registry.records(retired=retired)
    asked = None if targets.selector is None else selector_of(registry, targets.selector)
    question = _question(registry, targets, asked, now, retired)
    registry.check_named([word for word in targets.words if not is_glob(word)], retired=retired)
    if targets.limit is None:
        return question.records()
    from fleetctl.model.selector import Share

    return question.limited(Share.parse(targets.limit))


def candidates(registry: "Registry", targets: Targets, now: float) -> Iterator["DeviceRecord"]:
    """The devices that may be meant once they are heard of: of a selector that asks for what they report, what else it asks."""
    asked = None if targets.selector is None else selector_of(registry, targets.selector)
    if asked is None or not asked.is_live:
        return chosen(registry, targets, now)
    registry.check_named([word for word in targets.words if not is_glob(word)])
    return _question(registry, targets, asked.lasting, now, retired=False).records()


def seen(record: "DeviceRecord", now: float) -> "DeviceView":
    """What a selector sees of a device."""
    from fleetctl.model.criteria import DeviceView

    said = record.sighting
    return DeviceView(
        record.device.path,
        record.device.labels,
        None if said is None else said.firmware_version or None,
        presence_view(said, None if said is None else said.received_at, now),
        None if said is None else max(0.0, now - said.received_at),
        record.reported,
    )


@dataclass(frozen=True, slots=True)
class _Question:
    """What is asked of the registry: `ids` where they are all that can match; `check` looks at what its indexes let through."""

    registry: "Registry"
    asked: "Selector | None"
    ids: list[str] | None
    check: Callable[["DeviceRecord"], bool] | None
    now: float
    retired: bool

    def records(self) -> Iterator["DeviceRecord"]:
        for page in self._pages():
            yield from self._read(page)

    def limited(self, share: "Share") -> Iterator["DeviceRecord"]:
        kept = self._first(share)
        names = sorted(kept) if self.ids is None else [name for name in self.ids if name in kept]
        yield from self.registry.records(names, retired=self.retired)

    def _first(self, share: "Share") -> set[str]:
        if self.check is None and self.ids is None:
            size = share.count
            if size is None:
                size = share.of(self.registry.count_selected(self.asked, self.now, retired=self.retired))
            return set(self.registry.first_selected(self.asked, self.now, size, retired=self.retired))
        from fleetctl.model.selector import first

        size = share.count if share.count is not None else share.of(sum(1 for _ in self.records()))
        return first((record.device.id for record in self.records()), size)

    def _pages(self) -> Iterable[list[str]]:
        if self.ids is not None:
            return (self.ids,)
        return self.registry.selected(self.asked, self.now, retired=self.retired)

    def _read(self, ids: list[str]) -> Iterator["DeviceRecord"]:
        for record in self.registry.records(ids, retired=self.retired):
            if self.check is None or self.check(record):
                yield record


def _question(registry: "Registry", targets: Targets, asked: "Selector | None", now: float, retired: bool) -> _Question:
    from fleetctl.model.selector import Share  # late: `provision list` without -l starts sooner

    ids = exact_ids(targets)
    if targets.limit is not None:
        Share.parse(targets.limit)
    asked = _with_words(asked, targets.words) if ids is None else asked
    if asked is None or (ids is None and _is_exact(asked, now)):
        return _Question(registry, asked, ids, None, now, retired)
    return _Question(registry, asked, ids, lambda record: asked.matches(seen(record, now)), now, retired)


def selector_of(registry: "Registry", text: str) -> "Selector":
    """A selector in which `group=NAME` stands for what is saved under the name; raises `UsageError`."""
    from fleetctl.model import selector

    groups = registry.groups() if selector.GROUP in text else ()
    return selector.parse(text, {each.name: each.selector for each in groups})


def _with_words(asked: "Selector | None", words: Iterable[str]) -> "Selector | None":
    """Ids and globs as a part of the selector."""
    from fleetctl.model.criteria import Criterion, Operand
    from fleetctl.model.selector import All, Selector

    operands = tuple(Operand(word, not is_glob(word)) for word in dict.fromkeys(words))
    if not operands:
        return asked
    named = Criterion("id", "in", operands)
    if asked is None:
        return Selector("", named)
    parts = asked.root.parts if isinstance(asked.root, All) else (asked.root,)
    return Selector(asked.text, All((*parts, named)))


def _is_exact(asked: "Selector", now: float) -> bool:
    from fleetctl.registry.selecting import compiled

    return compiled(asked, now).exact
