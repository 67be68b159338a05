"""Releases and rollouts of a fleet of one's own: the engine in this process, its state in the broker and the registry."""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from fleetctl import files
from fleetctl.errors import Conflict, FleetError, Halted, NotFound, Partial, Pending
from fleetctl.model import release as naming
from fleetctl.model import topic as topics
from fleetctl.model.device import Device
from fleetctl.model.rollout import Skipped, SkipReason, State, make_plan
from fleetctl.platforms.local import artifacts, planning, rollouts
from fleetctl.platforms.local.driver import Driver
from fleetctl.platforms.local.plans import SignedPlan, sign_plan, verify_state
from fleetctl.platforms.local.releases import Releases
from fleetctl.platforms.local.watcher import Watcher
from fleetctl.platforms.updates import (
    PlanEntry,
    PlannedDevice,
    PlanOptions,
    ReleaseEntry,
    RolloutEntry,
    RolloutEvent,
    RolloutRef,
)
from fleetctl.wire.trust import TrustDocument

if TYPE_CHECKING:
    from fleetctl.mqtt.session import Session
    from fleetctl.platforms.local.fleet import LocalFleet

Records = Iterator[RolloutEvent | RolloutEntry]


class LocalUpdates:
    """The capability `updates` of the platform `local`."""

    def __init__(self, fleet: "LocalFleet") -> None:
        self._fleet = fleet

    @cached_property
    def _releases(self) -> Releases:
        return Releases(self._fleet.context, self._fleet.clock)

    # -- releases

    def publish(self, file: Path, device_type: str, version: str, *, security_counter: int = 0) -> ReleaseEntry:
        return self._releases.publish(file, device_type, version, security_counter=security_counter)

    def releases(self) -> Sequence[ReleaseEntry]:
        return self._releases.releases()

    def show(self, name: str) -> ReleaseEntry:
        return self._releases.show(name)

    def verify(self, name: str) -> ReleaseEntry:
        return self._releases.verify(name)

    # -- plans

    def plan(self, release: str, devices: Sequence[Device], options: PlanOptions, *, file: Path | None = None) -> PlanEntry:
        """Plan and sign; the plan is stored beside the images, and in `file` where one is named.

        Raises:
            NotFound: no such release, or every device is skipped.
            Untrusted: the image of the release is not what was published.
            Conflict: a device still works on another rollout.
        """
        found = self._releases.store.get(release)
        self._releases.store.check_image(found)
        authority = rollouts.authority(self._releases, self._fleet.context.tenant, None)
        with self._fleet.open_session("plan") as session:
            known = list(planning.read_known(session.read_retained, [device.path for device in devices], authority.trust))
        orders = self._fleet.registry.orders(device.id for device in devices)
        plan = make_plan(
            f"r-{secrets.token_hex(4)}",
            self._fleet.context.tenant,
            naming.Release.parse(found.name),
            found.image_digest,
            found.manifest_digest,
            planning.candidates(devices, known, orders, supersede=options.supersede, over=rollouts.ended(self._fleet.registry)),
            created_at=int(self._fleet.clock()),
            parameters=options.parameters,
            not_before=options.not_before,
            not_after=options.not_after,
            jitter=options.jitter,
            allow_downgrade=options.allow_downgrade,
        )
        unfit = [skipped for skipped in plan.skipped if skipped.reason is not SkipReason.ALREADY_INSTALLED]
        if unfit and not plan.size:
            raise NotFound(
                f"no device can take release `{found.name}`: {unfit[0].path.device_id} is skipped as {unfit[0].reason.value}",
                _skip_hint(unfit[0]),
            )
        signed = sign_plan(plan, found.envelope, authority.signer)
        self._releases.store.keep_blob(signed.data)
        rollouts.remember_plan(self._fleet.registry, signed, self._fleet.clock())
        if file is not None:
            files.write_atomic(file, signed.data)
        return plan_entry(signed, file)

    # -- driving

    def start(self, ref: RolloutRef, *, wait: bool = False, timeout: float | None = None) -> Records:
        artifacts.base_of(self._fleet.context)
        return self._drive(ref, wait=wait, timeout=timeout)

    def resume(self, ref: RolloutRef, *, wait: bool = True, timeout: float | None = None) -> Records:
        return self._drive(ref, wait=wait, timeout=timeout)

    def step(self, ref: RolloutRef) -> Records:
        return self._drive(ref, wait=False, timeout=None)

    def abort(self, ref: RolloutRef) -> Records:
        """End a rollout: its other driver, if there is one, is cut off; what is on offer is withdrawn."""
        authority, signed = self._meant(ref)
        found = self._looked_up(signed, authority.trust)
        if _is_over(found):
            yield found
            return
        with ExitStack() as stack:
            driver = self._take_over(authority, signed, stack)
            yield from driver.rebuild(without_state=True)
            yield from driver.begin()
            yield from driver.abort()
            yield driver.leave()

    def _meant(self, ref: RolloutRef) -> tuple[rollouts.Authority, SignedPlan]:
        authority = rollouts.authority(self._releases, self._fleet.context.tenant, ref.key)
        return authority, rollouts.find_plan(self._fleet, ref, authority.trust)

    def _drive(self, ref: RolloutRef, *, wait: bool, timeout: float | None) -> Records:
        """Drive, or say how it ended; whatever can refuse does so before another driver is cut off."""
        deadline = None if timeout is None else self._fleet.clock() + timeout
        authority, signed = self._meant(ref)
        last = self._looked_up(signed, authority.trust)
        if _is_over(last):
            yield last
        else:
            with ExitStack() as stack:
                serving = stack.enter_context(self._image(signed, last, serve=wait))
                driver = self._take_over(authority, signed, stack)
                yield _started(driver, serving)
                try:
                    yield from driver.rebuild()
                    yield from driver.begin()
                    while wait and not driver.over and (deadline is None or self._fleet.clock() < deadline):
                        yield from driver.turn()
                except (KeyboardInterrupt, GeneratorExit):
                    with suppress(FleetError):
                        self._leave(driver)
                    raise
                except Conflict as error:
                    error.hint = f"see how far it is: fleetctl ota status {signed.plan.id}"
                    raise
                last = self._leave(driver)
                yield last
        raise_outcome(last, driven_to_the_end=wait)

    def _leave(self, driver: Driver) -> RolloutEntry:
        last = driver.leave()
        rollouts.remember_sightings(self._fleet.registry, driver.plan, driver.sighted)
        return last

    def _image(self, signed: SignedPlan, found: RolloutEntry, *, serve: bool) -> AbstractContextManager[bool]:
        """Devices find the image, where there is something left to offer and an artifact base is known here.

        Who started the rollout has probed the base already; who resumes it on a machine without one need not know it.
        """
        if found.state in (State.HALTED, State.ABORTED) or not self._fleet.context.artifacts:
            return nullcontext(False)
        size = rollouts.manifest_of(signed).size
        return artifacts.available(self._fleet.context, signed.plan.image_digest, size, serve=serve)

    def _take_over(self, authority: rollouts.Authority, signed: SignedPlan, stack: ExitStack) -> Driver:
        """Connect under the rollout's one client id; the orders of the plan must still be new."""
        fleet, trust = self._fleet, authority.trust
        session = stack.enter_context(self._open(signed))
        paths = [target.path for target in signed.plan.targets]
        known = planning.read_known(session.read_retained, paths, trust)
        orders = fleet.registry.orders(target.id for target in signed.plan.targets)
        planning.check_orders(signed.plan.targets, known, signed.plan.id, orders, signed.plan.parameters.max_attempts)
        if authority.is_ours:
            self._publish_trust(session)
        self._releases.store.keep_blob(signed.data)
        with fleet.registry.transaction():
            for target in signed.plan.targets:
                fleet.registry.raise_order(target.id, target.base_order + 2 * signed.plan.parameters.max_attempts)
        keep = rollouts.keeper(fleet.registry, signed, fleet.clock)
        known_state = rollouts.known_state(fleet.registry, signed)
        return Driver(signed, trust, authority.signer, session, fleet.clock, keep, known_state)

    def _open(self, signed: SignedPlan) -> "Session":
        from fleetctl.mqtt.connection import Will
        from fleetctl.platforms.local.driver import attendance

        plan = signed.plan
        place = topics.rollout_controller(plan.tenant, plan.id)
        will = Will(place, attendance(attended=False, at=None))
        return self._fleet.open_session("rollout", client_id=f"fleetctl-rollout-{plan.id}", will=will)

    def _publish_trust(self, session: "Session") -> None:
        """Devices learn of new keys before they are sent what is signed by them."""
        place = topics.trust(self._fleet.context.tenant)
        held = session.read_retained([place]).get(place)
        if held is None or held.payload != self._releases.trust_envelope:
            session.publish(place, self._releases.trust_envelope, 1, True)

    # -- looking

    def watch(self, ref: RolloutRef, *, timeout: float | None = None) -> Records:
        """Follow a rollout without driving it, until it is over."""
        deadline = None if timeout is None else self._fleet.clock() + timeout
        authority = rollouts.reader(self._releases, self._fleet.context.tenant, ref.key)
        signed = rollouts.find_plan(self._fleet, ref, authority)
        with self._fleet.open_session("watch") as session:
            watcher = Watcher(signed, authority, session, self._fleet.clock)
            yield from watcher.begin()
            while not watcher.over and (deadline is None or self._fleet.clock() < deadline):
                yield from watcher.turn()
            last = watcher.entry()
            yield last
        raise_outcome(last, driven_to_the_end=True, again=f"look again with fleetctl ota watch {signed.plan.id}")

    def status(self, ref: RolloutRef) -> RolloutEntry:
        """What is recorded of a rollout, brought up to date from its signed state."""
        trust = rollouts.reader(self._releases, self._fleet.context.tenant, ref.key)
        return self._looked_up(rollouts.find_plan(self._fleet, ref, trust), trust)

    def _looked_up(self, signed: SignedPlan, trust: TrustDocument) -> RolloutEntry:
        plan = signed.plan
        state, controller = topics.rollout_state(plan.tenant, plan.id), topics.rollout_controller(plan.tenant, plan.id)
        with self._fleet.open_session("status") as session:
            held = session.read_retained([state, controller])
        entry = rollouts.recorded(self._fleet.registry, signed, self._fleet.clock())
        known = rollouts.known_state(self._fleet.registry, signed)
        told = [payload for payload in (known, held[state].payload if state in held else b"") if payload]
        if told:
            snapshots = [verify_state(payload, plan.tenant, plan.id, trust) for payload in told]
            entry = rollouts.with_snapshot(entry, max(snapshots, key=lambda snapshot: snapshot.serial))
        return rollouts.with_attendance(entry, held[controller].payload if controller in held else b"")

    def rollouts(self) -> Sequence[RolloutEntry]:
        """Newest first."""
        known = [rollouts.entry_from_record(row.record) for row in self._fleet.registry.rollouts()]
        return sorted(known, key=lambda entry: entry.updated_at, reverse=True)

    def serve(self) -> Iterator[RolloutEvent]:
        """Serve the release store until interrupted."""
        host, port = artifacts.base_of(self._fleet.context)
        with artifacts.server(self._fleet.context) as server:
            yield {"event": "serving", "url": self._fleet.context.artifacts, "host": host, "port": port}
            server.wait()


