"""`fleetctl certs crl`: revocation lists, their state, and making them anew."""

from typing import TYPE_CHECKING, Annotated

from fleetctl.cli.group import group
from fleetctl.cli.session import Session
from fleetctl.cli.verb import verb
from fleetctl.cli.words import duration_option
from fleetctl.present.view import Field, View

if TYPE_CHECKING:
    from fleetctl.platforms.local.overview import ListStatus

LIST = View(
    "revocationList",
    (
        Field("authority"),
        Field("number", "integer"),
        Field("entries", "integer"),
        Field("thisUpdate", wide=True),
        Field("nextUpdate", help="When it ends: nobody would be let in then."),
        Field("state", help="good, due (past half of its life), ended or missing."),
        Field("obeyed", "integer", help="What a running broker has read.", nullable=True),
    ),
    id="authority",
)

app = group("Revocation lists: their state, and making them anew.")


@verb(app, LIST, name="status", example="fleetctl certs crl status")
def status(session: Session) -> "list[ListStatus]":
    """Show every list, and whether a running broker obeys it; status 11 where one needs attention."""
    from fleetctl.platforms.local.overview import statuses

    return statuses(session.fleet)


@verb(
    app,
    LIST,
    name="build",
    example="""
    fleetctl certs crl build
    fleetctl certs crl build --lifetime 30d
    """,
)
def build(
    session: Session,
    lifetime: Annotated[float | None, duration_option("--lifetime", help="How long they are good; a year by default.")] = None,
) -> "list[ListStatus]":
    """Sign every list again whose authority's key is here; a running broker reads them."""
    from fleetctl.platforms.local.overview import build as built

    return built(session.fleet, lifetime)
