"""What a registry asks of the database below it: one SQL text for all of them, `?` for each parameter."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from fleetctl.errors import FleetError

Row = tuple[Any, ...]


class Engine(Protocol):
    """A connection to one database; it raises the library's own errors, and `explain` puts them into words."""

    @property
    def name(self) -> str:
        """What messages call the registry: its file, or its URL without a password."""

    @property
    def path(self) -> Path | None:
        """Its file, if it is one."""

    @property
    def errors(self) -> tuple[type[Exception], ...]: ...

    @property
    def in_transaction(self) -> bool: ...

    def read(self, statement: str, parameters: Sequence[object]) -> list[Row]: ...

    def stream(self, statement: str, parameters: Sequence[object]) -> Iterator[Row]:
        """The same in bounded memory; nothing else may be asked until it ends."""

    def write(self, statement: str, parameters: Sequence[object]) -> int:
        """The number of rows that it changed."""

    def write_many(self, statement: str, rows: Iterable[Sequence[object]]) -> int: ...

    def begin(self) -> None:
        """Begin a transaction, and wait for whoever else is writing."""

    def command(self, words: str) -> None:
        """COMMIT, ROLLBACK, and savepoints, which all databases spell alike."""

    def exclusive(self, name: str) -> AbstractContextManager[None]:
        """Hold `name` alone among all that use this registry, on any machine, waiting for whoever holds it."""

    def explain(self, error: Exception) -> FleetError: ...

    def damaged(self, why: str) -> FleetError: ...

    def close(self) -> None: ...
