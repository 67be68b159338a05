"""How fast certificates are issued, as ratios to other ways in the same run. Exits 1 where one is below its floor.

fleetctl makes keys, certificates, bundles and registry rows of `DEVICES` devices, from the start of its process to its end.
Others make keys and certificates of fewer devices, P-256 too, and are compared by their rates. The bare loop is what the library
costs that fleetctl uses, with nothing written: key, request, checks, certificate, PEM. All take turns.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

ROUNDS = int(os.environ.get("FLEETCTL_BENCH_ROUNDS", "5"))
DEVICES = int(os.environ.get("FLEETCTL_BENCH_DEVICES", "2000"))
EASY_RSA = "/usr/share/easy-rsa/easyrsa"
FOLDERS, ARCHIVE = "fleetctl, a folder each", "fleetctl, one archive"
BARE = "bare cryptography loop"
# whom each is compared with, and how many times as fast it must be at least
FLOORS = (
    (FOLDERS, "openssl, 3 processes each", 15.0),
    (FOLDERS, "cfssl", 3.0),
    (FOLDERS, "easy-rsa", 50.0),
    (FOLDERS, BARE, 0.15),
    (ARCHIVE, BARE, 0.5),
)


def run(*words: str, cwd: Path, data: bytes | None = None, environment: dict[str, str] | None = None) -> bytes:
    done = subprocess.run(words, cwd=cwd, input=data, capture_output=True, check=True, env={**os.environ, **(environment or {})})
    return done.stdout


class Fleetctl:
    """One context; every batch has names of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {"FLEETCTL_HOME": str(folder / "home"), "PYTHONPATH": str(Path(__file__).parents[2])}
        self._fleetctl("init", "bench", "--tenant", "acme")
        self.batches = 0

    def _fleetctl(self, *words: str) -> None:
        run(sys.executable, "-m", "fleetctl", *words, cwd=self.folder, environment=self.environment)

    def issue(self, option: str, count: int) -> None:
        self.batches += 1
        place = self.folder / f"batch-{self.batches}"
        words = ["--count", str(count), "--prefix", f"b{self.batches}-", "--type", "pump", "--location", "oslo"]
        self._fleetctl("certs", "issue", *words, option, str(place))

    def folders(self, count: int) -> None:
        self.issue("--bundle", count)

    def archive(self, count: int) -> None:
        self.issue("--archive", count)


class Bare:
    """The library alone."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bare")])
        self.now = datetime.now(UTC)

    def issue(self, count: int) -> None:
        for number in range(count):
            key = ec.generate_private_key(ec.SECP256R1())
            subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"device-{number}")])
            made = x509.CertificateSigningRequestBuilder(subject).sign(key, hashes.SHA256())
            request = x509.load_der_x509_csr(made.public_bytes(serialization.Encoding.DER))
            if not request.is_signature_valid:
                raise ValueError("a signature that was just made is not valid")
            self._certificate(request, f"device-{number}").public_bytes(serialization.Encoding.PEM)
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())

    def _certificate(self, request: x509.CertificateSigningRequest, name: str) -> x509.Certificate:
        public_key = request.public_key()
        usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
        uri = x509.UniformResourceIdentifier(f"urn:fleetctl:acme/oslo/pump/{name}")
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        builder = x509.CertificateBuilder(
            self.name, request.subject, public_key, x509.random_serial_number(), self.now, self.now + timedelta(days=365)
        )
        return (
            builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName([uri]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(issuer, critical=False)
            .sign(self.key, hashes.SHA256())
        )


class OpenSSL:
    """Three processes for each device: key, request, certificate."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=ca"]
        run("openssl", *words, "-keyout", "ca.key", "-out", "ca.pem", cwd=folder)
        (folder / "leaf.cnf").write_text(
            "basicConstraints=critical,CA:false\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=clientAuth\n"
            "subjectAltName=URI:urn:fleetctl:acme/oslo/pump/x\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
        )

    def issue(self, count: int) -> None:
        for number in range(count):
            words = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", f"{number}.key"]
            run("openssl", "genpkey", *words, cwd=self.folder)
            run("openssl", "req", "-new", "-key", f"{number}.key", "-subj", f"/CN=d{number}", "-out", "r.pem", cwd=self.folder)
            words = ["-in", "r.pem", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "leaf.cnf"]
            run("openssl", "x509", "-req", *words, "-out", f"{number}.pem", cwd=self.folder)


class Cfssl:
    """One process for each device, and one that writes its files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._write(run("cfssl", "gencert", "-initca", "-", cwd=folder, data=self._request("ca")), "ca")

    def issue(self, count: int) -> None:
        words = ["-ca", "ca.pem", "-ca-key", "ca-key.pem", "-"]
        for number in range(count):
            data = self._request(f"d{number}")
            self._write(run("cfssl", "gencert", *words, cwd=self.folder, data=data), f"d{number}")

    def _write(self, data: bytes, name: str) -> None:
        run("cfssljson", "-bare", name, cwd=self.folder, data=data)

    @staticmethod
    def _request(name: str) -> bytes:
        return json.dumps({"CN": name, "key": {"algo": "ecdsa", "size": 256}}).encode()


class EasyRsa:
    """`build-client-full` for each device."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made = 0
        self._easyrsa("init-pki")
        self._easyrsa("build-ca", "nopass", EASYRSA_REQ_CN="ca")

    def issue(self, count: int) -> None:
        for _ in range(count):
            self.made += 1
            self._easyrsa("build-client-full", f"d{self.made}", "nopass")

    def _easyrsa(self, *words: str, **more: str) -> None:
        settings = {"EASYRSA_ALGO": "ec", "EASYRSA_CURVE": "prime256v1", "EASYRSA_BATCH": "1", **more}
        run(EASY_RSA, *words, cwd=self.folder, environment={**settings, "EASYRSA_PKI": str(self.folder / "pki")})


def measure(root: Path) -> dict[str, float]:
    """Certificates a second, median of the rounds."""

    def folder(name: str) -> Path:
        (root / name).mkdir()
        return root / name

    fleetctl = Fleetctl(folder("fleetctl"))
    ways: dict[str, tuple[Callable[[int], None], int]] = {
        FOLDERS: (fleetctl.folders, DEVICES),
        ARCHIVE: (fleetctl.archive, DEVICES),
        BARE: (Bare().issue, DEVICES),
        "openssl, 3 processes each": (OpenSSL(folder("openssl")).issue, 15),
        "cfssl": (Cfssl(folder("cfssl")).issue, 40),
        "easy-rsa": (EasyRsa(folder("easy-rsa")).issue, 5),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, (issue, count) in ways.items():
            began = time.perf_counter()
            issue(count)
            rates[name].append(count / (time.perf_counter() - began))
    return {name: statistics.median(seen) for name, seen in rates.items()}


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        rates = measure(Path(name))
    for way, rate in rates.items():
        print(f"{way:28} {rate:9.1f} certificates/s, median of {ROUNDS}")
    failed = False
    for ours, theirs, floor in FLOORS:
        ratio = rates[ours] / rates[theirs]
        failed = failed or ratio < floor
        print(f"{ours} / {theirs}: {ratio:.2f} (at least {floor}){'' if ratio >= floor else ' TOO SLOW'}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
