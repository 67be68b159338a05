"""A fleet of one's own: broker, registry and certificate authority; each part opens when it is first used."""

import time
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from fleetctl import config
from fleetctl.config import Context, Place
from fleetctl.errors import Unavailable
from fleetctl.platforms.protocol import Missing
from fleetctl.registry import Registry

if TYPE_CHECKING:
    from fleetctl.mqtt.endpoint import Endpoint
    from fleetctl.mqtt.session import Session
    from fleetctl.platforms.local.certificates import LocalCertificates
    from fleetctl.platforms.local.devices import LocalDevices
    from fleetctl.platforms.local.messages import LocalMessages
    from fleetctl.platforms.local.twins import LocalTwins
    from fleetctl.platforms.local.updates import LocalUpdates


class LocalFleet:
    """The platform `local` in one context; from a `Place` it opens the registry without reading any configuration."""

    def __init__(self, place: Context | Place, clock: Callable[[], float] = time.time) -> None:
        self._place = place
        self.clock = clock

    @cached_property
    def context(self) -> Context:
        return self._place if isinstance(self._place, Context) else config.load(self._place)

    @cached_property
    def registry(self) -> Registry:
        return Registry.open(self._place.registry)

    @property
    def tenant(self) -> str:
        return self.registry.tenant

    @cached_property
    def actor(self) -> str:
        """Who does what is written down: the operator of the context's certificate, else the login name."""
        import getpass

        cert = self.context.cert
        if cert is not None and cert.is_file():
            from fleetctl.pki.authority import common_names, read_certificates

            names = common_names(read_certificates(cert)[0])
            if names:
                return names[0]
        try:
            return self.context.username or getpass.getuser()
        except (OSError, KeyError):
            return "unknown"

    @cached_property
    def devices(self) -> "LocalDevices":
        from fleetctl.platforms.local.devices import LocalDevices

        return LocalDevices(self)

    @cached_property
    def certificates(self) -> "LocalCertificates":
        """Raises `Missing` in a context whose identities belong to somebody else."""
        if self.context.certificates == "external":
            raise Missing(
                f"context `{self.context.name}` does not own identities: its certificates are external",
                "use the tools of that PKI, or make a fleet of your own with fleetctl init",
            )
        from fleetctl.platforms.local.certificates import LocalCertificates

        return LocalCertificates(self)

    @cached_property
    def twins(self) -> "LocalTwins":
        from fleetctl.platforms.local.twins import LocalTwins

        return LocalTwins(self)

    @cached_property
    def messages(self) -> "LocalMessages":
        from fleetctl.platforms.local.messages import LocalMessages

        return LocalMessages(self)

    @cached_property
    def updates(self) -> "LocalUpdates":
        from fleetctl.platforms.local.updates import LocalUpdates

        return LocalUpdates(self)

    @cached_property
    def endpoint(self) -> "Endpoint":
        """Where and as whom fleetctl connects; raises `ConfigError` for a secret that is not there."""
        from fleetctl.mqtt.endpoint import Endpoint

        context = self.context
        password = None
        if context.password_ref is not None:
            from fleetctl.keys import secrets

            password = secrets.resolve(context.password_ref)
        return Endpoint.parse_url(
            context.broker, ca=context.ca, cert=context.cert, key=context.key, username=context.username, password=password
        )

    def open_session(self, purpose: str, **options: Any) -> "Session":
        """A connected session (`options` are those of `mqtt.session.open_session`); raises `Unavailable` or `Denied`."""
        from fleetctl.mqtt.session import open_session

        try:
            return open_session(self.endpoint, purpose, **options)
        except Unavailable as error:
            if self.context.certificates == "local":
                error.hint = "start it with fleetctl broker run, or see where it should be: fleetctl context show"
            raise

    def close(self) -> None:
        if "registry" in self.__dict__:
            self.registry.close()

    def __enter__(self) -> "LocalFleet":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
