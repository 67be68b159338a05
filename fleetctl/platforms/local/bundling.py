"""What goes into the folder of a device besides its key and its certificate."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from fleetctl import files
from fleetctl.model.device import DevicePath
from fleetctl.model.profile import DEFAULT, ProvisioningProfile
from fleetctl.pki.authority import PEM_LIMIT
from fleetctl.platforms.local.layout import Layout
from fleetctl.wire import bundle
from fleetctl.wire.bundle import BundleConfig, render_yaml

if TYPE_CHECKING:
    from fleetctl.platforms.local.fleet import LocalFleet

_STAND_IN = "0stand-in0"


@dataclass(frozen=True)
class Bundler:
    """The public part of bundles, read once: make a new one for each piece of work.

    Of `profile` a bundle has the intervals; without one, only the usual heartbeat.
    """

    fleet: "LocalFleet"
    profile: ProvisioningProfile | None = None

    def contents(self, path: DevicePath) -> dict[str, bytes]:
        """Files by name, of everything that others may read."""
        return {**self._public, bundle.CONFIG: self._config.replace(_STAND_IN, _below_tenant(path)).encode()}

    @cached_property
    def _public(self) -> dict[str, bytes]:
        layout = Layout(self.fleet.context.folder)
        places = {bundle.AUTHORITY: layout.fleet_ca, bundle.TRUST: layout.trust, bundle.ROOT: layout.root_key}
        return {name: files.read_limited(path, PEM_LIMIT) for name, path in places.items()}

    @cached_property
    def _config(self) -> str:
        """`device.yaml` of any device: writing YAML takes longer than issuing a certificate, and no path needs quotes in it."""
        context, chosen = self.fleet.context, self.profile or DEFAULT
        path = DevicePath(context.tenant, _STAND_IN, _STAND_IN, _STAND_IN)
        config = BundleConfig.of(
            path,
            context.device_broker,
            context.artifacts,
            chosen.heartbeat,
            enrol=context.enrol,
            reporting_interval=None if self.profile is None else chosen.reporting_interval,
        )
        return render_yaml(config).replace(_below_tenant(path), _STAND_IN)


def _below_tenant(path: DevicePath) -> str:
    return f"{path.location}/{path.device_type}/{path.device_id}"
