"""The demo's child processes: `fleetctl` itself, one event a line on its standard output, gone when we are."""

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fleetctl.errors import FleetError, Unavailable
from fleetctl.mqtt.mosquitto import tied_to_parent

GRACE = 5.0


class Child:
    """One `fleetctl` process whose events can be awaited."""

    def __init__(self, name: str, words: list[str], environ: Mapping[str, str], log: Path) -> None:
        self._name = name
        self._log = log
        self._events: queue.Queue[dict[str, Any] | None] = queue.Queue()
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                tied_to_parent([sys.executable, "-m", "fleetctl", *words]),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **environ},
                start_new_session=True,
            )
        self._reader = threading.Thread(target=self._read, name=name, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        stream = self._process.stdout
        if stream is not None:
            for line in stream:
                self._events.put(json.loads(line))
        self._events.put(None)

    def wait_for(self, event: str, timeout: float) -> dict[str, Any]:
        """The next event of that name.

        Raises:
            FleetError: the process ended first; the message carries the end of its log.
            Unavailable: it did not come in time (seconds).
        """
        while True:
            try:
                found = self._events.get(timeout=timeout)
            except queue.Empty:
                raise Unavailable(f"the demo's {self._name} was not ready within {timeout:g} s") from None
            if found is None:
                raise self._ended()
            if found.get("event") == event:
                return found

    def _ended(self) -> FleetError:
        """Why it ended: `-o jsonl` makes its last line on stderr an error in JSON."""
        lines = self._log.read_text(errors="replace").strip().splitlines()
        last = lines[-1] if lines else "without a word"
        try:
            error = json.loads(last)["error"]
            return FleetError(f"the demo's {self._name} ended: {error['message']}", error["hint"] or "")
        except (ValueError, KeyError, TypeError):
            return FleetError(f"the demo's {self._name} ended: {last}")

    def stop(self) -> None:
        """Ask it to end, make it end, and wait until it has."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(GRACE)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
        self._reader.join()
        if self._process.stdout is not None:
            self._process.stdout.close()


@contextmanager
def child(name: str, words: list[str], environ: Mapping[str, str], log: Path) -> Iterator[Child]:
    running = Child(name, words, environ, log)
    try:
        yield running
    finally:
        running.stop()
