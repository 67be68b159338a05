import os
import stat
import threading
from pathlib import Path

import pytest

from fleetctl import files
from fleetctl.errors import ConfigError, Conflict, Denied, FleetError, Malformed, NotFound


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_is_written_whole_and_nothing_else_stays(tmp_path: Path) -> None:
    files.write_atomic(tmp_path / "a", b"one")
    files.write_atomic(tmp_path / "a", b"two")
    assert (tmp_path / "a").read_bytes() == b"two"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o444])
def test_the_mode_is_there_from_the_creation_on(tmp_path: Path, mode: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: seen.append(stat.S_IMODE(os.fstat(descriptor).st_mode)))
    old = os.umask(0o022)
    try:
        files.write_atomic(tmp_path / "a", b"x", mode)
    finally:
        os.umask(old)
    assert seen[0] == mode == mode_of(tmp_path / "a")


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write_atomic(tmp_path / "a", b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FleetError, match="no space left on device"):
        files.write_atomic(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_file_that_exists_is_kept_where_it_must_not_be_replaced(tmp_path: Path) -> None:
    files.write_atomic(tmp_path / "a", b"old", replace=False)
    with pytest.raises(Conflict, match="exists already"):
        files.write_atomic(tmp_path / "a", b"new", replace=False)
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"precious")
    (tmp_path / "a").symlink_to(tmp_path / "target")
    files.write_atomic(tmp_path / "a", b"new")
    assert (tmp_path / "target").read_bytes() == b"precious"
    assert not (tmp_path / "a").is_symlink()


def test_a_missing_folder_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="cannot write"):
        files.write_atomic(tmp_path / "no" / "a", b"x")
    with pytest.raises(NotFound, match="cannot read"):
        files.read_limited(tmp_path / "no", 10)


def test_a_folder_where_a_file_is_meant_is_a_wrong_word(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for wrong in (tmp_path, tmp_path / "file" / "below"):
        with pytest.raises(ConfigError) as error:
            files.read_limited(wrong, 10)
        assert str(wrong) in error.value.hint


def test_a_file_beyond_its_limit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert files.read_limited(tmp_path / "a", 5) == b"12345"
    with pytest.raises(Malformed, match="more than 4 bytes"):
        files.read_limited(tmp_path / "a", 4)


def test_a_secret_that_others_can_use_is_denied(tmp_path: Path) -> None:
    secret = tmp_path / "a"
    files.write_atomic(secret, b"x", 0o600)
    assert files.read_private(secret, 10) == b"x"
    for mode in (0o640, 0o604, 0o660, 0o601):
        secret.chmod(mode)
        with pytest.raises(Denied) as caught:
            files.read_private(secret, 10)
        assert caught.value.hint == f"chmod 600 {secret}"


def test_a_private_folder_is_for_its_owner_alone(tmp_path: Path) -> None:
    assert mode_of(files.private_folder(tmp_path / "a" / "b")) == 0o700
    (tmp_path / "file").touch()
    with pytest.raises(FleetError, match="cannot create"):
        files.private_folder(tmp_path / "file")


def test_a_lock_lets_one_in_at_a_time(tmp_path: Path) -> None:
    order: list[str] = []
    entered = threading.Event()

    def second() -> None:
        entered.set()
        with files.lock(tmp_path / "lock"):
            order.append("second")

    with files.lock(tmp_path / "lock"):
        thread = threading.Thread(target=second)
        thread.start()
        assert entered.wait(5)
        thread.join(0.05)
        order.append("first")
    thread.join(5)
    assert order == ["first", "second"]
    assert mode_of(tmp_path / "lock") == 0o600
