"""Devices made in numbers: sealed for their receiver, counted, and made once whatever interrupts it."""

import hashlib
import io
import json
import os
import signal
import stat
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificates

from fleetctl.agent.identity import Identity
from fleetctl.config import load_context
from fleetctl.errors import Conflict, FleetError, UsageError
from fleetctl.model.batch import Batch
from fleetctl.model.device import LifeCycle
from fleetctl.model.profile import parse
from fleetctl.platforms.importing import Intake
from fleetctl.platforms.local import batches, sealing
from fleetctl.platforms.local.fleet import LocalFleet
from fleetctl.platforms.local.init import create_context
from fleetctl.platforms.local.journal import Journal, Pending
from fleetctl.platforms.local.manufacture import Manufactured, Order, hidden, manufacture

if TYPE_CHECKING:
    from fleetctl.registry import Registry

DIGEST = "sha256:" + "ab" * 32
PASSPHRASE = "correct horse battery"
GUIDE = Path(__file__).parents[3] / "docs/guides/factory.md"


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalFleet]:
    monkeypatch.setenv("WORDS", PASSPHRASE)
    create_context("prod", "acme", "mqtts://localhost:1", "alice")
    with LocalFleet(load_context("prod")) as opened:
        yield opened


def batch(fleet: LocalFleet, serials: str, quota: int | None = None) -> None:
    profile = parse("line-1", {"type": "pump", "location": "oslo", "heartbeat": 30, "reportingInterval": 5, "days": 90})
    fleet.registry.put_profile(profile)
    batches.create(fleet, Batch("w", "line-1", quota=quota))
    batches.import_serials(fleet, "w", [serials], Intake(fleet.registry.transaction))


def make(fleet: LocalFleet, out: Path, **more: Any) -> Manufactured:
    return manufacture(fleet, Order("w", out, DIGEST, sealing.with_passphrase("env:WORDS"), **more))


def opened(archive: Path) -> dict[str, bytes]:
    """The files of a sealed archive, opened as docs/guides/factory.md says."""
    data = archive.read_bytes()
    magic, rest = data[:20], data[20:]
    assert magic == b"fleetctl-handover-1\n"
    log_n, r, p = rest[:3]
    salt, nonce, sealed = rest[3:19], rest[19:31], rest[31:]
    key = hashlib.scrypt(PASSPHRASE.encode(), salt=salt, n=1 << log_n, r=r, p=p, maxmem=1 << 27, dklen=32)
    return unpacked(AESGCM(key).decrypt(nonce, sealed, data[:51]))


