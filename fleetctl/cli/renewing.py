"""`fleetctl certs renew|rekey`: newer certificates for an identity on this machine, or for devices wherever they are."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fleetctl.cli.group import group
from fleetctl.cli.publish import RESULT
from fleetctl.cli.session import Session, gather
from fleetctl.cli.verb import verb
from fleetctl.cli.words import SelectorWord, complete_device, duration_option
from fleetctl.errors import NotFound, UsageError
from fleetctl.model.device import printable
from fleetctl.present.progress import counted
from fleetctl.present.view import As, Field, View

if TYPE_CHECKING:
    from fleetctl.platforms.local.renewal import Holding, Renewed

TIMEOUT = 60.0
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
RENEWED = View(
    "renewed",
    (
        Field("subject"),
        Field("serial"),
        Field("outcome", help="renewed, rekeyed, or finished: what was stopped before."),
        Field("replaces", help="The serial of the one before.", nullable=True, wide=True),
        Field("notAfter"),
        Field("certificate", help="The file; the one before is beside it, as .prev."),
    ),
    id="subject",
)
TARGET = typer.Argument(
    metavar="[NAME|DIR]...",
    help="A bundle folder, `broker`, or devices to be told; by default the certificate of this context.",
    autocompletion=complete_device,
    show_default=False,
)
Expired = Annotated[bool, typer.Option("--allow-expired", help="Renew a certificate that has expired too.")]
Expiring = Annotated[
    float | None, duration_option("--expiring", help="Tell the devices whose certificate ends within that time.")
]
Rate = Annotated[str | None, typer.Option("--rate", metavar="N/UNIT", help="How many devices to tell per s, m or h.")]
Timeout = Annotated[float | None, duration_option("--timeout", help="How long to wait for the last one.", shown="60s")]

app = group("Renew certificates.")


@verb(
    app,
    RENEWED,
    name="renew",
    writes=True,
    other=RESULT,
    example="""
    fleetctl certs renew
    fleetctl certs renew ./pump-7
    fleetctl certs renew broker
    fleetctl certs renew --expiring 30d -l type=pump --rate 10/m --yes
    """,
)
def renew(
    session: Session,
    targets: Annotated[list[str] | None, TARGET] = None,
    selector: SelectorWord = None,
    expiring: Expiring = None,
    rate: Rate = None,
    allow_expired: Expired = False,
    timeout: Timeout = None,
) -> "Renewed | As":
    """Renew a certificate for the key it has: the new one is proven at the broker before it takes the old one's place."""
    return _renew(session, targets or [], selector, expiring, rate, timeout, rekey=False, allow_expired=allow_expired)


@verb(
    app,
    RENEWED,
    name="rekey",
    writes=True,
    other=RESULT,
    example="""
    fleetctl certs rekey
    fleetctl certs rekey ./pump-7
    fleetctl certs rekey -l location=oslo --yes
    """,
)
def rekey(
    session: Session,
    targets: Annotated[list[str] | None, TARGET] = None,
    selector: SelectorWord = None,
    expiring: Expiring = None,
    rate: Rate = None,
    allow_expired: Expired = False,
    timeout: Timeout = None,
) -> "Renewed | As":
    """Renew a certificate for a new key, which is made where it stays."""
    return _renew(session, targets or [], selector, expiring, rate, timeout, rekey=True, allow_expired=allow_expired)


def _renew(
    session: Session,
    targets: list[str],
    selector: str | None,
    expiring: float | None,
    rate: str | None,
    timeout: float | None,
    *,
    rekey: bool,
    allow_expired: bool,
) -> "Renewed | As":
    if targets == ["broker"] and selector is None and expiring is None:
        from fleetctl.platforms.local.server_renewal import renew_servers

        return renew_servers(session.fleet, rekey=rekey)
    holding = None if selector is not None or expiring is not None else _here(session, targets)
    if holding is None:
        if allow_expired:
            raise UsageError("`--allow-expired` is for a bundle on this machine", "a device with an expired one enrols anew")
        return As(RESULT, _tell(session, targets, selector, expiring, rate, TIMEOUT if timeout is None else timeout, rekey=rekey))
    if rate is not None or timeout is not None:
        raise UsageError("`--rate` and `--timeout` are for devices that are told", "leave them out for what is on this machine")
    from fleetctl.platforms.local.renewal import renew

    return renew(session.fleet, holding, rekey=rekey, allow_expired=allow_expired)


def _here(session: Session, targets: list[str]) -> "Holding | None":
    """The identity on this machine that is meant; None for devices."""
    from fleetctl.platforms.local.renewal import of_context, of_folder

    if not targets:
        return of_context(session.fleet)
    if len(targets) == 1 and Path(targets[0]).is_dir():
        return of_folder(session.fleet, Path(targets[0]))
    for word in targets:
        if word.startswith("op:"):
            raise NotFound(f"the key of {printable(word)} is somewhere else", "name the folder: fleetctl certs renew DIR")
    return None


def _tell(
    session: Session,
    words: list[str],
    selector: str | None,
    expiring: float | None,
    rate: str | None,
    timeout: float,
    *,
    rekey: bool,
) -> object:
    from fleetctl.platforms.local.fleet_renewal import due, order

    fleet = session.fleet
    pace = None if rate is None else pause_of(rate)
    found = session.targets(words, selector) if words or selector is not None else session.targets(["*"])
    devices = session.devices.resolve(found)
    if expiring is not None:
        devices = due(fleet, devices, expiring)
        if not devices:
            session.say("no certificate of these devices ends within that time")
            return []
    session.approve([device.id for device in devices], "rekey" if rekey else "renew")
    results = order(fleet, devices, rekey=rekey, timeout=timeout, pace=pace)
    return gather(counted(results, "renewing", len(devices), session.terminal.stderr))


def pause_of(rate: str) -> float:
    """Seconds from one to the next, for `10/m`; raises `UsageError`."""
    count, _, unit = rate.partition("/")
    if not count.isdecimal() or int(count) < 1 or unit not in UNITS:
        raise UsageError(f"{printable(rate)} is not a rate", "write it as 10/m: a number for each s, m or h")
    return UNITS[unit] / int(count)
