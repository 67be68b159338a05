"""`broker check`: what is wrong with a mosquitto configuration, with the files that it names, and with the broker that runs."""

import os
import pwd
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from fleetctl import files
from fleetctl.config import Context
from fleetctl.errors import FleetError, NotFound
from fleetctl.model.access import CLIENT, IDENTITY, is_one_level
from fleetctl.model.device import printable
from fleetctl.mqtt.broker import reachable
from fleetctl.mqtt.endpoint import Endpoint
from fleetctl.mqtt.settings import LIMIT, Finding, Section, Settings, Severity, judge, read_settings
from fleetctl.pki import crl
from fleetctl.platforms.local.brokercanary import make_canary
from fleetctl.platforms.local.brokerfiles import Reader, authorities_of, check_files
from fleetctl.platforms.local.brokerprobe import Canary, probe_canary, probe_people, probe_plain, probe_tls
from fleetctl.platforms.local.layout import Layout
from fleetctl.platforms.local.rendering import CONFIGURATION, prefix_of
from fleetctl.platforms.local.running import have_it_read, running

if TYPE_CHECKING:
    from fleetctl.platforms.local.fleet import LocalFleet

SERVICE_USER = "mosquitto"
RULES_LIMIT = 32 * LIMIT
DEVICES, PEOPLE, CLAIMS = "devices", "people", "claims"


@dataclass(frozen=True, slots=True)
class Checked:
    """A configuration on this machine; its folder stands for what `prefix` is on the broker's host.

    `staged`: this is the broker's host, and what is not in the folder is in the prefix already.
    """

    path: Path
    prefix: Path | None = None
    staged: bool = False

    @classmethod
    def found(cls, path: Path) -> "Checked":
        """The configuration in a folder that was rendered, or any other file; raises `NotFound` or `Denied`."""
        whole = path / CONFIGURATION if path.is_dir() else path
        return cls(whole, prefix_of(files.read_limited(whole, LIMIT).decode(errors="replace")))

    @property
    def moved(self) -> bool:
        """Whether it is here for another host, whose users and modes are not to be seen."""
        return self.prefix is not None and self.prefix != self.path.parent.absolute() and not self.staged

    def locate(self, text: str) -> Path:
        path = Path(text)
        if self.prefix is not None and path.is_relative_to(self.prefix):
            here = self.path.parent / path.relative_to(self.prefix)
            return path if self.staged and not here.exists() else here
        return path if path.is_absolute() else self.path.parent / path

    def reader(self, settings: Settings) -> Reader | None:
        """Whom mosquitto becomes: as root the user it is told, else whoever starts it, who owns its configuration."""
        owner = self.path.stat().st_uid
        if self.moved:
            return None
        if "user" not in settings.above and owner != 0 and os.geteuid() != 0:
            return Reader.named(pwd.getpwuid(owner).pw_name)
        return Reader.named(settings.above.get("user", SERVICE_USER))


def check_configuration(checked: Checked, context: Context | None, now: float) -> list[Finding]:
    """Everything that can be told without connecting; raises `NotFound`, `Denied` or `Malformed` for the configuration itself."""
    settings = read_settings(checked.path, checked.locate)
    reader = checked.reader(settings)
    found = list(judge(settings))
    for section in settings.sections:
        kind = kind_of(section, checked)
        if kind == DEVICES and not section.on("use_username_as_clientid"):
            detail = "a device may call itself like another, and take over its session"
            found.append(Finding("client_id_free", Severity.ERROR, section.port, detail, "write use_username_as_clientid true"))
        found += check_files(_without_key(section, checked), checked.locate, reader, _hosts(context, kind), now)
    return [*found, *_shared(settings.sections, checked)]


def _without_key(section: Section, checked: Checked) -> Section:
    """A key that is on the broker's host only cannot be looked at here."""
    key = section.settings.get("keyfile")
    if key is None or not checked.moved or checked.locate(key).is_file():
        return section
    return Section(section.port, section.host, {name: text for name, text in section.settings.items() if name != "keyfile"})


def kind_of(section: Section, checked: Checked) -> str | None:
    """Whose door it is, by its rules; None where nobody can tell."""
    try:
        rules = files.read_limited(checked.locate(section.settings["acl_file"]), RULES_LIMIT).decode(errors="replace")
    except (KeyError, FleetError):
        return None
    levels = {level for line in rules.splitlines() if line.startswith("pattern") for level in line.split(" ")[-1].split("/")}
    if CLIENT in levels:
        return CLAIMS
    return DEVICES if IDENTITY in levels else PEOPLE


