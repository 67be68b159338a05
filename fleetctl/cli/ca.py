"""`fleetctl certs ca`: the certificate authorities of a fleet."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fleetctl.cli.group import group
from fleetctl.cli.session import Session
from fleetctl.cli.verb import verb
from fleetctl.present.view import Field, View

if TYPE_CHECKING:
    from fleetctl.platforms.local.overview import AuthorityEntry, Exported
    from fleetctl.platforms.local.succession import AuthorityChange

AUTHORITY = View(
    "authority",
    (
        Field("name"),
        Field("role", help="devices, people, claims or registered."),
        Field("kind", help="root or issuing."),
        Field("state", help="active, superseded or retired."),
        Field("keyType", help="p256, p384, ed25519, rsa3072."),
        Field("store", help="How its key is kept: plain, encrypted, hardware, or absent."),
        Field("notBefore", wide=True),
        Field("notAfter"),
        Field("certificates", "integer", help="Good ones that hang below it."),
        Field("serial", wide=True),
        Field("fingerprint", wide=True),
        Field("profile", help="For devices of a registered one.", nullable=True, wide=True),
    ),
    id="name",
)
CHANGE = View(
    "authorityChange",
    (
        Field("name"),
        Field("role"),
        Field("outcome", help="made, rotated, retired, registered, updated or unchanged."),
        Field("superseded", help="The one that issued before.", nullable=True),
        Field("certificates", "integer", help="Good ones below the one that went."),
        Field("notAfter"),
        Field("brokerRunning", "boolean", wide=True),
        Field("brokerReloaded", "boolean", wide=True),
        Field("detail", help="What is left to do.", nullable=True, wide=True),
    ),
    id="name",
)
EXPORTED = View(
    "authorityExport",
    (
        Field("name"),
        Field("certificates", "integer"),
        Field("pem", hidden=True),
        Field("file", help="Where they were written.", nullable=True),
    ),
    id="name",
)

Role = Annotated[str, typer.Argument(metavar="ROLE", help="devices, people or claims.", show_default=False)]
Kty = Annotated[str, typer.Option("--kty", metavar="KIND", help="p256, p384, ed25519 or rsa3072.")]
PathLength = Annotated[int, typer.Option("--path-length", metavar="N", min=0, help="How many authorities may stand below it.")]
Permit = Annotated[
    list[str] | None, typer.Option("--permit", metavar="NAME", help="Vouch for dns:NAME or ip:NETWORK only, of such names.")
]

app = group("Make, show, rotate, retire and register certificate authorities.")


@verb(app, CHANGE, name="init", example="fleetctl certs ca init claims")
def init(
    session: Session, role: Role, kty: Kty = "p256", path_length: PathLength = 0, permit: Permit = None
) -> "AuthorityChange":
    """Make the first authority of a role; those of devices and people come with the context."""
    from fleetctl.platforms.local.succession import Wanted, init_authority

    return init_authority(session.fleet, role, Wanted(kty, path_length, tuple(permit or ())))


@verb(app, AUTHORITY, name="list", example="fleetctl certs ca list -o wide")
def list_authorities(session: Session) -> "list[AuthorityEntry]":
    """List the authorities, with how many good certificates hang below each."""
    from fleetctl.platforms.local.overview import entries

    return entries(session.fleet)


@verb(app, AUTHORITY, name="show", example="fleetctl certs ca show device-issuing")
def show(
    session: Session, names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="All by default.")] = None
) -> "list[AuthorityEntry]":
    """Show authorities by name."""
    from fleetctl.platforms.local.overview import entries

    return entries(session.fleet, names or ())


@verb(app, EXPORTED, name="export", example="fleetctl certs ca export devices --root --file root.pem")
def export(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="ROLE|NAME", help="A role, for all that its listener accepts; or one name.")],
    file: Annotated[Path | None, typer.Option("--file", metavar="FILE", help="Write them there.")] = None,
    root: Annotated[bool, typer.Option("--root", help="Of those, only what is self-signed.")] = False,
) -> "Exported":
    """Export the certificates of authorities as PEM."""
    from fleetctl.platforms.local.overview import export as exported

    return exported(session.fleet, name, file, root=root)


@verb(app, CHANGE, name="rotate", example="fleetctl certs ca rotate devices")
def rotate(
    session: Session, role: Role, kty: Kty = "p256", path_length: PathLength = 0, permit: Permit = None
) -> "AuthorityChange":
    """Let another authority issue from now on; certificates of the one before stay good until that is retired."""
    from fleetctl.platforms.local.succession import Wanted
    from fleetctl.platforms.local.succession import rotate as rotated

    return rotated(session.fleet, role, Wanted(kty, path_length, tuple(permit or ())))


@verb(app, CHANGE, name="retire", example="fleetctl certs ca retire device-issuing")
def retire(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A superseded or registered authority.")],
    force: Annotated[bool, typer.Option("--force", help="Even while good certificates hang below it.")] = False,
) -> "AuthorityChange":
    """Let nobody in any more who shows a certificate of this authority."""
    from fleetctl.platforms.local.succession import retire as retired

    return retired(session.fleet, name, force=force)


@verb(app, CHANGE, name="register", example="fleetctl certs ca register vendor.pem --crl vendor.crl --profile pumps")
def register(
    session: Session,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Its certificate, and those above it up to the root, PEM.")],
    crl: Annotated[Path, typer.Option("--crl", metavar="FILE", help="Its revocation list.", show_default=False)],
    profile: Annotated[str, typer.Option("--profile", metavar="NAME", help="For its devices.", show_default=False)],
) -> "AuthorityChange":
    """Let devices of another authority in, to be registered just in time; again with a newer list updates that."""
    from fleetctl.platforms.local.registering import register as registered

    return registered(session.fleet, file, crl, profile)
