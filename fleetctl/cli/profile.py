"""`fleetctl provision profile`: what a new device is given."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fleetctl.cli.group import group
from fleetctl.cli.session import Session
from fleetctl.cli.verb import verb
from fleetctl.cli.words import duration_option, labels_of
from fleetctl.present.view import Field, View

if TYPE_CHECKING:
    from fleetctl.platforms.local.batches import ProfileEntry

PROFILE = View(
    "profile",
    (
        Field("name"),
        Field("type", help="The type of its devices.", nullable=True),
        Field("location", help="Where they belong.", nullable=True),
        Field("heartbeat", "number", help="Seconds between their statuses."),
        Field("reportingInterval", "number", help="Seconds between their measurements.", wide=True),
        Field("approval", help="auto, or manual: a person decides about each."),
        Field("days", "number", help="How long their certificates are good; null for the authority's default.", nullable=True),
        Field("ids", help="The regular expression that an id must match as a whole.", nullable=True),
        Field("twin", "object", help="What is desired of a new device.", wide=True),
        Field("labels", "object", wide=True),
        Field("outcome", help="stored or unchanged.", nullable=True, hidden=True),
    ),
    id="name",
)
Name = Annotated[str, typer.Argument(metavar="NAME", help="The profile.", show_default=False)]

app = group("Provisioning profiles: what a new device is given.")


@verb(
    app,
    PROFILE,
    name="set",
    example="""
    fleetctl provision profile set line-1 --type pump --location oslo --heartbeat 30s --days 365
    fleetctl provision profile set line-1 --type pump --location oslo --ids 'SN[0-9]{4}' --twin network.apn=iot --approval manual
    fleetctl provision profile set line-2 -f line-2.yaml
    """,
)
def set_profile(
    session: Session,
    name: Name,
    device_type: Annotated[str | None, typer.Option("--type", metavar="TYPE", help="The type of its devices.")] = None,
    location: Annotated[str | None, typer.Option("--location", metavar="PLACE", help="Where they belong.")] = None,
    heartbeat: Annotated[float | None, duration_option("--heartbeat", help="How often they say that they are there.")] = None,
    reporting: Annotated[float | None, duration_option("--reporting-interval", help="How often they measure.")] = None,
    days: Annotated[
        float | None, typer.Option("--days", metavar="N", help="How long their certificates are good, as 365 or 0.5.")
    ] = None,
    approval: Annotated[
        str | None, typer.Option("--approval", metavar="auto|manual", help="Whether a person decides about each device.")
    ] = None,
    ids: Annotated[str | None, typer.Option("--ids", metavar="REGEX", help="What an id must match as a whole.")] = None,
    label: Annotated[list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="A label; may be repeated.")] = None,
    twin: Annotated[
        list[str] | None, typer.Option("--twin", metavar="KEY=VALUE", help="What is desired of a new device; may be repeated.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", metavar="FILE", help="Read the profile there (YAML or JSON).")
    ] = None,
) -> "ProfileEntry":
    """Make a profile, or replace it as a whole. Devices that have enrolled already keep what they have."""
    from fleetctl.model.profile import parse
    from fleetctl.model.twin import parse_words
    from fleetctl.platforms.local import batches

    said: dict[str, Any] = {
        "type": device_type,
        "location": location,
        "heartbeat": heartbeat,
        "reportingInterval": reporting,
        "days": days,
        "approval": approval,
        "ids": ids,
        "labels": labels_of(label) or None,
        "twin": parse_words(twin) if twin else None,
    }
    given = {key: value for key, value in said.items() if value is not None}
    profile = parse(name, given) if file is None else batches.read_profile(name, file, given)
    return batches.put_profile(session.fleet, profile)


@verb(app, PROFILE, name="list", example="fleetctl provision profile list -o json")
def list_profiles(session: Session) -> "list[ProfileEntry]":
    """List the profiles."""
    from fleetctl.platforms.local import batches

    return [batches.profile_entry(profile) for profile in session.fleet.registry.profiles()]


@verb(app, PROFILE, name="show", example="fleetctl provision profile show line-1 -o yaml")
def show(session: Session, name: Name) -> "ProfileEntry":
    """Show one profile."""
    from fleetctl.platforms.local import batches

    return batches.profile_entry(session.fleet.registry.profile(name))
