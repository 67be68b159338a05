"""Groups of verbs: the root imports only the module that a word names, and knows the words that people type first."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module

import typer
from typer.core import TyperGroup
from typer.models import CommandInfo

from fleetctl.cli.parser import Command, CompletionItem, Context, HelpFormatter
from fleetctl.errors import UsageError

# name, module, summary
TABLE = (
    ("demo", "fleetctl.cli.demo", "Make a fleet of simulated devices and roll two releases out to it."),
    ("init", "fleetctl.cli.init", "Make a context: registry, certificate authorities, signing keys."),
    ("context", "fleetctl.cli.context", "List, show and choose contexts."),
    ("provision", "fleetctl.cli.provision", "Add, enrol, list, suspend and remove devices; factory batches and claims."),
    ("groups", "fleetctl.cli.groups", "Save selectors under a name."),
    ("audit", "fleetctl.cli.audit", "Who changed what, when and why."),
    ("certs", "fleetctl.cli.certs", "Issue, renew, check and revoke certificates; the authorities behind them."),
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
    "renew": "certs renew",
    "ca": "certs ca list",
    "crl": "certs crl status",
    "sign": "certs sign CSR",
    "enroll": "provision serve, and on the device: fleetctl agent run CLAIM --serial SERIAL",
    "enrol": "provision serve, and on the device: fleetctl agent run CLAIM --serial SERIAL",
    "claim": "provision claim create NAME --batch BATCH",
    "approve": "provision approve SERIAL",
    "suspend": "provision suspend DEVICE",
    "est": "provision serve",
    "release": "ota releases",
    "releases": "ota releases",
    "rollout": "ota list",
    "rollouts": "ota list",
    "deploy": "ota start RELEASE",
    "update": "ota start RELEASE",
    "firmware": "ota publish FILE --type TYPE --version VERSION",
    "version": "--version",
    "help": "--help",
    "provision ls": "provision list",
    "provision get": "provision show DEVICE",
    "provision create": "provision add DEVICE --type TYPE --location PLACE",
    "provision rm": "provision remove DEVICE",
    "provision enroll": "provision serve",
    "provision retire": "provision decommission DEVICE",
    "provision disable": "provision suspend DEVICE",
    "provision enable": "provision resume DEVICE",
    "provision accept": "provision approve SERIAL",
    "provision delete": "provision remove DEVICE",
    "group": "groups list",
    "log": "audit",
    "history": "audit, or of one twin: fleetctl twin history DEVICE",
    "groups ls": "groups list",
    "groups add": "groups create NAME -l SELECTOR",
    "groups rm": "groups delete NAME",
    "context ls": "context list",
    "context add": "init NAME",
    "context create": "init NAME",
    "certs ls": "certs list",
    "certs create": "certs issue NAME",
    "certs gencert": "certs issue NAME",
    "certs info": "certs inspect FILE",
    "certs p12": "certs export p12 NAME",
    "certs lint": "certs check",
    "certs doctor": "certs check",
    "certs rotate": "certs ca rotate ROLE, or for one certificate: fleetctl certs rekey",
    "certs reissue": "certs renew",
    "twin show": "twin get DEVICE",
    "twin delete": "twin unset DEVICE KEY",
    "twin rollback": "twin revert DEVICE --to VERSION",
    "twin update": "twin set DEVICE KEY=VALUE",
    "broker start": "broker run",
    "agent start": "agent run BUNDLE",
    "ota ls": "ota list",
    "ota pause": "ota abort ROLLOUT, or end what drives it with Ctrl-C: nothing is promoted until fleetctl ota resume ROLLOUT",
    "ota cancel": "ota abort ROLLOUT",
    "ota stop": "ota abort ROLLOUT",
    "ota rollback": "ota start RELEASE --allow-downgrade, after fleetctl ota abort ROLLOUT",
    "ota upload": "ota publish FILE --type TYPE --version VERSION",
}


class App:
    """The verbs of one module; each becomes a command when somebody asks for it, because making one costs half a millisecond."""

    def __init__(self, summary: str, alone: bool, also: Sequence[str] = (), nested: Mapping[str, str] | None = None) -> None:
        self.summary = summary
        self.alone = alone
        self.verbs: dict[str, tuple[Callable[[], Callable[..., None]], str]] = {}
        self.also = also
        self.nested = nested or {}

    def add(self, name: str, make: Callable[[], Callable[..., None]], epilog: str) -> None:
        self.verbs[name] = make, epilog

    def knows(self, name: str) -> bool:
        """Whether there is such a verb or group, with as few modules imported as it takes to tell."""
        return name in self.verbs or name in self.nested or any(name in part.verbs for part in self._parts())

    def names(self) -> list[str]:
        """The verbs of this module, those of the modules that go with it, the groups below it."""
        return [*self.verbs, *(name for part in self._parts() for name in part.verbs), *self.nested]

    def find(self, name: str) -> Command:
        if name in self.nested:
            return load(self.nested[name], name)
        part = self if name in self.verbs else next(part for part in self._parts() if name in part.verbs)
        return part.build(name)

    def _parts(self) -> "Iterator[App]":
        for module in self.also:
            part: App = import_module(module).app
            yield part

    def build(self, name: str) -> Command:
        make, epilog = self.verbs[name]
        info = CommandInfo(name, callback=make(), epilog=epilog)
        return typer.main.get_command_from_info(info, pretty_exceptions_short=False, rich_markup_mode=None)

    def command(self, name: str) -> Command:
        """The group as it hangs below the root; or the one verb that stands there itself."""
        if self.alone:
            return self.build(name)
        made = Group(name=name, help=self.summary, no_args_is_help=True, rich_markup_mode=None)
        made.app = self
        return made


def group(summary: str, also: Sequence[str] = (), nested: Mapping[str, str] | None = None) -> App:
    """A new group of verbs; `also` names modules whose verbs belong to it, `nested` those of groups below it.

    They are imported when somebody asks for what they have.
    """
    return App(summary, False, also, nested)


def single(summary: str) -> App:
    """A verb that stands at the root itself, as `publish` does."""
    return App(summary, True)


class Group(TyperGroup):
    """A group that answers an unknown word with the nearest one it has."""

    app: App | None = None

    def list_commands(self, ctx: Context) -> list[str]:
        return self.app.names() if self.app else []

    def find(self, name: str) -> Command | None:
        if self.app is not None and name not in self.commands and self.app.knows(name):
            self.commands[name] = self.app.find(name)
        return self.commands.get(name)

    def get_command(self, ctx: Context, cmd_name: str) -> Command | None:
        found = self.find(cmd_name)
        if found is None and not ctx.resilient_parsing and not cmd_name.startswith("-"):
            raise self.unknown(ctx, cmd_name)
        return found

    def unknown(self, ctx: Context, word: str) -> UsageError:
        from fleetctl.model.device import printable

        known = ALIASES.get(" ".join([*ctx.command_path.split()[1:], word]))
        if known:
            return UsageError(f"no command `{word}` in `{ctx.command_path}`", f"use fleetctl {known}")
        near = get_close_matches(word, self.list_commands(ctx), n=1)
        hint = f"did you mean {ctx.command_path} {near[0]}" if near else f"see {ctx.command_path} --help"
        return UsageError(f"no command {printable(word)} in `{ctx.command_path}`", hint)


class LazyGroup(Group):
    """The root: a table of names, of which only the chosen one is imported."""

    def list_commands(self, ctx: Context) -> list[str]:
        return [name for name, _, _ in TABLE]

    def find(self, name: str) -> Command | None:
        module = next((module for known, module, _ in TABLE if known == name), None)
        return load(module, name) if module else None

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, _, summary in TABLE])

    def shell_complete(self, ctx: Context, incomplete: str) -> list[CompletionItem]:
        if incomplete.startswith("-"):
            return Command.shell_complete(self, ctx, incomplete)
        return [CompletionItem(name, help=summary) for name, _, summary in TABLE if name.startswith(incomplete)]


def load(module: str, name: str) -> Command:
    """The command of one module of the table."""
    app: App = import_module(module).app
    return app.command(name)