def plan_entry(signed: SignedPlan, file: Path | None) -> PlanEntry:
    plan = signed.plan
    ends = list(accumulate(plan.waves))
    devices = []
    wave = 0
    for index, target in enumerate(plan.targets):
        while index >= ends[wave]:
            wave += 1
        devices.append(PlannedDevice(target.id, wave + 1, None, target.digest))
    devices += [PlannedDevice(skipped.path.device_id, None, skipped.reason.value, None) for skipped in plan.skipped]
    return PlanEntry(
        plan.id,
        plan.release,
        signed.digest,
        plan.size,
        len(plan.skipped),
        plan.waves,
        devices,
        plan.parameters,
        str(file) if file else None,
    )


def _skip_hint(skipped: Skipped) -> str:
    if skipped.reason is SkipReason.OUT_OF_SERVICE:
        return f"see why: fleetctl provision status {skipped.path.device_id}"
    return "select devices of its type, or plan with --allow-downgrade"


def _is_over(entry: RolloutEntry) -> bool:
    return entry.state != rollouts.PLANNED and rollouts.is_over(State(entry.state), not entry.updating)


def _started(driver: Driver, serving: bool) -> RolloutEvent:
    plan = driver.plan
    why = f"{plan.release} for {plan.size} devices in {len(plan.waves)} waves{', served from here' if serving else ''}"
    return driver.event("started", release=plan.release, devices=plan.size, skipped=len(plan.skipped), why=why)


