"""`fleetctl provision manufacture`: devices made in numbers."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fleetctl.cli.group import group
from fleetctl.cli.session import Session
from fleetctl.cli.verb import verb
from fleetctl.present.view import Field, View

if TYPE_CHECKING:
    from fleetctl.platforms.local.manufacture import Manufactured

MANUFACTURED = View(
    "manufactured",
    (
        Field("batch"),
        Field("made", "integer", help="How many devices were made now."),
        Field("left", "integer", help="How many of the batch are still to be made."),
        Field("firmware", help="The digest of the image that they leave the factory with."),
        Field("folder"),
        Field("archives", "array", help="Folders in it: sealed bundles, labels and a manifest each."),
    ),
    id="batch",
)

app = group("Devices made in numbers.")


@verb(
    app,
    MANUFACTURED,
    name="manufacture",
    example="""
    fleetctl provision manufacture 2026-w48 --firmware pump-1.0.0.bin --recipient factory.pem --out ./handover
    fleetctl provision manufacture 2026-w48 --count 500 --digest sha256:… --passphrase-ref file:words --out ./handover
    """,
)
def manufacture(
    session: Session,
    batch: Annotated[str, typer.Argument(metavar="BATCH", help="The batch.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Write the archives there.")],
    firmware: Annotated[
        Path | None, typer.Option("--firmware", metavar="FILE", help="The image that they leave the factory with.")
    ] = None,
    digest: Annotated[
        str | None, typer.Option("--digest", metavar="sha256:HEX", help="That of the image, instead of it.")
    ] = None,
    recipient: Annotated[
        Path | None, typer.Option("--recipient", metavar="CERT", help="Seal the archives for the holder of this RSA certificate.")
    ] = None,
    passphrase: Annotated[
        str | None, typer.Option("--passphrase-ref", metavar="REF", help="Seal them with a passphrase: env:NAME or file:PATH.")
    ] = None,
    count: Annotated[
        int | None, typer.Option("--count", metavar="N", min=1, help="Make at most so many; all by default.")
    ] = None,
    size: Annotated[int, typer.Option("--size", metavar="N", min=1, max=10_000, help="How many devices an archive holds.")] = 500,
) -> "Manufactured":
    """Make devices of a batch: key, certificate and bundle, sealed; labels beside them. Repeating it makes none twice."""
    from fleetctl.errors import UsageError
    from fleetctl.platforms.local import sealing
    from fleetctl.platforms.local.images import image_digest
    from fleetctl.platforms.local.manufacture import Order
    from fleetctl.platforms.local.manufacture import manufacture as make
    from fleetctl.present.progress import progress

    if (recipient is None) == (passphrase is None):
        raise UsageError(
            "the archives are sealed for a certificate or with a passphrase", "--recipient CERT, or --passphrase-ref env:NAME"
        )
    seal = sealing.for_receiver(recipient, session.fleet.clock()) if recipient else sealing.with_passphrase(passphrase or "")
    order = Order(batch, out, image_digest(firmware, digest), seal, count, size)
    with progress(batch, count, session.terminal.stderr) as advance:
        return make(session.fleet, order, advance)
