"""A device's memory on a real file system, with the power cut at every write and in the middle of a slot."""

import errno
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetctl.agent import record as codec
from fleetctl.agent.storage import Damaged, Storage
from fleetctl.errors import Conflict, Malformed
from fleetctl.model import update
from fleetctl.model.attempt import FINAL, Attempt, Code, Image, Offer, Phase, Record, Slot, Terms
from fleetctl.model.update import Do, Moment

FACTORY, NEW = b"factory", b"new firmware" * 1000
MOMENT = Moment(1_800_000_000.0)


class PowerCut(Exception):
    pass


class Writer:
    """Replaces files, until the write whose number is in `cuts`: then the power fails before it, or just after."""

    def __init__(self, cuts: set[int], after: bool) -> None:
        self.cuts, self.after, self.count = cuts, after, 0

    def __call__(self, path: Path, data: bytes) -> None:
        self.count += 1
        cut = self.count in self.cuts
        if cut and not self.after:
            raise PowerCut
        temporary = path.with_suffix(".new")
        temporary.write_bytes(data)
        temporary.replace(path)
        if cut:
            raise PowerCut


def offer(storage: Storage) -> Offer:
    path = storage.folder.parent / "new"
    path.write_bytes(NEW)
    image = Image(storage.digest(path), "2.0.0", len(NEW), 1)
    return Offer("r1", 1, 1, cancel=False, content="c", manifest="sha256:m", image=image)


def one_boot(storage: Storage, healthy: bool) -> bool:
    """From power on to a reboot or to rest; whether it rests."""
    storage.prepare(lambda: FACTORY, "1.0.0")
    record, _ = storage.boot()
    assert storage.digest(storage.slot(record.running)) == record.current.digest, "what runs is not what the record says"
    _, records = update.receive(record, offer(storage), MOMENT, storage.slot_size)
    for one in records[-1:]:
        storage.save(record := one)
    while (do := update.due(record, MOMENT, confirmed=True)) not in (Do.NOTHING, Do.REBOOT):
        assert record.attempt is not None
        assert record.attempt.image is not None
        if do is Do.FETCH:
            storage.partial(record.attempt.image.digest).write_bytes(NEW)
        if do is Do.WRITE:
            assert record.image(record.active.other) is None
            storage.slot(record.active.other).write_bytes(NEW[:100])
            storage.write_slot(record.active.other, record.attempt.image)
        record = update.judged(record, healthy, "") if do is Do.TEST else update.done(record, do)
        storage.save(record)
    storage.save(update.done(record, do) if do is Do.REBOOT else record)
    return do is Do.NOTHING


def live(folder: Path, writer: Writer, healthy: bool) -> Record:
    storage = Storage(folder, write=writer)
    for _ in range(12):
        try:
            if one_boot(storage, healthy):
                return storage.load()
        except PowerCut:
            continue
    raise AssertionError("it never comes to rest")


@pytest.mark.parametrize("healthy", [True, False])
@pytest.mark.parametrize("after", [True, False])
def test_a_power_cut_at_any_write_and_soon_another_leave_the_old_or_the_new_image(
    tmp_path: Path, healthy: bool, after: bool
) -> None:
    whole = Writer(set(), after)
    live(tmp_path / "whole", whole, healthy)
    for number, (first, gap) in enumerate(itertools.product(range(1, whole.count + 1), range(3))):
        record = live(tmp_path / str(number), Writer({first, first + gap}, after), healthy)
        assert record.attempt is not None
        assert record.attempt.phase in FINAL
        assert (record.trial, record.running) == (None, record.active)
        wanted = NEW if healthy else FACTORY
        assert (tmp_path / str(number) / "slots" / record.active / "image").read_bytes() == wanted


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    made = Storage(tmp_path / "state")
    made.prepare(lambda: FACTORY, "1.0.0")
    return made


