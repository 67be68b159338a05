"""A rollout as it is watched on a terminal: events folded into bars."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

from fleetctl.cli.session import Session
from fleetctl.present.format import Format
from fleetctl.present.live import Bar, board
from fleetctl.present.view import As

FAILED = ("failed", "regressed", "overdue", "other", "rejected")


@dataclass(slots=True)
class Tally:
    """What the events of one rollout said so far: the last stage of each device."""

    name: str
    total: int = 0
    note: str = ""
    stages: dict[str, str] = field(default_factory=dict)

    def bar(self) -> Bar:
        stages = list(self.stages.values())
        good = stages.count("succeeded")
        bad = sum(stage in FAILED for stage in stages)
        busy = stages.count("updating")
        return Bar(self.name, good, bad, busy, max(self.total, len(stages)), self.note)


@dataclass(slots=True)
class Board:
    """All rollouts that were heard of, in their order."""

    tallies: dict[str, Tally] = field(default_factory=dict)
    words: str = ""

    def fold(self, event: Mapping[str, object]) -> None:
        name = str(event.get("event", ""))
        rollout = event.get("rolloutId") or event.get("id")
        self.words = " ".join(
            str(event[key]) for key in ("deviceId", "event", "phase", "code", "why", "message") if event.get(key)
        )
        if not isinstance(rollout, str):
            return
        tally = self.tallies.setdefault(rollout, Tally(str(event.get("release") or rollout)))
        tally.name = str(event.get("release") or tally.name)
        total = event.get("devices") if name != "device" else None
        tally.total = total if isinstance(total, int) else tally.total
        if name == "device":
            tally.stages[str(event.get("deviceId"))] = str(event.get("stage"))
        elif name == "wave":
            tally.note = f"wave {event.get('wave')}: {event.get('size')}"
        elif name in ("halted", "paused", "completed", "aborted"):
            tally.note = name

    def bars(self) -> list[Bar]:
        return [tally.bar() for tally in self.tallies.values()]


def watched(session: Session, events: Iterator[object]) -> Iterator[object]:
    """The same stream; on a terminal that shows a table, events become a live board, which the outcome ends."""
    drawn = session.terminal.can_draw and session.options.format in (Format.TABLE, Format.WIDE)
    if not drawn:
        yield from events
        return
    state = Board()
    with ExitStack() as stack:
        draw = stack.enter_context(board(session.terminal.stderr))
        stack.callback(lambda: draw(state.bars(), ""))
        for event in events:
            if isinstance(event, As):
                stack.close()
                yield event
            elif isinstance(event, Mapping):
                state.fold(event)
                draw(state.bars(), state.words)
