"""`fleetctl context`: which fleet is meant."""

from typing import Annotated

import typer

from fleetctl import config
from fleetctl.cli.group import group
from fleetctl.cli.session import Session
from fleetctl.cli.verb import verb
from fleetctl.cli.words import complete_context
from fleetctl.present.view import Field, View

CONTEXT = View(
    "context",
    (
        Field("name", help="What `--context` takes."),
        Field("current", "boolean", help="Whether verbs without `--context` use it."),
        Field("tenant", help="The first level of every topic."),
        Field("broker", help="Where fleetctl dials."),
        Field("deviceBroker", help="Where devices dial.", wide=True),
        Field("artifacts", help="Where devices fetch firmware.", wide=True),
        Field("certificates", help="Who owns identities: local or external."),
        Field("folder", help="Registry, keys and certificates.", wide=True),
    ),
    id="name",
)
NAME = typer.Argument(metavar="NAME", help="The name of a context.", autocompletion=complete_context)

app = group("List, show and choose contexts.")


@verb(app, CONTEXT, name="list", example="fleetctl context list")
def list_contexts(session: Session) -> list[dict[str, object]]:
    """List the contexts there are."""
    current = config.current_name()
    return [_record(each, current) for each in config.contexts()]


@verb(app, CONTEXT, name="use", example="fleetctl context use prod")
def use(session: Session, name: Annotated[str, NAME]) -> dict[str, object]:
    """Make a context the one that verbs without `--context` use."""
    return _record(config.use_context(name), name)


@verb(app, CONTEXT, name="show", example="fleetctl context show -o json")
def show(session: Session, name: Annotated[str | None, NAME] = None) -> dict[str, object]:
    """Show one context, the current one where none is named."""
    return _record(config.load_context(name or session.options.context), config.current_name())


def _record(context: config.Context, current: str | None) -> dict[str, object]:
    return {
        "name": context.name,
        "current": context.name == current,
        "tenant": context.tenant,
        "broker": context.broker,
        "deviceBroker": context.device_broker,
        "artifacts": context.artifacts or None,
        "certificates": context.certificates,
        "folder": str(context.folder),
    }
