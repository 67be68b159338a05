"""`fleetctl certs issue|sign|csr`: keys and certificates for one or for many, and for keys that were made elsewhere."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fleetctl.cli.group import group
from fleetctl.cli.session import Session
from fleetctl.cli.verb import verb
from fleetctl.cli.words import complete_device
from fleetctl.errors import UsageError
from fleetctl.present.progress import progress
from fleetctl.present.view import As, Field, View

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fleetctl.platforms.local.certificates import Issued
    from fleetctl.platforms.local.signing import RequestMade, Signed
    from fleetctl.platforms.rows import Row

ISSUED = View(
    "issued",
    (
        Field("subject"),
        Field("serial"),
        Field("outcome", help="issued or unchanged."),
        Field("notAfter"),
        Field("bundle", help="The folder with key and certificate."),
    ),
    id="subject",
)
BULK = View(
    "bulkIssued",
    (
        Field("added", "integer", help="Devices that were not there."),
        Field("issued", "integer", help="Certificates."),
        Field("unchanged", "integer", help="Devices that had their bundle."),
        Field("refused", "integer"),
        Field("errors", "array", help="The lines that were refused: line, id, error.", hidden=True),
        Field("place", help="The folder of bundles, or the archive."),
    ),
    id="place",
)
SIGNED = View(
    "signed",
    (
        Field("subject"),
        Field("serial"),
        Field("outcome", help="issued, or unchanged where the key had one already."),
        Field("notAfter"),
        Field("authority", wide=True),
        Field("spki", help="SHA-256 of the key.", wide=True),
        Field("pem", help="The certificate with what is between it and the root.", hidden=True),
    ),
    id="subject",
)
REQUEST = View(
    "request",
    (
        Field("subject"),
        Field("spki", help="SHA-256 of the key.", wide=True),
        Field("key", help="The file of the key."),
        Field("request", help="The file to have signed."),
    ),
    id="request",
)
OWNER = typer.Argument(
    metavar="[NAME]",
    help="A device id, or op:NAME for an operator; `-` reads it from stdin.",
    autocompletion=complete_device,
    show_default=False,
)
Profile = Annotated[
    str | None, typer.Option("--profile", metavar="NAME", help="The provisioning profile of devices: days, intervals, labels.")
]

app = group("Issue certificates, and sign requests for them.")


@verb(
    app,
    ISSUED,
    name="issue",
    other=BULK,
    example="""
    fleetctl certs issue pump-7 --bundle ./pump-7
    fleetctl certs issue op:alice --bundle ./alice
    fleetctl certs issue --count 2000 --prefix pump- --type pump --location oslo --bundle ./bundles
    fleetctl certs issue --from devices.csv --archive bundles.tar
    """,
)
def issue(
    session: Session,
    name: Annotated[str | None, OWNER] = None,
    csr: Annotated[Path | None, typer.Option("--csr", metavar="FILE", help="The request of a key made elsewhere.")] = None,
    profile: Profile = None,
    bundle: Annotated[
        Path | None, typer.Option("--bundle", metavar="DIR", help="The folder to write; its name by default.")
    ] = None,
    count: Annotated[int | None, typer.Option("--count", metavar="N", help="Issue to N devices, adding what is missing.")] = None,
    prefix: Annotated[str | None, typer.Option("--prefix", metavar="TEXT", help="What comes before their numbers.")] = None,
    device_type: Annotated[str | None, typer.Option("--type", metavar="TYPE", help="The type of new devices.")] = None,
    location: Annotated[str | None, typer.Option("--location", metavar="PLACE", help="Where new devices are.")] = None,
    source: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="A .csv or .jsonl file: id, type, location, labels.")
    ] = None,
    archive: Annotated[
        Path | None, typer.Option("--archive", metavar="FILE", help="One tar file for all bundles, in place of folders.")
    ] = None,
) -> "Issued | As":
    """Issue a key and a certificate to a device or an operator, into a folder of its own; or to many devices."""
    many = {"--count": count, "--from": source}
    given = [word for word, value in many.items() if value is not None]
    if (name is None) == (not given) or len(given) > 1:
        raise UsageError("say whom it is for", "one of: NAME, --count N with --prefix, or --from FILE")
    if name is not None:
        _only_one(archive, prefix, device_type, location)
        return _issue_one(session, session.one(name), csr, bundle, profile)
    if csr is not None:
        raise UsageError("a request is of one key", "name its owner: fleetctl certs issue NAME --csr FILE")
    return As(BULK, _issue_many(session, _rows(count, prefix, device_type, location, source), count, profile, bundle, archive))


def _only_one(*options: object) -> None:
    if any(each is not None for each in options):
        raise UsageError("`--archive`, `--prefix`, `--type` and `--location` go with many devices", "leave NAME out, or them")


def _issue_one(session: Session, name: str, csr: Path | None, bundle: Path | None, profile: str | None) -> "Issued":
    if csr is not None:
        from fleetctl.platforms.local.signing import sign_into

        return sign_into(session.fleet, _read(session, csr), name, bundle or Path(name), profile=profile)
    done = session.fleet.certificates.issue(name, bundle, profile=profile)
    if done.subject.startswith("op:"):
        place = Path(done.bundle).absolute()
        session.say(f"to connect as {done.subject}, edit `{session.context.name}` in {_config()}:")
        session.say(f"    cert: {place / 'operator.pem'}\n    key: {place / 'operator.key'}")
    return done


def _rows(
    count: int | None, prefix: str | None, device_type: str | None, location: str | None, source: Path | None
) -> "Iterator[Row]":
    from fleetctl.platforms.local.bulk import listed, numbered

    if source is not None:
        _unused(prefix, device_type, location)
        return listed(source)
    if prefix is None or device_type is None or location is None or count is None:
        raise UsageError("`--count` needs to know what they are called and where", "--prefix TEXT --type TYPE --location PLACE")
    return numbered(prefix, count, device_type, location)


def _unused(*options: object) -> None:
    if any(each is not None for each in options):
        raise UsageError("`--prefix`, `--type` and `--location` go with `--count`", "the file of --from names them for each")


def _issue_many(
    session: Session, rows: "Iterator[Row]", total: int | None, profile: str | None, bundle: Path | None, archive: Path | None
) -> object:
    from fleetctl.platforms.local.bulk import BulkIssuer

    if (bundle is None) == (archive is None):
        raise UsageError("say where the bundles go", "--bundle DIR, or --archive FILE.tar")
    fleet = session.fleet
    issuer: BulkIssuer = BulkIssuer(fleet, None if profile is None else fleet.registry.profile(profile))
    done = issuer.into_folder(rows, bundle) if bundle is not None else issuer.into_archive(rows, archive or Path())
    with progress("issuing", total, session.terminal.stderr) as advance:
        for more in done:
            advance(more)
    return issuer.report(bundle or archive or Path())


def _config() -> Path:
    from fleetctl.config import home

    return home().config


def _read(session: Session, path: Path) -> bytes:
    """A request from a file, or from stdin for `-`."""
    from fleetctl.files import read_limited
    from fleetctl.pki.csr import CSR_LIMIT

    if str(path) == "-":
        return session.terminal.stdin.buffer.read(CSR_LIMIT + 1)
    return read_limited(path, CSR_LIMIT)


@verb(
    app,
    SIGNED,
    name="sign",
    example="""
    fleetctl certs sign pump-7.csr --for pump-7 -f pump-7.pem
    fleetctl certs sign - --for op:alice -o json < alice.csr | jq -r .pem
    """,
)
def sign(
    session: Session,
    request: Annotated[Path, typer.Argument(metavar="CSR", help="A request, PEM or DER; `-` reads it from stdin.")],
    owner: Annotated[
        str | None,
        typer.Option("--for", metavar="NAME", help="Whom it is for: a device, or op:NAME.", autocompletion=complete_device),
    ] = None,
    profile: Profile = None,
    nonce: Annotated[str | None, typer.Option("--nonce", metavar="TEXT", help="The challenge that it must carry.")] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", metavar="FILE", help="Where to write the chain.")] = None,
) -> "Signed":
    """Sign a request: its key is certified, what the certificate says is decided by the registry."""
    from fleetctl.platforms.local.signing import sign

    done = sign(session.fleet, _read(session, request), owner, profile=profile, nonce=nonce)
    if file is not None:
        from fleetctl.files import write_atomic

        write_atomic(file, done.pem.encode())
    return done


@verb(app, REQUEST, name="csr", example="fleetctl certs csr pump-7 --bundle ./pump-7")
def csr(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A device id, or op:NAME.", show_default=False)],
    bundle: Annotated[Path | None, typer.Option("--bundle", metavar="DIR", help="The folder of key and request.")] = None,
    nonce: Annotated[str | None, typer.Option("--nonce", metavar="TEXT", help="The challenge that it shall carry.")] = None,
) -> "RequestMade":
    """Make a key that stays where it is, and the request to have it certified."""
    from fleetctl.platforms.local.signing import make_request

    return make_request(name, bundle or Path(name.replace(":", "-")), nonce=nonce)
