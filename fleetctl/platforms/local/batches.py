"""Factory batches of a local fleet: made, filled with serials, closed, reported on."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fleetctl.errors import Conflict, FleetError, Malformed, UsageError
from fleetctl.model.batch import Batch, BatchState, check_batch, serials
from fleetctl.model.device import Device, DevicePath, LifeCycle, check_level, printable
from fleetctl.model.profile import ProvisioningProfile, parse
from fleetctl.platforms.device_records import Imported
from fleetctl.platforms.importing import Intake, take_in
from fleetctl.platforms.rows import SERIALS, Row, read_rows
from fleetctl.wire.document import parse_rfc3339, rfc3339

if TYPE_CHECKING:
    from fleetctl.platforms.local.fleet import LocalFleet

PROFILE_LIMIT = 65_536


@dataclass(frozen=True, slots=True)
class BatchEntry:
    """A batch: how many serials it has, how many devices of it have enrolled or were made, and why nobody may now.

    `refusal` is `batch_closed`, `not_yet_open`, `quota`, or None where the next device may.
    """

    name: str
    state: str
    profile: str | None
    type: str | None
    location: str | None
    serials: int
    used: int
    quota: int | None
    not_before: str | None
    not_after: str | None
    refusal: str | None
    labels: Mapping[str, str]
    created_at: str
    closed_at: str | None


@dataclass(frozen=True, slots=True)
class BatchReport(BatchEntry):
    """The same with how many devices are in each state, when the first and the last came further, and who was refused why."""

    states: Mapping[str, int]
    first: str | None
    last: str | None
    refused: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class ProfileEntry:
    """A profile; `outcome` is `stored`, `unchanged`, or None where it is only shown."""

    name: str
    type: str | None
    location: str | None
    heartbeat: float
    reporting_interval: float
    approval: str
    days: float | None
    ids: str | None
    twin: Mapping[str, Any]
    labels: Mapping[str, str]
    outcome: str | None


def create(fleet: "LocalFleet", batch: Batch, *, lasts: float | None = None) -> BatchEntry:
    """Make a batch; `lasts` is seconds from its beginning. Making the same again changes nothing.

    Raises:
        Conflict: a batch has that name and differs.
        NotFound: there is no such profile.
    """
    now = fleet.clock()
    with fleet.registry.transaction():
        held = next((each for each in fleet.registry.batches() if each.name == batch.name), None)
        made = rfc3339(now) if held is None else held.created_at
        end = batch.not_after if lasts is None else rfc3339(parse_rfc3339(batch.not_before or made) + lasts)
        fleet.registry.add_batch(replace(batch, not_after=end, created_at=made))
    return entry(fleet, fleet.registry.batch(batch.name))


def listed(fleet: "LocalFleet") -> list[BatchEntry]:
    return [entry(fleet, batch) for batch in fleet.registry.batches()]


def close(fleet: "LocalFleet", name: str) -> BatchEntry:
    """Nobody of this batch enrols any more; closing it again changes nothing."""
    fleet.registry.close_batch(name, rfc3339(fleet.clock()))
    return entry(fleet, fleet.registry.batch(name))


def report(fleet: "LocalFleet", name: str) -> BatchReport:
    """How far a batch is; raises `NotFound`."""
    shown = entry(fleet, fleet.registry.batch(name))
    held = fleet.registry.batch_sum(name)
    values = {each.name: getattr(shown, each.name) for each in fields(shown)}
    refused = fleet.registry.refusals(name)
    return BatchReport(**values, states=held.states, first=held.first, last=held.last, refused=refused)


def entry(fleet: "LocalFleet", batch: Batch) -> BatchEntry:
    used = fleet.registry.batch_used(batch.name)
    return BatchEntry(
        batch.name,
        batch.state.value,
        batch.profile,
        batch.device_type,
        batch.location,
        fleet.registry.batch_sum(batch.name).serials,
        used,
        batch.quota,
        batch.not_before,
        batch.not_after,
        check_batch(batch, fleet.clock(), used),
        batch.labels,
        batch.created_at,
        batch.closed_at,
    )


def profile_of(fleet: "LocalFleet", batch: Batch) -> ProvisioningProfile | None:
    return None if batch.profile is None else fleet.registry.profile(batch.profile)


def import_serials(fleet: "LocalFleet", name: str, source: Path | Sequence[str], intake: Intake) -> Imported:
    """Add the devices of a batch, `manufactured`, from a file or from ranges of serials; repeating it adds what is missing.

    Raises:
        NotFound: no such batch, or no such file.
        Conflict: the batch is closed.
        UsageError: neither batch nor profile say what type the devices are and where.
        Partial, FleetError: some or all lines were refused; the report is in the error.
    """
    batch = fleet.registry.batch(name)
    if batch.state is BatchState.CLOSED:
        raise Conflict(f"batch `{name}` is closed", f"make another: fleetctl provision batch create {name}-2")
    profile = profile_of(fleet, batch)
    take = _taker(fleet, batch, profile)
    if isinstance(source, Path):
        return take_in(read_rows(source, SERIALS), take, source, intake)
    return take_in(_named(source), take, Path(" ".join(source)), intake)


def _named(ranges: Sequence[str]) -> Iterator[Row]:
    names = [serials(text) for text in ranges]
    return (Row(number, {"serial": serial}, {}) for number, serial in enumerate((one for each in names for one in each), 1))


def _taker(fleet: "LocalFleet", batch: Batch, profile: ProvisioningProfile | None) -> Callable[[Row], str]:
    """Adds one device: its type, place and labels are those of the batch, else of the profile."""
    device_type = batch.device_type or (profile and profile.device_type)
    location = batch.location or (profile and profile.location)
    if not device_type or not location:
        lacking = "type" if not device_type else "location"
        raise UsageError(
            f"batch `{batch.name}` does not say the {lacking} of its devices",
            f"say it in its profile: fleetctl provision profile set {batch.profile or 'NAME'} --{lacking} …",
        )
    common = {**(profile.labels if profile else {}), **batch.labels}
    registry, at, actor = fleet.registry, rfc3339(fleet.clock()), fleet.actor
    tenant = registry.tenant

    def take(row: Row) -> str:
        serial = check_level("serial", row.fields["serial"])
        name = row.fields.get("id") or serial
        if profile is not None and not profile.takes(name):
            raise Conflict(f"id {printable(name)} does not match {printable(str(profile.ids))}, which the profile asks for")
        path = DevicePath(tenant, location, device_type, name)
        device = Device(
            path, {**common, **row.labels}, LifeCycle.MANUFACTURED, at, serial=serial, batch=batch.name, profile=batch.profile
        )
        return "added" if registry.add_device(device, actor=actor) else "unchanged"

    return take


def put_profile(fleet: "LocalFleet", profile: ProvisioningProfile) -> ProfileEntry:
    return profile_entry(profile, "stored" if fleet.registry.put_profile(profile) else "unchanged")


def profile_entry(profile: ProvisioningProfile, outcome: str | None = None) -> ProfileEntry:
    return ProfileEntry(
        profile.name,
        profile.device_type,
        profile.location,
        profile.heartbeat,
        profile.reporting_interval,
        profile.approval.value,
        profile.days,
        profile.ids,
        profile.twin,
        profile.labels,
        outcome,
    )


def read_profile(name: str, path: Path, said: Mapping[str, Any]) -> ProvisioningProfile:
    """A profile of a YAML or JSON file, in which `said` has the last word; raises `UsageError` for one that says nonsense."""
    import yaml

    from fleetctl.files import read_limited

    try:
        document = yaml.safe_load(read_limited(path, PROFILE_LIMIT))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise Malformed(f"file {printable(str(path))} is neither YAML nor JSON", "write it as KEY: VALUE lines") from error
    if not isinstance(document, dict) or not all(isinstance(key, str) for key in document):
        raise Malformed(f"file {printable(str(path))} is not a mapping", "write it as KEY: VALUE lines")
    return parse(name, {**document, **said})


def check_end(end: float | None, until: str | None) -> None:
    """Raises `UsageError` where both are given."""
    if end is not None and until is not None:
        raise UsageError("`--for` and `--until` both say when the batch ends", "name one of them")


def time_of(text: str | None) -> str | None:
    """An RFC 3339 time as the registry keeps it; raises `UsageError`."""
    if text is None:
        return None
    try:
        return rfc3339(parse_rfc3339(text))
    except FleetError as error:
        raise UsageError(error.message, "as in 2026-01-15T10:30:00Z") from error
