"""Topics of the device contract, and MQTT topic filters (MQTT 5.0 section 4.7)."""

from enum import StrEnum

from fleetctl.model.device import CLIENT_PREFIX, DevicePath, is_level

COMMAND_NAME_LIMIT = 32


class Channel(StrEnum):
    """The data types below a device's path."""

    STATUS = "status"
    TELEMETRY = "telemetry"
    ALERTS = "alerts"
    TWIN_DESIRED = "twin/desired"
    TWIN_REPORTED = "twin/reported"
    OTA_DESIRED = "ota/desired"
    OTA_STATUS = "ota/status"


RETAINED_CHANNELS = (
    Channel.STATUS,
    Channel.TWIN_DESIRED,
    Channel.TWIN_REPORTED,
    Channel.OTA_DESIRED,
    Channel.OTA_STATUS,
)


def of(path: DevicePath, channel: Channel) -> str:
    return f"{path}/{channel}"


def command(path: DevicePath, name: str) -> str:
    return f"{path}/commands/{name}"


def command_reply(path: DevicePath, name: str) -> str:
    return f"{path}/commands/{name}/reply"


def trust(tenant: str) -> str:
    return f"{tenant}/_fleet/trust"


def rollout_plan(tenant: str, rollout: str) -> str:
    return f"{tenant}/_fleet/rollouts/{rollout}/plan"


def rollout_state(tenant: str, rollout: str) -> str:
    return f"{tenant}/_fleet/rollouts/{rollout}/state"


def rollout_controller(tenant: str, rollout: str) -> str:
    """Whether somebody drives the rollout: unsigned, a hint for people, its will says that nobody does."""
    return f"{tenant}/_fleet/rollouts/{rollout}/controller"


def sentinel(tenant: str, client: str) -> str:
    """A topic of our own that marks the end of a batch of retained messages."""
    return f"{tenant}/_fleet/sentinel/{client}"


def is_command_name(name: str) -> bool:
    return len(name) <= COMMAND_NAME_LIMIT and is_level(name)


def split(topic: str) -> tuple[DevicePath, str] | None:
    """The device and the rest of a topic of the contract; None where it is no device's."""
    levels = topic.split("/", 4)
    if len(levels) != 5 or not all(is_level(level) for level in levels[:4]) or levels[3].startswith(CLIENT_PREFIX):
        return None
    return DevicePath(*levels[:4]), levels[4]


def is_topic(topic: str) -> bool:
    """Whether a PUBLISH may name this topic: not empty, no wildcard, no NUL, at most 65,535 bytes of UTF-8."""
    return is_name(topic) and not set(topic) & set("+#")


def is_filter(text: str) -> bool:
    """Whether a SUBSCRIBE may name this filter: `+` fills its level, `#` fills the last one."""
    if not is_name(text):
        return False
    levels = text.split("/")
    return all(level == "+" or not set(level) & set("+#") for level in levels[:-1]) and (
        levels[-1] in ("+", "#") or not set(levels[-1]) & set("+#")
    )


def is_name(text: str) -> bool:
    try:
        return 0 < len(text.encode()) <= 65535 and "\0" not in text
    except UnicodeEncodeError:
        return False


def matches(pattern: str, topic: str) -> bool:
    """Whether a topic matches a filter; wildcards at the first level leave `$` topics out (section 4.7.2)."""
    if topic.startswith("$") and pattern[:1] in ("+", "#"):
        return False
    wanted, found = pattern.split("/"), topic.split("/")
    for index, level in enumerate(wanted):
        if level == "#":
            return True
        if index >= len(found) or level not in ("+", found[index]):
            return False
    return len(wanted) == len(found)
