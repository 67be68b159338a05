"""What a device does when the fleet commands it; anything it cannot or must not do is answered with a reason."""

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fleetctl.agent.commands import Call
from fleetctl.errors import FleetError, Malformed
from fleetctl.keys.store import PrivateKey
from fleetctl.model.device import DevicePath
from fleetctl.wire.document import Json

if TYPE_CHECKING:
    from fleetctl.agent.device import Device

Order = Callable[["Device", Call], Json]
"""Raises `Malformed` where the command must not be done; otherwise does it and returns the result, None for later."""

IDENTIFY = b"fleetctl/identify\0"
NONCE_LIMITS = (16, 256)


def carry_out(device: "Device", call: Call) -> None:
    """`rejected` before anything has happened, else `accepted`, and then how it went."""
    order = ORDERS.get(call.name)
    if order is None:
        device.answer(call, "rejected", {"error": f"no command `{call.name}` here", "commands": list(ORDERS)})
        return
    check, do = order
    try:
        check(device, call.command.args)
    except Malformed as error:
        device.answer(call, "rejected", {"error": error.message})
        return
    device.answer(call, "accepted", None)
    try:
        result = do(device, call)
    except (FleetError, OSError) as error:
        device.answer(call, "failed", {"error": error.message if isinstance(error, FleetError) else str(error)})
        return
    if result is not None:
        device.answer(call, "succeeded", result)


def signed_identity(path: DevicePath, nonce: bytes, key: PrivateKey) -> bytes:
    """Proof that the holder of `key` was asked with this nonce, and nothing else: the first words say what was signed."""
    text = IDENTIFY + str(path).encode() + b"\0" + nonce
    match key:
        case Ed25519PrivateKey():
            return key.sign(text)
        case ec.EllipticCurvePrivateKey():
            return key.sign(text, ec.ECDSA(hashes.SHA256()))
        case _:
            return key.sign(text, padding.PKCS1v15(), hashes.SHA256())


def _nothing(_device: "Device", _args: Mapping[str, Json]) -> None:
    """Any arguments will do."""


def _ping(device: "Device", _call: Call) -> Json:
    return device.facts | {"session": device.session}


def _reboot(device: "Device", call: Call) -> Json:
    device.remember(call)
    device.reboots = True
    return None


def _check_configure(device: "Device", args: Mapping[str, Json]) -> None:
    device.configuration.check(args)


def _configure(device: "Device", call: Call) -> Json:
    device.configure(device.configuration.check(call.command.args))
    return {"configured": True}


def _nonce(args: Mapping[str, Json]) -> bytes:
    text = args.get("nonce")
    try:
        nonce = base64.b64decode(text if isinstance(text, str) else "", validate=True)
    except (binascii.Error, ValueError) as error:
        raise Malformed("the `nonce` is not base64") from error
    if not NONCE_LIMITS[0] <= len(nonce) <= NONCE_LIMITS[1]:
        raise Malformed("the `nonce` has not {} to {} bytes".format(*NONCE_LIMITS))
    return nonce


def _check_identify(_device: "Device", args: Mapping[str, Json]) -> None:
    _nonce(args)


def _identify(device: "Device", call: Call) -> Json:
    identity = device.identity
    signature = signed_identity(device.path, _nonce(call.command.args), identity.private_key)
    return {"certificate": identity.certificate.decode(), "signature": base64.b64encode(signature).decode()}


def _rekey(args: Mapping[str, Json]) -> bool:
    value = args.get("rekey", True)
    if not isinstance(value, bool):
        raise Malformed("`rekey` is neither true nor false")
    return value


def _check_renew(device: "Device", args: Mapping[str, Json]) -> None:
    _rekey(args)
    if device.identity.config.enrol is None:
        raise Malformed("the device has no address to renew at: configure one")
    if device.renewing or device.asked is not None:
        raise Malformed("a renewal is under way")


def _renew(device: "Device", call: Call) -> Json:
    device.asked = call, _rekey(call.command.args)
    return None


ORDERS: Mapping[str, tuple[Callable[["Device", Mapping[str, Json]], None], Order]] = {
    "ping": (_nothing, _ping),
    "reboot": (_nothing, _reboot),
    "configure": (_check_configure, _configure),
    "identify": (_check_identify, _identify),
    "renew": (_check_renew, _renew),
}
