"""What one fleetctl does alone, whatever machine the others run on."""

import threading
from contextlib import suppress
from pathlib import Path

from fleetctl.registry import Registry


def test_what_one_holds_the_others_wait_for(registry: Registry, place: Path | str) -> None:
    order: list[str] = []
    started = threading.Event()

    def second() -> None:
        with Registry.open(place) as other:
            started.set()
            with other.exclusive("outbox"):
                order.append("second")

    thread = threading.Thread(target=second)
    with registry.exclusive("outbox"):
        thread.start()
        assert started.wait(20)
        thread.join(0.2)
        with registry.transaction():
            registry.enqueue("acme/a", b"1", "2026-01-01T00:00:00.000Z")
        order.append("first")
    thread.join(20)

    assert order == ["first", "second"]


def test_another_name_is_free_and_a_failure_lets_go(registry: Registry, place: Path | str) -> None:
    with Registry.open(place) as other:
        with registry.exclusive("outbox"), other.exclusive("audit"):
            pass
        with suppress(RuntimeError), registry.exclusive("outbox"):
            raise RuntimeError
        with other.exclusive("outbox"):
            pass
