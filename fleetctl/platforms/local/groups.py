"""Groups of a local fleet: selectors under a name, looked at anew whenever the name is used."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fleetctl.errors import Conflict
from fleetctl.model import selector
from fleetctl.model.device import check_level
from fleetctl.platforms.local.choosing import chosen
from fleetctl.platforms.protocol import Targets
from fleetctl.registry.groups import GroupRow
from fleetctl.wire.document import rfc3339

if TYPE_CHECKING:
    from fleetctl.platforms.local.fleet import LocalFleet


@dataclass(frozen=True, slots=True)
class Group:
    """A name for a selector."""

    name: str
    selector: str
    created_at: str


@dataclass(frozen=True, slots=True)
class GroupDetail:
    """A group with how many devices it has now."""

    name: str
    selector: str
    devices: int
    created_at: str


@dataclass(frozen=True, slots=True)
class GroupMade:
    """`outcome` is `created` or `unchanged`."""

    name: str
    outcome: str
    selector: str
    devices: int


@dataclass(frozen=True, slots=True)
class GroupDeleted:
    """`outcome` is `deleted`."""

    name: str
    outcome: str


def create(fleet: "LocalFleet", name: str, text: str) -> GroupMade:
    """Saving the same again changes nothing.

    Raises:
        UsageError: the name or the selector is wrong, or the group would be made of itself.
        Conflict: the name stands for another selector.
    """
    check_level("group", name)
    registry, at = fleet.registry, rfc3339(fleet.clock())
    with registry.transaction():
        saved = {each.name: each.selector for each in registry.groups()}
        selector.parse(text, {**saved, name: text})
        selector.parse(f'{selector.GROUP}="{name}"', {**saved, name: text})
        is_new = registry.add_group(GroupRow(name, text, at))
        if is_new:
            registry.record("group.created", name, at=at, actor=fleet.actor, detail={"selector": text})
    return GroupMade(name, "created" if is_new else "unchanged", text, _count(fleet, name))


def groups(fleet: "LocalFleet") -> list[Group]:
    """In the order of their names."""
    return [Group(*row) for row in fleet.registry.groups()]


def show(fleet: "LocalFleet", name: str) -> GroupDetail:
    """Raises `NotFound`."""
    row = fleet.registry.group(name)
    return GroupDetail(row.name, row.selector, _count(fleet, name), row.created_at)


def delete(fleet: "LocalFleet", name: str) -> GroupDeleted:
    """Raises `NotFound`; `Conflict` while another group is made of it, which would mean a label then."""
    registry, at = fleet.registry, rfc3339(fleet.clock())
    with registry.transaction():
        held = registry.group(name)
        users = [each.name for each in registry.groups() if each.name != name and name in selector.groups_of(each.selector)]
        if users:
            raise Conflict(f"group `{name}` is a part of group `{users[0]}`", f"fleetctl groups delete {users[0]}")
        registry.delete_group(name)
        registry.record("group.deleted", name, at=at, actor=fleet.actor, detail={"selector": held.selector})
    return GroupDeleted(name, "deleted")


def _count(fleet: "LocalFleet", name: str) -> int:
    targets = Targets((), f'{selector.GROUP}="{name}"')
    return sum(1 for _ in chosen(fleet.registry, targets, fleet.clock()))
