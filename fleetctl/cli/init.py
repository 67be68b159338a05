"""`fleetctl init`: a new context."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fleetctl.cli.group import single
from fleetctl.cli.session import Session
from fleetctl.cli.verb import verb
from fleetctl.errors import UsageError
from fleetctl.present.view import Field, View

if TYPE_CHECKING:
    from fleetctl.platforms.local.init import ContextMade

MADE = View(
    "contextMade",
    (
        Field("name"),
        Field("current", "boolean", help="Whether verbs without `--context` use it."),
        Field("tenant"),
        Field("broker", help="Where fleetctl dials."),
        Field("deviceBroker", help="Where devices dial."),
        Field("artifacts", help="Where devices fetch firmware.", nullable=True),
        Field("certificates", help="local or external."),
        Field("operator", help="As whom fleetctl connects.", nullable=True),
        Field("folder", help="Registry, keys and certificates."),
        Field(
            "authorities",
            help="The file that tells who may sign the broker's certificate; system for this machine's.",
            hidden=True,
        ),
        Field("login", help="certificate, password or none.", hidden=True),
        Field("keystore", help="Where root, release, rollout and authority keys are.", hidden=True),
    ),
    id="name",
)

app = single("Make a context: registry, certificate authorities, signing keys.")


@verb(
    app,
    MADE,
    name="init",
    example="""
    fleetctl init --tenant acme
    fleetctl init prod --tenant acme --broker mqtts://mqtt.example.com:8883
    fleetctl init prod --tenant acme --keystore 'pkcs11:token=fleet?module-path=/usr/lib/softhsm/libsofthsm2.so'
    fleetctl init prod --tenant acme --registry postgresql://fleet@db.example.com/fleet
    fleetctl init plant --tenant acme --external --broker mqtts://mqtt.example.com:8883 --ca ca.pem --cert me.pem --key me.key
    """,
)
def init(
    session: Session,
    tenant: Annotated[str, typer.Option("--tenant", metavar="NAME", help="The first level of every topic; fixed.")],
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="What the context is called.")] = "default",
    broker: Annotated[
        str | None,
        typer.Option(
            "--broker",
            metavar="URL",
            help="Where devices dial, mqtts://localhost:8883 by default; fleet and artifacts on the next ports.",
        ),
    ] = None,
    artifacts: Annotated[
        str | None, typer.Option("--artifacts", metavar="URL", help="Where devices fetch firmware: https://HOST:PORT.")
    ] = None,
    operator: Annotated[
        str | None, typer.Option("--operator", metavar="NAME", help="Your name; the login name by default.")
    ] = None,
    external: Annotated[bool, typer.Option("--external", help="Adopt a broker and PKI that exist already.")] = False,
    device_broker: Annotated[
        str | None, typer.Option("--device-broker", metavar="URL", help="With --external: where devices dial, if elsewhere.")
    ] = None,
    ca: Annotated[
        Path | None, typer.Option("--ca", metavar="FILE", help="With --external: who signed the broker's certificate.")
    ] = None,
    cert: Annotated[Path | None, typer.Option("--cert", metavar="FILE", help="With --external: your certificate.")] = None,
    key: Annotated[Path | None, typer.Option("--key", metavar="FILE", help="With --external: its key.")] = None,
    username: Annotated[
        str | None, typer.Option("--username", metavar="NAME", help="With --external: instead of --cert.")
    ] = None,
    password_ref: Annotated[
        str | None,
        typer.Option("--password-ref", metavar="REF", help="Where the password is: env:NAME, file:PATH or keyring:SERVICE/USER."),
    ] = None,
    keystore: Annotated[
        str,
        typer.Option(
            "--keystore", metavar="URI", help="For keys that sign: plain:, file:, keyring:SERVICE/USER or pkcs11:token=T."
        ),
    ] = "plain:",
    registry: Annotated[
        str | None,
        typer.Option("--registry", metavar="URL", help="For a team: an empty database, postgresql://USER@HOST/DATABASE."),
    ] = None,
) -> "ContextMade":
    """Make a context: a fleet of your own, or with --external one whose broker and PKI exist already."""
    from fleetctl.platforms.local.init import DEFAULT_BROKER, adopt_context, create_context

    if not external:
        if any((device_broker, ca, cert, key, username, password_ref)):
            raise UsageError(
                "a fleet of your own makes its certificates itself", "leave them out, or adopt others with --external"
            )
        made = create_context(
            name, tenant, broker or DEFAULT_BROKER, operator, artifacts=artifacts, keystore=keystore, registry=registry
        )
        session.say(_kept(made))
        return made
    if broker is None:
        raise UsageError("the broker that exists already is not named", "--broker mqtts://HOST:8883")
    if operator is not None:
        raise UsageError("an operator's certificate is made in a fleet of your own only", "give yours with --cert and --key")
    if ca is None:
        session.say("no --ca: the broker's certificate is checked against the authorities of this machine")
    if cert is None and username is None:
        session.say("neither --cert nor --username: the broker is dialled as nobody in particular")
    made = adopt_context(
        name,
        tenant,
        broker,
        ca,
        cert=cert,
        key=key,
        username=username,
        password_ref=password_ref,
        device_broker=device_broker,
        artifacts=artifacts,
        keystore=keystore,
        registry=registry,
    )
    session.say(_kept(made))
    return made


def _kept(made: "ContextMade") -> str:
    """Where the keys are that sign, in one line."""
    scheme = made.keystore.partition(":")[0]
    folder = f"{made.folder}/keys"
    match scheme:
        case "plain":
            return f"keys are in {folder}, unencrypted: init --keystore file: (or keyring:, pkcs11:) protects them"
        case "file":
            return f"keys are in {folder}, encrypted with your passphrase"
        case "keyring":
            return f"keys are in {folder}, encrypted with a key in the keyring: {made.keystore}"
    return f"keys are on the token: {made.keystore}"
