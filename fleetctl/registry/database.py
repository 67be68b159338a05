"""One registry file: opening it, migrating it, transactions, and SQLite's failures put into words."""

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self

from fleetctl.errors import ConfigError, Conflict, Denied, FleetError, Unavailable
from fleetctl.registry import schema

BUSY_SECONDS = 10.0
_DAMAGED = {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_MISMATCH}

Row = tuple[Any, ...]


class Database:
    """A connection to one registry file: a context manager that closes it."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self._depth = 0

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a registry that exists, migrating it when it is older than this fleetctl.

        Raises:
            ConfigError: there is none.
            FleetError: it is damaged, is something else, or was written by a newer fleetctl.
        """
        if not path.exists():
            raise ConfigError(
                f"no registry at `{path}`",
                f"restore it from a backup; to begin anew, remove its folder first: rm -r {path.parent}",
            )
        database = cls(path, _connect(path))
        try:
            database._check()
        except BaseException:
            database.close()
            raise
        return database

    @classmethod
    def create(cls, path: Path, tenant: str) -> Self:
        """Make an empty registry for a tenant, whole or not at all; raises `Conflict` if the file exists."""
        fresh = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
        try:
            os.close(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            try:
                _initialise(fresh, tenant)
                os.link(fresh, path)
            finally:
                fresh.unlink()
        except FileExistsError as error:
            raise Conflict(f"registry `{path}` exists already", "see fleetctl context list") from error
        except OSError as error:
            raise FleetError(f"registry `{path}` cannot be written: {error.strerror}", f"check {path.parent}") from error
        return cls.open(path)

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside is written together or not at all; one that fails inside another takes only its own part back."""
        name = f"inner{self._depth}"
        begin, commit = (f"SAVEPOINT {name}", f"RELEASE {name}") if self._depth else ("BEGIN IMMEDIATE", "COMMIT")
        undo = [f"ROLLBACK TO {name}", commit] if self._depth else ["ROLLBACK"]
        self._execute(begin)
        self._depth += 1
        try:
            yield
            self._execute(commit)
        except BaseException:
            if self._connection.in_transaction:
                for statement in undo:
                    self._connection.execute(statement)
            raise
        finally:
            self._depth -= 1

    def read(self, statement: str, parameters: Iterable[object] = ()) -> list[Row]:
        try:
            return self._connection.execute(statement, tuple(parameters)).fetchall()
        except sqlite3.Error as error:
            raise _explain(self.path, error) from error

    def read_one(self, statement: str, parameters: Iterable[object] = ()) -> Row | None:
        rows = self.read(statement, parameters)
        return rows[0] if rows else None

    def write(self, statement: str, parameters: Iterable[object] = ()) -> int:
        """The number of rows that it changed."""
        if self._depth:
            return self._execute(statement, parameters)
        with self.transaction():
            return self._execute(statement, parameters)

    @property
    def within(self) -> bool:
        """Whether a transaction is under way."""
        return self._depth > 0

    def _execute(self, statement: str, parameters: Iterable[object] = ()) -> int:
        try:
            return self._connection.execute(statement, tuple(parameters)).rowcount
        except sqlite3.Error as error:
            raise _explain(self.path, error) from error

    def parse(self, text: str) -> Any:
        """JSON that this registry holds."""
        try:
            return json.loads(text)
        except ValueError as error:
            raise _damaged(self.path, str(error)) from error

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise _explain(self.path, error) from error

    def _check(self) -> None:
        with self._explained():
            application = self._pragma("application_id")
            version = self._pragma("user_version")
            if application != schema.APPLICATION_ID or version < 1:
                raise _damaged(self.path, "it is not a fleetctl registry")
            if version > schema.VERSION:
                raise _newer(self.path, version)
            if version < schema.VERSION:
                self._migrate()
            self._connection.execute("PRAGMA foreign_keys = ON")

    def _migrate(self) -> None:
        with self.transaction():
            for number in range(self._pragma("user_version"), schema.VERSION):
                for statement in schema.MIGRATIONS[number]:
                    self._connection.execute(statement)
            self._connection.execute(f"PRAGMA user_version = {schema.VERSION}")

    def _pragma(self, name: str) -> int:
        return int(self._connection.execute(f"PRAGMA {name}").fetchone()[0])


def _connect(path: Path) -> sqlite3.Connection:
    try:
        return sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    except sqlite3.Error as error:
        raise _explain(path, error) from error


def _initialise(path: Path, tenant: str) -> None:
    with contextlib.closing(_connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        for statements in schema.MIGRATIONS:
            for statement in statements:
                connection.execute(statement)
        connection.execute("INSERT INTO meta VALUES ('tenant', ?), ('generation', '1')", (tenant,))
        connection.execute(f"PRAGMA user_version = {schema.VERSION}")
        connection.execute("COMMIT")


def _explain(path: Path, error: sqlite3.Error) -> FleetError:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Unavailable(f"registry `{path}` is busy: another fleetctl is writing to it", "try again in a moment")
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return Denied(f"registry `{path}` cannot be opened for writing", f"ls -l {path}")
    if code == sqlite3.SQLITE_FULL:
        return Unavailable(f"registry `{path}` cannot grow: the disk is full", f"df {path.parent}")
    if code in _DAMAGED:
        return _damaged(path, str(error))
    return FleetError(f"registry `{path}` refused: {error}")


def _damaged(path: Path, why: str) -> FleetError:
    return FleetError(
        f"registry `{path}` is damaged: {why}",
        f"restore a backup, or save what is readable: sqlite3 {path} .recover | sqlite3 recovered.db",
    )


def _newer(path: Path, version: int) -> FleetError:
    return FleetError(
        f"registry `{path}` was written by a newer fleetctl (schema {version}, this one knows {schema.VERSION})",
        "pip install --upgrade fleetctl",
    )
