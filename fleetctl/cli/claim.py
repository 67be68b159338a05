"""`fleetctl provision claim`: certificates with which devices of a batch ask for their own."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fleetctl.cli.group import group
from fleetctl.cli.session import Session
from fleetctl.cli.verb import verb
from fleetctl.cli.words import duration_option
from fleetctl.present.view import Field, View

if TYPE_CHECKING:
    from fleetctl.platforms.local.enrolment.claims import Claim, ClaimMade, ClaimRevoked

CLAIM = View(
    "claim",
    (
        Field("name", help="Its certificate's common name is `claim:NAME`."),
        Field("batch", help="Whose serials may enrol with it."),
        Field("state", help="active, expired or revoked."),
        Field("used", "integer", help="How many devices hold a place of it."),
        Field("quota", "integer", help="How many may; null for as many as the batch lets in.", nullable=True),
        Field("notAfter", help="When it ends.", nullable=True),
        Field("serial", help="The serial number of its certificate.", wide=True),
        Field("createdAt", wide=True),
    ),
    id="name",
)
MADE = View(
    "claimMade",
    (
        Field("name"),
        Field("batch"),
        Field("quota", "integer", nullable=True),
        Field("notAfter", help="When it ends."),
        Field("serial", help="The serial number of its certificate.", wide=True),
        Field("bundle", help="The folder that every device of the batch is given."),
    ),
    id="name",
)
REVOKED = View(
    "claimRevoked",
    (
        Field("name"),
        Field("outcome", help="revoked or unchanged."),
        Field("serial", help="The serial number of its certificate."),
        Field("crlNumber", "integer", help="The number of the list that names it."),
        Field("brokerRunning", "boolean", help="Whether a local broker runs."),
        Field("brokerReloaded", "boolean", help="Whether it obeys that list."),
    ),
    id="name",
)
NameWord = Annotated[str, typer.Argument(metavar="NAME", help="The claim.", show_default=False)]

app = group("Claims: certificates with which devices of a batch enrol.")


@verb(
    app,
    MADE,
    name="create",
    example="""
    fleetctl provision claim create line-3 --batch 2026-48 --bundle ./line-3
    fleetctl provision claim create line-3 --batch 2026-48 --quota 500 --for 12h --bundle ./line-3
    """,
)
def create(
    session: Session,
    name: NameWord,
    batch: Annotated[str, typer.Option("--batch", metavar="BATCH", help="Whose serials may enrol with it.")],
    bundle: Annotated[Path, typer.Option("--bundle", metavar="DIR", help="Write key, certificate, trust and settings there.")],
    quota: Annotated[int | None, typer.Option("--quota", metavar="N", min=1, help="How many devices may enrol with it.")] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="When it ends, as 2026-12-24T18:00:00Z.")] = None,
    lasting: Annotated[float | None, duration_option("--for", help="Or for how long it is good, as 12h.")] = None,
) -> "ClaimMade":
    """Make a claim for a batch: good for asking, and for nothing else."""
    from fleetctl.platforms.local.enrolment.claims import create_claim, ending

    return create_claim(session.fleet, name, batch, bundle, quota=quota, until=ending(session.fleet.clock(), until, lasting))


@verb(
    app,
    CLAIM,
    name="list",
    example="""
    fleetctl provision claim list
    fleetctl provision claim list --batch 2026-48 -o json
    """,
)
def list_claims(
    session: Session,
    batch: Annotated[str | None, typer.Option("--batch", metavar="BATCH", help="Those of one batch.")] = None,
) -> "list[Claim]":
    """List claims, and how many devices enrolled with each."""
    from fleetctl.platforms.local.enrolment.claims import list_claims as claims

    return list(claims(session.fleet, batch))


@verb(app, REVOKED, name="revoke", example="fleetctl provision claim revoke line-3 --reason keyCompromise")
def revoke(
    session: Session,
    name: NameWord,
    reason: Annotated[str, typer.Option("--reason", metavar="REASON", help="As in `certs revoke`.")] = "unspecified",
) -> "ClaimRevoked":
    """Let nobody enrol with a claim any more. Devices that did keep what they were given."""
    from fleetctl.platforms.local.enrolment.claims import revoke_claim

    return revoke_claim(session.fleet, name, reason)
