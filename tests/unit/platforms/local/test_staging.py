"""Folders that are whole or not there."""

import stat
from pathlib import Path

import pytest

from fleetctl.errors import Conflict, Denied, FleetError
from fleetctl.platforms.local.staging import is_vacant, staged, write


def test_a_folder_appears_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "made"
    with staged(target) as fresh:
        write(fresh / "secret", b"x", 0o600)
        assert not target.exists()
    assert (target / "secret").read_bytes() == b"x"
    assert stat.S_IMODE(target.stat().st_mode) == 0o700
    assert stat.S_IMODE((target / "secret").stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_what_stops_half_way_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def interrupted() -> None:
        with staged(tmp_path / "made") as fresh:
            write(fresh / "secret", b"x")
            raise error

    with pytest.raises(error):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    with staged(tmp_path / "made") as fresh:
        write(fresh / "file", b"x")
    assert [each.name for each in (tmp_path / "made").iterdir()] == ["file"]


def test_a_folder_that_was_filled_meanwhile_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "made"

    def raced() -> None:
        with staged(target) as fresh:
            write(fresh / "file", b"ours")
            target.mkdir()
            (target / "file").write_bytes(b"theirs")

    with pytest.raises(Conflict):
        raced()
    assert (target / "file").read_bytes() == b"theirs"
    assert list(tmp_path.iterdir()) == [target]


def test_a_file_of_that_name_is_kept(tmp_path: Path) -> None:
    (tmp_path / "made").write_text("mine")
    with pytest.raises(Conflict), staged(tmp_path / "made"):
        pass
    assert (tmp_path / "made").read_text() == "mine"


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "made").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FleetError), staged(tmp_path / "made") as fresh:
        write(fresh / "file", b"x")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_file_is_never_written_over(tmp_path: Path) -> None:
    write(tmp_path / "file", b"x")
    with pytest.raises(FileExistsError):
        write(tmp_path / "file", b"y")


def test_a_name_is_vacant_only_if_nothing_is_lost(tmp_path: Path) -> None:
    assert is_vacant(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert is_vacant(tmp_path / "empty")
    (tmp_path / "dangling").symlink_to(tmp_path / "none")
    assert not is_vacant(tmp_path / "dangling")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert not is_vacant(tmp_path / "full")
    with pytest.raises(Denied):
        is_vacant(tmp_path / "empty" / ("x" * 300))
