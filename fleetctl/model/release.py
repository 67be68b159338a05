"""Releases: `TYPE@VERSION`, versions by Semantic Versioning 2.0.0, and which device may take which."""

import re
from dataclasses import dataclass, field
from functools import total_ordering

from fleetctl.errors import UsageError
from fleetctl.model.device import check_level, printable

VERSION_LIMIT = 64
_NUMBER = r"0|[1-9][0-9]*"
_WORD = r"(?:0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_SEMVER = re.compile(
    rf"({_NUMBER})\.({_NUMBER})\.({_NUMBER})(?:-({_WORD}(?:\.{_WORD})*))?(?:\+([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?",
    re.ASCII,
)


@total_ordering
@dataclass(frozen=True, slots=True, eq=False)
class Version:
    """A version, ordered by precedence (SemVer 2.0.0 section 11): build metadata does not count, so `1.0.0+a == 1.0.0+b`."""

    major: int
    minor: int
    patch: int
    pre: tuple[str, ...] = ()
    build: tuple[str, ...] = field(default=())

    @classmethod
    def parse(cls, text: str) -> "Version":
        """The version that `text` spells; raises `UsageError` unless it is SemVer 2.0.0."""
        found = _SEMVER.fullmatch(text) if len(text) <= VERSION_LIMIT else None
        if found is None:
            raise UsageError(
                f"version {printable(text)} is not a semantic version", "write MAJOR.MINOR.PATCH, such as 1.4.2 or 2.0.0-rc.1"
            )
        major, minor, patch, pre, build = found.groups()
        return cls(int(major), int(minor), int(patch), _words(pre), _words(build))

    @property
    def precedence(self) -> tuple[int, int, int, bool, tuple[tuple[bool, int, str], ...]]:
        """A sort key: a release comes after its pre-releases, numbers before words, fewer words before more."""
        words = tuple((False, int(word), "") if word.isdigit() else (True, 0, word) for word in self.pre)
        return self.major, self.minor, self.patch, not self.pre, words

    def __str__(self) -> str:
        pre = f"-{'.'.join(self.pre)}" if self.pre else ""
        build = f"+{'.'.join(self.build)}" if self.build else ""
        return f"{self.major}.{self.minor}.{self.patch}{pre}{build}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Version) and self.precedence == other.precedence

    def __lt__(self, other: "Version") -> bool:
        return self.precedence < other.precedence

    def __hash__(self) -> int:
        return hash(self.precedence)


def _words(text: str | None) -> tuple[str, ...]:
    return tuple(text.split(".")) if text else ()


@dataclass(frozen=True, slots=True)
class Release:
    """A release of firmware for one device type; its name is `TYPE@VERSION`."""

    device_type: str
    version: Version

    def __post_init__(self) -> None:
        check_level("device type", self.device_type)

    @property
    def name(self) -> str:
        return f"{self.device_type}@{self.version}"

    @classmethod
    def parse(cls, text: str) -> "Release":
        """The release that `text` names; raises `UsageError` unless it is `TYPE@VERSION`."""
        device_type, at, version = text.partition("@")
        if not at:
            raise UsageError(f"release {printable(text)} has no version", "write TYPE@VERSION, such as pump@1.4.2")
        return cls(check_level("device type", device_type), Version.parse(version))

    def __str__(self) -> str:
        return self.name


def is_downgrade(running: str | None, offered: Version) -> bool:
    """Whether the device runs a later version; one that does not parse or is unknown is no reason to leave the device out."""
    if running is None:
        return False
    try:
        return Version.parse(running) > offered
    except UsageError:
        return False
