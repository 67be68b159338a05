"""`fleetctl certs check|inspect|verify|fingerprint|export`: what is amiss, what a file says, and whether it is to be believed."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fleetctl.cli.group import group
from fleetctl.cli.session import Session
from fleetctl.cli.verb import verb
from fleetctl.cli.words import complete_device, duration_option
from fleetctl.errors import UsageError
from fleetctl.present.view import Field, View

if TYPE_CHECKING:
    from fleetctl.pki.inspect import Inspected
    from fleetctl.pki.verify import Step
    from fleetctl.platforms.local.checking import Finding
    from fleetctl.platforms.local.exporting import Exported
    from fleetctl.platforms.local.judging import Print

FINDING = View(
    "certificateFinding",
    (
        Field("subject", help="Whose certificate, or which file."),
        Field("code", help="expiring, expired, weakKey, duplicateKey, unprotectedKey, keyMismatch, listDue, …"),
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
    (
        Field("subject"),
        Field("format", help="p12, pem or bundle."),
        Field("file"),
        Field("secret", "boolean", help="Whether it holds a private key."),
        Field("encrypted", "boolean", help="Whether that is encrypted."),
    ),
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
    fleetctl certs check pump-7 --within 60d -o json
    """,
)
def check(
    session: Session,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Devices, op:NAME or serials; all by default.", autocompletion=complete_device),
    ] = None,
    within: Annotated[
        float | None,
        duration_option("--within", help="What is near the end.", shown="30d, of short lives the last third"),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Mind keys of authorities that are not encrypted, too.")] = False,
) -> "list[Finding]":
    """Find what is amiss: certificates that end, weak or shared keys, file modes, lists; exits 11 where there is something."""
    from fleetctl.platforms.local.checking import check

    if names and strict:
        raise UsageError("`--strict` looks at the keys of the context", "leave the names out")
    return check(session.fleet, session.targets(names).words if names else (), strict=strict, within=within)


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
    fleetctl certs export pem pump-7 --to pump-7.pem
    fleetctl certs export p12 ./pump-7 --to pump-7.p12 --passphrase-ref file:secret
    fleetctl certs export bundle ./pump-7 --to pump-7.tar
    """,
)
def export(
    session: Session,
    form: Annotated[str, typer.Argument(metavar="p12|pem|bundle", help="pem is the chain without the key.")],
    what: Annotated[
        str,
        typer.Argument(
            metavar="NAME|DIR", help="For pem a device, op:NAME or a serial; else the bundle.", autocompletion=complete_device
        ),
    ],
    to: Annotated[Path, typer.Option("--to", metavar="FILE", help="The file to write; one that exists stays.")],
    reference: Annotated[
        str | None,
        typer.Option("--passphrase-ref", metavar="REF", help="For p12: env:NAME, file:PATH or keyring:SERVICE/USER."),
    ] = None,
) -> "Exported":
    """Export an identity for other programs: PKCS #12 with AES-256, the chain in PEM, or the bundle as tar."""
    from fleetctl.platforms.local.exporting import check_format, export_bundle, export_chain

    if reference is not None and form != "p12":
        raise UsageError("`--passphrase-ref` goes with p12: the others are not encrypted", "leave it out")
    if check_format(form) == "pem":
        return export_chain(session.fleet, session.one(what), to)
    return export_bundle(form, Path(what), to, lambda: _passphrase(reference, to))


def _passphrase(reference: str | None, target: Path) -> str:
    """From where the reference leads, else as for keys: FLEETCTL_PASSPHRASE_FILE, FLEETCTL_PASSPHRASE, or typed."""
    if reference is None:
        from fleetctl.keys.passphrase import new_passphrase

        return new_passphrase(str(target))
    from fleetctl.platforms.local.exporting import passphrase_at

    return passphrase_at(reference)


def _content(session: Session, what: str) -> bytes:
    """A file, stdin, or a certificate of the registry: only the last needs a context."""
    from fleetctl.pki.inspect import LIMIT
    from fleetctl.platforms.local.judging import read

    if what == "-":
        return session.terminal.stdin.buffer.read(LIMIT + 1)
    return read(what, lambda: session.fleet.certificates.show(what).pem)
