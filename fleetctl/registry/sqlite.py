"""A registry in one SQLite file: opening it, migrating it, and SQLite's failures put into words."""

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from fleetctl.errors import ConfigError, Conflict, Denied, FleetError, Unavailable
from fleetctl.files import lock
from fleetctl.registry import schema
from fleetctl.registry.engine import Row

BUSY_SECONDS = 10.0
_DAMAGED = {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_MISMATCH}


class Sqlite:
    """`Engine` over one file."""

    errors: tuple[type[Exception], ...] = (sqlite3.Error,)

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)
        try:
            self._connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
        except sqlite3.Error as error:
            raise self.explain(error) from error

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction

    def read(self, statement: str, parameters: Sequence[object]) -> list[Row]:
        return self._connection.execute(statement, tuple(parameters)).fetchall()

    def stream(self, statement: str, parameters: Sequence[object]) -> Iterator[Row]:
        with contextlib.closing(self._connection.cursor()) as cursor:
            yield from cursor.execute(statement, tuple(parameters))

    def write(self, statement: str, parameters: Sequence[object]) -> int:
        return self._connection.execute(statement, tuple(parameters)).rowcount

    def write_many(self, statement: str, rows: Iterable[Sequence[object]]) -> int:
        return self._connection.executemany(statement, (tuple(row) for row in rows)).rowcount

    def begin(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def command(self, words: str) -> None:
        self._connection.execute(words)

    def exclusive(self, name: str) -> contextlib.AbstractContextManager[None]:
        return lock(self.path.with_name(f"{name}.lock"))

    def pragma(self, name: str) -> int:
        return int(self._connection.execute(f"PRAGMA {name}").fetchone()[0])

    def close(self) -> None:
        self._connection.close()

    def explain(self, error: Exception) -> FleetError:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return Unavailable(f"registry `{self.path}` is busy: another fleetctl is writing to it", "try again in a moment")
        if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
            return Denied(f"registry `{self.path}` cannot be opened for writing", f"ls -l {self.path}")
        if code == sqlite3.SQLITE_FULL:
            return Unavailable(f"registry `{self.path}` cannot grow: the disk is full", f"df {self.path.parent}")
        if code in _DAMAGED:
            return self.damaged(str(error))
        return FleetError(f"registry `{self.path}` refused: {error}")

    def damaged(self, why: str) -> FleetError:
        return FleetError(
            f"registry `{self.path}` is damaged: {why}",
            f"restore a backup, or save what is readable: sqlite3 {self.path} .recover | sqlite3 recovered.db",
        )


def opened(path: Path) -> Sqlite:
    """An engine on a registry that exists, brought to this schema; raises as `Database.open` does."""
    if not path.exists():
        raise ConfigError(
            f"no registry at `{path}`",
            f"restore it from a backup; to begin anew, remove its folder first: rm -r {path.parent}",
        )
    engine = Sqlite(path)
    try:
        _check(engine)
    except sqlite3.Error as error:
        engine.close()
        raise engine.explain(error) from error
    except BaseException:
        engine.close()
        raise
    return engine


def create(path: Path, tenant: str) -> None:
    """Make an empty registry, whole or not at all; raises `Conflict` if the file exists."""
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


def copy_into(source: Path, target: Path) -> None:
    """A consistent copy of a registry that others may be writing to, as a private file; raises `OSError` or `sqlite3.Error`."""
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
    with contextlib.closing(sqlite3.connect(source)) as held, contextlib.closing(sqlite3.connect(target)) as copy:
        held.backup(copy)


def _check(engine: Sqlite) -> None:
    application, version = engine.pragma("application_id"), engine.pragma("user_version")
    if application != schema.APPLICATION_ID or version < 1:
        raise engine.damaged("it is not a fleetctl registry")
    if version > schema.VERSION:
        raise schema.newer(engine.name, version)
    if version < schema.VERSION:
        _migrate(engine, version)
    engine.command("PRAGMA foreign_keys = ON")


def _migrate(engine: Sqlite, version: int) -> None:
    """Under the writer's lock, with a copy of the file as it was beside it; nothing at all where that cannot be written."""
    engine.begin()
    try:
        version = engine.pragma("user_version")
        if version < schema.VERSION:
            _keep(engine.path, version)
        for number in range(version, schema.VERSION):
            for statement in schema.MIGRATIONS[number]:
                engine.command(statement)
        schema.fill(engine, version)
        engine.command(f"PRAGMA user_version = {schema.VERSION}")
    except BaseException:
        engine.command("ROLLBACK")
        raise
    engine.command("COMMIT")


def _keep(path: Path, version: int) -> None:
    target = path.with_name(f"{path.name}.schema-{version}.backup")
    if target.exists():
        return
    fresh = target.with_name(f".{target.name}.{os.urandom(4).hex()}")
    try:
        copy_into(path, fresh)
        fresh.replace(target)
    except OSError as error:
        raise FleetError(
            f"registry `{path}` is of an earlier fleetctl, and cannot be copied before it is migrated: {error.strerror}",
            f"df {path.parent}",
        ) from error
    finally:
        fresh.unlink(missing_ok=True)


def _initialise(path: Path, tenant: str) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        for statements in schema.MIGRATIONS:
            for statement in statements:
                connection.execute(statement)
        connection.execute("INSERT INTO meta VALUES ('tenant', ?), ('generation', '1')", (tenant,))
        connection.execute(f"PRAGMA user_version = {schema.VERSION}")
        connection.execute("COMMIT")