def test_a_slot_that_does_not_read_back_is_damaged(storage: Storage) -> None:
    image = Image(f"sha256:{'0' * 64}", "2.0.0", 3)
    storage.partial(image.digest).write_bytes(b"abc")
    with pytest.raises(Damaged):
        storage.write_slot(Slot.B, image)


def test_a_damaged_trial_slot_is_not_started(storage: Storage, tmp_path: Path) -> None:
    assert not one_boot(storage, healthy=True)
    storage.slot(Slot.B).write_bytes(b"rotten")
    record, told = storage.boot()
    assert record.running is Slot.A
    assert [one.attempt.phase for one in told if one.attempt] == [Phase.ROLLING_BACK, Phase.ROLLED_BACK]


def test_the_first_start_can_be_cut_too(tmp_path: Path) -> None:
    for number in (1, 2):
        folder = tmp_path / str(number)
        with pytest.raises(PowerCut):
            Storage(folder, write=Writer({number}, after=False)).prepare(lambda: FACTORY, "1.0.0")
        storage = Storage(folder)
        storage.prepare(lambda: FACTORY, "1.0.0")
        assert storage.load().current.version == "1.0.0"


def test_two_agents_never_share_a_folder(storage: Storage) -> None:
    with storage.claim(), pytest.raises(Conflict, match="another agent"), Storage(storage.folder).claim():
        pass
    with storage.claim():
        pass


@pytest.mark.parametrize("name", ["sha256:../../../etc/passwd", "sha256:", "md5:0", f"sha256:{'A' * 64}"])
def test_a_download_never_leaves_its_folder(storage: Storage, name: str) -> None:
    with pytest.raises(ValueError, match="no sha256 digest"):
        storage.partial(name)


def test_old_downloads_are_dropped(storage: Storage) -> None:
    kept, gone = (storage.partial(f"sha256:{digit * 64}") for digit in "01")
    kept.write_bytes(b"")
    gone.write_bytes(b"")
    storage.drop_downloads(keep=f"sha256:{'0' * 64}")
    assert (kept.exists(), gone.exists()) == (True, False)


def test_a_full_disk_is_the_callers_to_name(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image(f"sha256:{'0' * 64}", "2.0.0", 3)
    storage.partial(image.digest).write_bytes(b"abc")

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        storage.write_slot(Slot.B, image)


# -- the record as JSON


images = st.builds(Image, st.text(max_size=8), st.text(max_size=8), st.integers(0, 99), st.integers(0, 9))
terms = st.builds(Terms, st.none() | st.floats(0, 9), st.none() | st.floats(0, 9), st.none() | st.just((1, 2)), st.floats(0, 9))
attempts = st.builds(
    Attempt,
    st.text(max_size=5),
    st.integers(1, 9),
    st.integers(1, 9),
    st.text(max_size=5),
    st.sampled_from(Phase),
    code=st.none() | st.sampled_from(Code),
    image=images,
    slot=st.none() | st.sampled_from(Slot),
    accepted_boot=st.none() | st.integers(0, 9),
    terms=terms,
)


@given(st.builds(Record, images, st.none() | images, attempt=st.none() | attempts, boot=st.integers(0, 99)))
def test_a_record_survives_its_encoding(record: Record) -> None:
    assert codec.decode(codec.encode(record)) == record


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[:-20],
        lambda text: text.replace('"A"', '"C"'),
        lambda text: text.replace('"running": "A"', '"running": "B"'),
        lambda text: text.replace('"trial": null', '"trial": "A"'),
        lambda text: text.replace('"boot"', '"boots"'),
        lambda text: "[]",
        lambda text: "[" * 100_000,
    ],
)
def test_what_the_state_machine_cannot_have_written_is_refused(spoil: Callable[[str], str]) -> None:
    whole = codec.encode(Record(a=Image("sha256:x", "1.0.0", 1))).decode()
    with pytest.raises(Malformed):
        codec.decode(spoil(whole).encode())
