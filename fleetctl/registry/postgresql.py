"""A registry in PostgreSQL, for teams: the same statements, one writer at a time, and its failures put into words."""

import contextlib
import re
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fleetctl.errors import ConfigError, Conflict, Denied, FleetError, Unavailable
from fleetctl.registry import schema
from fleetctl.registry.engine import Row

if TYPE_CHECKING:
    import psycopg

CONNECT_SECONDS = 10
BUSY_MILLISECONDS = 10_000
EXCLUSIVE_MILLISECONDS = 60_000
STREAM_ROWS = 500
_LOCK = 0x464C4354
"""The advisory lock of whoever writes: SQLite has one writer, so what is true there is true here."""
_FAILURES: tuple[tuple[tuple[str, ...], type[FleetError], str, str], ...] = (
    (
        ("LockNotAvailable", "DeadlockDetected"),
        Unavailable,
        "is busy: another fleetctl is writing to it",
        "try again in a moment",
    ),
    (("InvalidPassword", "InvalidAuthorizationSpecification"), Denied, "refuses this user", "put the password into ~/.pgpass"),
    (("InsufficientPrivilege",), Denied, "allows this user too little", "ask the owner of the database for its tables"),
    (("DiskFull",), Unavailable, "cannot grow: the disk is full", "make room on the database server"),
)
_QUOTED = re.compile(r"('(?:[^']|'')*')")


class Postgresql:
    """`Engine` over one database; its tables are in the schema that `search_path` names first."""

    path: Path | None = None

    def __init__(self, url: str) -> None:
        self.name = redacted(url)
        library = _library()
        self._library = library
        self.errors: tuple[type[Exception], ...] = (library.Error,)
        try:
            self._connection: psycopg.Connection[Any] = library.connect(
                url, autocommit=True, connect_timeout=CONNECT_SECONDS, application_name="fleetctl"
            )
            self._connection.execute(f"SET lock_timeout = {BUSY_MILLISECONDS}")
        except library.Error as error:
            raise self.explain(error) from error

    @property
    def in_transaction(self) -> bool:
        return bool(self._connection.info.transaction_status != self._library.pq.TransactionStatus.IDLE)

    def read(self, statement: str, parameters: Sequence[object]) -> list[Row]:
        return self._connection.execute(translated(statement), _plain(parameters)).fetchall()

    def stream(self, statement: str, parameters: Sequence[object]) -> Iterator[Row]:
        with self._connection.transaction(), self._connection.cursor(name="stream") as cursor:
            cursor.itersize = STREAM_ROWS
            yield from cursor.execute(translated(statement), _plain(parameters))

    def write(self, statement: str, parameters: Sequence[object]) -> int:
        return self._connection.execute(translated(statement), _plain(parameters)).rowcount

    def write_many(self, statement: str, rows: Iterable[Sequence[object]]) -> int:
        with self._connection.cursor() as cursor:
            cursor.executemany(translated(statement), (_plain(row) for row in rows))
            return cursor.rowcount

    def begin(self) -> None:
        self._connection.execute("BEGIN")
        try:
            self._connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        except self._library.Error:
            self._connection.execute("ROLLBACK")
            raise

    def command(self, words: str) -> None:
        self._connection.execute(words)

    @contextlib.contextmanager
    def exclusive(self, name: str) -> Iterator[None]:
        self._connection.execute(f"SET lock_timeout = {EXCLUSIVE_MILLISECONDS}".encode())
        try:
            self._connection.execute("SELECT pg_advisory_lock(%s, hashtext(%s))", (_LOCK, name))
        finally:
            self._connection.execute(f"SET lock_timeout = {BUSY_MILLISECONDS}".encode())
        try:
            yield
        finally:
            with contextlib.suppress(*self.errors):  # it ends with the connection at the latest
                self._connection.execute("SELECT pg_advisory_unlock(%s, hashtext(%s))", (_LOCK, name))

    def close(self) -> None:
        self._connection.close()

    def explain(self, error: Exception) -> FleetError:
        lines = str(error).strip().splitlines()
        words = lines[0] if lines else type(error).__name__
        for kinds, kind, message, hint in _FAILURES:
            if any(isinstance(error, getattr(self._library.errors, each)) for each in kinds):
                return kind(f"registry `{self.name}` {message}", hint)
        if isinstance(error, self._library.errors.UndefinedTable):
            return self.damaged(words)
        if isinstance(error, self._library.OperationalError):
            kind, hint = (
                (Denied, "put the password into ~/.pgpass") if "password" in words else (Unavailable, "pg_isready -d URL")
            )
            return kind(f"registry `{self.name}` cannot be reached: {words}", hint)
        return FleetError(f"registry `{self.name}` refused: {words}")

    def damaged(self, why: str) -> FleetError:
        return FleetError(f"registry `{self.name}` is damaged: {why}", "restore a backup: pg_restore")


