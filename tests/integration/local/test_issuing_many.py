"""Issuing to many devices at once: whole, private, and taken up again wherever it was stopped."""

import signal
import stat
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetctl.agent.identity import Identity
from fleetctl.config import load_context
from fleetctl.errors import Conflict, Partial, UsageError
from fleetctl.model.profile import ProvisioningProfile
from fleetctl.pki.authority import read_certificates, serial_of
from fleetctl.platforms.local.bulk import MARK, BulkIssued, BulkIssuer, listed, numbered
from fleetctl.platforms.local.fleet import LocalFleet
from fleetctl.platforms.local.init import create_context
from fleetctl.wire import bundle
from fleetctl.wire.bundle import BundleConfig, render_yaml
from tests.conftest import Fleetctl

COUNTS = ("added", "issued", "unchanged", "refused")


@pytest.fixture
def fleet() -> Iterator[LocalFleet]:
    create_context("prod", "acme", "mqtts://localhost:1", "alice")
    with LocalFleet(load_context("prod")) as opened:
        yield opened


def into_folder(fleet: LocalFleet, folder: Path, count: int, profile: ProvisioningProfile | None = None) -> BulkIssued:
    issuer = BulkIssuer(fleet, profile)
    for _ in issuer.into_folder(numbered("p-", count, "pump", "oslo"), folder):
        pass
    return issuer.report(folder)


def into_archive(fleet: LocalFleet, path: Path, count: int) -> BulkIssued:
    issuer = BulkIssuer(fleet)
    for _ in issuer.into_archive(numbered("p-", count, "pump", "oslo"), path):
        pass
    return issuer.report(path)


def counts(done: BulkIssued) -> tuple[int, ...]:
    return tuple(getattr(done, name) for name in COUNTS)


def whole(fleet: LocalFleet, folder: Path, count: int) -> None:
    """Each device has one certificate, and a bundle that an agent takes."""
    rows = {row.subject: row.serial for row in fleet.registry.certificates() if row.device_id is not None}
    assert len(rows) == count
    assert len([row for row in fleet.registry.certificates() if row.device_id]) == count
    for number, (name, serial) in enumerate(rows.items()):
        if number % 50 == 0:
            assert Identity.load(folder / name).config.device.device_id == name
        assert serial_of(read_certificates(folder / name / bundle.CERTIFICATE)[0]) == serial


def test_many_bundles_are_private_and_good_for_agents(fleet: LocalFleet, tmp_path: Path) -> None:
    assert counts(into_folder(fleet, tmp_path / "out", 12)) == (12, 12, 0, 0)
    whole(fleet, tmp_path / "out", 12)
    assert min(each.name for each in (tmp_path / "out").iterdir()) == "p-01"
    assert not (tmp_path / "out" / MARK).exists()
    modes = {stat.S_IMODE((tmp_path / "out" / "p-07" / name).stat().st_mode) for name in (bundle.KEY, "")}
    assert modes == {0o600, 0o700}


def test_the_configuration_is_what_yaml_would_write(fleet: LocalFleet, tmp_path: Path) -> None:
    (tmp_path / "ids.csv").write_text("id,type,location\n1e5,0x1F,null\n2026-01-01,no,1.5\n007,true,0b1\n")
    issuer = BulkIssuer(fleet)
    for _ in issuer.into_folder(listed(tmp_path / "ids.csv"), tmp_path / "out"):
        pass
    context = fleet.context
    for name in ("1e5", "2026-01-01", "007"):
        path = fleet.registry.device(name).path
        config = BundleConfig.of(path, context.device_broker, context.artifacts, 60.0, enrol=context.enrol)
        assert (tmp_path / "out" / name / bundle.CONFIG).read_text() == render_yaml(config)


def test_repeating_it_changes_nothing_and_more_adds_only_what_is_new(fleet: LocalFleet, tmp_path: Path) -> None:
    into_folder(fleet, tmp_path / "out", 10)
    assert counts(into_folder(fleet, tmp_path / "out", 10)) == (0, 0, 10, 0)
    assert counts(into_folder(fleet, tmp_path / "out", 12)) == (2, 2, 10, 0)
    whole(fleet, tmp_path / "out", 12)


