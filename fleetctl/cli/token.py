"""`fleetctl provision token`: one-time tokens with which a device enrols over EST."""

from typing import TYPE_CHECKING, Annotated

import typer

from fleetctl.cli.group import group
from fleetctl.cli.session import Session
from fleetctl.cli.verb import verb
from fleetctl.cli.words import DeviceWords, SelectorWord, complete_device, duration_option
from fleetctl.present.view import Field, View

if TYPE_CHECKING:
    from fleetctl.platforms.local.tokens import NewToken, TokenEntry, TokenRevoked

DAY = 86400.0
NEW = View(
    "newToken",
    (
        Field("id", help="What the token is called from now on."),
        Field("deviceId", help="The device that it is for; its user name."),
        Field("token", help="The token itself, its password: shown this once."),
        Field("expiresAt"),
    ),
)
TOKEN = View(
    "token",
    (
        Field("id"),
        Field("deviceId"),
        Field("state", help="valid, used, expired or revoked."),
        Field("createdAt", wide=True),
        Field("expiresAt"),
        Field("usedAt", nullable=True),
        Field("certificate", help="The serial of the certificate that it was used for.", nullable=True, wide=True),
        Field("actor", help="Who made it.", nullable=True, wide=True),
    ),
)
REVOKED = View("tokenRevoked", (Field("id"), Field("deviceId"), Field("outcome", help="revoked or unchanged.")))

app = group("One-time tokens with which a device enrols over EST.")


@verb(
    app,
    NEW,
    name="create",
    example="""
    fleetctl provision token create pump-7
    fleetctl provision token create -l site=oslo --for 7d -o jsonl
    """,
    writes=True,
)
def create(
    session: Session,
    device: DeviceWords = None,
    selector: SelectorWord = None,
    seconds: Annotated[float, duration_option("--for", help="How long it is good, at most 30d.", shown="24h")] = DAY,
) -> "list[NewToken]":
    """Make a token for each device: with it, it fetches one certificate over EST. It is shown this once."""
    from fleetctl.platforms.local import tokens

    return tokens.create(session.fleet, session.chosen(session.targets(device, selector), "make a token for"), seconds)


@verb(
    app,
    TOKEN,
    name="list",
    example="""
    fleetctl provision token list
    fleetctl provision token list pump-7 -o json
    """,
)
def list_tokens(
    session: Session,
    device: Annotated[
        str | None, typer.Argument(metavar="[DEVICE]", help="Those of one device.", autocompletion=complete_device)
    ] = None,
) -> "list[TokenEntry]":
    """List tokens: whether they are good, and what they were used for."""
    from fleetctl.platforms.local import tokens

    return tokens.entries(session.fleet, None if device is None else session.one(device))


@verb(
    app,
    REVOKED,
    name="revoke",
    example="""
    fleetctl provision token revoke pump-7
    fleetctl provision token revoke 3f1c9a07b2de
    """,
)
def revoke(
    session: Session,
    token: Annotated[list[str], typer.Argument(metavar="DEVICE|TOKEN...", help="Ids of tokens, or of devices: all of theirs.")],
) -> "list[TokenRevoked]":
    """Revoke tokens that are not used yet. A certificate that one was used for stays: see certs revoke."""
    from fleetctl.platforms.local import tokens

    return tokens.revoke(session.fleet, token)
