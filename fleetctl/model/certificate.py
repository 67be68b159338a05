"""Certificates: what each kind is for, whom it may name, how long it is good."""

import ipaddress
import re
from dataclasses import dataclass
from enum import StrEnum

from fleetctl.errors import ConfigError, UsageError
from fleetctl.model.device import DevicePath, check_level, is_level, printable

DAY = 86400
BACKDATE = 300
"""Seconds before now at which a certificate begins, for clocks that are a little slow: at most a tenth of its life,
or one that is good for minutes would be past the middle of its life, and due for renewal, when it is made."""
OPERATOR_PREFIX = "op:"
CLAIM_PREFIX = "claim:"
CANARY_PREFIX = "fleetctl-canary-"
"""What begins like this is a device that never was: it proves that a broker obeys, and lives for an hour."""
COMMON_NAME_LIMIT = 64
"""X.520 ub-common-name."""
HOST_LIMIT = 253
_HOST = re.compile(r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*")
LONGEST_DAYS = 100 * 365
SERIAL_DIGITS = 40
"""RFC 5280 section 4.1.2.2: at most 20 octets."""


class Profile(StrEnum):
    """The kinds of certificate."""

    AUTHORITY = "authority"
    DEVICE = "device"
    OPERATOR = "operator"
    SERVER = "server"
    CLAIM = "claim"

    @property
    def days(self) -> int:
        """How long one is good, unless its issuer ends earlier."""
        return _DAYS[self]


_DAYS = {Profile.AUTHORITY: 20 * 365, Profile.DEVICE: 5 * 365, Profile.OPERATOR: 365, Profile.SERVER: 825, Profile.CLAIM: 365}


class Reason(StrEnum):
    """Why a certificate is revoked (RFC 5280 section 5.3.1); all but `certificateHold` are for good."""

    UNSPECIFIED = "unspecified"
    KEY_COMPROMISE = "keyCompromise"
    AFFILIATION_CHANGED = "affiliationChanged"
    SUPERSEDED = "superseded"
    CESSATION_OF_OPERATION = "cessationOfOperation"
    PRIVILEGE_WITHDRAWN = "privilegeWithdrawn"
    CERTIFICATE_HOLD = "certificateHold"


class State(StrEnum):
    """What a reader may make of a certificate at one moment."""

    VALID = "valid"
    NOT_YET_VALID = "notYetValid"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Validity:
    """When a certificate is good, both ends included; whole seconds since 1970."""

    not_before: int
    not_after: int

    def state(self, now: float, *, revoked: bool = False) -> State:
        if revoked:
            return State.REVOKED
        if now < self.not_before:
            return State.NOT_YET_VALID
        return State.EXPIRED if now > self.not_after else State.VALID


def validity(profile: Profile, now: float, issuer: Validity | None = None, days: float | None = None) -> Validity:
    """From a little before now, for `days` or as long as the profile says, within the life of its issuer.

    Raises:
        UsageError: `days` is not above 0.
        ConfigError: the issuer is not valid now.
    """
    if days is not None and not 0 < days <= LONGEST_DAYS:
        raise UsageError(f"a certificate cannot be good for {days:g} days", f"from 1 to {LONGEST_DAYS} days")
    life = (profile.days if days is None else days) * DAY
    begin, end = int(now - min(BACKDATE, life / 10)), int(now + life)
    if issuer is None:
        return Validity(begin, end)
    if issuer.state(now) is not State.VALID:
        raise ConfigError("the certificate authority is not valid now", "check the clock: date -u; or make a new context")
    return Validity(max(begin, issuer.not_before), min(end, issuer.not_after))


def reason(text: str) -> Reason:
    """A reason to revoke for good; raises `UsageError` naming those there are."""
    good = [each for each in Reason if each is not Reason.CERTIFICATE_HOLD]
    if text == Reason.CERTIFICATE_HOLD:
        raise UsageError(
            "a hold is no reason to revoke for good", "suspend the device instead: fleetctl provision suspend DEVICE"
        )
    if text not in good:
        raise UsageError(f"{printable(text)} is no reason to revoke", f"one of: {', '.join(good)}")
    return Reason(text)


def is_operator(name: str) -> bool:
    """Whether `name` is a person's or a service's, as `op:alice`: no device id has a colon."""
    return name.startswith(OPERATOR_PREFIX) and len(name) <= COMMON_NAME_LIMIT and is_level(name.removeprefix(OPERATOR_PREFIX))


def check_operator(name: str) -> str:
    """The common name of an operator, given with `op:` or without; raises `UsageError`."""
    full = name if name.startswith(OPERATOR_PREFIX) else OPERATOR_PREFIX + name
    if not is_operator(full):
        raise UsageError(
            f"operator {printable(name)} is not a name",
            "use letters, digits, `.`, `_` and `-`, at most 61 characters, beginning with a letter or a digit",
        )
    return full


def claim_name(name: str) -> str:
    """The common name of a claim, given with `claim:` or without; raises `UsageError`."""
    full = name if name.startswith(CLAIM_PREFIX) else CLAIM_PREFIX + name
    if not is_level(full.removeprefix(CLAIM_PREFIX)) or len(full) > COMMON_NAME_LIMIT:
        raise UsageError(
            f"claim {printable(name)} is not a name",
            "use letters, digits, `.`, `_` and `-`, at most 58 characters, beginning with a letter or a digit",
        )
    return full


def check_subject(profile: Profile, name: str) -> str:
    """The one common name of a certificate, if its profile may carry it; raises `UsageError`."""
    match profile:
        case Profile.DEVICE | Profile.AUTHORITY:
            return check_level("device id" if profile is Profile.DEVICE else "authority", name)
        case Profile.OPERATOR:
            if is_operator(name):
                return name
            raise UsageError(f"{printable(name)} does not name an operator", "write it as op:NAME")
        case Profile.CLAIM:
            if name.startswith(CLAIM_PREFIX):
                return claim_name(name)
            raise UsageError(f"{printable(name)} does not name a claim", "write it as claim:NAME")
        case Profile.SERVER:
            return check_host(name)


def check_host(name: str) -> str:
    """A host name or an IP address as a certificate names it; raises `UsageError`."""
    if len(name) > HOST_LIMIT or not (_HOST.fullmatch(name) or _is_address(name)):
        raise UsageError(f"{printable(name)} is not a host name", "write a DNS name or an IP address")
    return name


def _is_address(text: str) -> bool:
    try:
        return not getattr(ipaddress.ip_address(text), "scope_id", None)
    except ValueError:
        return False


def device_uri(path: DevicePath) -> str:
    """What stands in a device certificate's subject alternative name: the whole address, not the id alone."""
    return f"urn:fleetctl:{path}"


def operator_uri(tenant: str, name: str) -> str:
    return f"urn:fleetctl:{tenant}/{name}"


def serial_text(serial: int) -> str:
    """A serial number as this program writes it: lower case hex of one length."""
    return f"{serial:0{SERIAL_DIGITS}x}"


def parse_serial(text: str) -> str | None:
    """The same for one written by openssl or a browser (`0A:3F:…`, upper case, no leading zeros); None if it is none."""
    digits = text.replace(":", "").lower().removeprefix("0x")
    if not digits or len(digits) > SERIAL_DIGITS or not set(digits) <= set("0123456789abcdef"):
        return None
    return digits.zfill(SERIAL_DIGITS)
