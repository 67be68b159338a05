"""How fast a large revocation list is made, as a ratio to adding its lines one by one in the same run. Exits 1 below it."""

import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from fleetctl.model.certificate import Reason
from fleetctl.pki import crl
from fleetctl.pki.authority import Authority, create_root, moment

ROUNDS = int(os.environ.get("FLEETCTL_BENCH_ROUNDS", "3"))
ENTRIES = int(os.environ.get("FLEETCTL_BENCH_ENTRIES", "100000"))
FLOOR = 20.0


def naive(authority: Authority, serials: range, now: int, key: ec.EllipticCurvePrivateKey) -> None:
    builder = x509.CertificateRevocationListBuilder().issuer_name(authority.certificate.subject)
    builder = builder.last_update(moment(now)).next_update(moment(now + 86400))
    for serial in serials:
        line = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(moment(now)).build()
        builder = builder.add_revoked_certificate(line)
    builder.sign(key, hashes.SHA256())


def took(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def main() -> int:
    now, key = int(time.time()), ec.generate_private_key(ec.SECP256R1())
    authority = create_root("device-root", "acme", key, now, 1)
    serials = range(1 << 100, (1 << 100) + ENTRIES)
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(ROUNDS):
        lines = [crl.Revoked(serial, now, Reason.UNSPECIFIED) for serial in serials]
        ours.append(took(partial(crl.build, authority, lines, 1, now)))
        theirs.append(took(lambda: naive(authority, serials, now, key)))
    ratio = statistics.median(theirs) / statistics.median(ours)
    times = f"fleetctl {statistics.median(ours):.2f} s, one by one {statistics.median(theirs):.2f} s"
    print(f"{ENTRIES} entries, median of {ROUNDS}: {times}")
    print(f"ratio {ratio:.1f}x   floor {FLOOR:g}x   {'ok' if ratio >= FLOOR else 'TOO SLOW'}")
    return 0 if ratio >= FLOOR else 1


if __name__ == "__main__":
    sys.exit(main())