def opened(url: str) -> Postgresql:
    """An engine on a registry that exists, brought to this schema; raises as `Database.open` does."""
    engine = Postgresql(url)
    try:
        version = _version(engine)
        if version is None:
            raise ConfigError(
                f"no registry at `{engine.name}`", "make one with fleetctl init NAME --tenant TENANT --registry URL"
            )
        if version > schema.VERSION:
            raise schema.newer(engine.name, version)
        if version < schema.VERSION:
            _migrate(engine)
    except engine.errors as error:
        engine.close()
        raise engine.explain(error) from error
    except BaseException:
        engine.close()
        raise
    return engine


def create(url: str, tenant: str) -> None:
    """Make an empty registry, whole or not at all; raises `Conflict` if the database holds one."""
    engine = Postgresql(url)
    try:
        engine.begin()
        if _version(engine) is not None:
            raise Conflict(f"registry `{engine.name}` exists already", "use it: see fleetctl context list")
        for statements in schema.MIGRATIONS:
            for statement in statements:
                engine.command(declared(statement))
        for key, value in (("tenant", tenant), ("generation", "1"), ("schema", str(schema.VERSION))):
            engine.write("INSERT INTO meta VALUES (?, ?)", (key, value))
        engine.command("COMMIT")
    except engine.errors as error:
        raise engine.explain(error) from error
    finally:
        engine.close()


def redacted(url: str) -> str:
    """The URL as it may be shown: without a password."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "postgresql://"
    user = f"{parts.username}@" if parts.username else ""
    port = f":{parts.port}" if parts.port else ""
    return f"postgresql://{user}{parts.hostname or ''}{port}{parts.path}"


def translated(statement: str) -> str:
    """`?` as `%s`, outside of quoted text."""
    parts = _QUOTED.split(statement.replace("%", "%%"))
    return "".join(part if index % 2 else part.replace("?", "%s") for index, part in enumerate(parts))


def declared(statement: str) -> str:
    """A statement of the schema with PostgreSQL's types; text is compared by its bytes, as SQLite does."""
    words = statement.replace("INTEGER PRIMARY KEY AUTOINCREMENT", "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY")
    words = words.replace(") WITHOUT ROWID", ")").replace("BLOB", "BYTEA")
    words = re.sub(r"\bREAL\b", "DOUBLE PRECISION", words)
    words = re.sub(r"\bINTEGER\b", "BIGINT", words)
    words = re.sub(r"\bTEXT\b", 'TEXT COLLATE "C"', words)
    return re.sub(r"^DROP TABLE (\w+)$", r"DROP TABLE \1 CASCADE", words)


def _plain(parameters: Sequence[object]) -> tuple[object, ...]:
    return tuple(str(each) if isinstance(each, StrEnum) else int(each) if isinstance(each, bool) else each for each in parameters)


def _version(engine: Postgresql) -> int | None:
    if engine.read("SELECT to_regclass('meta')", ())[0][0] is None:
        return None
    rows = engine.read("SELECT value FROM meta WHERE key = 'schema'", ())
    if not rows:
        raise engine.damaged("its table `meta` is not fleetctl's")
    return int(rows[0][0])


def _migrate(engine: Postgresql) -> None:
    engine.begin()
    with contextlib.ExitStack() as undo:
        undo.callback(engine.command, "ROLLBACK")
        before = _version(engine) or 0
        for number in range(before, schema.VERSION):
            for statement in schema.MIGRATIONS[number]:
                engine.command(declared(statement))
        schema.fill(engine, before)
        engine.write("UPDATE meta SET value = ? WHERE key = 'schema'", (str(schema.VERSION),))
        undo.pop_all()
    engine.command("COMMIT")


def _library() -> Any:
    try:
        import psycopg
    except ImportError as error:
        raise ConfigError("a registry in PostgreSQL needs psycopg", "pip install 'fleetctl[postgres]'") from error
    return psycopg
