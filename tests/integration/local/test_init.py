"""Making a context: everything that a fleet needs, private, whole or not at all."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from cryptography import x509

from fleetctl import config
from fleetctl.errors import ConfigError, Conflict, FleetError, UsageError
from fleetctl.keys.store import load_key, load_public_key
from fleetctl.keys.trust import UnverifiedTrust
from fleetctl.platforms.local.fleet import LocalFleet
from fleetctl.platforms.local.init import create_context
from fleetctl.platforms.local.layout import Layout
from fleetctl.registry import Registry
from fleetctl.tls import client_context, server_context

KEYS = {"device-root", "device-issuing", "fleet-ca", "operator", "broker", "root", "release", "rollout"}


def folder() -> Path:
    return config.home().data


def remains() -> list[str]:
    """What an attempt has left behind, besides locks."""
    if not folder().exists():
        return []
    return sorted(each.name for each in folder().iterdir() if not each.name.endswith(".lock"))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_context_has_all_that_a_fleet_needs() -> None:
    made = create_context("prod", "acme", "mqtts://broker.example.org:9000", "alice")

    context = config.load_context()
    assert (made.name, made.current, made.operator, made.folder) == ("prod", True, "op:alice", str(context.folder))
    assert context.device_broker == made.device_broker == "mqtts://broker.example.org:9000"
    assert context.broker == made.broker == "mqtts://broker.example.org:9001"
    assert context.artifacts == made.artifacts == "https://broker.example.org:9002"
    assert {each.stem for each in context.keys_folder.iterdir()} == KEYS
    with Registry.open(context.registry) as registry:
        assert registry.tenant == "acme"


def test_nothing_secret_can_be_read_by_others() -> None:
    create_context("prod", "acme")
    context = config.load_context()
    assert {mode(each) for each in context.keys_folder.iterdir()} == {0o600}
    assert {mode(each) for each in (context.folder, context.keys_folder, context.pki_folder)} == {0o700}
    assert mode(context.folder / "registry.db") == 0o600
    assert mode(config.home().config) == 0o600


def test_a_loose_umask_opens_nothing() -> None:
    before = os.umask(0)
    try:
        create_context("prod", "acme")
    finally:
        os.umask(before)
    context = config.load_context()
    assert {mode(each) for each in context.keys_folder.iterdir()} == {0o600}
    assert mode(context.folder) == mode(context.keys_folder) == 0o700


def test_the_broker_certificate_holds_every_name_it_is_dialled_by() -> None:
    create_context("prod", "acme", "mqtts://broker.example.org:9000", artifacts="https://files.example.org:443")
    pem = (config.load_context().pki_folder / "broker.pem").read_bytes()
    names = x509.load_pem_x509_certificate(pem).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["broker.example.org", "localhost", "files.example.org"]
    assert [str(each) for each in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]


def test_an_address_of_the_sixth_version_keeps_its_brackets() -> None:
    made = create_context("prod", "acme", "mqtts://[::1]:9000")
    assert (made.device_broker, made.broker, made.artifacts) == ("mqtts://[::1]:9000", "mqtts://[::1]:9001", "https://[::1]:9002")


def test_the_trust_document_is_the_roots_and_names_release_and_rollout_keys() -> None:
    create_context("prod", "acme")
    layout = Layout(config.load_context().folder)
    root = load_public_key(layout.root_key.read_bytes())
    trust = UnverifiedTrust(layout.trust.read_bytes()).verify(root, "acme")
    assert trust.version == 1
    assert [key.role for key in trust.keys] == ["release", "rollout"]
    assert load_key(layout.key("root")).public_key() == root


def test_the_files_serve_tls_as_they_are() -> None:
    create_context("prod", "acme")
    context = config.load_context()
    layout = Layout(context.folder)
    client_context(context.ca, context.cert, context.key)
    broker = layout.public("broker.pem"), layout.key("broker")
    server_context(*broker, layout.device_ca, layout.device_lists)
    server_context(*broker, layout.fleet_ca, layout.fleet_lists)


def test_the_same_again_is_a_conflict_that_changes_nothing() -> None:
    create_context("prod", "acme")
    context = config.load_context()
    before = {each: each.read_bytes() for each in context.folder.rglob("*") if each.is_file()}
    with pytest.raises(Conflict, match="context `prod` exists already") as caught:
        create_context("prod", "acme")
    assert caught.value.hint == "use it: fleetctl context use prod"
    with pytest.raises(Conflict, match="with tenant `acme`") as caught:
        create_context("prod", "other")
    assert caught.value.hint == "choose another name: fleetctl init NAME --tenant other"
    assert before == {each: each.read_bytes() for each in context.folder.rglob("*") if each.is_file()}


def test_a_registry_that_is_gone_is_restored_or_the_folder_removed() -> None:
    create_context("prod", "acme")
    context = config.load_context()
    (context.folder / "registry.db").unlink()
    with pytest.raises(ConfigError, match="no registry at") as caught, LocalFleet(context) as fleet:
        fleet.registry.count_devices()
    assert "backup" in caught.value.hint
    assert f"rm -r {context.folder}" in caught.value.hint
    shutil.rmtree(context.folder)
    create_context("prod", "acme")


def test_keys_that_the_configuration_does_not_name_are_never_written_over() -> None:
    create_context("prod", "acme")
    config.home().config.unlink()
    with pytest.raises(Conflict, match="names no such context"):
        create_context("prod", "acme")
    assert (folder() / "prod" / "keys" / "root.key").exists()


def test_a_second_context_does_not_become_the_current_one() -> None:
    create_context("one", "acme")
    made = create_context("two", "acme", "mqtts://localhost:9883")
    assert not made.current
    assert config.load_context().name == "one"
    assert [each.name for each in config.contexts()] == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "tenant", "broker", "operator"),
    [
        ("a/b", "acme", "mqtts://localhost:8883", None),
        ("..", "acme", "mqtts://localhost:8883", None),
        ("current-context", "acme", "mqtts://localhost:8883", None),
        ("prod", "_fleet", "mqtts://localhost:8883", None),
        ("prod", "a+b", "mqtts://localhost:8883", None),
        ("prod", "", "mqtts://localhost:8883", None),
        ("prod", "acme", "mqtt://localhost:1883", None),
        ("prod", "acme", "mqtts://localhost:65534", None),
        ("prod", "acme", "mqtts://localhost:0", None),
        ("prod", "acme", "http://localhost", None),
        ("prod", "acme", "mqtts://user:secret@localhost", None),
        ("prod", "acme", "mqtts://bad..name:8883", None),
        ("prod", "acme", "mqtts://localhost:8883", "a/b"),
        ("prod", "acme", "mqtts://localhost:8883", "x" * 62),
    ],
)
def test_bad_words_make_nothing(name: str, tenant: str, broker: str, operator: str | None) -> None:
    with pytest.raises((UsageError, ConfigError)) as caught:
        create_context(name, tenant, broker, operator)
    assert caught.value.hint
    assert remains() == []


def test_a_broken_configuration_leaves_no_half_made_context() -> None:
    folder().mkdir(parents=True)
    config.home().config.write_text("contexts: [")
    with pytest.raises(ConfigError):
        create_context("prod", "acme")
    assert remains() == ["config.yaml"]


def test_a_folder_that_cannot_be_made_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FLEETCTL_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(FleetError, match="cannot create"):
        create_context("prod", "acme")


KILLED = """
import os, signal, sys
from fleetctl.platforms.local import init
from fleetctl.platforms.local.founding import make_identities

