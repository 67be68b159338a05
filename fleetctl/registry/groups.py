"""Saved selectors: a group is a name for one."""

from typing import NamedTuple

from fleetctl.errors import Conflict, NotFound
from fleetctl.model.device import printable
from fleetctl.registry.database import Database


class GroupRow(NamedTuple):
    """A group; `created_at` is RFC 3339 UTC."""

    name: str
    selector: str
    created_at: str


class Groups(Database):
    def add_group(self, group: GroupRow) -> bool:
        """False if it is there just so; raises `Conflict` where the name stands for another selector."""
        with self.transaction():
            held = self.find_group(group.name)
            if held is not None:
                if held.selector != group.selector:
                    raise Conflict(
                        f"group `{group.name}` exists already: {printable(held.selector)}",
                        f"delete it first: fleetctl groups delete {group.name}",
                    )
                return False
            self.write("INSERT INTO groups VALUES (?, ?, ?)", group)
        return True

    def groups(self) -> list[GroupRow]:
        """In the order of their names."""
        return [GroupRow(*row) for row in self.read("SELECT name, selector, created_at FROM groups ORDER BY name")]

    def find_group(self, name: str) -> GroupRow | None:
        row = self.read_one("SELECT name, selector, created_at FROM groups WHERE name = ?", (name,))
        return None if row is None else GroupRow(*row)

    def group(self, name: str) -> GroupRow:
        """Raises `NotFound`."""
        found = self.find_group(name)
        if found is None:
            raise NotFound(f"no group named {printable(name)}", "see fleetctl groups list")
        return found

    def delete_group(self, name: str) -> None:
        """Raises `NotFound`."""
        with self.transaction():
            self.group(name)
            self.write("DELETE FROM groups WHERE name = ?", (name,))
