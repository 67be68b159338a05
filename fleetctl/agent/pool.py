"""A bounded pool of threads that never keep a process from ending."""

import threading
from collections.abc import Callable
from queue import SimpleQueue
from time import monotonic


class Pool:
    """Runs calls in at most `size` threads, which it starts when they are needed. The calls must not raise."""

    def __init__(self, name: str, size: int) -> None:
        self._name, self._size = name, size
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._waiting = 0
        self._guard = threading.Lock()

    def submit(self, call: Callable[[], None]) -> None:
        with self._guard:
            self._waiting += 1
            if self._waiting > len(self._threads) and len(self._threads) < self._size:
                thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
                self._threads.append(thread)
                thread.start()
        self._calls.put(call)

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                call()
            finally:
                with self._guard:
                    self._waiting -= 1

    def close(self, timeout: float) -> bool:
        """Let what was submitted end, for at most `timeout` seconds; whether all threads are gone."""
        deadline = monotonic() + timeout
        for _ in self._threads:
            self._calls.put(None)
        for thread in self._threads:
            thread.join(max(0.0, deadline - monotonic()))
        return not any(thread.is_alive() for thread in self._threads)
