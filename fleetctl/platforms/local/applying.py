"""`broker apply`: new files for a mosquitto that runs, tried out before, proven after, and taken back where the proof fails."""

import os
import pwd
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fleetctl import files
from fleetctl.errors import ConfigError, Findings, FleetError
from fleetctl.mqtt.broker import BrokerConfig, reachable
from fleetctl.mqtt.endpoint import Endpoint
from fleetctl.mqtt.settings import Finding, Severity, read_settings
from fleetctl.pki.authority import read_certificates
from fleetctl.platforms.local.brokercanary import make_canary
from fleetctl.platforms.local.brokercheck import Checked, check_configuration
from fleetctl.platforms.local.brokerfiles import names_of
from fleetctl.platforms.local.brokerprobe import Canary, probe_canary, probe_people, probe_tls
from fleetctl.platforms.local.layout import Layout
from fleetctl.platforms.local.reloading import Reload
from fleetctl.platforms.local.rendering import CONFIGURATION, Rendering, give, make_files, moved_config
from fleetctl.platforms.local.replacing import changed, put_back, swap
from fleetctl.platforms.local.trial import trial_config, try_out

if TYPE_CHECKING:
    from fleetctl.platforms.local.fleet import LocalFleet

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class ApplyStep:
    """`outcome` is done, skipped or failed."""

    step: str
    outcome: str
    detail: str


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of a broker's files: `outcome` is applied, unchanged, refused, rolledBack or broken.

    `restart_needed`: a listener came, went or moved, which no reload does.
    """

    folder: str
    outcome: str
    changed: tuple[str, ...]
    restart_needed: bool
    steps: tuple[ApplyStep, ...]


@dataclass(slots=True)
class _Record:
    folder: Path
    changed: tuple[str, ...] = ()
    restart_needed: bool = False
    steps: list[ApplyStep] = field(default_factory=list)

    def add(self, step: str, outcome: str, detail: str = "") -> None:
        self.steps.append(ApplyStep(step, outcome, detail))

    def done(self, outcome: str) -> Applied:
        return Applied(str(self.folder), outcome, self.changed, self.restart_needed, tuple(self.steps))

    @contextmanager
    def doing(self, step: str, outcome: str = "refused") -> Iterator[None]:
        """What fails in here ends it all, with the record of what was done so far."""
        try:
            yield
        except FleetError as error:
            self.add(step, "failed", error.message)
            error.record = [self.done(outcome)]
            raise


def apply(fleet: "LocalFleet", wanted: Rendering, reload: Reload) -> Applied:
    """Render into the folder of a broker that runs on this machine, which is `wanted.prefix`, and have it read its files.

    Raises:
        Findings: the files would not do: nothing was touched.
        FleetError: the broker refused them: those from before are back in force, or the record says what is not.
        ConfigError, NotFound, Conflict: there is no such broker.
    """
    folder = wanted.prefix
    record = _Record(folder)
    reload.check()
    wanted = _for_its_user(wanted, reload.user())
    if not (folder / CONFIGURATION).is_file():
        raise ConfigError(f"there is no `{folder / CONFIGURATION}`", f"fleetctl broker render {folder}, and start the broker")
    with files.lock(folder / ".fleetctl.lock"), _staging(folder) as staging:
        canary = make_canary(fleet, folder / Layout(fleet.context.folder).device_lists.name)
        made = make_files(fleet.context, wanted)
        _write(staging, made, wanted.user)
        config = moved_config(fleet.context, wanted)
        _check(fleet, staging, wanted, record)
        _try(fleet, staging, wanted, config, canary, record)
        record.changed = changed(folder, staging, made)
        record.restart_needed = _listeners(staging, wanted) != _listeners(folder, wanted)
        proof = _Proof(fleet, config, canary)
        if record.changed:
            with record.doing("swap"):
                swap(folder, staging, record.changed)
            record.add("swap", "done", f"{len(record.changed)} files, those from before are kept as .prev")
        _enforce(record, reload, proof)
        return record.done("applied" if record.changed else "unchanged")


def _for_its_user(wanted: Rendering, runs_as: str | None) -> Rendering:
    """Raises `ConfigError` where the files would be for another user than the broker's; who is not root has none to choose."""
    if os.geteuid() != 0:
        return replace(wanted, user=runs_as or pwd.getpwuid(os.geteuid()).pw_name)
    if runs_as is not None and wanted.user != runs_as:
        raise ConfigError(f"the broker runs as `{runs_as}`, but its files would be for `{wanted.user}`", f"--user {runs_as}")
    return wanted


@contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    """A folder on the same disk, which the broker's user may enter as it may enter `folder`."""
    path = folder / f".staged-{secrets.token_hex(4)}"
    try:
        path.mkdir(mode=0o755)
        path.chmod(0o755)
    except OSError as error:
        raise ConfigError(f"cannot write into `{folder}`: {(error.strerror or '').lower()}", f"ls -ld {folder}") from error
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _write(staging: Path, made: dict[str, tuple[bytes, int]], user: str | None) -> None:
    for name, (data, mode) in made.items():
        files.write_atomic(staging / name, data, mode)
        if mode == 0o600:
            give(staging / name, user)


def _check(fleet: "LocalFleet", staging: Path, wanted: Rendering, record: _Record) -> None:
    checked = Checked(staging / CONFIGURATION, wanted.prefix, staged=True)
    found = check_configuration(checked, fleet.context, fleet.clock())
    errors = [each for each in found if each.severity is Severity.ERROR]
    for each in found:
        record.add("check", "failed" if each in errors else "done", f"{each.code}: {each.detail}")
    if errors:
        raise _refused(errors, record)
    if not found:
        record.add("check", "done")


def _try(fleet: "LocalFleet", staging: Path, wanted: Rendering, config: BrokerConfig, canary: Canary, record: _Record) -> None:
    checked = Checked(staging / CONFIGURATION, wanted.prefix, staged=True)
    trial = trial_config(config, staging / "trial", checked.locate)
    names = names_of(read_certificates(trial.device.cert)[0])
    name = next((each for each in LOCAL_NAMES[:2] if each in names), None)
    with record.doing("try"):
        found = list(try_out(trial, wanted.user, fleet.endpoint, canary, _authority(fleet), name))
    for each in found:
        record.add("try", "failed", f"{each.code}: {each.detail}")
    if found:
        raise _refused(found, record)
    record.add("try", "done", "" if name else "the certificate is for no name of this machine: no client was let in")


def _refused(found: list[Finding], record: _Record) -> Findings:
    first = found[0]
    return Findings(
        f"the new files would not do, nothing was touched: {first.detail}", first.hint, record=[record.done("refused")]
    )


def _enforce(record: _Record, reload: Reload, proof: "_Proof") -> None:
    """Reload and prove; where that fails take it back, and prove that too."""
    why = _reload_and_prove(record, reload, proof.listeners(record.restart_needed), strict=True)
    if why is None:
        return
    if not record.changed:
        raise FleetError(f"the broker does not do what its files say: {why}", "see its log", record=[record.done("broken")])
    put_back(record.folder, record.changed)
    record.add("rollBack", "done", f"{len(record.changed)} files are as they were")
    again = _reload_and_prove(record, reload, proof.listeners(record.restart_needed), strict=False)
    if again is None:
        raise FleetError(
            f"the broker refused the new files, those from before are in force again: {why}",
            "see its log",
            record=[record.done("rolledBack")],
        )
    raise FleetError(
        f"the broker refused the new files ({why}), and is not well with those from before either: {again}",
        "restart it, and see its log",
        record=[record.done("broken")],
    )


def _reload_and_prove(record: _Record, reload: Reload, probe: Callable[[bool], list[Finding]], *, strict: bool) -> str | None:
    """None where it works, else what does not."""
    try:
        reload.send()
    except FleetError as error:
        record.add("reload", "failed", error.message)
        return error.message
    record.add("reload", "done", reload.words)
    found = reload.settle(lambda: probe(strict))
    for each in found:
        record.add("prove", "failed", f"{each.code}: {each.detail}")
    if found:
        return found[0].detail
    record.add("prove", "done", "a good device and an operator are let in" + (", a revoked one is not" if strict else ""))
    return None


@dataclass(frozen=True, slots=True)
class _Proof:
    fleet: "LocalFleet"
    config: BrokerConfig
    canary: Canary

    def listeners(self, restart_needed: bool) -> Callable[[bool], list[Finding]]:
        """Probes; where listeners changed those that are new do not answer yet."""
        config = replace(self.config, claims=None) if restart_needed else self.config
        device = Endpoint.parse_url(self.fleet.context.device_broker)

        def probe(strict: bool) -> list[Finding]:
            shown = [(each, each.cert if strict else None) for each in config.listeners]
            found = [each for one, cert in shown for each in probe_tls(reachable(one.host), one.port, cert)]
            found += probe_people(self.fleet.endpoint)
            found += probe_canary(self.canary, device.host, device.port, _authority(self.fleet), both=strict)
            return found

        return probe


def _listeners(folder: Path, wanted: Rendering) -> set[tuple[int, str | None, tuple[tuple[str, str], ...]]]:
    settings = read_settings(folder / CONFIGURATION)
    return {(each.port, each.host, tuple(sorted(each.settings.items()))) for each in settings.sections}


def _authority(fleet: "LocalFleet") -> Path:
    ca = fleet.context.ca
    if ca is None:
        raise ConfigError(f"context `{fleet.context.name}` names no CA file", "fleetctl context show")
    return ca