def _hosts(context: Context | None, kind: str | None) -> Sequence[str]:
    if context is None or kind is None:
        return ()
    url = {DEVICES: context.device_broker, PEOPLE: context.broker, CLAIMS: context.claims}[kind]
    return (Endpoint.parse_url(url).host,)


def _shared(sections: Sequence[Section], checked: Checked) -> Iterator[Finding]:
    accepted = [(section, authorities_of(section, checked.locate)) for section in sections]
    for (one, first), (other, second) in combinations(accepted, 2):
        for authority in sorted({first[each] for each in first.keys() & second.keys()}):
            detail = f"certificates of {printable(authority)} open the listeners {one.port} and {other.port}"
            yield Finding("shared_authority", Severity.ERROR, other.port, detail, "give each listener a cafile of its own")


def check_names(fleet: "LocalFleet") -> Iterator[Finding]:
    """Names in certificates that are good still and that rules would take for more than one level."""
    for row in fleet.registry.certificates():
        if row.revoked_at is None and not is_one_level(row.subject):
            detail = f"certificate {row.serial} is for {printable(row.subject)}, which is not one level of a topic"
            yield Finding("dangerous_name", Severity.ERROR, None, detail, f"fleetctl certs revoke {row.serial}")


def check_running(
    fleet: "LocalFleet", sections: Sequence[Section], checked: Checked | None, canary: Canary | None = None
) -> Iterator[Finding]:
    """What the broker that runs does, whatever its files say."""
    context = fleet.context
    device = Endpoint.parse_url(context.device_broker)
    hosts = {reachable(section.host or device.host) for section in sections} or {device.host}
    for host in sorted(hosts):
        yield from probe_plain(host)
    for section in sections:
        cert = checked.locate(section.settings["certfile"]) if checked and "certfile" in section.settings else None
        yield from probe_tls(reachable(section.host or device.host), section.port, cert)
    if not sections:
        for url in (context.device_broker, context.broker):
            endpoint = Endpoint.parse_url(url)
            yield from probe_tls(endpoint.host, endpoint.port)
    yield from probe_people(fleet.endpoint)
    if canary is not None and context.ca is not None:
        yield from probe_canary(canary, device.host, device.port, context.ca)


def canary_of(fleet: "LocalFleet") -> tuple[Canary | None, list[Finding]]:
    """The canary of the context once its own broker has read the list that names it, or why there is none.

    None, and nothing is wrong, where the key of devices' authority is kept elsewhere.
    """
    context, layout = fleet.context, Layout(fleet.context.folder)
    signing = fleet.registry.signing_authority("devices")
    if signing is None or not layout.has_key(signing.name):
        return None, []
    port = Endpoint.parse_url(context.device_broker).port
    try:
        canary = make_canary(fleet, layout.device_lists)
        told = have_it_read(context.folder, crl.read_numbers(layout.device_lists))
    except FleetError as error:
        return None, [Finding("canary_missing", Severity.WARNING, port, f"nothing was proven: {error.message}", error.hint)]
    if told.error is not None:
        detail = f"the broker has not taken the newest list: {told.error}"
        return None, [Finding("list_not_taken", Severity.ERROR, port, detail, "start it again: fleetctl broker run")]
    return canary if told.running else None, []


def check_broker(fleet: "LocalFleet", path: Path | None, *, live: bool) -> list[Finding]:
    """Every finding, errors first; without a `path` the broker of the context itself."""
    context, own = fleet.context, fleet.context.broker_folder / CONFIGURATION
    runs = running(context.folder)
    checked = Checked.found(path or own) if path is not None or own.is_file() else None
    if checked is None and runs is None:
        raise NotFound(f"context `{context.name}` has no configuration of a broker to check", "fleetctl broker run")
    if path is None and runs is not None and runs.engine != "mosquitto":
        checked = None
    found = check_configuration(checked, context, fleet.clock()) if checked else []
    found += check_names(fleet)
    if live or (path is None and runs is not None):
        sections = read_settings(checked.path, checked.locate).sections if checked else ()
        canary, why = canary_of(fleet) if runs is not None else (None, [])
        found += [*why, *check_running(fleet, sections, checked, canary)]
    return sorted(found, key=lambda each: (each.severity is not Severity.ERROR, each.listener or 0, each.code))
