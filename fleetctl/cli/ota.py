"""`fleetctl ota`, releases: what is signed and kept in the store."""

from pathlib import Path
from typing import Annotated

import typer

from fleetctl.cli.group import group
from fleetctl.cli.session import Session
from fleetctl.cli.verb import verb
from fleetctl.platforms.updates import ReleaseEntry
from fleetctl.present.view import As, Field, View

RELEASE = View(
    "release",
    (
        Field("name", help="TYPE@VERSION."),
        Field("type"),
        Field("version"),
        Field("size", "integer", help="Bytes."),
        Field("digest", help="Of the image.", wide=True),
        Field("manifestDigest", help="Of the signed manifest.", wide=True),
        Field("securityCounter", "integer", help="What a device refuses to go below, once confirmed.", wide=True),
        Field("sequence", "integer", help="The order of publishing in this store.", wide=True),
        Field("outcome", help="published, unchanged, listed or verified.", hidden=True),
    ),
    id="name",
)
NAME = typer.Argument(metavar="RELEASE", help="A release: TYPE@VERSION.", show_default=False)
Release = Annotated[str, NAME]

app = group("Publish signed releases and roll them out in stages.")


@verb(app, RELEASE, name="publish", example="fleetctl ota publish firmware.bin --type pump --version 2.1.0")
def publish(
    session: Session,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The image.")],
    device_type: Annotated[str, typer.Option("--type", metavar="TYPE", help="The type of device that it is for.")],
    version: Annotated[str, typer.Option("--version", metavar="VERSION", help="Its version, as SemVer.")],
    security_counter: Annotated[
        int, typer.Option("--security-counter", metavar="N", min=0, help="Devices that confirmed it never go below.")
    ] = 0,
) -> As:
    """Sign an image as a release and put it into the store. Publishing the same again changes nothing."""
    return with_outcome(session.updates.publish(file, device_type, version, security_counter=security_counter))


@verb(app, RELEASE, name="releases", example="fleetctl ota releases -o name")
def releases(session: Session) -> list[ReleaseEntry]:
    """List the releases of the store."""
    return list(session.updates.releases())


@verb(app, RELEASE, name="show", example="fleetctl ota show pump@2.1.0 -o json")
def show(session: Session, release: Release) -> ReleaseEntry:
    """Show one release."""
    return session.updates.show(release)


@verb(app, RELEASE, name="verify", example="fleetctl ota verify pump@2.1.0")
def verify(session: Session, release: Release) -> As:
    """Check signature and image of a release; exits 7 where either is not what was published."""
    return with_outcome(session.updates.verify(release))


def with_outcome(entry: ReleaseEntry) -> As:
    """A release of which something was done: a person is shown what."""
    return As(RELEASE._replace(fields=tuple(each._replace(hidden=False) for each in RELEASE.fields)), entry)
