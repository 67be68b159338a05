"""`fleetctl twin`: desired documents from files and editors, their history, and the schemas that they must meet."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fleetctl.cli.group import group
from fleetctl.cli.session import Session
from fleetctl.cli.twin import CHANGE, IfVersion, Reason
from fleetctl.cli.verb import verb
from fleetctl.cli.words import DeviceWord, DeviceWords, LimitWord, SelectorWord
from fleetctl.errors import Malformed, UsageError
from fleetctl.model.device import printable
from fleetctl.present.view import Field, View

if TYPE_CHECKING:
    from fleetctl.platforms.twins import TwinChange, TwinSchema, TwinVersion

VERSION = View(
    "twinVersion",
    (
        Field("id", wide=True),
        Field("version", "integer"),
        Field("at"),
        Field("actor", help="Who wanted it so.", nullable=True),
        Field("reason", nullable=True),
        Field("desired", "object"),
        Field("digest", help="Of the desired document.", wide=True),
    ),
)
SCHEMA = View(
    "twinSchema",
    (
        Field("type", help="The device type."),
        Field("outcome", help="stored, unchanged or removed; null where it is shown only.", nullable=True, wide=True),
        Field("schema", "object", help="The JSON Schema that desired documents must meet."),
    ),
    id="type",
)
FILE_LIMIT = 65536
DocumentFile = Annotated[
    str, typer.Option("--file", "-f", metavar="FILE", help="A JSON object; `-` reads it from stdin.", show_default=False)
]

app = group("Desired documents from files and editors, and their history.")


@verb(
    app,
    CHANGE,
    name="patch",
    writes=True,
    example="""
    fleetctl twin patch pump-7 -f patch.json
    echo '{"network":{"apn":null}}' | fleetctl twin patch -l 'type=pump' -f - --yes
    """,
)
def patch(
    session: Session,
    file: DocumentFile,
    devices: DeviceWords = None,
    selector: SelectorWord = None,
    limit: LimitWord = None,
    if_version: IfVersion = None,
    reason: Reason = None,
) -> "list[TwinChange]":
    """Apply the merge patch of a file (RFC 7396): `null` removes a key, objects merge, everything else replaces."""
    from fleetctl.model.twin import check_patch

    change = check_patch(document_of(session, file, devices))
    chosen = session.chosen(session.targets(devices, selector, limit), "patch the twin")
    return list(session.twins.set(chosen, change, if_version=if_version, reason=reason))


@verb(
    app,
    CHANGE,
    name="replace",
    writes=True,
    example="""
    fleetctl twin replace pump-7 -f desired.json --if-version 4
    fleetctl twin get pump-7 -o json | jq .desired | fleetctl twin replace pump-8 -f -
    """,
)
def replace(
    session: Session,
    file: DocumentFile,
    devices: DeviceWords = None,
    selector: SelectorWord = None,
    limit: LimitWord = None,
    if_version: IfVersion = None,
    reason: Reason = None,
) -> "list[TwinChange]":
    """Desire the document of a file, and nothing else."""
    from fleetctl.model.twin import check_document

    document = check_document(document_of(session, file, devices))
    chosen = session.chosen(session.targets(devices, selector, limit), "replace the twin")
    return list(session.twins.replace(chosen, document, if_version=if_version, reason=reason))


@verb(app, CHANGE, name="edit", writes=True, example="fleetctl twin edit pump-7 --reason 'new site'")
def edit(session: Session, device: DeviceWord, reason: Reason = None) -> "list[TwinChange]":
    """Change the desired document in an editor, $VISUAL or $EDITOR; what somebody else changed meanwhile is not lost."""
    from fleetctl.cli.editing import edited

    chosen = session.chosen(session.targets([device]), "edit the twin")
    if len(chosen) != 1:
        raise UsageError(f"`{device}` names {len(chosen)} devices, this takes one", "change many with fleetctl twin patch")
    return edited(session, chosen[0], reason)


@verb(app, VERSION, name="history", example="fleetctl twin history pump-7")
def history(session: Session, device: DeviceWord) -> "list[TwinVersion]":
    """List the newest versions of what was desired of a device, oldest first."""
    return list(session.twins.history(session.one(device)))


@verb(app, CHANGE, name="revert", writes=True, example="fleetctl twin revert pump-7 --to 3 --reason 'worked better'")
def revert(
    session: Session,
    device: DeviceWord,
    version: Annotated[int, typer.Option("--to", metavar="VERSION", min=1, help="Of the history.", show_default=False)],
    if_version: IfVersion = None,
    reason: Reason = None,
) -> "list[TwinChange]":
    """Desire again what an earlier version said, as a new version."""
    name = session.one(device)
    session.approve([name], f"go back to version {version} of the twin")
    return list(session.twins.revert(name, version, if_version=if_version, reason=reason))


@verb(
    app,
    SCHEMA,
    name="schema",
    example="""
    fleetctl twin schema
    fleetctl twin schema pump -f pump.schema.json
    fleetctl twin schema pump -o json | jq .schema
    fleetctl twin schema pump --remove
    """,
)
def schema(
    session: Session,
    device_type: Annotated[str | None, typer.Argument(metavar="[TYPE]", help="A device type.", show_default=False)] = None,
    file: Annotated[
        str | None, typer.Option("--file", "-f", metavar="FILE", help="Store the JSON Schema there; `-` reads it from stdin.")
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Forget the schema of the type.")] = False,
    reason: Reason = None,
) -> "TwinSchema | list[TwinSchema]":
    """Show, store or remove the JSON Schema that desired documents of a device type must meet. All of them without a type."""
    twins = session.twins
    if device_type is None:
        if file is not None or remove:
            raise UsageError("no device type is named", "fleetctl twin schema TYPE -f FILE")
        return list(twins.schemas())
    if file is not None and remove:
        raise UsageError("`-f` and `--remove` do not go together", "name one of them")
    if remove:
        return twins.remove_schema(device_type, reason=reason)
    if file is not None:
        return twins.put_schema(device_type, document_of(session, file, None), reason=reason)
    return twins.schema(device_type)


def document_of(session: Session, file: str, devices: list[str] | None) -> Mapping[str, Any]:
    """The JSON object of a file; raises `UsageError` where stdin would be read twice, `Malformed` for what is none."""
    from fleetctl.files import read_limited

    if file == "-":
        if "-" in (devices or ()):
            raise UsageError("`-` reads both devices and the document from stdin", "put one of them into a file")
        stdin = session.terminal.stdin
        if stdin.isatty():
            raise UsageError("`-` reads a document from stdin, which is a terminal", "name a file: -f FILE")
        data = getattr(stdin, "buffer", stdin).read(FILE_LIMIT + 1)
        return read_document(data.encode() if isinstance(data, str) else data, "stdin")
    return read_document(read_limited(Path(file), FILE_LIMIT), file)


def read_document(data: bytes, name: str) -> Mapping[str, Any]:
    """The JSON object that `data` spells; raises `Malformed` that names where it is from."""
    from fleetctl.wire.document import parse_json

    try:
        return parse_json(data, FILE_LIMIT)
    except Malformed as error:
        hint = 'write a JSON object, as in {"reportingInterval":60}'
        raise Malformed(f"{printable(name)}: {error.message}", hint) from error
