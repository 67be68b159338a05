"""`fleetctl twin`: what devices should be, and what they say they are."""

from typing import Annotated

import typer

from fleetctl.cli.group import group
from fleetctl.cli.session import Session
from fleetctl.cli.verb import verb
from fleetctl.cli.words import DeviceWord, DeviceWords, LimitWord, Refresh, SelectorWord
from fleetctl.errors import Findings, UsageError
from fleetctl.model.twin import parse_words, removal
from fleetctl.platforms.twins import Twin, TwinChange, TwinDifference
from fleetctl.present.view import Field, View

TWIN = View(
    "twin",
    (
        Field("id"),
        Field("version", "integer", help="The version of what is desired; 0 for nothing."),
        Field("desired", "object"),
        Field("digest", help="Of the desired document.", nullable=True),
        Field("generation", "integer", help="Which life of the registry allotted the version."),
        Field("updatedAt", nullable=True),
        Field("reportedVersion", "integer", help="The desired version that the device answers."),
        Field("reported", "object", help="All that the device reports.", nullable=True),
        Field("receivedAt", help="When that was received.", nullable=True),
        Field("drift", "boolean", nullable=True),
    ),
)
CHANGE = View(
    "twinChange",
    (
        Field("id"),
        Field("version", "integer"),
        Field("outcome", help="published, unchanged, republished where the broker had lost it, or queued until it is back."),
    ),
)
DIFFERENCE = View(
    "twinDifference",
    (
        Field("id"),
        Field("path", help="The key, dotted."),
        Field("desired", "any"),
        Field("reported", "any", help="null where nothing is reported.", nullable=True),
    ),
)

IfVersion = Annotated[
    int | None, typer.Option("--if-version", metavar="N", min=0, help="Only if this is the version now; 0 for nothing desired.")
]
Reason = Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why; it is kept in the history.")]

app = group("Get, set and compare desired and reported state.", also=("fleetctl.cli.twinning", "fleetctl.cli.following"))


@verb(app, TWIN, name="get", example="fleetctl twin get pump-7 -o json")
def get(session: Session, device: DeviceWord, refresh: Refresh = False) -> Twin:
    """Show the desired and reported state of one device."""
    return session.twins.get(session.one(device), refresh=refresh)


@verb(
    app,
    CHANGE,
    name="set",
    writes=True,
    example="""
    fleetctl twin set pump-7 reportingInterval=60
    fleetctl twin set pump-7 network.apn=iot.example debug=null --if-version 4
    fleetctl twin set pump-7 revision=1.10 --string --reason 'as on its label'
    fleetctl twin set -l 'type=pump,group=canary' reportingInterval=60 --yes
    """,
)
def set_twin(
    session: Session,
    words: Annotated[
        list[str], typer.Argument(metavar="[DEVICE]... KEY=VALUE...", help="Devices, then values: JSON or text; `null` removes.")
    ],
    selector: SelectorWord = None,
    limit: LimitWord = None,
    string: Annotated[bool, typer.Option("--string", help='Take every value as text, so that 1.10 stays "1.10".')] = False,
    if_version: IfVersion = None,
    reason: Reason = None,
) -> list[TwinChange]:
    """Change the desired state, by a merge patch."""
    patch = parse_words((word for word in words if "=" in word), text=string)
    devices = session.chosen(session.targets([word for word in words if "=" not in word], selector, limit), "set the twin")
    return list(session.twins.set(devices, patch, if_version=if_version, reason=reason))


@verb(
    app,
    CHANGE,
    name="unset",
    writes=True,
    example="""
    fleetctl twin unset pump-7 debug network.apn
    fleetctl twin unset -l 'type=pump' debug --yes
    """,
)
def unset(
    session: Session,
    words: Annotated[
        list[str],
        typer.Argument(metavar="[DEVICE] KEY...", help="A device, unless `-l` selects them, then the keys; dots nest."),
    ],
    selector: SelectorWord = None,
    limit: LimitWord = None,
    if_version: IfVersion = None,
    reason: Reason = None,
) -> list[TwinChange]:
    """Remove keys from the desired state."""
    named, keys = ([], words) if selector is not None else (words[:1], words[1:])
    if not keys:
        raise UsageError(f"no key to remove from `{words[0]}`", f"fleetctl twin unset {words[0]} KEY")
    patch = removal(keys)
    devices = session.chosen(session.targets(named, selector, limit), "set the twin")
    return list(session.twins.set(devices, patch, if_version=if_version, reason=reason))


@verb(
    app,
    DIFFERENCE,
    name="diff",
    example="""
    fleetctl twin diff pump-7
    fleetctl twin diff -l 'type=pump' --refresh -o name
    """,
)
def diff(
    session: Session,
    devices: DeviceWords = None,
    selector: SelectorWord = None,
    limit: LimitWord = None,
    refresh: Refresh = False,
) -> list[TwinDifference]:
    """Show what devices report other than desired; exits 11 where there is any."""
    chosen = session.devices.resolve(session.targets(devices, selector, limit))
    found = session.twins.diff(chosen, refresh=refresh)
    if found:
        drifting = len({each.id for each in found})
        drifts = "drifts" if drifting == 1 else "drift"
        hint = f"see one: fleetctl twin get {found[0].id}"
        raise Findings(f"{drifting} of {len(chosen)} devices {drifts}", hint, record=list(found))
    return []
