"""What every capability of a platform speaks of: the devices that a verb is meant for, and a capability that is not there."""

from collections.abc import Sequence
from dataclasses import dataclass

from fleetctl.errors import ConfigError


class Missing(ConfigError):
    """The platform or the context has no such capability; raised before anything is sent."""

    code = "missing"


@dataclass(frozen=True, slots=True)
class Targets:
    """The devices that a verb is given: ids and globs, a selector, a share; a device must satisfy all that is given."""

    words: Sequence[str] = ()
    selector: str | None = None
    limit: str | None = None

    @property
    def is_everything(self) -> bool:
        return not self.words and self.selector is None
