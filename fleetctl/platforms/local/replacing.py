"""Several files that take the place of others, which are kept beside them as `.prev` and can be put back."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from fleetctl.errors import FleetError

KEPT = ".prev"


def changed(folder: Path, staging: Path, names: Iterable[str]) -> tuple[str, ...]:
    """Those that differ in content, mode or owner from what is in `folder`."""
    return tuple(sorted(name for name in names if not _same(folder / name, staging / name)))


def _same(old: Path, new: Path) -> bool:
    if not old.is_file() or old.is_symlink():
        return False
    one, other = old.stat(), new.stat()
    same = (one.st_mode, one.st_uid, one.st_gid) == (other.st_mode, other.st_uid, other.st_gid)
    return same and old.read_bytes() == new.read_bytes()


def swap(folder: Path, staging: Path, names: Sequence[str]) -> None:
    """Put the staged files into `folder`, each in one step; on a failure those that were put there are taken back."""
    done: list[str] = []
    try:
        for name in names:
            kept = folder / (name + KEPT)
            kept.unlink(missing_ok=True)
            if (folder / name).exists():
                kept.hardlink_to(folder / name)
        for name in names:
            (staging / name).replace(folder / name)
            done.append(name)
    except OSError as error:
        put_back(folder, done)
        raise FleetError(f"cannot write into `{folder}`: {(error.strerror or '').lower()}", f"df {folder}") from error


def put_back(folder: Path, names: Sequence[str]) -> None:
    """As it was before `swap`: what had no file before has none again."""
    for name in names:
        kept = folder / (name + KEPT)
        if kept.exists():
            kept.replace(folder / name)
        else:
            (folder / name).unlink(missing_ok=True)
