"""Swapping a key and its certificate: whoever looks, whenever it is stopped, finds a pair."""

import stat
from pathlib import Path

import pytest

from fleetctl.platforms.local.swapping import Pair, settle, swap


class Stopped(Exception):
    """The process ended here."""


class Stopper:
    """Lets `after` steps happen, and notes what a reader would have seen at each."""

    def __init__(self, pair: Pair, after: int) -> None:
        self.pair, self.left = pair, after
        self.seen: list[str] = []

    def __call__(self, step: str) -> None:
        self.seen.append(read(self.pair))
        self.left -= 1
        if self.left < 0:
            raise Stopped(step)


def read(pair: Pair) -> str:
    key, certificate = pair.key.read_text(), pair.certificate.read_text()
    assert key == certificate, "what is there does not belong together"
    return key


def prepare(folder: Path) -> Pair:
    folder.mkdir()
    pair = Pair(folder / "device.key", folder / "device.pem")
    pair.key.write_text("one")
    pair.key.chmod(0o600)
    pair.certificate.write_text("one")
    pair.new.key.write_text("two")
    pair.new.key.chmod(0o600)
    pair.new.certificate.write_text("two")
    return pair


def steps(folder: Path) -> int:
    pair = prepare(folder)
    stopper = Stopper(pair, 99)
    swap(pair, stopper)
    return len(stopper.seen)


def test_a_swap_leaves_the_new_ones_in_place_and_the_old_ones_beside_them(tmp_path: Path) -> None:
    pair = prepare(tmp_path / "bundle")
    swap(pair, lambda _: None)
    assert read(pair) == "two"
    assert read(pair.previous) == "one"
    assert sorted(each.name for each in pair.key.parent.iterdir()) == [
        "device.key",
        "device.key.prev",
        "device.pem",
        "device.pem.prev",
    ]
    assert not any(path.is_symlink() for path in pair.key.parent.iterdir())
    assert {stat.S_IMODE(path.stat().st_mode) for path in (pair.key, pair.previous.key)} == {0o600}


def test_a_swap_that_is_stopped_anywhere_leaves_a_pair_and_is_finished_by_a_repeat(tmp_path: Path) -> None:
    count = steps(tmp_path / "whole")
    assert count == 8
    for after in range(count):
        pair = prepare(tmp_path / f"stopped-{after}")
        stopper = Stopper(pair, after)
        with pytest.raises(Stopped):
            swap(pair, stopper)
        assert read(pair) in ("one", "two")
        if not settle(pair, lambda _: None):
            assert read(pair) == "one", "nothing was begun"
            swap(pair, lambda _: None)
        assert (read(pair), read(pair.previous)) == ("two", "one")
        assert not any(path.is_symlink() or path.is_dir() for path in pair.key.parent.iterdir())


def test_a_repeat_that_is_stopped_too_is_finished_by_the_next(tmp_path: Path) -> None:
    count = steps(tmp_path / "whole")
    for first in range(count):
        pair = prepare(tmp_path / f"stopped-{first}")
        with pytest.raises(Stopped):
            swap(pair, Stopper(pair, first))
        for _ in range(count):
            try:
                if not settle(pair, Stopper(pair, 0)):
                    break
            except Stopped:
                read(pair)
        settle(pair, lambda _: None)
        assert read(pair) in ("one", "two")


def test_a_certificate_for_the_same_key_is_swapped_alone(tmp_path: Path) -> None:
    pair = prepare(tmp_path / "bundle")
    pair.new.key.unlink()
    swap(pair, lambda _: None)
    assert (pair.key.read_text(), pair.certificate.read_text()) == ("one", "two")
    assert pair.previous.certificate.read_text() == "one"
    assert not pair.previous.key.exists()
    assert not settle(pair, lambda _: None)


def test_key_and_certificate_may_live_in_two_folders(tmp_path: Path) -> None:
    made = prepare(tmp_path / "bundle")
    (tmp_path / "pki").mkdir()
    pair = Pair(made.key, tmp_path / "pki" / "operator.pem")
    made.certificate.rename(pair.certificate)
    made.new.certificate.rename(pair.new.certificate)
    with pytest.raises(Stopped):
        swap(pair, Stopper(pair, 4))
    assert read(pair) == "one"
    assert settle(pair, lambda _: None)
    assert (read(pair), read(pair.previous)) == ("two", "one")
