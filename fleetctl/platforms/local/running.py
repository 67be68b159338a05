"""The local broker as other processes see it: whether it runs, where, and which revocation lists it obeys.

`broker run` holds `broker.lock` as long as it lives, so what `broker.pid` says is believed only while somebody holds that lock: a
process id that was given to another program is never signalled.
"""

import fcntl
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fleetctl import files
from fleetctl.errors import Conflict, Denied, Malformed, NotFound
from fleetctl.wire.document import parse_json
from fleetctl.wire.fields import object_fields

STATE = "broker.pid"
LOCK = "broker.lock"
STATE_LIMIT = 4096
OBEY_SECONDS = 15.0
POLL_SECONDS = 0.02
CLAIM_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class BrokerState:
    """What a running broker says of itself.

    `lists` are the numbers of the revocation lists it has read, by authority; `error` is what became of the last of `reloads`.
    `denied` tells which devices it keeps out that are on no list of ours (`listeners.digest`).
    """

    pid: int
    engine: str
    device_url: str
    fleet_url: str
    lists: Mapping[str, int] = field(default_factory=dict)
    reloads: int = 0
    error: str | None = None
    denied: str | None = None

    def encode(self) -> bytes:
        document = {
            "pid": self.pid,
            "engine": self.engine,
            "deviceUrl": self.device_url,
            "fleetUrl": self.fleet_url,
            "crlNumbers": dict(self.lists),
            "reloads": self.reloads,
            "error": self.error,
            "denied": self.denied,
        }
        return json.dumps(document).encode() + b"\n"

    @classmethod
    def decode(cls, data: bytes) -> "BrokerState":
        fields = object_fields(f"`{STATE}`", parse_json(data))
        lists = fields.mapping("crlNumbers")
        return cls(
            fields.integer("pid", low=2),
            fields.text("engine"),
            fields.text("deviceUrl"),
            fields.text("fleetUrl"),
            {name: number for name, number in lists.items() if isinstance(number, int)},
            fields.integer("reloads"),
            fields.text_or_none("error", limit=2000),
            fields.text_or_none("denied"),
        )

    def obeys(self, wanted: Mapping[str, int], denied: str | None = None) -> bool:
        """Whether it has read these lists, or newer ones, and keeps out who is `denied`; None asks for nobody."""
        return denied in (None, self.denied) and all(self.lists.get(name, 0) >= number for name, number in wanted.items())


@dataclass(frozen=True, slots=True)
class Obedience:
    """What became of a request to read the lists again."""

    running: bool
    reloaded: bool
    engine: str | None = None
    error: str | None = None


@contextmanager
def claimed(folder: Path, context: str, sleep: Callable[[float], None] = time.sleep) -> Iterator[None]:
    """Be the one broker of a context; raises `Conflict` while another process is."""
    descriptor = _open(folder / LOCK, os.O_CREAT)
    try:
        _lock(descriptor, folder, context, sleep)
        # what one that was killed has left behind
        (folder / STATE).unlink(missing_ok=True)
        try:
            yield
        finally:
            (folder / STATE).unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path, context: str, sleep: Callable[[float], None]) -> None:
    """Whoever asks whether a broker runs holds the lock for a moment too: hence more than one try."""
    for _ in range(int(CLAIM_SECONDS / POLL_SECONDS)):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sleep(POLL_SECONDS)
        else:
            return
    state = read_state(folder)
    raise Conflict(
        f"a broker runs already for context `{context}`" + (f" (process {state.pid}, {state.device_url})" if state else ""),
        f"stop it first: kill {state.pid}" if state else f"fuser {folder / LOCK}",
    )


def publish(folder: Path, state: BrokerState) -> None:
    files.write_atomic(folder / STATE, state.encode(), 0o600)


def read_state(folder: Path) -> BrokerState | None:
    """What the broker of a context says, running or not; None where nothing readable is there."""
    try:
        return BrokerState.decode(files.read_limited(folder / STATE, STATE_LIMIT))
    except (NotFound, Malformed):
        return None


def running(folder: Path) -> BrokerState | None:
    """The state of the broker that runs now; a file left behind by one that was killed does not count."""
    return read_state(folder) if _is_held(folder / LOCK) else None


def _is_held(lock: Path) -> bool:
    try:
        descriptor = _open(lock)
    except NotFound:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _open(lock: Path, flags: int = 0) -> int:
    try:
        return os.open(lock, os.O_RDWR | os.O_CLOEXEC | flags, 0o600)
    except FileNotFoundError as error:
        raise NotFound(f"no file `{lock}`", f"ls -ld {lock.parent}") from error
    except OSError as error:
        raise Denied(f"cannot open `{lock}`: {(error.strerror or 'unknown reason').lower()}", f"ls -l {lock}") from error


def have_it_read(
    folder: Path,
    wanted: Mapping[str, int],
    *,
    denied: Callable[[], str] | None = None,
    anew: bool = False,
    timeout: float = OBEY_SECONDS,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Obedience:
    """Tell a running broker to read its lists again, and wait (`timeout` seconds) until it says that it has.

    `denied` tells whom it is to keep out now: others may change that while we wait. With `anew` it reads its files in any case.
    """
    before = 0

    def obeyed(state: BrokerState) -> bool:
        return state.obeys(wanted, denied and denied()) and not (anew and state.reloads == before)

    state = running(folder)
    if state is None:
        return _GONE
    engine, before, deadline = state.engine, state.reloads, clock() + timeout
    if obeyed(state):
        return Obedience(True, True, engine)
    try:
        os.kill(state.pid, signal.SIGHUP)
    except PermissionError:
        return Obedience(True, False, engine, f"process {state.pid} belongs to another user")
    except ProcessLookupError:
        return _GONE
    error: str | None = None
    while error is None and clock() < deadline:
        sleep(POLL_SECONDS)
        state = running(folder)
        if state is None or obeyed(state):
            return _GONE if state is None else Obedience(True, True, engine)
        error = state.error if state.reloads > before else None
    return Obedience(True, False, engine, error or f"it did not answer within {timeout:g} s")


_GONE = Obedience(running=False, reloaded=False)
