"""`broker render`, `check` and `apply` against a mosquitto that is not ours: tried out before, proven after, taken back."""

import datetime as dt
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fleetctl.config import Context, load_context
from fleetctl.demo.place import free_ports
from fleetctl.errors import ConfigError, Conflict, Denied, Findings, FleetError, NotFound, UsageError
from fleetctl.keys.store import private_pem
from fleetctl.mqtt.broker import find_mosquitto
from fleetctl.mqtt.endpoint import Endpoint
from fleetctl.mqtt.session import Session, open_session
from fleetctl.pki.crl import read_held
from fleetctl.platforms.local.applying import Applied, apply
from fleetctl.platforms.local.authorities import registered_list, write_accepted
from fleetctl.platforms.local.brokercheck import check_broker
from fleetctl.platforms.local.fleet import LocalFleet
from fleetctl.platforms.local.init import create_context
from fleetctl.platforms.local.layout import Layout
from fleetctl.platforms.local.lists import write_lists
from fleetctl.platforms.local.reloading import Reload
from fleetctl.platforms.local.rendering import Rendering, render
from fleetctl.registry.authorities import AuthorityRow
from fleetctl.wire import bundle

PATIENCE = 10.0
ME = pwd.getpwuid(os.geteuid()).pw_name
SERVICE = "mosquitto" if os.geteuid() == 0 else ME


@pytest.fixture
def context() -> Context:
    create_context("prod", "acme", f"mqtts://localhost:{free_ports()}", "alice")
    return load_context("prod")


