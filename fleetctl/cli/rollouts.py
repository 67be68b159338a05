"""`fleetctl ota`, rollouts: planned, started, driven, watched, ended."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fleetctl.cli.board import watched
from fleetctl.cli.ota import NAME, Release, app
from fleetctl.cli.session import Session
from fleetctl.cli.verb import verb
from fleetctl.cli.words import DeviceWords, LimitWord, SelectorWord, duration_option
from fleetctl.errors import FleetError, UsageError
from fleetctl.platforms.updates import PlanEntry, RolloutEntry, RolloutRef
from fleetctl.present.view import As, Field, View

if TYPE_CHECKING:
    from fleetctl.platforms.updates import PlanOptions

PLAN = View(
    "rolloutPlan",
    (
        Field("id", help="The rollout."),
        Field("release"),
        Field("digest", help="Of the signed plan."),
        Field("targets", "integer", help="How many devices it will reach."),
        Field("skipped", "integer", help="How many it leaves out, and says why."),
        Field("waves", "array", help="Their sizes."),
        Field("devices", "array", help="Each with its wave, or why it is skipped.", hidden=True),
        Field("parameters", "object", help="The numbers that judge it.", hidden=True),
        Field("file", nullable=True),
    ),
)
ROLLOUT = View(
    "rollout",
    (
        Field("id"),
        Field("release"),
        Field("state", help="running, paused, halted, aborted or completed."),
        Field("reason", wide=True, nullable=True),
        Field("devices", "integer", help="The sum of succeeded, failed, updating and untouched."),
        Field("succeeded", "integer"),
        Field("failed", "integer"),
        Field("updating", "integer"),
        Field("untouched", "integer"),
        Field("exposed", "integer", help="How many have accepted.", wide=True),
        Field("overdue", "integer", wide=True),
        Field("skipped", "integer", wide=True),
        Field("wave", "integer"),
        Field("waves", "integer"),
        Field("codes", "object", help="How often devices gave which reason.", wide=True),
        Field("settled", "boolean", help="Whether every exposed device has ended.", wide=True),
        Field("attended", "boolean", help="Whether a controller drives it now.", wide=True),
        Field("unattendedSince", nullable=True, wide=True),
        Field("updatedAt", wide=True),
        Field("plan", help="The digest of the signed plan.", wide=True),
        Field("ignored", "integer", help="Messages that nobody could believe, as this command saw them.", wide=True),
    ),
)
EVENT = View(
    "rolloutEvent",
    (
        Field("timestamp", nullable=True),
        Field("rolloutId", header="ROLLOUT", nullable=True),
        Field("event", least=9, help="offered, withdrawn, device, wave, paused, halted, completed, …"),
        Field("deviceId", header="DEVICE", nullable=True, least=8),
        Field("stage", nullable=True, least=9),
        Field("phase", nullable=True, least=12),
        Field("code", nullable=True),
        Field("why", nullable=True),
    ),
    id="rolloutId",
    open=True,
)

SERVING = View("serving", (Field("event", help="serving."), Field("url", help="Where devices look.")), id="url", open=True)

PlanFile = Annotated[Path | None, typer.Option("--file", "-f", metavar="FILE", help="The plan: plan.json.")]
Key = Annotated[
    str | None,
    typer.Option(
        "--key", metavar="REF", help="A rollout key of one's own: env:NAME, file:PATH, keyring:SERVICE/USER or pkcs11:…"
    ),
]
Rollout = Annotated[str | None, typer.Argument(metavar="[ROLLOUT]", help="Its id, of `ota list`.", show_default=False)]
Wait = Annotated[bool, typer.Option("--wait", help="Drive it to its end: 0, 8, 9, or 10 where --timeout passes first.")]
Timeout = Annotated[float | None, duration_option("--timeout", help="How long to drive or to look.")]
FirstWave = Annotated[int | None, typer.Option("--first-wave", metavar="N", min=1, help="The size of the first wave.")]
Growth = Annotated[int | None, typer.Option("--growth", metavar="N", min=1, help="How much larger each wave is.")]
Soak = Annotated[float | None, duration_option("--soak", help="How long an updated device must stay well.")]
Heartbeats = Annotated[int | None, typer.Option("--heartbeats", metavar="N", min=0, help="Sightings that prove an update.")]
AcceptWithin = Annotated[float | None, duration_option("--accept-within", help="When an offer is withdrawn.")]
FinishWithin = Annotated[float | None, duration_option("--finish-within", help="When an accepted update is overdue.")]
Jitter = Annotated[float, duration_option("--jitter", help="Over which devices spread their downloads.", shown="0s")]
AllowDowngrade = Annotated[bool, typer.Option("--allow-downgrade", help="To an older version too.")]
Supersede = Annotated[bool, typer.Option("--supersede", help="Also devices that another rollout has not finished.")]


@verb(
    app,
    PLAN,
    name="plan",
    example="""
    fleetctl ota plan pump@2.1.0 -l 'type=pump' -f plan.json
    fleetctl ota plan pump@2.1.0 -l 'location=oslo' --first-wave 2 --soak 10m -o json
    """,
)
def plan(
    session: Session,
    release: Release,
    devices: DeviceWords = None,
    selector: SelectorWord = None,
    limit: LimitWord = None,
    file: PlanFile = None,
    first_wave: FirstWave = None,
    growth: Growth = None,
    soak: Soak = None,
    heartbeats: Heartbeats = None,
    accept_within: AcceptWithin = None,
    finish_within: FinishWithin = None,
    jitter: Jitter = 0.0,
    allow_downgrade: AllowDowngrade = False,
    supersede: Supersede = False,
) -> PlanEntry:
    """Decide who gets a release and in which order, and sign that; nothing is sent."""
    options = _options(
        first_wave, growth, soak, heartbeats, accept_within, finish_within, int(jitter), allow_downgrade, supersede
    )
    return session.updates.plan(release, session.devices.resolve(session.targets(devices, selector, limit)), options, file=file)


@verb(
    app,
    EVENT,
    name="start",
    writes=True,
    final=True,
    example="""
    fleetctl ota start pump@2.1.0 -l 'type=pump' --wait
    fleetctl ota start -f plan.json --yes
    """,
)
def start(
    session: Session,
    release: Annotated[str | None, NAME] = None,
    devices: DeviceWords = None,
    selector: SelectorWord = None,
    limit: LimitWord = None,
    file: PlanFile = None,
    key: Key = None,
    wait: Wait = False,
    timeout: Timeout = None,
    first_wave: FirstWave = None,
    growth: Growth = None,
    soak: Soak = None,
    heartbeats: Heartbeats = None,
    accept_within: AcceptWithin = None,
    finish_within: FinishWithin = None,
    jitter: Jitter = 0.0,
    allow_downgrade: AllowDowngrade = False,
    supersede: Supersede = False,
) -> Iterator[object]:
    """Start a rollout: deliver its first wave, or with --wait drive it to its end. The same plan again continues it."""
    if (release is None) == (file is None):
        raise UsageError(
            "name a release, or a plan", "fleetctl ota start RELEASE -l SELECTOR, or fleetctl ota start -f plan.json"
        )
    options = _options(
        first_wave, growth, soak, heartbeats, accept_within, finish_within, int(jitter), allow_downgrade, supersede
    )
    if release is not None:
        chosen = session.devices.resolve(session.targets(devices, selector, limit))
        made = session.updates.plan(release, chosen, options)
        if made.targets < options.parameters.small_fleet and (first_wave or growth):
            session.say(_SMALL.format(made.targets, options.parameters.small_fleet))
        _approve_plan(session, made)
        ref = RolloutRef(id=made.id, key=key)
    else:
        _refuse_choices(devices or selector or limit, options)
        ref = RolloutRef(plan=file, key=key)
        _approve_file(session, file)
    yield from _driven(session, ref, session.updates.start(ref, wait=wait, timeout=timeout), wait)


@verb(app, EVENT, name="step", final=True, example="fleetctl ota step ROLLOUT")
def step(session: Session, rollout: Rollout = None, file: PlanFile = None, key: Key = None) -> Iterator[object]:
    """Make one pass over a rollout: take in what happened, promote or halt, and leave."""
    yield from _outcomes(session, session.updates.step(_ref(rollout, file, key)))


@verb(
    app,
    EVENT,
    name="resume",
    final=True,
    example="""
    fleetctl ota resume ROLLOUT
    fleetctl ota resume -f plan.json --key env:ROLLOUT_KEY --timeout 30m
    """,
)
def resume(
    session: Session,
    rollout: Rollout = None,
    file: PlanFile = None,
    key: Key = None,
    timeout: Timeout = None,
) -> Iterator[object]:
    """Take a rollout over and drive it to its end; whoever drove it before is cut off."""
    ref = _ref(rollout, file, key)
    yield from _driven(session, ref, session.updates.resume(ref, timeout=timeout), True)


@verb(app, EVENT, name="abort", final=True, example="fleetctl ota abort ROLLOUT")
def abort(session: Session, rollout: Rollout = None, file: PlanFile = None, key: Key = None) -> Iterator[object]:
    """End a rollout: cancel what is not installed yet, offer nothing any more."""
    yield from _outcomes(session, session.updates.abort(_ref(rollout, file, key)))


@verb(app, EVENT, name="watch", final=True, example="fleetctl ota watch ROLLOUT -o jsonl")
def watch(
    session: Session, rollout: Rollout = None, file: PlanFile = None, key: Key = None, timeout: Timeout = None
) -> Iterator[object]:
    """Look at a rollout without driving it."""
    yield from _outcomes(session, session.updates.watch(_ref(rollout, file, key), timeout=timeout))


@verb(app, ROLLOUT, name="status", example="fleetctl ota status ROLLOUT -o json")
def status(session: Session, rollout: Rollout = None, file: PlanFile = None, key: Key = None) -> RolloutEntry:
    """Show how far a rollout is."""
    return session.updates.status(_ref(rollout, file, key))


@verb(app, ROLLOUT, name="list", example="fleetctl ota list")
def list_rollouts(session: Session) -> list[RolloutEntry]:
    """List the rollouts of this context."""
    return list(session.updates.rollouts())


@verb(app, SERVING, name="serve", example="fleetctl ota serve")
def serve(session: Session) -> Iterator[object]:
    """Serve the release store to devices, until Ctrl-C."""
    yield from session.updates.serve()


_SMALL = "{} devices are fewer than {}: waves are 1, 2, 4, … and --first-wave and --growth change nothing"


def _ref(rollout: str | None, file: Path | None, key: str | None) -> RolloutRef:
    if (rollout is None) == (file is None):
        raise UsageError("name a rollout, or its plan", "see fleetctl ota list, or use -f plan.json")
    return RolloutRef(rollout, file, key)


def _options(
    first_wave: int | None,
    growth: int | None,
    soak: float | None,
    heartbeats: int | None,
    accept_within: float | None,
    finish_within: float | None,
    jitter: int,
    allow_downgrade: bool,
    supersede: bool,
) -> "PlanOptions":
    """What a person chose; the rest is the default of the plan."""
    from fleetctl.platforms.updates import PlanOptions

    default = PlanOptions(jitter=jitter, allow_downgrade=allow_downgrade, supersede=supersede)
    judged = default.parameters
    parameters = replace(
        judged,
        first_wave=first_wave or judged.first_wave,
        growth=growth or judged.growth,
        soak=judged.soak if soak is None else soak,
        heartbeats=judged.heartbeats if heartbeats is None else heartbeats,
        accept_within=accept_within or judged.accept_within,
        finish_within=finish_within or judged.finish_within,
    )
    return replace(default, parameters=parameters)


def _refuse_choices(targets: object, options: "PlanOptions") -> None:
    if targets or options != type(options)():
        raise UsageError("the plan says already who gets it and how", "leave out everything but -f")


def _approve_plan(session: Session, made: PlanEntry) -> None:
    rows = [{"id": each.id, "action": _fate(each.wave, each.skipped)} for each in made.devices]
    reached = [each.id for each in made.devices if each.wave is not None]
    if reached:
        session.approve(reached, f"roll {made.release} out in {len(made.waves)} waves", rows)


def _fate(wave: int | None, skipped: str | None) -> str:
    return f"wave {wave}" if wave is not None else f"skipped: {skipped}"


def _approve_file(session: Session, file: Path | None) -> None:
    from fleetctl.cli.targets import ids_of_plan

    if file is not None:
        session.approve(ids_of_plan(file), f"start the rollout of {file.name}")


def _outcomes(session: Session, events: Iterator[object]) -> Iterator[object]:
    """Events as they are, the rollout's entry as what they come to."""
    return watched(session, (As(ROLLOUT, each) if isinstance(each, RolloutEntry) else each for each in events))


def _driven(session: Session, ref: RolloutRef, events: Iterator[object], to_the_end: bool) -> Iterator[object]:
    """The same; says how it goes on after Ctrl-C, and that nobody drives it after a start that does not wait."""
    session.again = again = f"fleetctl ota resume {ref.id or f'-f {ref.plan}'}"
    try:
        for each in _outcomes(session, events):
            yield each
            if isinstance(each, As) and isinstance(each.value, RolloutEntry) and not to_the_end and each.value.state == "running":
                session.say(f"nobody promotes it until you run: {again}")
    except FleetError as error:
        error.hint = error.hint or again
        raise
