"""A registry's database: transactions and statements, whatever engine is below."""

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from fleetctl.registry.engine import Engine, Row

PAGE = 500
"""How many values one statement names at most."""

__all__ = ["PAGE", "Database", "Row", "marks", "pages", "upsert"]


class Database:
    """A connection to one registry: a context manager that closes it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._depth = 0

    @classmethod
    def open(cls, place: Path | str) -> Self:
        """Open a registry that exists, in a file or at a `postgresql://` URL, migrating it when it is older than this fleetctl.

        Raises:
            ConfigError: there is none.
            FleetError: it is damaged, is something else, or was written by a newer fleetctl.
        """
        if isinstance(place, str):
            from fleetctl.registry import postgresql

            return cls(postgresql.opened(place))
        from fleetctl.registry import sqlite

        return cls(sqlite.opened(place))

    @classmethod
    def create(cls, place: Path | str, tenant: str) -> Self:
        """Make an empty registry for a tenant, whole or not at all; raises `Conflict` if there is one."""
        if isinstance(place, str):
            from fleetctl.registry import postgresql

            postgresql.create(place, tenant)
        else:
            from fleetctl.registry import sqlite

            sqlite.create(place, tenant)
        return cls.open(place)

    @property
    def path(self) -> Path | None:
        """Its file, if it is one."""
        return self._engine.path

    @property
    def name(self) -> str:
        return self._engine.name

    def close(self) -> None:
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside is written together or not at all; one that fails inside another takes only its own part back."""
        name = f"inner{self._depth}"
        undo = [f"ROLLBACK TO SAVEPOINT {name}", f"RELEASE SAVEPOINT {name}"] if self._depth else ["ROLLBACK"]
        try:
            if self._depth:
                self._engine.command(f"SAVEPOINT {name}")
            else:
                self._engine.begin()
        except self._engine.errors as error:
            raise self._engine.explain(error) from error
        self._depth += 1
        try:
            yield
            with self._explained():
                self._engine.command(f"RELEASE SAVEPOINT {name}" if self._depth > 1 else "COMMIT")
        except BaseException:
            if self._engine.in_transaction:
                with contextlib.suppress(*self._engine.errors):  # what went wrong first is what counts
                    for statement in undo:
                        self._engine.command(statement)
            raise
        finally:
            self._depth -= 1

    def read(self, statement: str, parameters: Iterable[object] = ()) -> list[Row]:
        try:
            return self._engine.read(statement, tuple(parameters))
        except self._engine.errors as error:
            raise self._engine.explain(error) from error

    def read_one(self, statement: str, parameters: Iterable[object] = ()) -> Row | None:
        rows = self.read(statement, parameters)
        return rows[0] if rows else None

    def write(self, statement: str, parameters: Iterable[object] = ()) -> int:
        """The number of rows that it changed."""
        if self._depth:
            return self._write(statement, parameters)
        with self.transaction():
            return self._write(statement, parameters)

    def write_many(self, statement: str, rows: Iterable[Sequence[object]]) -> int:
        """The same statement for many rows, all of them or none."""
        with self.transaction(), self._explained():
            return self._engine.write_many(statement, rows)

    @contextlib.contextmanager
    def exclusive(self, name: str) -> Iterator[None]:
        """Hold `name` alone among all that use this registry, on any machine; others wait."""
        with contextlib.ExitStack() as held:
            with self._explained():
                held.enter_context(self._engine.exclusive(name))
            yield

    @property
    def within(self) -> bool:
        """Whether a transaction is under way."""
        return self._depth > 0

    def parse(self, text: str) -> Any:
        """JSON that this registry holds."""
        try:
            return json.loads(text)
        except ValueError as error:
            raise self._engine.damaged(str(error)) from error

    def _write(self, statement: str, parameters: Iterable[object]) -> int:
        try:
            return self._engine.write(statement, tuple(parameters))
        except self._engine.errors as error:
            raise self._engine.explain(error) from error

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except self._engine.errors as error:
            raise self._engine.explain(error) from error


def upsert(table: str, *columns: str) -> str:
    """A row in the place of the one with the same key, which is the first column."""
    changes = ", ".join(f"{column} = excluded.{column}" for column in columns[1:])
    names = ", ".join(columns)
    return f"INSERT INTO {table} ({names}) VALUES ({marks(columns)}) ON CONFLICT ({columns[0]}) DO UPDATE SET {changes}"  # noqa: S608


def marks(values: Sequence[object]) -> str:
    """`?, ?, ?` for as many values."""
    return ", ".join("?" * len(values))


def pages(values: Iterable[str]) -> Iterator[list[str]]:
    """Distinct values, as many at a time as a statement may name."""
    wanted = list(dict.fromkeys(values))
    for start in range(0, len(wanted), PAGE):
        yield wanted[start : start + PAGE]
