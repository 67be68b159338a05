"""Files that are damaged, foreign, out of date or somebody else's: named in one line, with nothing half done."""

import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from fleetctl.demo import place
from fleetctl.platforms.local.init import create_context
from tests.e2e.console import Console, files_of

DAY = 86400.0


def damaged(registry: Path) -> None:
    registry.write_bytes(b"this is not a database" * 1000)


def cut_short(registry: Path) -> None:
    registry.write_bytes(registry.read_bytes()[:9000])


def emptied(registry: Path) -> None:
    registry.write_bytes(b"")


def overwritten(registry: Path) -> None:
    data = bytearray(registry.read_bytes())
    data[4096:] = b"\xa5" * (len(data) - 4096)
    registry.write_bytes(data)


def foreign(registry: Path) -> None:
    registry.unlink()
    with closing(sqlite3.connect(registry)) as other:
        other.execute("CREATE TABLE devices (name TEXT)")


def newer(registry: Path) -> None:
    with closing(sqlite3.connect(registry)) as held:
        held.execute("PRAGMA user_version = 4711")


@pytest.mark.parametrize("harm", [damaged, cut_short, emptied, overwritten, foreign, newer])
def test_a_registry_that_cannot_be_used_is_named_and_left_as_it_is(console: Console, harm: object, tmp_path: Path) -> None:
    registry = console.folder / "registry.db"
    assert callable(harm)
    harm(registry)
    before = files_of(console.folder)
    words = ["provision", "add", "pump-2", "--type", "pump", "--location", "oslo", "--bundle", tmp_path / "bundle"]
    for each in (words, ["provision", "list"]):
        error = console.refused(1, str(registry), *each)
        assert ("pip install --upgrade" if harm is newer else "restore a backup") in error["hint"]
    assert files_of(console.folder) == before
    assert not (tmp_path / "bundle").exists()


def test_a_registry_that_is_gone_is_a_matter_of_configuration(console: Console) -> None:
    (console.folder / "registry.db").unlink()
    console.refused(2, str(console.folder / "registry.db"), "provision", "list")
    assert not (console.folder / "registry.db").exists()


def test_a_broken_configuration_is_named(console: Console) -> None:
    file = console.home / "config.yaml"
    for text in ("contexts: [", "[]", "contexts: {default: {tenant: a/b}}", "\x00"):
        file.write_text(text)
        assert console.refused(2, str(file), "context", "list")["code"] == "config"
        assert file.read_text() == text
    (console.home / "current-context").write_text("../../etc")
    assert console.refused(2, str(console.home / "current-context"), "provision", "list")["code"] == "config"


def adopting(*words: object) -> list[object]:
    return ["init", "plant", "--tenant", "acme", "--external", "--broker", "mqtts://localhost:1", *words]


