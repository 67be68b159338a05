"""What a mosquitto configuration says, and what is wrong with it that can be told without any other file."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from fleetctl import files
from fleetctl.model.device import printable

LIMIT = 1 << 20
MOST_INCLUDES = 100
DYNSEC = "mosquitto_dynamic_security"

# what mosquitto 2.0 takes for its default listener where it stands above the first `listener`
_OPENING = """
bind_address bind_interface port socket_domain mount_point max_connections max_qos cafile capath certfile keyfile ciphers
ciphers_tls1.3 crlfile dhparamfile psk_hint psk_file password_file plugin auth_plugin require_certificate tls_engine
use_identity_as_username use_subject_as_username use_username_as_clientid allow_zero_length_clientid
"""
_IDLE = "protocol max_topic_alias http_dir tls_version tls_keyform acl_file allow_anonymous auto_id_prefix"
_SHARED = "acl_file allow_anonymous allow_zero_length_clientid auth_plugin auto_id_prefix password_file plugin psk_file"
OPENS_1883 = frozenset(_OPENING.split())
OF_LISTENER = OPENS_1883 | frozenset(_IDLE.split())
SHARED = frozenset(_SHARED.split())
"""What is everybody's, and may stand above, where `per_listener_settings` is false."""


class Severity(StrEnum):
    """An error lets in whom it should not, or locks out whom it should not; a warning will, some day."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to act on; `listener` is its port, None where it is about all of them."""

    code: str
    severity: Severity
    listener: int | None
    detail: str
    hint: str


@dataclass(frozen=True, slots=True)
class Section:
    """One listener's settings, the last of each name."""

    port: int
    host: str | None
    settings: Mapping[str, str]

    def on(self, name: str) -> bool:
        return self.settings.get(name) == "true"


@dataclass(frozen=True, slots=True)
class Settings:
    """A configuration: what stands above the first listener, and every listener with what is in force for it."""

    above: Mapping[str, str]
    sections: tuple[Section, ...]

    @property
    def per_listener(self) -> bool:
        return self.above.get("per_listener_settings") == "true"


@dataclass(slots=True)
class _Reader:
    above: dict[str, str] = field(default_factory=dict)
    sections: list[tuple[list[str], dict[str, str]]] = field(default_factory=list)
    files: int = 0

    def read(self, path: Path, locate: Callable[[str], Path]) -> None:
        self.files += 1
        for line in files.read_limited(path, LIMIT).decode(errors="replace").splitlines():
            name, _, value = line.strip().partition(" ")
            if name == "include_dir" and self.files < MOST_INCLUDES:
                for each in sorted(locate(value.strip()).glob("*.conf")):
                    self.read(each, locate)
            elif name and not name.startswith("#"):
                self._take(name, value.strip())

    def _take(self, name: str, value: str) -> None:
        if name == "listener":
            self.sections.append((value.split(), {}))
        else:
            (self.sections[-1][1] if self.sections else self.above)[name] = value


def read_settings(path: Path, locate: Callable[[str], Path] = Path) -> Settings:
    """Read a configuration and the folders that it includes; `locate` says where a path of that host is on this one.

    Raises:
        NotFound, Denied, Malformed: a file cannot be read, or is none.
    """
    reader = _Reader()
    reader.read(path, locate)
    above = reader.above
    common = {} if above.get("per_listener_settings") == "true" else {name: above[name] for name in SHARED & above.keys()}
    sections = (
        Section(int(words[0]) if words and words[0].isdigit() else 0, words[1] if len(words) > 1 else None, {**common, **own})
        for words, own in reader.sections
    )
    return Settings(above, tuple(sections))


def judge(settings: Settings) -> Iterator[Finding]:
    """What is wrong with the words of a configuration."""
    yield from _judge_above(settings)
    for section in settings.sections:
        yield from _judge_entry(section)
        if "certfile" in section.settings:
            yield from _judge_tls(section)


def _judge_above(settings: Settings) -> Iterator[Finding]:
    allowed = frozenset() if settings.per_listener else SHARED
    for name in sorted((OF_LISTENER - allowed) & settings.above.keys()):
        what = "opens port 1883 to everybody in plain text" if name in OPENS_1883 else "is in force for no listener"
        yield Finding(
            "option_above_listener", Severity.ERROR, None, f"`{name}` above the first `listener` {what}", "move it below"
        )
    if not settings.sections:
        yield Finding("no_listener", Severity.ERROR, None, "no `listener`: port 1883 is open in plain text", "add one with TLS")
    if len(settings.sections) > 1 and not settings.per_listener:
        yield Finding(
            "rules_shared",
            Severity.ERROR,
            None,
            "without `per_listener_settings true` all listeners have the rules of one",
            "write it as the first line",
        )


def _judge_entry(section: Section) -> Iterator[Finding]:
    port, words = section.port, section.settings
    if not {"certfile", "psk_file", "psk_hint"} & words.keys():
        yield Finding("plain_listener", Severity.ERROR, port, "it speaks plain text", "give it certfile and keyfile")
    if section.on("allow_anonymous"):
        yield Finding("anonymous", Severity.ERROR, port, "it lets anybody in", "write allow_anonymous false")
    if "acl_file" not in words:
        plugin = words.get("plugin", words.get("auth_plugin", ""))
        if DYNSEC in plugin:
            detail = "the dynamic security plugin of 2.0 knows no %u and no %c: its rules cannot tell devices apart"
            yield Finding("dynsec_without_acl", Severity.ERROR, port, detail, "add an acl_file: fleetctl broker render")
        elif not plugin:
            yield Finding("no_acl", Severity.ERROR, port, "everybody may do everything", "fleetctl broker render makes one")


def _judge_tls(section: Section) -> Iterator[Finding]:
    port, words = section.port, section.settings
    version = words.get("tls_version", "")
    if version != "tlsv1.3":
        said = f"`tls_version {printable(version)}`" if version else "no `tls_version`"
        yield Finding("tls_version", Severity.ERROR, port, f"{said}: older versions than 1.3 get in", "write tls_version tlsv1.3")
    if not section.on("require_certificate"):
        detail = "it demands no certificate"
        yield Finding("certificate_optional", Severity.ERROR, port, detail, "write require_certificate true")
    if section.on("use_subject_as_username"):
        detail = "the user name is the whole subject, as `CN=dev-1,O=Acme`: no rule with %u fits"
        yield Finding("subject_as_username", Severity.ERROR, port, detail, "write use_identity_as_username true")
    elif not section.on("use_identity_as_username"):
        detail = "the user name is not the certificate's: rules with %u fit nobody, or whoever says so"
        yield Finding("no_identity", Severity.ERROR, port, detail, "write use_identity_as_username true")
    if "cafile" in words and "crlfile" not in words:
        yield Finding("no_crlfile", Severity.ERROR, port, "nothing can be revoked", "write crlfile FILE")
        detail = "without `crlfile` a reload ignores what is new in `cafile`"
        yield Finding("ca_changes_ignored", Severity.ERROR, port, detail, "write crlfile FILE, an empty list will do")
        detail = "without `crlfile` a reload keeps the old session tickets: they outlive a revocation"
        yield Finding("tickets_survive", Severity.ERROR, port, detail, "write crlfile FILE, and restart it once")
