"""Which devices a verb is meant for: ids, globs and selectors, the same on every platform."""

import fnmatch
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from fleetctl.errors import NotFound, UsageError
from fleetctl.model.device import printable
from fleetctl.platforms.protocol import Targets

if TYPE_CHECKING:
    from fleetctl.model.criteria import DeviceView
    from fleetctl.model.selector import Selector

_T = TypeVar("_T")
_GLOB = "*?["


def is_glob(word: str) -> bool:
    return bool(set(word) & set(_GLOB))


def exact_ids(targets: Targets) -> list[str] | None:
    """The ids that are all that can match, None if a glob or no word is among the targets."""
    return None if not targets.words or any(is_glob(word) for word in targets.words) else list(dict.fromkeys(targets.words))


def choose(candidates: Iterable[_T], targets: Targets, view: "Callable[[_T], DeviceView]") -> Iterator[_T]:
    """The candidates that satisfy the targets, in their order.

    Raises:
        NotFound: an id that was named is not among them.
        UsageError: the selector or the limit is wrong; raised before a candidate is read.
    """
    if targets.is_everything and targets.limit is None:
        return iter(candidates)
    if targets.selector is None and targets.limit is None:
        return _chosen(candidates, targets.words, None, view)
    from fleetctl.model import selector  # late: `provision list` without -l starts sooner

    wanted = None if targets.selector is None else selector.parse(targets.selector)
    if targets.limit is not None:
        selector.limit([], targets.limit)
    chosen = _chosen(candidates, targets.words, wanted, view)
    if targets.limit is None:
        return chosen
    return _limited(list(chosen), targets.limit, view)


def require_any(chosen: Sequence[_T], targets: Targets) -> Sequence[_T]:
    """The same; raises `NotFound` if it is empty."""
    if not chosen:
        asked = targets.selector if targets.selector is not None else " ".join(targets.words)
        raise NotFound(f"no device matches {printable(asked)}", "see what there is: fleetctl provision list")
    return chosen


def require_named(targets: Targets) -> Targets:
    """The same; raises `UsageError` if nothing was named, which never means everything."""
    if targets.is_everything:
        raise UsageError("no device is named", "name devices, or select them: -l 'type=*'")
    return targets


def _chosen(
    candidates: Iterable[_T], words: Sequence[str], wanted: "Selector | None", view: "Callable[[_T], DeviceView]"
) -> Iterator[_T]:
    exact = {word for word in words if not is_glob(word)}
    globs = [word for word in words if is_glob(word)]
    missing = dict.fromkeys(word for word in words if not is_glob(word))
    for candidate in candidates:
        seen = view(candidate)
        name = seen.path.device_id
        missing.pop(name, None)
        is_named = not words or name in exact or any(fnmatch.fnmatchcase(name, glob) for glob in globs)
        if is_named and (wanted is None or wanted.matches(seen)):
            yield candidate
    for name in missing:
        raise NotFound(f"no device named {printable(name)}", "see fleetctl provision list")


def _limited(chosen: Sequence[_T], size: str, view: "Callable[[_T], DeviceView]") -> Iterator[_T]:
    from fleetctl.model import selector

    names = [view(candidate).path.device_id for candidate in chosen]
    kept = set(selector.limit(names, size))
    return (candidate for candidate, name in zip(chosen, names, strict=True) if name in kept)