def raise_outcome(entry: RolloutEntry, *, driven_to_the_end: bool, again: str = "") -> None:
    """The exit status of a rollout: 0, 8, 9 or 10 (architecture.md, "Errors and exit statuses")."""
    again = again or f"go on with fleetctl ota resume {entry.id}"
    match entry.state:
        case State.HALTED:
            raise Halted(
                f"rollout `{entry.id}` of `{entry.release}` was halted: {entry.reason}", f"fleetctl ota status {entry.id}"
            )
        case State.ABORTED:
            raise Halted(f"rollout `{entry.id}` of `{entry.release}` was aborted", f"fleetctl ota status {entry.id}")
        case State.PAUSED:
            raise Pending(f"rollout `{entry.id}` waits for a person: {entry.reason}", again)
        case State.COMPLETED if entry.failed:
            raise Partial(
                f"rollout `{entry.id}` is complete: {entry.succeeded} of {entry.devices} devices updated, {entry.failed} failed",
                f"fleetctl ota status {entry.id}",
            )
        case State.COMPLETED if entry.untouched:
            raise Partial(
                f"rollout `{entry.id}` is complete: {entry.untouched} of {entry.devices} devices were not reached",
                "plan again when they are back: fleetctl ota plan",
            )
        case State.RUNNING if driven_to_the_end:
            raise Pending(f"rollout `{entry.id}` is not at its end: {entry.succeeded} of {entry.devices} devices updated", again)
