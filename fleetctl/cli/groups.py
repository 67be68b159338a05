"""`fleetctl groups`: selectors that are saved under a name."""

from typing import TYPE_CHECKING, Annotated

import typer

from fleetctl.cli.group import group
from fleetctl.cli.session import Session
from fleetctl.cli.verb import verb
from fleetctl.cli.words import complete_group, complete_selector, equals
from fleetctl.present.view import Field, View

if TYPE_CHECKING:
    from fleetctl.platforms.local.groups import Group, GroupDeleted, GroupDetail, GroupMade

GROUP = View(
    "group",
    (
        Field("name", help="What `group=NAME` takes."),
        Field("selector", help="What it stands for."),
        Field("createdAt", help="When it was saved."),
    ),
    id="name",
)
DETAIL = View(
    "groupDetail",
    (
        Field("name"),
        Field("selector", help="What it stands for."),
        Field("devices", "integer", help="How many devices it has now."),
        Field("createdAt"),
    ),
    id="name",
)
MADE = View(
    "groupMade",
    (
        Field("name"),
        Field("outcome", help="created or unchanged."),
        Field("selector"),
        Field("devices", "integer", help="How many devices it has now."),
    ),
    id="name",
)
DELETED = View("groupDeleted", (Field("name"), Field("outcome", help="deleted.")), id="name")

NAME = typer.Argument(metavar="NAME", help="The name of a group.", autocompletion=complete_group)

app = group("Save selectors under a name.")


@verb(app, MADE, name="create", example="fleetctl groups create canary -l 'type=pump,site in (oslo,bergen)'")
def create(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it will be called.")],
    selector: Annotated[
        str,
        typer.Option(
            "--selector",
            "-l",
            metavar="SELECTOR",
            parser=equals,
            help="What it stands for; other groups too.",
            autocompletion=complete_selector,
        ),
    ],
) -> "GroupMade":
    """Save a selector: `group=NAME` stands for it from then on, for the devices that match at that time."""
    from fleetctl.platforms.local.groups import create as create_group

    return create_group(session.fleet, name, selector)


@verb(app, GROUP, name="list", example="fleetctl groups list")
def list_groups(session: Session) -> "list[Group]":
    """List the groups there are."""
    from fleetctl.platforms.local.groups import groups

    return groups(session.fleet)


@verb(app, DETAIL, name="show", example="fleetctl groups show canary")
def show(session: Session, name: Annotated[str, NAME]) -> "GroupDetail":
    """Show what a group stands for, and how many devices it has now."""
    from fleetctl.platforms.local.groups import show as show_group

    return show_group(session.fleet, name)


@verb(app, DELETED, name="delete", example="fleetctl groups delete canary")
def delete(session: Session, name: Annotated[str, NAME]) -> "GroupDeleted":
    """Forget a saved selector; devices stay as they are. Refused while another group is made of it."""
    from fleetctl.platforms.local.groups import delete as delete_group

    return delete_group(session.fleet, name)