def die(*words):
    make_identities(*words)
    os.kill(os.getpid(), signal.SIGKILL)

init.make_identities = die
init.create_context("prod", "acme")
"""


def test_a_process_that_is_killed_in_the_middle_leaves_no_context_and_a_repeat_cleans_up() -> None:
    done = subprocess.run([sys.executable, "-c", KILLED], check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert not (folder() / "prod").exists()
    assert not config.home().config.exists()
    assert [mode(folder() / each) for each in remains()] == [0o700]

    create_context("prod", "acme")
    assert remains() == ["config.yaml", "current-context", "prod"]


def test_an_interrupted_init_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(config, "save_context", interrupted)
    with pytest.raises(KeyboardInterrupt):
        create_context("prod", "acme")
    assert remains() == []


def test_two_at_once_make_one_context() -> None:
    script = textwrap.dedent("""
        from fleetctl.errors import Conflict
        from fleetctl.platforms.local.init import create_context
        try:
            create_context("prod", "acme")
        except Conflict:
            raise SystemExit(5)
    """)
    running = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(2)]
    assert sorted(each.wait(60) for each in running) == [0, 5]
    assert remains() == ["config.yaml", "current-context", "prod"]


def test_init_takes_no_longer_than_a_person_waits() -> None:
    start = time.monotonic()
    create_context("prod", "acme")
    assert time.monotonic() - start < 5


def test_a_broken_place_for_folders_is_no_defect(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    create_context("prod", "acme")
    moved = tmp_path / "moved"
    shutil.move(folder(), moved)
    monkeypatch.setenv("FLEETCTL_HOME", str(moved))
    assert config.load_context("prod").ca == moved / "prod" / "pki" / "fleet-ca.pem"
