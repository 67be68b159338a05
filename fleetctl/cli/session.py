"""What a verb is given: a fleet that opens when it is first used, and the terminal's facts."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, TextIO, TypeVar

from fleetctl.errors import FleetError, NotFound, UsageError
from fleetctl.present.format import Format
from fleetctl.present.text import safe
from fleetctl.present.view import Field, View

if TYPE_CHECKING:
    from fleetctl.config import Context
    from fleetctl.model.device import Device
    from fleetctl.platforms.devices import Devices
    from fleetctl.platforms.local.fleet import LocalFleet
    from fleetctl.platforms.messages import Messages
    from fleetctl.platforms.protocol import Targets
    from fleetctl.platforms.twins import Twins
    from fleetctl.platforms.updates import Updates

T = TypeVar("T")


class Terminal(NamedTuple):
    """Where talk goes, and whether somebody is there to answer."""

    stdin: TextIO
    stderr: TextIO

    @property
    def can_ask(self) -> bool:
        return self.stdin.isatty() and self.stderr.isatty()

    @property
    def can_draw(self) -> bool:
        return self.stderr.isatty()


class Options(NamedTuple):
    """What the common options of a verb say."""

    context: str | None = None
    format: Format = Format.TABLE
    yes: bool = False
    dry_run: bool = False
    max_devices: int | None = None


class Planned(Exception):
    """What a write would do, instead of doing it (`--dry-run`)."""

    def __init__(self, writes: Sequence[Mapping[str, str]]) -> None:
        super().__init__()
        self.writes = writes


PLAN = View("plan", (Field("id", help="The device, or the topic."), Field("action", help="What would be written.")))


class Session:
    """One run of one verb; `again` is the command that goes on with what Ctrl-C would interrupt."""

    def __init__(self, options: Options | None = None, terminal: Terminal | None = None) -> None:
        self.options = options or Options()
        self.terminal = terminal or Terminal(sys.stdin, sys.stderr)
        self.again = ""

    @property
    def context(self) -> "Context":
        return self.fleet.context

    @cached_property
    def fleet(self) -> "LocalFleet":
        from fleetctl.config import locate
        from fleetctl.platforms.local.fleet import LocalFleet

        return LocalFleet(locate(self.options.context))

    @property
    def devices(self) -> "Devices":
        return self.fleet.devices

    @property
    def twins(self) -> "Twins":
        return self.fleet.twins

    @property
    def messages(self) -> "Messages":
        return self.fleet.messages

    @property
    def updates(self) -> "Updates":
        return self.fleet.updates

    def targets(self, words: Iterable[str] | None, selector: str | None = None, limit: str | None = None) -> "Targets":
        """The devices that the words mean; reads stdin and files where they say so."""
        from fleetctl.cli.targets import expand
        from fleetctl.platforms.protocol import Targets

        return Targets(tuple(expand(words, self.terminal.stdin)), selector, limit)

    def one(self, word: str) -> str:
        """The one device that the word means; raises `UsageError` where stdin or a file names more."""
        from fleetctl.cli.targets import expand

        names = expand([word], self.terminal.stdin)
        if len(names) != 1:
            raise UsageError(f"`{word}` names {len(names)} devices, this takes one", "see many: fleetctl provision list -")
        return names[0]

    def refresh(self, targets: "Targets") -> None:
        """Read presence and reported twins from the broker, of all that the selector might match once they are known."""
        known = list(self.devices.candidates(targets))
        if known:
            self.devices.refresh(known)

    def chosen(self, targets: "Targets", action: str) -> "Sequence[Device]":
        """The devices that a write is meant for, approved."""
        devices = self.devices.resolve(targets)
        self.approve([device.id for device in devices], action)
        return devices

    def close(self) -> None:
        if "fleet" in self.__dict__:
            self._warn_of_lists()
            self.fleet.close()

    def _warn_of_lists(self) -> None:
        """A revocation list that runs out locks everybody out: whoever uses the registry hears of it in time."""
        if "registry" not in self.fleet.__dict__:
            return
        with suppress(FleetError):
            now = self.fleet.clock()
            for due in self.fleet.registry.lists_due(now):
                words = "has ended: nobody is let in" if due.ended(now) else "is past half of its life"
                self.say(f"warning: the revocation list of {due.authority} {words}; see fleetctl certs crl status")

    def say(self, text: str) -> None:
        """Tell the person; stdout stays data."""
        self.terminal.stderr.write("".join(safe(line) + "\n" for line in text.splitlines()))
        self.terminal.stderr.flush()

    def approve(self, devices: Sequence[str], action: str, plan: Sequence[Mapping[str, str]] | None = None) -> None:
        """Return when `action` may be done to these devices; `plan` is what `--dry-run` prints, `action` for each by default.

        Raises `NotFound` for none of them, `UsageError` above `--max-devices` or with nobody to ask, `Planned` for `--dry-run`.
        """
        if not devices:
            raise NotFound(f"no device to {action}", "see what there is: fleetctl provision list")
        most = self.options.max_devices
        if most is not None and len(devices) > most:
            raise UsageError(
                f"{len(devices)} devices are more than `--max-devices {most}`", "narrow the selector, or raise the cap"
            )
        if self.options.dry_run:
            raise Planned(plan or [{"id": device, "action": action} for device in devices])
        if len(devices) > 1 and not self.options.yes:
            self.confirm(f"{action}: {_named(devices)}. Go on?")

    def confirm(self, question: str) -> None:
        """Return when the person says yes; raises `UsageError` where nobody can, `FleetError` for a no."""
        if not self.terminal.can_ask:
            raise UsageError(
                f"{question.removesuffix(' Go on?').removesuffix('.')}: no terminal to ask at",
                "repeat it with --yes, or look first with --dry-run",
            )
        self.terminal.stderr.write(f"{safe(question)} [y/N] ")
        self.terminal.stderr.flush()
        if self.terminal.stdin.readline().strip().lower() not in ("y", "yes"):
            raise FleetError("nothing was done: the answer was no")


def gather(results: Iterator[T]) -> list[T]:
    """All results; an error at their end carries those that came before it."""
    found: list[T] = []
    try:
        for each in results:
            found.append(each)  # noqa: PERF402
    except FleetError as error:
        error.record = error.record or list(found) or None
        raise
    return found


def _named(devices: Sequence[str]) -> str:
    shown = ", ".join(devices[:3])
    return f"{len(devices)} devices ({shown}{', …' if len(devices) > 3 else ''})"