def unpacked(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        streams = {member.name: archive.extractfile(member) for member in archive}
        return {name: stream.read() for name, stream in streams.items() if stream}


def good_certificates(registry: "Registry") -> Counter[str]:
    return Counter(row.device_id or "" for row in registry.certificates() if row.device_id and row.revoked_at is None)


def test_a_bundle_of_the_factory_is_good_for_an_agent(fleet: LocalFleet, tmp_path: Path) -> None:
    batch(fleet, "SN1..SN3")

    done = make(fleet, tmp_path / "out", count=2)

    assert done == Manufactured("w", 2, 1, DIGEST, str(tmp_path / "out"), ("w-0001",))
    contents = opened(tmp_path / "out" / "w-0001" / "bundles.tar.sealed")
    assert {name.split("/")[0] for name in contents} == {"SN1", "SN2"}
    folder = tmp_path / "SN1"
    folder.mkdir(mode=0o700)
    for name, data in contents.items():
        if name.startswith("SN1/"):
            (tmp_path / name).write_bytes(data)
            (tmp_path / name).chmod(0o600)
    config = Identity.load(folder).config
    assert (str(config.device), config.heartbeat, config.reporting_interval) == ("acme/oslo/pump/SN1", 30.0, 5.0)
    leaf = load_pem_x509_certificates(contents["SN1/device.pem"])[0]
    assert (leaf.not_valid_after_utc - leaf.not_valid_before_utc).days == 90
    status = fleet.devices.status("SN1")
    assert (status.state, status.timeline[-1].event, status.serial) == ("claimed", "manufactured", "SN1")
    assert DIGEST in str(status.timeline[-1].reason)


def test_the_program_of_the_guide_opens_a_sealed_archive(fleet: LocalFleet, tmp_path: Path) -> None:
    batch(fleet, "SN1")
    make(fleet, tmp_path / "out")
    (tmp_path / "words").write_text(PASSPHRASE + "\n")
    program = GUIDE.read_text().partition("```python\n")[2].partition("```")[0]
    archive = tmp_path / "out" / "w-0001" / "bundles.tar.sealed"
    words = [sys.executable, "-c", program, str(archive), str(tmp_path / "words")]
    done = subprocess.run(words, check=True, capture_output=True)
    assert unpacked(done.stdout) == opened(archive)


def test_no_key_of_a_device_lies_open_on_the_disk(fleet: LocalFleet, tmp_path: Path) -> None:
    batch(fleet, "SN1..SN3")
    make(fleet, tmp_path / "out")

    part = tmp_path / "out" / "w-0001"
    assert sorted(path.name for path in part.iterdir()) == ["bundles.tar.sealed", "labels.csv", "manifest.json"]
    assert stat.S_IMODE(part.stat().st_mode) == 0o700
    for path in (
        *part.iterdir(),
        *(each for each in (fleet.context.folder).rglob("*") if each.is_file() and "keys" not in each.parts),
    ):
        assert b"PRIVATE KEY" not in path.read_bytes(), path
    manifest = json.loads((part / "manifest.json").read_text())
    assert set(manifest) == {"batch", "name", "archive", "digest", "firmware", "createdAt", "actor", "devices"}
    assert set(manifest["devices"][0]) == {"serial", "id", "path", "certificate", "fingerprint", "notAfter"}
    sealed = (part / manifest["archive"]).read_bytes()
    assert manifest["digest"] == "sha256:" + hashlib.sha256(sealed).hexdigest()
    header, first, *_ = (part / "labels.csv").read_text().splitlines()
    assert header == "serial,id,type,fingerprint,enrolment"
    seal = manifest["devices"][0]["fingerprint"]
    assert first == f"SN1,SN1,pump,{seal},urn:fleetctl:acme/oslo/pump/SN1#{seal}"


def test_openssl_opens_what_is_sealed_for_a_certificate(fleet: LocalFleet, tmp_path: Path) -> None:
    batch(fleet, "SN1..SN2")
    key, cert = tmp_path / "factory.key", tmp_path / "factory.pem"
    words = ["-newkey", "rsa:2048", "-noenc", "-keyout", str(key), "-out", str(cert), "-subj", "/CN=factory"]
    subprocess.run(["openssl", "req", "-x509", *words], check=True, capture_output=True)

    manufacture(fleet, Order("w", tmp_path / "out", DIGEST, sealing.for_receiver(cert, time.time())))

    archive = tmp_path / "out" / "w-0001" / "bundles.tar.p7m"
    words = ["-inform", "DER", "-in", str(archive), "-recip", str(cert), "-inkey", str(key)]
    done = subprocess.run(["openssl", "cms", "-decrypt", *words], check=True, capture_output=True)
    contents = unpacked(done.stdout)
    for name in ("SN1", "SN2"):
        leaf = load_pem_x509_certificates(contents[f"{name}/device.pem"])[0]
        assert load_pem_private_key(contents[f"{name}/device.key"], None).public_key() == leaf.public_key()


def test_who_cannot_receive_is_told_before_anything_is_made(
    fleet: LocalFleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cert = tmp_path / "ec.pem"
    words = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-keyout", str(tmp_path / "k"), "-out", str(cert)]
    subprocess.run(["openssl", "req", "-x509", *words, "-subj", "/CN=factory"], check=True, capture_output=True)
    with pytest.raises(UsageError, match="no RSA key"):
        sealing.for_receiver(cert, time.time())
    monkeypatch.setenv("WORDS", "short")
    with pytest.raises(UsageError, match="shorter than") as caught:
        sealing.with_passphrase("env:WORDS")
    assert "short`" not in caught.value.message


def test_a_wrong_bit_in_a_sealed_archive_is_noticed(fleet: LocalFleet, tmp_path: Path) -> None:
    batch(fleet, "SN1")
    make(fleet, tmp_path / "out")
    archive = tmp_path / "out" / "w-0001" / "bundles.tar.sealed"
    data = bytearray(archive.read_bytes())
    data[-30] ^= 1
    archive.write_bytes(data)
    with pytest.raises(InvalidTag):
        opened(archive)


def test_quota_and_window_hold_in_the_factory_too(fleet: LocalFleet, tmp_path: Path) -> None:
    batch(fleet, "SN1..SN5", quota=3)
    assert (make(fleet, tmp_path / "out", size=2).made, fleet.registry.batch_used("w")) == (3, 3)
    with pytest.raises(Conflict, match="is full: 3 of 3"):
        make(fleet, tmp_path / "out")
    fleet.registry.close_batch("w", "2026-01-01T00:00:00.000Z")
    with pytest.raises(Conflict, match="is closed"):
        make(fleet, tmp_path / "out")
    assert not list((tmp_path / "out").glob(".*"))


def test_making_again_makes_nothing(fleet: LocalFleet, tmp_path: Path) -> None:
    batch(fleet, "SN1..SN4")
    make(fleet, tmp_path / "out", size=3)
    again = make(fleet, tmp_path / "other")
    assert (again.made, again.left, again.archives) == (0, 0, ())
    assert set(good_certificates(fleet.registry).values()) == {1}


def test_an_archive_that_was_not_named_yet_is_named_by_the_next_run(fleet: LocalFleet, tmp_path: Path) -> None:
    batch(fleet, "SN1..SN4")
    out = tmp_path / "out"
    make(fleet, out, count=2)
    serial = fleet.registry.certificates("SN1")[0].serial
    (out / "w-0001").rename(out / hidden("w-0001"))
    Journal(fleet.context.folder / "manufacture", "w").write(1, Pending(out, "w-0001", serial))

    done = make(fleet, tmp_path / "elsewhere", count=2)

    assert done.archives == ("w-0001", "w-0002")
    assert (out / "w-0001" / "manifest.json").exists()
    assert set(good_certificates(fleet.registry).values()) == {1}


def test_an_archive_that_cannot_be_reached_is_not_forgotten(fleet: LocalFleet, tmp_path: Path) -> None:
    batch(fleet, "SN1..SN4")
    out = tmp_path / "stick"
    make(fleet, out, count=2)
    serial = fleet.registry.certificates("SN1")[0].serial
    (out / "w-0001").rename(out / hidden("w-0001"))
    Journal(fleet.context.folder / "manufacture", "w").write(1, Pending(out, "w-0001", serial))
    out.rename(tmp_path / "away")

    for _ in range(2):
        with pytest.raises(FleetError, match="are made, but it is not in"):
            make(fleet, tmp_path / "elsewhere")
    (tmp_path / "away").rename(out)
    assert make(fleet, tmp_path / "elsewhere").archives == ("w-0001", "w-0002")


def test_what_was_not_made_yet_is_thrown_away(fleet: LocalFleet, tmp_path: Path) -> None:
    batch(fleet, "SN1..SN2")
    out = tmp_path / "out"
    (out / hidden("w-0001")).mkdir(parents=True)
    Journal(fleet.context.folder / "manufacture", "w")
    (fleet.context.folder / "manufacture").mkdir()
    Journal(fleet.context.folder / "manufacture", "w").write(1, Pending(out, "w-0001", "0" * 40))

    assert make(fleet, tmp_path / "elsewhere").made == 2
    assert not list(out.iterdir())


def test_a_full_disk_makes_no_device(fleet: LocalFleet, tmp_path: Path) -> None:
    batch(fleet, "SN1..SN2")
    out = tmp_path / "out"
    out.mkdir()
    (out / hidden("w-0001")).write_text("in the way")
    with pytest.raises(FleetError, match="cannot write"):
        make(fleet, out)
    assert not good_certificates(fleet.registry)
    assert {record.device.state for record in fleet.registry.records()} == {LifeCycle.MANUFACTURED}


DEVICES = 120
MOMENTS: list[Callable[["_New", Path], bool]] = [
    lambda out, journal: journal.exists() and b'"pending":{' in journal.read_bytes(),
    lambda out, journal: any(out.glob(".w-*.pending")),
    lambda out, journal: any(out.glob(".w-*.pending/manifest.json")),
    lambda out, journal: any(out.glob("w-*")),
    lambda out, journal: len(list(out.glob("w-*"))) > 1 and any(out.glob(".w-*.pending/labels.csv")),
]


def test_kill_9_at_any_moment_makes_no_device_twice(fleet: LocalFleet, tmp_path: Path) -> None:
    batch(fleet, f"SN001..SN{DEVICES:03d}")
    out, journal = tmp_path / "out", fleet.context.folder / "manufacture" / "w.json"
    out.mkdir()
    killed = 0
    for moment in MOMENTS:
        seen = {path.name for path in out.iterdir()}
        killed += _killed(out, partial(moment, _New(out, seen), journal))
        assert max(good_certificates(fleet.registry).values(), default=1) == 1
    assert killed >= 3

    done = make(fleet, out, size=7)

    assert done.left == 0
    assert good_certificates(fleet.registry) == Counter({f"SN{number:03d}": 1 for number in range(1, DEVICES + 1)})
    assert not list(out.glob(".*"))
    _check_archives(fleet, out)


class _New:
    """A folder without what was in it before."""

    def __init__(self, folder: Path, seen: set[str]) -> None:
        self._folder, self._seen = folder, seen

    def glob(self, pattern: str) -> list[Path]:
        found = self._folder.glob(pattern)
        return [path for path in found if path.relative_to(self._folder).parts[0] not in self._seen]


def _killed(out: Path, is_time: Callable[[], bool]) -> bool:
    """Run the program and kill it at that moment; False where it ended first."""
    words = [
        "provision",
        "manufacture",
        "w",
        "--out",
        str(out),
        "--digest",
        DIGEST,
        "--passphrase-ref",
        "env:WORDS",
        "--size",
        "7",
    ]
    command = [sys.executable, "-m", "fleetctl", *words]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ)) as running:
        while running.poll() is None:
            if is_time():
                running.send_signal(signal.SIGKILL)
                break
            time.sleep(0.0005)
        return running.wait(30) == -signal.SIGKILL


def _check_archives(fleet: LocalFleet, out: Path) -> None:
    """Each device is in one archive, with the key of the certificate that the registry knows."""
    held = {row.serial: row for row in fleet.registry.certificates() if row.device_id}
    seen: Counter[str] = Counter()
    for part in sorted(out.glob("w-*")):
        contents = opened(part / "bundles.tar.sealed")
        manifest = json.loads((part / "manifest.json").read_text())
        for each in manifest["devices"]:
            seen[each["id"]] += 1
            assert contents[f"{each['id']}/device.pem"].decode().startswith(held[each["certificate"]].pem)
            leaf = load_pem_x509_certificates(contents[f"{each['id']}/device.pem"])[0]
            assert load_pem_private_key(contents[f"{each['id']}/device.key"], None).public_key() == leaf.public_key()
    assert set(seen.values()) == {1}
    assert len(seen) == DEVICES