@pytest.fixture
def fleet(context: Context) -> Iterator[LocalFleet]:
    with LocalFleet(context) as opened:
        yield opened


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """One that another user may enter, which pytest's are not."""
    made = Path(tempfile.mkdtemp(prefix="fleetctl-broker-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@dataclass
class Outside:
    """A mosquitto that somebody else runs, from a folder that was rendered."""

    context: Context
    folder: Path
    user: str
    process: "subprocess.Popen[bytes]"

    @property
    def pid_file(self) -> Path:
        return self.folder.parent / "mosquitto.pid"

    @property
    def wanted(self) -> Rendering:
        return Rendering(self.folder, user=self.user, with_key=True)

    def apply(self, fleet: LocalFleet, wanted: Rendering | None = None, reload: Reload | None = None) -> Applied:
        return apply(fleet, wanted or self.wanted, reload or Reload(self.pid_file))

    def contents(self) -> dict[str, tuple[bytes, int]]:
        return {
            path.name: (path.read_bytes(), path.stat().st_mode)
            for path in self.folder.iterdir()
            if path.is_file() and path.suffix != ".lock"
        }


@pytest.fixture
def outside(context: Context, open_folder: Path) -> Iterator[Outside]:
    program = find_mosquitto()
    if program is None:
        pytest.skip("mosquitto is not installed")
    folder = open_folder / "fleetctl"
    render(context, folder, Rendering(folder, user=SERVICE, with_key=True))
    with (open_folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "-c", folder / "mosquitto.conf"], stdout=log, stderr=log)
    made = Outside(context, folder, SERVICE, process)
    made.pid_file.write_text(f"{process.pid}\n")
    try:
        _await(Endpoint.parse_url(context.broker, ca=context.ca, cert=context.cert, key=context.key))
        yield made
    finally:
        process.terminate()
        process.wait()


def _await(endpoint: Endpoint) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with open_session(endpoint, "test"):
                return
        except FleetError:
            assert time.monotonic() < deadline, "it did not start"
            time.sleep(0.05)


@pytest.fixture
def new_device(fleet: LocalFleet, tmp_path: Path) -> Callable[[str], Endpoint]:
    def make(device_id: str) -> Endpoint:
        folder = tmp_path / device_id
        fleet.devices.add(device_id, device_type="pump", location="oslo", labels={}, bundle=folder)
        ca, cert, key = (folder / name for name in (bundle.AUTHORITY, bundle.CERTIFICATE, bundle.KEY))
        return Endpoint.parse_url(fleet.context.device_broker, ca=ca, cert=cert, key=key)

    return make


def connect(endpoint: Endpoint, name: str) -> Session:
    return open_session(endpoint, "device", client_id=name, timeout=PATIENCE)


def outcomes(applied: Applied) -> list[tuple[str, str]]:
    return [(each.step, each.outcome) for each in applied.steps]


def record_of(error: FleetError) -> Applied:
    assert isinstance(error.record, list)
    (applied,) = error.record
    assert isinstance(applied, Applied)
    return applied


# -- render


def test_rendering_twice_is_the_same_to_the_byte(context: Context, tmp_path: Path) -> None:
    wanted = Rendering(Path("/etc/mosquitto/fleetctl"), "0.0.0.0", with_key=True)  # noqa: S104
    one, other = tmp_path / "one", tmp_path / "other"
    assert {each.outcome for each in render(context, one, wanted)} == {"rendered"}
    assert {each.outcome for each in render(context, one, wanted)} == {"unchanged"}
    render(context, other, wanted)
    names = sorted(path.name for path in one.iterdir())
    assert names == [
        "broker.key",
        "broker.pem",
        "device-ca.pem",
        "device.acl",
        "device.crl.pem",
        "fleet.acl",
        "fleet.crl.pem",
        "mosquitto.conf",
        "people-ca.pem",
    ]
    assert all((one / name).read_bytes() == (other / name).read_bytes() for name in names)
    modes = {name: stat.S_IMODE((one / name).stat().st_mode) for name in names}
    assert {name for name, mode in modes.items() if mode != 0o644} == {"broker.key"}
    assert modes["broker.key"] == 0o600


def test_paths_are_those_of_the_brokers_host_and_the_key_stays_here(context: Context, tmp_path: Path) -> None:
    made = render(context, tmp_path / "out", Rendering(Path("/etc/mosquitto/fleetctl"), key=Path("/etc/ssl/private/b.key")))
    text = (tmp_path / "out" / "mosquitto.conf").read_text()
    assert "broker.key" not in {each.name for each in made}
    assert "keyfile /etc/ssl/private/b.key\n" in text
    assert "acl_file /etc/mosquitto/fleetctl/device.acl\n" in text
    assert "user mosquitto\n" in text
    assert str(tmp_path) not in text
    assert str(context.folder) not in text


def test_what_would_not_make_sense_is_refused() -> None:
    with pytest.raises(UsageError, match="not a whole path"):
        Rendering(Path("etc"))
    with pytest.raises(UsageError, match="either copied or somewhere"):
        Rendering(Path("/etc"), key=Path("/k"), with_key=True)
    with pytest.raises(UsageError, match="say how"):
        Reload()


# -- apply


def test_a_revocation_is_brought_to_a_broker_elsewhere_and_proven(
    outside: Outside, fleet: LocalFleet, new_device: Callable[[str], Endpoint]
) -> None:
    bad, good = new_device("p-1"), new_device("p-2")
    first = outside.apply(fleet)
    assert (first.outcome, first.changed, first.restart_needed) == ("applied", ("device.crl.pem",), False)
    connect(bad, "p-1").close()
    fleet.certificates.revoke("p-1")
    applied = outside.apply(fleet)
    assert applied.outcome == "applied"
    steps = ["check", "try", "swap", "reload", "prove"]
    assert outcomes(applied) == [(name, "done") for name in steps]
    with pytest.raises(Denied, match="revoked"):
        connect(bad, "p-1").close()
    connect(good, "p-2").close()
    assert (outside.folder / "device.crl.pem.prev").exists()
    assert outside.apply(fleet).outcome == "unchanged"


def test_a_new_certificate_of_the_broker_is_shown_after_it(outside: Outside, fleet: LocalFleet) -> None:
    _renew_broker(fleet)
    applied = outside.apply(fleet)
    assert {"broker.key", "broker.pem"} <= set(applied.changed)
    assert [each.code for each in check_broker(fleet, outside.folder, live=True)] == []


def _renew_broker(fleet: LocalFleet, days: int = 30) -> None:
    """A certificate that begins and ends as told, by the services' authority."""
    layout = Layout(fleet.context.folder)
    authority = layout.authority("fleet-ca")
    key, now = ec.generate_private_key(ec.SECP256R1()), dt.datetime.now(dt.UTC)
    old = x509.load_pem_x509_certificate(layout.public("broker.pem").read_bytes())
    builder = x509.CertificateBuilder(
        authority.certificate.subject,
        old.subject,
        key.public_key(),
        x509.random_serial_number(),
        now - dt.timedelta(days=60),
        now + dt.timedelta(days=days, hours=1),
        list(old.extensions)[:4],
    )
    signing = authority.key
    assert isinstance(signing, ec.EllipticCurvePrivateKey)
    made = builder.sign(signing, hashes.SHA256())
    layout.key("broker").write_bytes(private_pem(key))
    layout.public("broker.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))


def break_key_mode(outside: Outside, fleet: LocalFleet) -> None:
    """Root's own, as `cp` leaves it, or nobody's."""
    key = outside.folder / "broker.key"
    os.chown(key, os.geteuid(), os.getegid())
    key.chmod(0o600 if os.geteuid() == 0 else 0)


def break_key(outside: Outside, fleet: LocalFleet) -> None:
    key = private_pem(ec.generate_private_key(ec.SECP256R1()))
    Layout(fleet.context.folder).key("broker").write_bytes(key)


def break_certificate(outside: Outside, fleet: LocalFleet) -> None:
    _renew_broker(fleet, days=-2)


def break_list(outside: Outside, fleet: LocalFleet) -> None:
    """The services' authority has a list that ended; that of devices is made anew for the canary."""
    layout = Layout(fleet.context.folder)
    authority, now = layout.authority("fleet-ca"), dt.datetime.now(dt.UTC)
    begins, ends = now - dt.timedelta(days=9), now - dt.timedelta(days=1)
    signing = authority.key
    assert isinstance(signing, ec.EllipticCurvePrivateKey)
    made = x509.CertificateRevocationListBuilder(authority.certificate.subject, begins, ends).sign(signing, hashes.SHA256())
    layout.fleet_lists.write_bytes(made.public_bytes(serialization.Encoding.PEM))


@pytest.mark.parametrize(
    ("harm", "code"),
    [
        (break_key_mode, "key_unreadable"),
        (break_key, "key_mismatch"),
        (break_certificate, "certificate_expired"),
        (break_list, "crl_expired"),
    ],
)
def test_files_that_would_lock_everybody_out_are_refused_and_nothing_is_touched(
    outside: Outside,
    fleet: LocalFleet,
    new_device: Callable[[str], Endpoint],
    harm: Callable[[Outside, LocalFleet], None],
    code: str,
) -> None:
    device = new_device("p-1")
    harm(outside, fleet)
    before = outside.contents()
    with connect(device, "p-1") as live:
        with pytest.raises(Findings, match="nothing was touched") as caught:
            outside.apply(fleet, Rendering(outside.folder, user=SERVICE, with_key=harm is not break_key_mode))
        applied = record_of(caught.value)
        assert applied.outcome == "refused"
        assert code in {each.detail.partition(":")[0] for each in applied.steps if each.outcome == "failed"}
        assert outside.contents() == before
        live.publish("acme/oslo/pump/p-1/status", b"{}")
        live.flush()
    connect(device, "p-1").close()
    assert not [path for path in outside.folder.iterdir() if path.name.startswith(".staged")]


def spoiling(outside: Outside, times: int) -> Reload:
    """A reload that spoils the key on its way, so many times: what no check before it can see."""
    script, count = outside.folder.parent / "reload.sh", outside.folder.parent / "count"
    script.write_text(
        f'echo x >> "{count}"; if [ $(wc -l < "{count}") -le {times} ]; then'
        f' cp "{outside.folder}/broker.pem" "{outside.folder}/broker.key"; fi; kill -HUP {outside.process.pid}\n'
    )
    return Reload(command=f"sh {script}", seconds=0.5)


def test_a_reload_that_goes_wrong_is_rolled_back_and_clients_keep_connecting(
    outside: Outside, fleet: LocalFleet, new_device: Callable[[str], Endpoint]
) -> None:
    device = new_device("p-1")
    outside.apply(fleet)
    good = {name: data for name, data in outside.contents().items() if not name.endswith(".prev")}
    _renew_broker(fleet)
    with connect(device, "p-1") as live:
        with pytest.raises(FleetError, match="those from before are in force again") as caught:
            outside.apply(fleet, reload=spoiling(outside, 1))
        applied = record_of(caught.value)
        assert applied.outcome == "rolledBack"
        assert [each for each in dict.fromkeys(outcomes(applied)) if each[0] != "check"] == [
            ("try", "done"),
            ("swap", "done"),
            ("reload", "done"),
            ("prove", "failed"),
            ("rollBack", "done"),
            ("prove", "done"),
        ]
        live.publish("acme/oslo/pump/p-1/status", b"{}")
        live.flush()
    now = outside.contents()
    assert {name: now[name] for name in good} == good
    connect(device, "p-1").close()
    assert outside.apply(fleet).outcome == "applied"


def test_a_broker_that_is_not_well_with_the_old_files_either_is_told_of(outside: Outside, fleet: LocalFleet) -> None:
    _renew_broker(fleet)
    with pytest.raises(FleetError, match="is not well with those from before either") as caught:
        outside.apply(fleet, reload=spoiling(outside, 2))
    assert record_of(caught.value).outcome == "broken"


def test_a_reload_that_cannot_be_sent_takes_the_files_back(outside: Outside, fleet: LocalFleet) -> None:
    before = outside.contents()
    with pytest.raises(FleetError) as caught:
        outside.apply(fleet, reload=Reload(command="false"))
    assert ("reload", "failed") in outcomes(record_of(caught.value))
    assert outside.contents() == before


def test_only_a_mosquitto_is_sent_a_signal(outside: Outside, fleet: LocalFleet) -> None:
    other = subprocess.Popen(["sleep", "60"])
    before = outside.contents()
    try:
        outside.pid_file.write_text(str(other.pid))
        with pytest.raises(Conflict, match="is `sleep`, no mosquitto"):
            outside.apply(fleet)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
    with pytest.raises(NotFound, match="does not run"):
        outside.apply(fleet)
    outside.pid_file.write_text("1; rm")
    with pytest.raises(ConfigError, match="holds no process id"):
        outside.apply(fleet)
    assert outside.contents() == before


def test_a_folder_that_was_never_rendered_is_no_brokers(fleet: LocalFleet, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no `.*mosquitto\.conf`") as caught:
        apply(fleet, Rendering(tmp_path), Reload(command="true"))
    assert "broker render" in caught.value.hint


def test_an_authority_comes_and_goes_through_apply(
    outside: Outside, fleet: LocalFleet, new_device: Callable[[str], Endpoint], tmp_path: Path
) -> None:
    """The list that goes with each listener is what makes mosquitto read authorities again."""
    device, layout, other = new_device("p-1"), Layout(fleet.context.folder), OtherAuthority()
    stranger = other.device(device, tmp_path, "p-9")
    outside.apply(fleet)
    with pytest.raises(Denied):
        connect(stranger, "p-9").close()
    fleet.registry.add_authority(
        AuthorityRow("other-ca", "registered", "issuing", "active", None, other.pem.decode(), "2026-01-01T00:00:00Z")
    )
    write_accepted(fleet.registry, layout, "devices")
    with pytest.raises(Findings, match="there is no list of `other-ca`"):
        outside.apply(fleet)
    registered_list(layout, other.certificate).write_bytes(other.crl)
    write_lists(fleet.registry, layout, "device-issuing", fleet.clock())
    assert {"device-ca.pem", "device.crl.pem"} <= set(outside.apply(fleet).changed)
    connect(stranger, "p-9").close()
    connect(device, "p-1").close()
    fleet.registry.set_authority("other-ca", "retired")
    write_accepted(fleet.registry, layout, "devices")
    assert "device-ca.pem" in outside.apply(fleet).changed
    with pytest.raises(Denied):
        connect(stranger, "p-9").close()
    connect(device, "p-1").close()


class OtherAuthority:
    """Somebody else's."""

    def __init__(self, name: str = "other-ca") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name.from_rfc4514_string(f"CN={name}")
        self._begins = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
        self._ends = self._begins + dt.timedelta(days=2)
        self.certificate = self._sign(self._name, self._key, ca=True)
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def crl(self) -> bytes:
        made = x509.CertificateRevocationListBuilder(self._name, self._begins, self._ends).add_extension(x509.CRLNumber(1), False)
        return made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def device(self, like: Endpoint, folder: Path, name: str) -> Endpoint:
        key = ec.generate_private_key(ec.SECP256R1())
        cert, secret = folder / f"{name}.pem", folder / f"{name}.key"
        cert.write_bytes(self._sign(x509.Name.from_rfc4514_string(f"CN={name}"), key).public_bytes(serialization.Encoding.PEM))
        secret.write_bytes(private_pem(key))
        return Endpoint(like.host, like.port, ca=like.ca, cert=cert, key=secret)

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, ca: bool = False) -> x509.Certificate:
        serial = x509.random_serial_number()
        return (
            x509.CertificateBuilder(self._name, subject, key.public_key(), serial, self._begins, self._ends)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )


def test_a_listener_that_comes_needs_a_restart_and_says_so(outside: Outside, fleet: LocalFleet) -> None:
    layout, claims = Layout(fleet.context.folder), OtherAuthority("claim-ca")
    layout.claim_ca.write_bytes(claims.pem)
    layout.claim_lists.write_bytes(claims.crl)
    applied = outside.apply(fleet)
    assert (applied.outcome, applied.restart_needed) == ("applied", True)
    assert {"claim-ca.pem", "claim.crl.pem", "claims.acl", "mosquitto.conf"} <= set(applied.changed)


# -- check


def codes(fleet: LocalFleet, path: Path | None = None, *, live: bool = False) -> list[str]:
    return [each.code for each in check_broker(fleet, path, live=live)]


def test_what_is_rendered_is_clean_and_so_is_the_broker_that_runs_with_it(outside: Outside, fleet: LocalFleet) -> None:
    assert codes(fleet, outside.folder, live=True) == []


def test_a_running_broker_with_older_files_is_told_apart(outside: Outside, fleet: LocalFleet) -> None:
    _renew_broker(fleet)
    render(fleet.context, outside.folder, outside.wanted)
    assert codes(fleet, outside.folder, live=True) == ["certificate_stale", "certificate_stale"]
    outside.process.terminate()
    outside.process.wait()
    assert codes(fleet, outside.folder, live=True) == ["no_handshake", "no_handshake", "operator_refused"]


EDITS = [
    ("max_inflight_messages 100", "max_connections 10", "option_above_listener"),
    ("allow_anonymous false", "allow_anonymous true", "anonymous"),
    ("tls_version tlsv1.3\n", "", "tls_version"),
    ("tls_version tlsv1.3", "tls_version tlsv1.2", "tls_version"),
    ("require_certificate true", "require_certificate false", "certificate_optional"),
    ("use_identity_as_username true", "use_subject_as_username true", "subject_as_username"),
    ("use_identity_as_username true\n", "", "no_identity"),
    ("use_username_as_clientid true\n", "", "client_id_free"),
    ("per_listener_settings true\n", "", "rules_shared"),
    ("people-ca.pem", "device-ca.pem", "shared_authority"),
    ("fleet.acl", "absent.acl", "file_missing"),
    ("allow_anonymous false", "allow_anonymous false\nlistener 2000", "plain_listener"),
]


@pytest.mark.parametrize(("old", "new", "code"), EDITS, ids=[f"{code}-{number}" for number, (*_, code) in enumerate(EDITS)])
def test_a_trap_in_the_configuration_is_called_by_its_name(
    context: Context, fleet: LocalFleet, tmp_path: Path, old: str, new: str, code: str
) -> None:
    render(context, tmp_path / "out", Rendering(tmp_path / "out", user=ME, with_key=True))
    path = tmp_path / "out" / "mosquitto.conf"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    assert code in codes(fleet, tmp_path / "out")
    assert code in codes(fleet, path)


def test_without_a_list_nothing_that_a_reload_promises_is_kept(context: Context, fleet: LocalFleet, tmp_path: Path) -> None:
    render(context, tmp_path / "out", Rendering(tmp_path / "out", user=ME, with_key=True))
    path = tmp_path / "out" / "mosquitto.conf"
    path.write_text("\n".join(line for line in path.read_text().splitlines() if not line.startswith("crlfile")))
    assert codes(fleet, path) == ["ca_changes_ignored", "no_crlfile", "tickets_survive"] * 2


def test_what_the_dynamic_security_plugin_cannot_do_is_told(fleet: LocalFleet, tmp_path: Path) -> None:
    path = tmp_path / "mosquitto.conf"
    path.write_text("listener 2000\nplugin /usr/lib/x86_64-linux-gnu/mosquitto_dynamic_security.so\n")
    assert codes(fleet, path) == ["dynsec_without_acl", "plain_listener"]
    path.write_text("# nothing\n")
    assert codes(fleet, path) == ["no_listener"]


def test_an_included_folder_is_read_too(fleet: LocalFleet, tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "a.conf").write_text("listener 2000\nallow_anonymous true\n")
    (tmp_path / "mosquitto.conf").write_text(f"include_dir {tmp_path}/conf.d\n")
    assert codes(fleet, tmp_path / "mosquitto.conf") == ["anonymous", "no_acl", "plain_listener"]


def test_files_are_judged_with_the_eyes_of_the_brokers_user(context: Context, fleet: LocalFleet, open_folder: Path) -> None:
    folder = open_folder / "out"
    render(context, folder, Rendering(folder, user=SERVICE, with_key=True))
    assert codes(fleet, folder) == []
    (folder / "broker.key").chmod(0)
    assert codes(fleet, folder) == ["key_unreadable"] * 2
    (folder / "broker.key").chmod(0o644)
    assert codes(fleet, folder) == ["key_exposed"] * 2
    (folder / "broker.key").chmod(0o600)
    open_folder.chmod(0o700 if os.geteuid() == 0 else 0o600)
    if os.geteuid() == 0:
        assert {"key_unreadable", "file_unreadable"} == set(codes(fleet, folder))
    open_folder.chmod(0o755)


def test_lists_are_watched(context: Context, fleet: LocalFleet, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    render(context, folder, Rendering(folder, user=ME, with_key=True))
    now = fleet.clock()
    life = max(held.next_update for held in read_held(folder / "fleet.crl.pem").values()) - now
    late = LocalFleet(context, clock=lambda: now + life * 0.6)
    past = LocalFleet(context, clock=lambda: now + life + 60)
    with late, past:
        assert "crl_past_half_life" in codes(late, folder)
        assert "crl_expired" in codes(past, folder)
    (folder / "fleet.crl.pem").write_bytes((folder / "device.crl.pem").read_bytes())
    assert codes(fleet, folder) == ["crl_missing"]
    (folder / "fleet.crl.pem").write_text("damaged")
    assert codes(fleet, folder) == ["file_damaged"]


def test_a_broker_certificate_for_another_name_is_told(context: Context, fleet: LocalFleet, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    render(context, folder, Rendering(folder, user=ME, with_key=True))
    with LocalFleet(replace(context, device_broker="mqtts://broker.example.org:8883")) as moved:
        (found,) = check_broker(moved, folder, live=False)
    assert found.code == "certificate_wrong_host"
    assert "`broker.example.org`" in found.detail
    assert "`localhost`" in found.detail


def test_a_context_without_a_broker_has_nothing_to_check(fleet: LocalFleet) -> None:
    with pytest.raises(NotFound, match="no configuration of a broker") as caught:
        check_broker(fleet, None, live=False)
    assert caught.value.hint == "fleetctl broker run"
