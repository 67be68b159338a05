"""Verifying in steps: the first that fails says why."""

from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from fleetctl.model.certificate import DAY, Reason
from fleetctl.model.device import DevicePath
from fleetctl.pki import crl
from fleetctl.pki.authority import (
    DEVICE_ISSUING,
    DEVICE_ROOT,
    FLEET_CA,
    create_issuing,
    create_root,
    device_request,
    issue,
    server_request,
)
from fleetctl.pki.verify import Trust, Verification

NOW = 1_800_000_000.0


def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


KEY = key()
ROOT = create_root(DEVICE_ROOT, "acme", key(), NOW, 1)
ISSUING = create_issuing(ROOT, DEVICE_ISSUING, "acme", key(), NOW)
SERVICES = create_root(FLEET_CA, "acme", key(), NOW, 0)
LEAF = issue(ISSUING, device_request(DevicePath("acme", "oslo", "pump", "p-1")), KEY.public_key(), NOW)
SERVER = issue(SERVICES, server_request(["broker.acme", "127.0.0.1"]), KEY.public_key(), NOW)


def listed(*revoked: crl.Revoked, lifetime: int = 365 * DAY) -> tuple[x509.CertificateRevocationList, ...]:
    texts = [
        crl.build(ISSUING, [each for each in revoked if each.serial == LEAF.serial_number], 1, int(NOW) - DAY, lifetime),
        crl.build(ROOT, [each for each in revoked if each.serial != LEAF.serial_number], 1, int(NOW) - DAY, lifetime),
        crl.build(SERVICES, [], 1, int(NOW) - DAY, lifetime),
    ]
    return tuple(map(x509.load_pem_x509_crl, texts))


TRUST = Trust((ROOT.certificate, SERVICES.certificate), (ISSUING.certificate,), listed(), NOW)


def judge(
    certificate: x509.Certificate, trust: Trust = TRUST, purpose: str = "client", host: str | None = None
) -> tuple[str, str, str]:
    """The last step."""
    proof = Verification(trust)
    good = proof.run(certificate, purpose, host)
    last = proof.steps[-1]
    assert good is (last.outcome == "ok")
    return last.step, last.outcome, last.detail


def test_a_device_is_proven_step_by_step() -> None:
    proof = Verification(TRUST)
    assert proof.run(LEAF, "client", None)
    assert [each.step for each in proof.steps] == ["strength", "chain", "purpose", "validity", "revocation"]
    assert [each.number for each in proof.steps] == [1, 2, 3, 4, 5]


def test_a_server_is_proven_for_its_hosts_alone() -> None:
    for host in ("broker.acme", "BROKER.acme", "127.0.0.1"):
        assert judge(SERVER, purpose="server", host=host)[:2] == ("revocation", "ok")
    for host in ("acme", "broker.acme.evil", "127.0.0.2"):
        assert judge(SERVER, purpose="server", host=host)[:2] == ("host", "failed")


def test_one_is_not_the_other() -> None:
    assert judge(LEAF, purpose="server")[:2] == ("purpose", "failed")
    assert judge(SERVER)[:2] == ("purpose", "failed")


def test_nobody_who_is_trusted_has_issued_it() -> None:
    assert judge(LEAF, replace(TRUST, anchors=(SERVICES.certificate,)))[:2] == ("chain", "failed")
    assert judge(LEAF, replace(TRUST, others=()))[:2] == ("chain", "failed")
    stranger = create_issuing(create_root(DEVICE_ROOT, "acme", key(), NOW, 1), DEVICE_ISSUING, "acme", key(), NOW)
    forged = issue(stranger, device_request(DevicePath("acme", "oslo", "pump", "p-1")), KEY.public_key(), NOW)
    assert judge(forged, replace(TRUST, others=(*TRUST.others, stranger.certificate)))[:2] == ("chain", "failed")


def test_an_authority_is_no_leaf() -> None:
    assert judge(ISSUING.certificate)[:2] == ("purpose", "failed")
    assert judge(ROOT.certificate)[:2] == ("chain", "failed")


def test_a_leaf_issues_nothing() -> None:
    builder = x509.CertificateBuilder(
        LEAF.subject, x509.Name([]), KEY.public_key(), 5, LEAF.not_valid_before_utc, LEAF.not_valid_after_utc
    )
    below = builder.sign(KEY, hashes.SHA256())
    step, outcome, detail = judge(below, replace(TRUST, others=(*TRUST.others, LEAF)))
    assert (step, outcome) == ("chain", "failed")
    assert "no authority" in detail


def test_time_decides() -> None:
    assert judge(LEAF, replace(TRUST, now=NOW - DAY))[:2] == ("validity", "failed")
    assert judge(LEAF, replace(TRUST, now=NOW + 40 * 365 * DAY))[:2] == ("validity", "failed")


@pytest.mark.parametrize("serial", [LEAF.serial_number, ISSUING.certificate.serial_number], ids=["leaf", "issuing"])
def test_what_is_revoked_or_stands_below_that_is_not_trusted(serial: int) -> None:
    lists = listed(crl.Revoked(serial, NOW, Reason.KEY_COMPROMISE))
    step, outcome, detail = judge(LEAF, replace(TRUST, lists=lists))
    assert (step, outcome) == ("revocation", "failed")
    assert "revoked at" in detail


def test_without_a_list_that_is_in_force_nobody_can_tell() -> None:
    assert judge(LEAF, replace(TRUST, lists=listed()[:1]))[:2] == ("revocation", "failed")
    assert "ended" in judge(LEAF, replace(TRUST, lists=listed(lifetime=60), now=NOW + DAY))[2]


def test_a_list_that_another_has_signed_counts_for_nothing() -> None:
    false = create_issuing(ROOT, DEVICE_ISSUING, "acme", key(), NOW)
    forged = x509.load_pem_x509_crl(crl.build(false, [], 9, int(NOW) - DAY))
    assert judge(LEAF, replace(TRUST, lists=(forged, *listed()[1:])))[:2] == ("revocation", "failed")


def test_weak_keys_and_unknown_conditions_are_not_overlooked() -> None:
    weak = ec.generate_private_key(ec.SECP256K1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x")])
    builder = x509.CertificateBuilder(
        ISSUING.certificate.subject, name, weak.public_key(), 5, LEAF.not_valid_before_utc, LEAF.not_valid_after_utc
    )
    signer = ISSUING.key
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    assert judge(builder.sign(signer, hashes.SHA256()))[:2] == ("strength", "failed")
    odd = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    strong = x509.CertificateBuilder(
        ISSUING.certificate.subject, name, KEY.public_key(), 6, LEAF.not_valid_before_utc, LEAF.not_valid_after_utc
    )
    assert "1.2.3.4" in judge(strong.add_extension(odd, critical=True).sign(signer, hashes.SHA256()))[2]
