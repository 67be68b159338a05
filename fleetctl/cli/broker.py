"""`fleetctl broker`: the local broker of a context, and the files of a mosquitto elsewhere."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fleetctl.cli.group import group
from fleetctl.cli.session import Session
from fleetctl.cli.verb import verb
from fleetctl.present.view import Field, View

if TYPE_CHECKING:
    from fleetctl.mqtt.settings import Finding
    from fleetctl.platforms.local.applying import Applied
    from fleetctl.platforms.local.broker import BrokerEvent
    from fleetctl.platforms.local.rendering import RenderedFile

ENGINES = ("mosquitto", "builtin")
EVENT = View(
    "brokerEvent",
    (
        Field(
            "event", help="listening, restored, restoreFailed, reloaded, reloadFailed, refreshFailed, restartNeeded or stopped."
        ),
        Field("engine", help="mosquitto or builtin."),
        Field("deviceUrl", help="Where devices dial."),
        Field("fleetUrl", help="Where fleetctl dials."),
        Field("claimsUrl", help="Where devices with a claim dial.", nullable=True, wide=True),
        Field("crlNumbers", "object", help="The revocation lists that it obeys.", wide=True),
        Field("inMemory", "boolean", help="Whether retained messages and sessions end with it.", wide=True),
        Field("error", nullable=True, wide=True),
        Field("twins", "integer", help="How many desired twins were put back.", nullable=True, wide=True),
        Field("trust", "boolean", help="Whether the trust document was put back.", nullable=True, wide=True),
    ),
    id="event",
)

FILE = View(
    "brokerFile",
    (
        Field("name"),
        Field("path", help="Where the broker finds it."),
        Field("mode"),
        Field("outcome", help="rendered or unchanged."),
    ),
    id="name",
)
FINDING = View(
    "brokerFinding",
    (
        Field("code", help="What is wrong, in a word."),
        Field("severity", help="error or warning."),
        Field("listener", "integer", help="Its port; null where it is about all of them.", nullable=True),
        Field("detail"),
        Field("hint", help="What would mend it.", wide=True),
    ),
    id="code",
)
APPLIED = View(
    "brokerApply",
    (
        Field("folder"),
        Field("outcome", help="applied, unchanged, refused, rolledBack or broken."),
        Field("changed", "array", help="The files that are new."),
        Field("restartNeeded", "boolean", help="Whether a listener came, went or moved: no reload does that."),
        Field("steps", "array", help="What was done: step, outcome (done, skipped or failed) and detail.", wide=True),
    ),
    id="folder",
)
Listen = Annotated[
    str | None, typer.Option("--listen", metavar="ADDRESS", help="Where that broker listens; loopback by default.")
]
User = Annotated[str, typer.Option("--user", metavar="NAME", help="Whom mosquitto becomes where root starts it.")]
Key = Annotated[
    Path | None, typer.Option("--key", metavar="FILE", help="Where the broker's key is on its host; FOLDER/broker.key.")
]
WithKey = Annotated[bool, typer.Option("--with-key", help="Put the key among the files, readable by that user alone.")]
Kept = Annotated[
    Path | None,
    typer.Option("--persistence", metavar="FOLDER", help="Keep retained messages and sessions there; in memory by default."),
]

app = group("Run the local broker of a context; render, check and apply the files of a mosquitto.")


def _engines(incomplete: str) -> list[str]:
    return [each for each in ENGINES if each.startswith(incomplete)]


@verb(
    app,
    EVENT,
    name="run",
    example="""
    fleetctl broker run
    fleetctl broker run --engine builtin -o jsonl
    """,
)
def run(
    session: Session,
    engine: Annotated[
        str | None,
        typer.Option(
            "--engine", metavar="NAME", help="mosquitto or builtin; mosquitto where it is installed.", autocompletion=_engines
        ),
    ] = None,
    listen: Annotated[
        str | None, typer.Option("--listen", metavar="ADDRESS", help="An address of this machine; loopback by default.")
    ] = None,
) -> "Iterator[BrokerEvent]":
    """Run the broker until Ctrl-C: TLS 1.3, client certificates, the rules of the contract."""
    from fleetctl.platforms.local.broker import run_broker

    for event in run_broker(session.context, engine, listen=listen):
        if event.event == "listening" and event.engine == "builtin":
            from fleetctl.mqtt.builtin import NOTICE

            session.say(NOTICE)
        yield event


@verb(
    app,
    FILE,
    name="render",
    example="""
    fleetctl broker render ./mosquitto --prefix /etc/mosquitto/fleetctl --listen 0.0.0.0
    fleetctl broker render /etc/mosquitto/fleetctl --with-key
    """,
)
def render(
    session: Session,
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Where to write the files.")] = Path("mosquitto"),
    prefix: Annotated[
        Path | None, typer.Option("--prefix", metavar="FOLDER", help="The folder as the broker's host sees it; DIR by default.")
    ] = None,
    listen: Listen = None,
    user: User = "mosquitto",
    key: Key = None,
    with_key: WithKey = False,
    persistence: Kept = None,
) -> "list[RenderedFile]":
    """Write the configuration, rules, authorities, lists and certificate of a mosquitto that runs elsewhere."""
    from fleetctl.platforms.local.rendering import Rendering
    from fleetctl.platforms.local.rendering import render as write

    wanted = Rendering(prefix or folder.absolute(), listen, user, key, with_key, persistence)
    return write(session.context, folder, wanted)


@verb(
    app,
    FINDING,
    name="check",
    example="""
    fleetctl broker check
    fleetctl broker check /etc/mosquitto/fleetctl --live
    fleetctl broker check --conf /etc/mosquitto/mosquitto.conf -o json
    """,
)
def check(
    session: Session,
    folder: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="A folder that was rendered; the context's own broker by default.")
    ] = None,
    conf: Annotated[Path | None, typer.Option("--conf", metavar="FILE", help="Any mosquitto configuration.")] = None,
    live: Annotated[bool, typer.Option("--live", help="Look at the broker that runs, too.")] = False,
) -> "list[Finding]":
    """Say by name what is wrong with a mosquitto configuration, its files, and the broker that runs (status 11)."""
    from fleetctl.errors import Findings, UsageError
    from fleetctl.platforms.local.brokercheck import check_broker

    if folder is not None and conf is not None:
        raise UsageError("a folder or a file, not both", "fleetctl broker check DIR")
    found = check_broker(session.fleet, folder or conf, live=live)
    if found:
        count = "1 finding" if len(found) == 1 else f"{len(found)} findings, the first"
        raise Findings(f"{count}: {found[0].detail}", found[0].hint, record=list(found))
    return found


@verb(
    app,
    APPLIED,
    name="apply",
    example="""
    fleetctl broker apply /etc/mosquitto/fleetctl --with-key --reload 'systemctl reload mosquitto'
    fleetctl broker apply /etc/mosquitto/fleetctl --pid-file /run/mosquitto.pid -o json
    """,
)
def apply(
    session: Session,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a mosquitto that runs on this machine.")],
    pid_file: Annotated[
        Path | None, typer.Option("--pid-file", metavar="FILE", help="Send SIGHUP to the process that it names.")
    ] = None,
    reload: Annotated[str | None, typer.Option("--reload", metavar="COMMAND", help="Run this command, without a shell.")] = None,
    listen: Listen = None,
    user: User = "mosquitto",
    key: Key = None,
    with_key: WithKey = False,
    persistence: Kept = None,
) -> "Applied":
    """Bring a running mosquitto up to date: try the files out, swap and reload them, prove it, or take it all back."""
    from fleetctl.platforms.local.applying import apply as bring
    from fleetctl.platforms.local.reloading import Reload
    from fleetctl.platforms.local.rendering import Rendering

    wanted = Rendering(folder.absolute(), listen, user, key, with_key, persistence)
    return bring(session.fleet, wanted, Reload(pid_file, reload))