def test_a_ca_that_is_none_makes_no_context(unchanged: Console, tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.pem"
    garbage.write_bytes(b"-----BEGIN CERTIFICATE-----\n\xff\x00\n-----END CERTIFICATE-----\n")
    leaf = unchanged.folder / "pki" / "operator.pem"
    key = unchanged.folder / "keys" / "fleet-ca.key"
    missing = tmp_path / "missing.pem"
    for file, status in ((garbage, 2), (leaf, 2), (key, 2), (missing, 3), (tmp_path, 2)):
        unchanged.refused(status, str(file), *adopting("--ca", file))


def test_a_certificate_without_its_own_key_makes_no_context(unchanged: Console, tmp_path: Path) -> None:
    pki, keys = unchanged.folder / "pki", unchanged.folder / "keys"
    ca, cert = pki / "fleet-ca.pem", pki / "operator.pem"
    other, opened = keys / "broker.key", tmp_path / "opened.key"
    shutil.copy(keys / "operator.key", opened)
    opened.chmod(0o644)
    unchanged.refused(2, str(cert), *adopting("--ca", ca, "--cert", cert, "--key", other))
    unchanged.refused(2, str(ca), *adopting("--ca", ca, "--cert", ca, "--key", keys / "operator.key"))
    unchanged.refused(4, str(opened), *adopting("--ca", ca, "--cert", cert, "--key", opened))


@pytest.fixture(scope="session")
def expired(tmp_path_factory: pytest.TempPathFactory) -> Console:
    """A context that was made thirty years ago."""
    made = Console(tmp_path_factory.mktemp("expired") / "home")
    broker = f"mqtts://localhost:{place.free_ports()}"
    environ = {"FLEETCTL_HOME": str(made.home)}
    create_context("default", "acme", broker, "me", environ=environ, clock=lambda: time.time() - 30 * 365 * DAY)
    return made


def test_an_expired_authority_issues_nothing(expired: Console, tmp_path: Path) -> None:
    before = files_of(expired.folder)
    words = ["provision", "add", "pump-1", "--type", "pump", "--location", "oslo", "--bundle", tmp_path / "bundle"]
    error = expired.refused(2, "", *words)
    assert "date -u" in error["hint"]
    expired.refused(2, "", "certs", "issue", "op:alice", "--bundle", tmp_path / "bundle")
    assert files_of(expired.folder) == before
    assert not (tmp_path / "bundle").exists()
    assert expired.run("provision", "list", "-o", "json").json == []


def test_an_expired_certificate_makes_no_context(expired: Console, unchanged: Console) -> None:
    pki, keys = expired.folder / "pki", expired.folder / "keys"
    unchanged.refused(2, str(pki / "fleet-ca.pem"), *adopting("--ca", pki / "fleet-ca.pem"))
    ours = unchanged.folder / "pki" / "fleet-ca.pem"
    words = adopting("--ca", ours, "--cert", pki / "operator.pem", "--key", keys / "operator.key")
    unchanged.refused(2, str(pki / "operator.pem"), *words)


def test_a_bundle_that_is_not_whole_connects_nowhere(console: Console, tmp_path: Path) -> None:
    bundle = tmp_path / "pump-1"
    assert console.run("provision", "add", "pump-1", "--type", "pump", "--location", "oslo", "--bundle", bundle).status == 0
    other = Console(tmp_path / "other")
    assert other.run("init", "--tenant", "acme").status == 0
    state = tmp_path / "state"
    for name, content, status in (
        ("device.yaml", b"broker: [", 2),
        ("device.key", b"no key", 2),
        ("device.pem", b"no certificate", 2),
        ("ca.pem", b"", 2),
        ("ca.pem", None, 2),
        ("device.pem", (other.folder / "pki" / "operator.pem").read_bytes(), 2),
        ("trust.cose", b"\xd2garbage", 7),
        ("trust.cose", (other.folder / "pki" / "trust.cose").read_bytes(), 7),
        ("root.pub", b"", 2),
        ("root.pub", (other.folder / "pki" / "root.pub").read_bytes(), 7),
    ):
        broken = tmp_path / "broken"
        shutil.copytree(bundle, broken)
        (broken / name).unlink()
        if content is not None:
            (broken / name).write_bytes(content)
            (broken / name).chmod(0o600)
        subject = "" if status == 7 else str(broken) if name == "device.yaml" else str(broken / name)
        console.refused(status, subject, "agent", "run", broken, "--state", state)
        assert not state.exists(), name
        shutil.rmtree(broken)


def test_a_bundle_goes_over_nothing_that_is_there_already(unchanged: Console, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "thesis.txt").write_text("ten years of work")
    file = tmp_path / "file"
    file.write_text("x")
    for folder in (taken, file):
        unchanged.refused(
            5, str(folder), "provision", "add", "pump-7", "--type", "pump", "--location", "oslo", "--bundle", folder
        )
        unchanged.refused(5, str(folder), "certs", "issue", "op:alice", "--bundle", folder)
    assert files_of(taken).keys() == {"thesis.txt"}
    assert file.read_text() == "x"
