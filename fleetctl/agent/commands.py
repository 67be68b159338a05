"""The device's side of commands: which one is meant for this session, and what is answered."""

from collections import deque
from dataclasses import dataclass

from fleetctl.agent.storage import Storage
from fleetctl.errors import Malformed
from fleetctl.model.topic import is_command_name
from fleetctl.wire.command import Command
from fleetctl.wire.document import dump_json, parse_json, parse_rfc3339

REMEMBERED = 1000
PENDING = "reply.json"
PENDING_LIMIT = 4096


@dataclass(frozen=True, slots=True)
class Call:
    """A command that is to be carried out."""

    name: str
    command: Command
    correlation: bytes | None


class Commands:
    """Remembers the ids of one session, so that a message delivered twice acts once."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._session = ""
        self._seen: deque[str] = deque(maxlen=REMEMBERED)

    def begin_session(self, session: str) -> None:
        self._session = session
        self._seen.clear()

    def receive(self, name: str, payload: bytes, correlation: bytes | None) -> Call | None:
        """The command, if it is meant for this session and new; raises `Malformed` for what is no command."""
        if not is_command_name(name):
            raise Malformed("the command has no name")
        command = Command.decode(payload)
        if command.session != self._session or command.id in self._seen:
            return None
        self._seen.append(command.id)
        return Call(name, command, correlation)

    def remember(self, call: Call) -> None:
        """Keep what is to be answered after the reboot that the command asks for."""
        self._storage.write(PENDING, dump_json({"name": call.name, "id": call.command.id}))

    def pending(self) -> tuple[str, str] | None:
        """The name and the id of the command that the last reboot answers, once."""
        data = self._storage.read(PENDING, PENDING_LIMIT)
        if data is None:
            return None
        self._storage.remove(PENDING)
        try:
            document = parse_json(data)
        except Malformed:
            return None
        return str(document.get("name")), str(document.get("id"))


def expired(command: Command, now: float | None) -> bool:
    """Whether its time is over; without a clock the session alone says that a command is fresh."""
    return command.expires is not None and now is not None and now > parse_rfc3339(command.expires)
