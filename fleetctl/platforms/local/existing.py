"""The files of a PKI that is not ours: checked before a context relies on them."""

from pathlib import Path

from cryptography import x509

from fleetctl import files, tls
from fleetctl.errors import ConfigError
from fleetctl.model.certificate import State
from fleetctl.pki.authority import PEM_LIMIT, common_names, read_certificates, validity_of
from fleetctl.wire.document import rfc3339


def check_identity(ca: Path | None, cert: Path | None, key: Path | None, now: float) -> None:
    """Raise unless the authorities and our certificate are in date, and the key is ours alone and the certificate's.

    Raises:
        NotFound, Denied: a file is missing, or the key may be read by others.
        ConfigError: a file is not what it should be, or out of date.
    """
    if ca is not None:
        authorities = read_certificates(ca)
        if not any(_is_authority(each) for each in authorities):
            raise ConfigError(f"`{ca}` holds no certificate of an authority", "name the CA file that signed the broker's")
        if all(validity_of(each).state(now) is not State.VALID for each in authorities):
            raise _out_of_date(ca, authorities[0])
    if cert is not None:
        certificate = read_certificates(cert)[0]
        if validity_of(certificate).state(now) is not State.VALID:
            raise _out_of_date(cert, certificate)
    if key is not None:
        files.read_private(key, PEM_LIMIT)
    tls.client_context(ca, cert, key)


def first_name(cert: Path | None) -> str | None:
    """As whom a certificate connects where a broker takes the common name for it."""
    return None if cert is None else next(iter(common_names(read_certificates(cert)[0])), None)


def _is_authority(certificate: x509.Certificate) -> bool:
    """Also true for a version 1 certificate, which cannot say: many private authorities are such."""
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return certificate.issuer == certificate.subject


def _out_of_date(path: Path, certificate: x509.Certificate) -> ConfigError:
    span = validity_of(certificate)
    return ConfigError(
        f"the certificate in `{path}` is good from {rfc3339(span.not_before)} to {rfc3339(span.not_after)} only",
        "name a current one, or check the clock: date -u",
    )
