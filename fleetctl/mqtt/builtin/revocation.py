"""Revocation lists, asked about the certificates of sessions that are open: OpenSSL looks at them in handshakes only."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from fleetctl.errors import ConfigError

if TYPE_CHECKING:
    from cryptography.x509 import CertificateRevocationList

_END = b"-----END X509 CRL-----"


@dataclass(frozen=True, slots=True)
class Lists:
    """The lists of all authorities, by the DER of the issuer's name."""

    by_issuer: dict[bytes, list["CertificateRevocationList"]]

    @classmethod
    def read(cls, paths: Iterable[Path]) -> Self:
        """Read PEM files of one or more lists each; raises `ConfigError`."""
        from cryptography.x509 import load_pem_x509_crl

        found: dict[bytes, list[CertificateRevocationList]] = {}
        for path in paths:
            try:
                for part in path.read_bytes().split(_END)[:-1]:
                    crl = load_pem_x509_crl(part + _END)
                    found.setdefault(crl.issuer.public_bytes(), []).append(crl)
            except (OSError, ValueError) as error:
                raise ConfigError(f"cannot read the revocation list `{path}`", f"openssl crl -noout -in {path}") from error
        return cls(found)

    def name(self, certificate: bytes) -> bool:
        """Whether a certificate (DER) is revoked; one that does not parse is."""
        from cryptography.x509 import load_der_x509_certificate

        try:
            parsed = load_der_x509_certificate(certificate)
            lists = self.by_issuer.get(parsed.issuer.public_bytes(), [])
            return any(crl.get_revoked_certificate_by_serial_number(parsed.serial_number) is not None for crl in lists)
        except ValueError:
            return True
