"""Groups of verbs: the root imports only the module that a word names, and knows the words that people type first."""

from difflib import get_close_matches
from importlib import import_module

import typer
from typer.core import TyperGroup

from fleetctl.cli.parser import Command, CompletionItem, Context, HelpFormatter
from fleetctl.errors import UsageError

# name, module, summary
TABLE = (
    ("demo", "fleetctl.cli.demo", "Make a fleet of simulated devices and roll two releases out to it."),
    ("init", "fleetctl.cli.init", "Make a context: registry, certificate authorities, signing keys."),
    ("context", "fleetctl.cli.context", "List, show and choose contexts."),
    ("provision", "fleetctl.cli.provision", "Add, import, list, show and remove devices."),
    ("certs", "fleetctl.cli.certs", "Issue, list, show and revoke certificates."),
    ("broker", "fleetctl.cli.broker", "Run the local broker of a context."),
    ("publish", "fleetctl.cli.publish", "Send a command to devices, or a message to a topic."),
    ("tail", "fleetctl.cli.tail", "Show messages as they arrive."),
    ("twin", "fleetctl.cli.twin", "Get, set and compare desired and reported state."),
    ("agent", "fleetctl.cli.agent", "Run the reference device, or simulate many."),
    ("ota", "fleetctl.cli.rollouts", "Publish signed releases and roll them out in stages."),
)

# what people type first, and what it is called here
ALIASES = {
    "device": "provision list",
    "devices": "provision list",
    "add": "provision add DEVICE --type TYPE --location PLACE",
    "register": "provision add DEVICE --type TYPE --location PLACE",
    "import": "provision import FILE",
    "list": "provision list",
    "ls": "provision list",
    "get": "provision show DEVICE",
    "status": "provision list, or for rollouts: fleetctl ota status",
    "remove": "provision remove DEVICE",
    "delete": "provision remove DEVICE",
    "sub": "tail",
    "subscribe": "tail",
    "watch": "tail, or for a rollout: fleetctl ota watch ROLLOUT",
    "logs": "tail",
    "listen": "tail",
    "pub": "publish DEVICE commands/NAME",
    "send": "publish DEVICE commands/NAME",
    "command": "publish DEVICE commands/NAME",
    "ping": "publish DEVICE commands/ping --wait",
    "reboot": "publish DEVICE commands/reboot",
    "login": "context use NAME, or make a context: fleetctl init",
    "config": "context show",
    "contexts": "context list",
    "use": "context use NAME",
    "setup": "init",
    "start": "demo",
    "server": "broker run",
    "mosquitto": "broker run",
    "simulate": "agent simulate -n 30",
    "simulator": "agent simulate -n 30",
    "shadow": "twin get DEVICE",
    "cert": "certs list",
    "certificate": "certs list",
    "revoke": "certs revoke DEVICE",
    "release": "ota releases",
    "releases": "ota releases",
    "rollout": "ota list",
    "rollouts": "ota list",
    "deploy": "ota start RELEASE",
    "update": "ota start RELEASE",
    "firmware": "ota publish FILE --type TYPE --version VERSION",
    "version": "--version",
    "help": "--help",
}


class Group(TyperGroup):
    """A group that answers an unknown word with the nearest one it has."""

    def get_command(self, ctx: Context, cmd_name: str) -> Command | None:
        found = super().get_command(ctx, cmd_name)
        if found is None and not ctx.resilient_parsing and not cmd_name.startswith("-"):
            raise self.unknown(ctx, cmd_name)
        return found

    def unknown(self, ctx: Context, word: str) -> UsageError:
        from fleetctl.model.device import printable

        near = get_close_matches(word, self.list_commands(ctx), n=1)
        hint = f"did you mean {ctx.command_path} {near[0]}" if near else f"see {ctx.command_path} --help"
        return UsageError(f"no command {printable(word)} in `{ctx.command_path}`", hint)


class LazyGroup(Group):
    """The root: a table of names, of which only the chosen one is imported."""

    def list_commands(self, ctx: Context) -> list[str]:
        return [name for name, _, _ in TABLE]

    def get_command(self, ctx: Context, cmd_name: str) -> Command | None:
        module = next((module for name, module, _ in TABLE if name == cmd_name), None)
        return load(module, cmd_name) if module else super().get_command(ctx, cmd_name)

    def unknown(self, ctx: Context, word: str) -> UsageError:
        if word in ALIASES:
            return UsageError(f"no command `{word}`", f"here it is fleetctl {ALIASES[word]}")
        return super().unknown(ctx, word)

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, _, summary in TABLE])

    def shell_complete(self, ctx: Context, incomplete: str) -> list[CompletionItem]:
        if incomplete.startswith("-"):
            return Command.shell_complete(self, ctx, incomplete)
        return [CompletionItem(name, help=summary) for name, _, summary in TABLE if name.startswith(incomplete)]


def load(module: str, name: str) -> Command:
    """The command of one module of the table."""
    command: Command = typer.main.get_command(import_module(module).app)
    command.name = name
    return command


def group(summary: str) -> typer.Typer:
    """A new group of verbs; its callback keeps a group of one verb from collapsing into the verb."""
    app = typer.Typer(
        cls=Group, help=summary, no_args_is_help=True, rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False
    )
    app.callback()(_nothing)
    return app


def single(summary: str) -> typer.Typer:
    """An app of one verb that stands at the root itself, as `publish` does."""
    return typer.Typer(help=summary, rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False)


def _nothing() -> None:
    pass
