"""Claim provisioning: 16 devices at once against one after the other, each with two TLS sessions, on a real mosquitto.

Run it: python -m tests.bench.claims. It prints a line of JSON for each round, and fails below the floor or with any error.
"""

import json
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from tests.integration.enrolment.stand import PATIENCE, Applicant, Stand

ROUNDS = 3
SEQUENTIAL, PARALLEL, THREADS = 16, 96, 16
FLOOR = 6.0


def main() -> int:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        stand = Stand(Path(folder), stack)
        stand.run_broker()
        stand.run("serve", "provision", "serve", "--no-est").wait_for("listening", PATIENCE)
        ratios = [_round(stand, number) for number in range(ROUNDS)]
    median = statistics.median(ratios)
    sys.stdout.write(json.dumps({"bench": "claims", "ratio": round(median, 2), "floor": FLOOR}) + "\n")
    return 0 if median >= FLOOR else 1


def _round(stand: Stand, number: int) -> float:
    """How many times as many devices a second 16 threads provision as one does."""
    name = f"round-{number}"
    stand.batch(name, SEQUENTIAL + PARALLEL)
    folder = stand.claim(name, name)
    serials = [f"{name}-{index}" for index in range(SEQUENTIAL + PARALLEL)]

    def provision(serial: str) -> float:
        begin = time.perf_counter()
        applicant = Applicant(folder, serial)
        device = applicant.become(applicant.provision(), stand.folder / "devices" / serial)
        with device.session():
            return time.perf_counter() - begin

    begin = time.perf_counter()
    alone = [provision(serial) for serial in serials[:SEQUENTIAL]]
    one = SEQUENTIAL / (time.perf_counter() - begin)
    begin = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as pool:
        together = list(pool.map(provision, serials[SEQUENTIAL:]))
    many = PARALLEL / (time.perf_counter() - begin)
    facts = {"round": number, "sequential": round(one, 1), "parallel": round(many, 1), "ratio": round(many / one, 2)}
    times = {"aloneMs": round(statistics.median(alone) * 1000, 1), "togetherMs": round(statistics.median(together) * 1000, 1)}
    sys.stdout.write(json.dumps(facts | times) + "\n")
    return many / one


if __name__ == "__main__":
    sys.exit(main())
