"""The work of an update that takes time, for a thread of the pool: fetch, verify, write, test. Nothing here decides."""

import errno
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from fleetctl.agent.download import Artifacts, DownloadFailed, Interrupted, fetch
from fleetctl.agent.selftest import SelfTest, Trial
from fleetctl.agent.storage import Damaged, Storage
from fleetctl.agent.updater import Outcome
from fleetctl.model.attempt import Code, Image, Slot
from fleetctl.model.update import Do

WORK = frozenset({Do.FETCH, Do.VERIFY, Do.WRITE, Do.TEST})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(frozen=True, slots=True)
class Job:
    """One piece of work on the image of the assignment with this order; `stop` ends it early, `report` takes percents."""

    do: Do
    order: int
    image: Image
    slot: Slot
    storage: Storage
    artifacts: Artifacts
    self_test: SelfTest
    stop: threading.Event
    report: Callable[[int], None]


def perform(job: Job) -> Outcome | None:
    """How the work ended; None when it was stopped and nothing can be said. Never raises.

    Where the disk is full, what the update took of it is given back first: the record of the failure needs room too.
    """
    try:
        outcome = _perform(job)
    except Interrupted:
        return None
    except Exception as error:
        outcome = _failure(job.do, error)
        if outcome.code is Code.NO_SPACE:
            _give_up(job)
    return None if job.stop.is_set() else outcome


def _failure(do: Do, error: Exception) -> Outcome:
    match error:
        case DownloadFailed():
            return Outcome(do, error.code, error.detail)
        case Damaged():
            return Outcome(do, Code.INTEGRITY, str(error))
        case OSError():
            code = Code.NO_SPACE if error.errno in _FULL else Code.INTERNAL
            return Outcome(do, code, (error.strerror or str(error)).lower())
        case MemoryError():
            return Outcome(do, Code.NO_MEMORY, "out of memory")
    return Outcome(do, Code.INTERNAL, f"{type(error).__name__}: {error}")


def _give_up(job: Job) -> None:
    """Before its first byte is overwritten the slot still holds an image that the record knows."""
    with suppress(OSError):
        if job.do is Do.WRITE:
            job.storage.give_up(job.slot)
        else:
            job.storage.drop_downloads()


def _perform(job: Job) -> Outcome:
    match job.do:
        case Do.FETCH:
            _fetch(job)
        case Do.VERIFY:
            _verify(job)
        case Do.WRITE:
            _write(job)
        case _:
            health = job.self_test(Trial(job.storage.slot(job.slot), str(job.slot), job.image.version, job.stop))
            return Outcome(job.do, healthy=health.healthy, detail=health.detail)
    return Outcome(job.do)


def _fetch(job: Job) -> None:
    """A download that a power cut interrupted may have holes where the file system had only its length: then once more."""
    target = job.storage.partial(job.image.digest)
    job.storage.drop_downloads(keep=job.image.digest)
    job.storage.check_space(job.slot, job.image)
    resumed = target.exists()
    fetch(job.artifacts, job.image.digest, job.image.size, target, job.stop, job.report)
    if resumed and job.storage.digest(target) != job.image.digest:
        target.unlink()
        fetch(job.artifacts, job.image.digest, job.image.size, target, job.stop, job.report)


def _verify(job: Job) -> None:
    target = job.storage.partial(job.image.digest)
    found = job.storage.digest(target)
    if found != job.image.digest:
        target.unlink(missing_ok=True)
        raise DownloadFailed(Code.INTEGRITY, f"what was downloaded is {found or 'gone'}, not {job.image.digest}")
    with target.open("rb") as whole:
        os.fsync(whole.fileno())


def _write(job: Job) -> None:
    """The download is removed only when its slot has been read back; after a crash in between there is nothing to copy."""
    target = job.storage.partial(job.image.digest)
    if not target.exists() and job.storage.digest(job.storage.slot(job.slot)) == job.image.digest:
        return
    job.storage.write_slot(job.slot, job.image)
