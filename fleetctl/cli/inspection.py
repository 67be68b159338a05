"""`fleetctl certs check|inspect|verify|fingerprint|export`: what is amiss, what a file says, and whether it is to be believed."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fleetctl.cli.group import group
from fleetctl.cli.session import Session
from fleetctl.cli.verb import verb
from fleetctl.cli.words import complete_device
from fleetctl.errors import UsageError
from fleetctl.present.view import Field, View

if TYPE_CHECKING:
    from collections.abc import Callable

    from fleetctl.pki.inspect import Inspected
    from fleetctl.pki.verify import Step
    from fleetctl.platforms.local.checking import Finding
    from fleetctl.platforms.local.exporting import Exported
    from fleetctl.platforms.local.judging import Print

FINDING = View(
    "certificateFinding",
    (
        Field("subject", help="Whose certificate, or which file."),
        Field("code", help="expiring, expired, weakKey, duplicateKey, unprotectedKey, keyMismatch, listExpiring, …"),
        Field("severity", help="error or warning."),
        Field("detail"),
        Field("hint", help="What to do about it.", wide=True),
    ),
    id="subject",
)
INSPECTED = View(
    "inspected",
    (
        Field("kind", help="certificate, request, list, or privateKey, of which nothing is shown."),
        Field("subject", nullable=True),
        Field("issuer", nullable=True),
        Field("serial", nullable=True, wide=True),
        Field("notBefore", nullable=True, wide=True),
        Field("notAfter", nullable=True),
        Field("keyType", help="secp256r1, ed25519, rsa3072, …", nullable=True),
        Field("signatureAlgorithm", nullable=True, wide=True),
        Field("san", "array", help="Alternative names.", nullable=True, wide=True),
        Field("usages", "array", help="What its key may be used for.", nullable=True, wide=True),
        Field("isAuthority", "boolean", help="Whether it may issue.", nullable=True, wide=True),
        Field("pathLength", "integer", help="How many authorities may be below it.", nullable=True, wide=True),
        Field("fingerprint", help="SHA-256.", nullable=True, wide=True),
        Field("spki", help="SHA-256 of the key.", nullable=True, wide=True),
        Field("number", "integer", help="Of a list.", nullable=True, wide=True),
        Field("entries", "integer", help="How many a list names.", nullable=True, wide=True),
        Field("challenge", "boolean", help="Whether a request carries one.", nullable=True, wide=True),
        Field("problems", "array", help="What does not parse, or is too weak."),
    ),
    id="kind",
)
STEP = View(
    "proofStep",
    (
        Field("number", "integer"),
        Field("step", help="strength, chain, purpose, host, validity or revocation."),
        Field("outcome", help="ok or failed; a step that failed is the last."),
        Field("detail"),
    ),
    id="step",
)
PRINT = View(
    "fingerprint",
    (
        Field("subject", nullable=True),
        Field("kind", help="certificate, list, or spki for a key."),
        Field("fingerprint", nullable=True),
    ),
    id="fingerprint",
)
EXPORTED = View(
    "identityExported",
    (Field("subject"), Field("format"), Field("file"), Field("encrypted", "boolean")),
    id="file",
)
What = Annotated[
    str,
    typer.Argument(
        metavar="FILE|NAME", help="A file, `-` for stdin, a device, op:NAME or a serial.", autocompletion=complete_device
    ),
]

app = group("Look at certificates.")


@verb(
    app,
    FINDING,
    name="check",
    example="""
    fleetctl certs check
    fleetctl certs check pump-7 -o json
    """,
)
def check(
    session: Session,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Devices, op:NAME or serials; all by default.", autocompletion=complete_device),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Mind keys that are not encrypted, too.")] = False,
) -> "list[Finding]":
    """Find what is amiss: certificates that end, weak or shared keys, file modes, lists; exits 11 where there is something."""
    from fleetctl.platforms.local.checking import check

    if names and strict:
        raise UsageError("`--strict` looks at the keys of the context", "leave the names out")
    return check(session.fleet, session.targets(names).words if names else (), strict=strict)


@verb(
    app,
    INSPECTED,
    name="inspect",
    example="""
    fleetctl certs inspect pump-7.csr
    fleetctl certs inspect chain.pem -o json
    """,
)
def inspect(session: Session, what: What) -> "list[Inspected]":
    """Say what certificates, requests and revocation lists contain; nothing of it is verified."""
    from fleetctl.pki.inspect import inspect

    return inspect(_content(session, what))


@verb(
    app,
    STEP,
    name="verify",
    example="""
    fleetctl certs verify pump-7/device.pem
    fleetctl certs verify broker.pem --purpose server --host localhost -o json
    """,
)
def verify(
    session: Session,
    what: What,
    purpose: Annotated[str | None, typer.Option("--purpose", metavar="PURPOSE", help="client or server.")] = None,
    host: Annotated[str | None, typer.Option("--host", metavar="NAME", help="The host that it must be for.")] = None,
) -> "list[Step]":
    """Prove a certificate step by step; exits 7 if it is not to be trusted, 11 if it is only expired or revoked."""
    from fleetctl.platforms.local.judging import verify

    if purpose not in (None, "client", "server") or (purpose == "client" and host is not None):
        raise UsageError("a certificate is for a client, or for a server with its host", "--purpose client, or --host NAME")
    return verify(session.fleet, _content(session, what), purpose, host)


@verb(
    app,
    PRINT,
    name="fingerprint",
    example="""
    fleetctl certs fingerprint pump-7
    fleetctl certs fingerprint device.pem --spki -o name
    """,
)
def fingerprint(
    session: Session,
    what: What,
    spki: Annotated[bool, typer.Option("--spki", help="That of the key, which a renewal keeps.")] = False,
) -> "list[Print]":
    """Show the SHA-256 of certificates, or of their keys."""
    from fleetctl.platforms.local.judging import prints

    return prints(_content(session, what), spki=spki)


@verb(
    app,
    EXPORTED,
    name="export",
    example="""
    fleetctl certs export pump-7 p12 -f pump-7.p12 --bundle ./pump-7 --passphrase-file secret
    fleetctl certs export pump-7 bundle -f pump-7.tar --bundle ./pump-7
    """,
)
def export(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose: a device, or op:NAME.", autocompletion=complete_device)],
    form: Annotated[str, typer.Argument(metavar="FORMAT", help="p12, pem or bundle.")],
    file: Annotated[Path, typer.Option("--file", "-f", metavar="FILE", help="The file to write, for you alone.")],
    bundle: Annotated[Path | None, typer.Option("--bundle", metavar="DIR", help="The folder that it is in; its name.")] = None,
    passphrase_file: Annotated[
        Path | None, typer.Option("--passphrase-file", metavar="FILE", help="For p12: its first line; else FLEETCTL_PASSPHRASE.")
    ] = None,
) -> "Exported":
    """Export key and certificate for other programs: PKCS #12 with AES-256, one PEM file, or the bundle as tar."""
    from fleetctl.platforms.local.exporting import export

    return export(name, form, bundle or Path(name.replace(":", "-")), file, _passphrase(passphrase_file, file))


def _passphrase(source: Path | None, target: Path) -> "Callable[[], str]":
    def ask() -> str:
        if source is None:
            from fleetctl.keys.passphrase import new_passphrase

            return new_passphrase(str(target))
        from fleetctl.files import read_private

        return next(iter(read_private(source, 4096).decode(errors="replace").splitlines()), "")

    return ask


def _content(session: Session, what: str) -> bytes:
    """A file, stdin, or a certificate of the registry: only the last needs a context."""
    from fleetctl.pki.inspect import LIMIT
    from fleetctl.platforms.local.judging import read

    if what == "-":
        return session.terminal.stdin.buffer.read(LIMIT + 1)
    return read(what, lambda: session.fleet.certificates.show(what).pem)
