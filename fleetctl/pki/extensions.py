"""What stands in certificates besides names and keys, and how each kind of key signs them."""

import ipaddress
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fleetctl.errors import ConfigError, UsageError
from fleetctl.model.certificate import Profile, check_host
from fleetctl.model.device import printable

AuthorityKey = ec.EllipticCurvePrivateKey | Ed25519PrivateKey | rsa.RSAPrivateKey
"""What may sign certificates: a key in memory, or an adapter of these classes to one in a token."""
SubjectKey = ec.EllipticCurvePublicKey | Ed25519PublicKey | rsa.RSAPublicKey
"""What may be certified."""
RSA_BITS = 3072
ANY_NAME = "permit a name with dns:NAME, or a network with ip:ADDRESS/BITS"


def digest_for(key: AuthorityKey) -> hashes.SHA256 | hashes.SHA384 | None:
    """What a signature with this key is over; None for Ed25519, which chooses for itself."""
    if isinstance(key, Ed25519PrivateKey):
        return None
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.key_size > 256:
        return hashes.SHA384()
    return hashes.SHA256()


def key_words(key: object) -> str:
    """`p256`, `p384`, `ed25519`, `rsa3072`: the kind of a private or public key; raises `ConfigError` for any other."""
    match key:
        case Ed25519PrivateKey() | Ed25519PublicKey():
            return "ed25519"
        case ec.EllipticCurvePrivateKey() | ec.EllipticCurvePublicKey() if key.curve.name in ("secp256r1", "secp384r1"):
            return f"p{key.curve.key_size}"
        case rsa.RSAPrivateKey() | rsa.RSAPublicKey():
            return f"rsa{key.key_size}"
    raise ConfigError("the key is of a kind that no authority here has", "make it p256, p384, ed25519 or rsa3072")


def check_authority_key(key: object) -> str:
    """The kind of a key that is strong enough for an authority; raises `ConfigError`."""
    words = key_words(key)
    if words.startswith("rsa") and int(words.removeprefix("rsa")) < RSA_BITS:
        raise ConfigError(f"an authority's key of {words.removeprefix('rsa')} bits is too weak", f"make it rsa{RSA_BITS} or p256")
    return words


def key_usage(*, digital_signature: bool = False, signs_certificates: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def authority_key_identifier(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def general_name(name: str, profile: Profile) -> x509.GeneralName:
    if profile is not Profile.SERVER:
        return x509.UniformResourceIdentifier(name)
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def permitted(words: Sequence[str]) -> x509.NameConstraints | None:
    """The constraint that `dns:NAME` and `ip:NETWORK` mean; None for no words. Raises `UsageError`."""
    return x509.NameConstraints([_subtree(word) for word in words], None) if words else None


def _subtree(word: str) -> x509.GeneralName:
    kind, _, value = word.partition(":")
    if kind == "dns":
        return x509.DNSName(check_host(value.removeprefix(".")))
    try:
        if kind == "ip":
            return x509.IPAddress(ipaddress.ip_network(value))
    except ValueError as error:
        raise UsageError(f"{printable(value)} is not a network", "as in ip:10.0.0.0/8") from error
    raise UsageError(f"{printable(word)} permits nothing", ANY_NAME)


def constraints_of(certificate: x509.Certificate) -> x509.NameConstraints | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return None


def check_constraints(chain: Sequence[x509.Certificate], common_name: str, profile: Profile) -> None:
    """Raise `ConfigError` for a client that OpenSSL would refuse: it takes a common name with a dot for a host name.

    GnuTLS does not; the one that is stricter decides who gets in.
    """
    if profile is Profile.SERVER or "." not in common_name or ":" in common_name:
        return
    for certificate in chain:
        held = constraints_of(certificate)
        names = [] if held is None else [*(held.permitted_subtrees or []), *(held.excluded_subtrees or [])]
        if any(isinstance(name, x509.DNSName) for name in names):
            raise ConfigError(
                f"the authority is constrained to host names, and `{common_name}` would be taken for one",
                "make an authority without that: fleetctl certs ca rotate devices",
            )