def test_a_batch_that_was_killed_is_finished_with_one_certificate_each(fleet: LocalFleet, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["certs", "issue", "--count", "700", "--prefix", "p-", "--type", "pump", "--location", "oslo", "--bundle", str(out)]
    process = subprocess.Popen([sys.executable, "-m", "fleetctl", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while not (out / "p-520").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    assert (out / MARK).exists()
    assert not (out / "p-700").exists()

    assert sum(counts(into_folder(fleet, out, 700))[1:3]) == 700

    whole(fleet, out, 700)
    assert not (out / MARK).exists()


def test_an_archive_that_was_stopped_goes_on_after_its_last_whole_page(fleet: LocalFleet, tmp_path: Path) -> None:
    path = tmp_path / "bundles.tar"
    pages = BulkIssuer(fleet).into_archive(numbered("p-", 600, "pump", "oslo"), path)
    assert next(pages) == 500
    pages.close()  # type: ignore[attr-defined]
    partial = path.with_name("bundles.tar.partial")
    assert not path.exists()
    partial.write_bytes(partial.read_bytes() + b"half a page" * 999)

    assert counts(into_archive(fleet, path, 600)) == (100, 100, 500, 0)

    assert not partial.exists()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    listing = subprocess.run(["tar", "-tf", str(path)], capture_output=True, text=True, check=True)
    assert (listing.stderr, len(listing.stdout.splitlines())) == ("", 600 * 7)
    (tmp_path / "unpacked").mkdir()
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    whole(fleet, tmp_path / "unpacked", 600)


def test_an_archive_that_exists_is_not_written_over(fleet: LocalFleet, tmp_path: Path) -> None:
    into_archive(fleet, tmp_path / "bundles.tar", 3)
    with pytest.raises(Conflict):
        into_archive(fleet, tmp_path / "bundles.tar", 3)


def test_what_somebody_keeps_in_a_folder_is_not_replaced(fleet: LocalFleet, tmp_path: Path) -> None:
    (tmp_path / "out" / "p-2").mkdir(parents=True)
    (tmp_path / "out" / "p-2" / "thesis.txt").write_text("mine")
    with pytest.raises(Partial):
        into_folder(fleet, tmp_path / "out", 3)
    assert (tmp_path / "out" / "p-2" / "thesis.txt").read_text() == "mine"
    (tmp_path / "out" / MARK).touch()
    with pytest.raises(Partial, match="p-2"):
        into_folder(fleet, tmp_path / "out", 3)
    assert (tmp_path / "out" / "p-2" / "thesis.txt").read_text() == "mine"


def test_a_profile_gives_days_intervals_and_labels(fleet: LocalFleet, tmp_path: Path) -> None:
    profile = ProvisioningProfile("short", heartbeat=7.0, days=10, ids="p-[0-9]+", labels={"site": "a"})
    fleet.registry.put_profile(profile)
    into_folder(fleet, tmp_path / "out", 2, profile)
    held = Identity.load(tmp_path / "out" / "p-1").config
    assert (held.heartbeat, held.reporting_interval) == (7.0, 60.0)
    span = read_certificates(tmp_path / "out" / "p-1" / bundle.CERTIFICATE)[0]
    assert (span.not_valid_after_utc - span.not_valid_before_utc).days == 10
    device = fleet.registry.device("p-1")
    assert (device.profile, dict(device.labels)) == ("short", {"site": "a"})


def test_lines_that_are_refused_are_named_and_the_others_are_done(fleetctl: Fleetctl, fleet: LocalFleet, tmp_path: Path) -> None:
    rows = "id,type,location,site\ngood-1,pump,oslo,a\nbad id,pump,oslo,\ngood-2,pump,oslo,b\n,pump,oslo,\n"
    (tmp_path / "devices.csv").write_text(rows)
    done = fleetctl("certs", "issue", "--from", str(tmp_path / "devices.csv"), "--bundle", str(tmp_path / "out"), "-o", "jsonl")
    assert done.status == 8
    assert '"line":3' in done.out
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == ["good-1", "good-2"]
    assert fleet.registry.device("good-2").labels == {"site": "b"}


def test_the_report_of_a_batch_has_these_keys(fleetctl: Fleetctl, fleet: LocalFleet, tmp_path: Path) -> None:
    words = ["--count", "2", "--prefix", "p-", "--type", "pump", "--location", "oslo", "--bundle", str(tmp_path / "out")]
    done = fleetctl("certs", "issue", *words, "-o", "json").json()
    assert sorted(done) == ["added", "errors", "issued", "place", "refused", "unchanged"]


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("p-1", "--count", "3"),
        ("--count", "3"),
        ("--count", "3", "--prefix", "p-", "--type", "t", "--location", "l"),
        ("p-1", "--archive", "x.tar"),
        ("--from", "x.csv", "--csr", "y", "--bundle", "z"),
    ],
    ids=" ".join,
)
def test_words_that_do_not_go_together_are_refused(fleetctl: Fleetctl, fleet: LocalFleet, words: tuple[str, ...]) -> None:
    assert fleetctl("certs", "issue", *words).status == 2


def test_a_count_has_an_end(fleet: LocalFleet) -> None:
    with pytest.raises(UsageError):
        next(numbered("p-", 0, "pump", "oslo"))
