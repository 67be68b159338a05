"""What the owner chooses, what is measured, and the pool that does the slow things."""

import threading
from functools import partial
from pathlib import Path

import pytest

from fleetctl.agent.pool import Pool
from fleetctl.agent.sensors import of_machine, of_simulation
from fleetctl.agent.settings import Settings
from fleetctl.errors import ConfigError, Malformed


@pytest.mark.parametrize("version", ["", "1 0", "../1", "x" * 65, "1.0\n"])
def test_a_version_that_could_not_be_reported_is_refused_at_once(version: str) -> None:
    with pytest.raises(ConfigError, match="is not a firmware version"):
        Settings(firmware_version=version)


def test_a_factory_image_that_does_not_fit_a_slot_is_refused(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"x" * 11)
    with pytest.raises(Malformed, match="more than 10 bytes"):
        Settings(factory=tmp_path / "big", slot_size=10).factory_image("pump")


def test_simulated_readings_are_plausible_and_differ_by_device() -> None:
    values = {of_simulation(f"s{number}", 1000.0)["temperature"].value for number in range(20)}
    assert len(values) > 10
    for second in range(0, 86400, 977):
        readings = of_simulation("s1", float(second))
        temperature, humidity = float(readings["temperature"].value), float(readings["humidity"].value)
        assert 14 <= temperature <= 26
        assert 35 <= humidity <= 75


def test_a_machine_has_a_load() -> None:
    assert all(float(reading.value) >= 0 for reading in of_machine("m", 0.0).values())


def test_a_pool_does_all_there_is_with_the_threads_it_has() -> None:
    pool, lock, done, most = Pool("test", 3), threading.Lock(), [], threading.Semaphore(3)

    def work(number: int) -> None:
        assert most.acquire(blocking=False)
        with lock:
            done.append(number)
        most.release()

    for number in range(50):
        pool.submit(partial(work, number))
    assert pool.close(5)
    assert sorted(done) == list(range(50))


def test_a_pool_does_not_wait_for_ever() -> None:
    pool, gate = Pool("test", 1), threading.Event()

    def hold() -> None:
        gate.wait(10)

    pool.submit(hold)
    assert not pool.close(0.05)
    gate.set()
    assert pool.close(5)
