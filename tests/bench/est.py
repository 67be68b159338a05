"""How fast devices renew over EST: one kept connection against a curl process for each request. Exits 1 where a limit is passed.

Every request carries another key, so that each reply is a certificate that was issued and written down for it.
"""

import http.client
import os
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from fleetctl.config import load_context
from fleetctl.model.enrolment import Buckets
from fleetctl.pki.csr import make_csr
from fleetctl.platforms.local.est import EstService
from fleetctl.platforms.local.fleet import LocalFleet
from fleetctl.platforms.local.init import create_context

ROUNDS = int(os.environ.get("FLEETCTL_BENCH_ROUNDS", "7"))
KEPT, PROCESSES = 100, 10
FASTER, MEDIAN_MS = 8.0, 5.0
HEADERS = {"Content-Type": "application/pkcs10"}
PATH = "/.well-known/est/simplereenroll"


def request() -> bytes:
    return make_csr(ec.generate_private_key(ec.SECP256R1()), "p-1")


def kept(connection: http.client.HTTPSConnection, times: list[float]) -> float:
    """Seconds of one request on the connection that stays."""
    bodies = [request() for _ in range(KEPT)]
    began = time.perf_counter()
    for body in bodies:
        start = time.perf_counter()
        connection.request("POST", PATH, body, HEADERS)
        reply = connection.getresponse()
        reply.read()
        if reply.status != 200:
            raise SystemExit(f"error: {reply.status}")
        times.append(time.perf_counter() - start)
    return (time.perf_counter() - began) / KEPT


def processes(folder: Path, url: str, ca: Path) -> float:
    """Seconds of one request with a curl of its own."""
    bodies = [folder / f"{index}.p10" for index in range(PROCESSES)]
    for path in bodies:
        path.write_bytes(request())
    curl = [
        "curl",
        "-sSf",
        "--cacert",
        str(ca),
        "--cert",
        str(folder / "p-1/device.pem"),
        "--key",
        str(folder / "p-1/device.key"),
    ]
    began = time.perf_counter()
    for path in bodies:
        words = [*curl, "-H", "Content-Type: application/pkcs10", "--data-binary", f"@{path}", "-o", os.devnull, url + PATH]
        subprocess.run(words, check=True)
    return (time.perf_counter() - began) / PROCESSES


def measure(folder: Path, fleet: LocalFleet, url: str) -> int:
    (folder / "pair.pem").write_bytes(b"".join((folder / "p-1" / name).read_bytes() for name in ("device.key", "device.pem")))
    ca = fleet.context.folder / "pki" / "fleet-ca.pem"
    context = ssl.create_default_context(cafile=str(ca))
    context.load_cert_chain(folder / "pair.pem")
    connection = http.client.HTTPSConnection("localhost", int(url.rpartition(":")[2]), timeout=10, context=context)
    times: list[float] = []
    rounds = [(kept(connection, times), processes(folder, url, ca)) for _ in range(ROUNDS)]
    connection.close()
    ratio = statistics.median(slow / fast for fast, slow in rounds)
    median = statistics.median(times) * 1000
    fast, slow = (statistics.median(each) for each in zip(*rounds, strict=True))
    print(f"kept connection: {1 / fast:.0f}/s, median {median:.2f} ms; a curl each: {1 / slow:.0f}/s; {ratio:.1f}x")
    return int(ratio < FASTER or median > MEDIAN_MS)


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["FLEETCTL_HOME"] = str(folder / "home")
        create_context("bench", "acme", "mqtts://localhost:1", "alice")
        with LocalFleet(load_context("bench")) as fleet:
            fleet.devices.add("p-1", device_type="pump", location="oslo", labels={}, bundle=folder / "p-1")
            service = EstService(fleet, "localhost:0", lambda _: None, renewals=Buckets(1e9, 1e9))
            service.start()
            try:
                return measure(folder, fleet, service.url)
            finally:
                service.stop()


if __name__ == "__main__":
    sys.exit(main())
