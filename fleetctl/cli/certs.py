"""`fleetctl certs`: certificates of devices and operators."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from fleetctl.cli.group import group
from fleetctl.cli.session import Session
from fleetctl.cli.verb import verb
from fleetctl.cli.words import complete_device, duration_option
from fleetctl.present.view import Field, View

if TYPE_CHECKING:
    from fleetctl.platforms.local.certificates import CertificateDetail, CertificateEntry
    from fleetctl.platforms.local.revocation import Revocation

_ENTRY = (
    Field("serial", help="Hexadecimal."),
    Field("subject", help="The device id, or op:NAME, or the authority."),
    Field("profile", help="device, operator, server or authority."),
    Field("deviceId", nullable=True, hidden=True),
    Field("authority", help="Who issued it.", wide=True),
    Field("state", help="valid, notYetValid, expired or revoked."),
    Field("notBefore", wide=True),
    Field("notAfter"),
    Field("fingerprint", help="SHA-256 of the certificate.", wide=True),
    Field("revokedAt", nullable=True, wide=True),
    Field("reason", help="Why it was revoked.", nullable=True, wide=True),
)
CERTIFICATE = View("certificate", _ENTRY, id="serial")
DETAIL = View("certificateDetail", (*_ENTRY, Field("pem", help="The certificate itself.", hidden=True)), id="serial")
REVOCATION = View(
    "revocation",
    (
        Field("subject"),
        Field("serials", "array", wide=True),
        Field("outcome", help="revoked or unchanged."),
        Field("reason", wide=True),
        Field("revokedAt"),
        Field("crlNumber", "integer", help="Of the list that names it.", wide=True),
        Field("brokerRunning", "boolean", help="Whether a local broker runs.", wide=True),
        Field("brokerReloaded", "boolean", help="Whether that broker obeys the list."),
        Field("sessionsCut", "boolean", help="Whether no connection of it is left.", nullable=True),
        Field("refusalProven", "boolean", help="Whether the broker refused one revoked with it.", nullable=True, wide=True),
        Field("acceptanceProven", "boolean", help="Whether the broker let a good one in.", nullable=True, wide=True),
        Field("detail", help="What did not happen, and what to do.", nullable=True, wide=True),
    ),
    id="subject",
)
NAME = typer.Argument(
    metavar="NAME",
    help="A device id, op:NAME, or a serial number; `-` reads it from stdin.",
    autocompletion=complete_device,
    show_default=False,
)
NAMES = typer.Argument(
    metavar="[NAME]...", help="Device ids, op:NAME or serial numbers; `-` and @FILE.", autocompletion=complete_device
)

app = group(
    "Issue, renew, check and revoke certificates; the authorities behind them.",
    also=("fleetctl.cli.issuing", "fleetctl.cli.renewing", "fleetctl.cli.inspection"),
    nested={"ca": "fleetctl.cli.ca", "crl": "fleetctl.cli.crl"},
)


@verb(
    app,
    CERTIFICATE,
    name="list",
    example="""
    fleetctl certs list pump-7
    fleetctl certs list --expiring 30d -o name
    """,
)
def list_certificates(
    session: Session,
    names: Annotated[list[str] | None, NAMES] = None,
    expiring: Annotated[
        float | None, duration_option("--expiring", help="Only what is valid, and ends within that time.")
    ] = None,
    state: Annotated[str | None, typer.Option("--state", metavar="STATE", help="valid, notYetValid, expired or revoked.")] = None,
) -> "list[CertificateEntry]":
    """List certificates, all of them or those of the names."""
    kept = session.fleet.certificates
    if not names:
        return kept.list(None, within=expiring, state=state)
    found = [each for name in session.targets(names).words for each in kept.list(name, within=expiring, state=state)]
    return list({each.serial: each for each in found}.values())


@verb(app, DETAIL, name="show", example="fleetctl certs show pump-7 -o json | jq -r .pem | openssl x509 -noout -text")
def show(session: Session, name: Annotated[str, NAME]) -> "CertificateDetail":
    """Show one certificate."""
    return session.fleet.certificates.show(session.one(name))


@verb(
    app,
    REVOCATION,
    name="revoke",
    writes=True,
    example="""
    fleetctl certs revoke pump-7 --reason keyCompromise
    fleetctl certs revoke @stolen.txt --yes
    """,
)
def revoke(
    session: Session,
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME...", help="Device ids, op:NAME or serial numbers; `-` and @FILE.", autocompletion=complete_device
        ),
    ],
    reason: Annotated[str, typer.Option("--reason", metavar="WHY", help="keyCompromise, superseded, …")] = "unspecified",
) -> "Sequence[Revocation]":
    """Revoke certificates for good; a running local broker obeys, and cuts their sessions."""
    chosen = session.targets(names).words
    session.approve(chosen, "revoke")
    return list(session.fleet.certificates.revoke_all(chosen, reason))
