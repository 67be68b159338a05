"""MQTT 5 reason codes as errors with a remedy (MQTT 5.0 section 2.4)."""

from dataclasses import dataclass

from fleetctl.errors import Conflict, Denied, FleetError, Unavailable
from fleetctl.model.device import printable

BROKER_HINT = "the broker's log says why; is it the right one? fleetctl context show"
UNSPECIFIED, PROTOCOL_ERROR, NOT_AUTHORIZED, KEEP_ALIVE_TIMEOUT, TAKEN_OVER = 0x80, 0x82, 0x87, 0x8D, 0x8E
_DENIED = {
    0x85: "the client id is not acceptable",
    0x86: "bad user name or password",
    NOT_AUTHORIZED: "not authorized",
    0x8A: "this client is banned",
    0x8C: "bad authentication method",
    0x98: "an administrator ended the session",
}
_UNAVAILABLE = {
    0x84: "it does not speak MQTT 5",
    0x88: "it is unavailable",
    0x89: "it is busy",
    0x8B: "it is shutting down",
    KEEP_ALIVE_TIMEOUT: "keep-alive timeout",
    0x97: "a quota is exceeded",
    0x9C: "use another server",
    0x9D: "it has moved",
    0x9F: "connection rate exceeded",
}
_OTHERS = {
    UNSPECIFIED: "unspecified error",
    0x81: "malformed packet",
    PROTOCOL_ERROR: "protocol error",
    0x83: "an error of its own",
    0x8F: "the topic filter is invalid",
    0x90: "the topic name is invalid",
    0x91: "packet identifier in use",
    0x93: "receive maximum exceeded",
    0x95: "the packet is too large",
    0x96: "message rate too high",
    0x99: "the payload has another format",
    0x9A: "retained messages are not supported",
    0x9B: "this QoS is not supported",
    0x9E: "shared subscriptions are not supported",
    0xA1: "subscription identifiers are not supported",
    0xA2: "wildcard subscriptions are not supported",
}


def words(code: int) -> str:
    return _DENIED.get(code) or _UNAVAILABLE.get(code) or _OTHERS.get(code) or f"reason 0x{code:02x}"


def error_for(code: int, sentence: str, hint: str = "") -> FleetError:
    """The error whose remedy fits the code; `sentence` says what was refused."""
    kind = Denied if code in _DENIED else Unavailable if code in _UNAVAILABLE else FleetError
    return kind(f"{sentence}: {words(code)}", hint)


def refused_connection(code: int, broker: str, client_id: str) -> FleetError:
    """Why CONNACK said no."""
    hint = "check the credentials of this context: fleetctl context show" if code in _DENIED else BROKER_HINT
    who = f" to {printable(client_id)}" if code == 0x85 else ""
    return error_for(code, f"the broker at `{broker}` refused the connection{who}", hint)


def silent(broker: str, timeout: float) -> Unavailable:
    """No CONNACK within `timeout` seconds."""
    return Unavailable(f"the broker at `{broker}` did not answer CONNECT within {timeout:g} s", BROKER_HINT)


def ended_connection(code: int, broker: str, client_id: str) -> FleetError:
    """Why a DISCONNECT of the broker came."""
    if code == TAKEN_OVER:
        return Conflict(f"another client took over {printable(client_id)}", "let one of the two end")
    error = error_for(code, f"the broker at `{broker}` ended the connection", BROKER_HINT)
    return error if isinstance(error, Denied) else Unavailable(error.message, BROKER_HINT)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A publish or a subscription that the broker acknowledged with a no."""

    packet_id: int
    topic: str
    code: int
    subscription: bool = False

    def error(self) -> FleetError:
        what = "a subscription to" if self.subscription else "a message on"
        hint = "the broker's rules give this identity no right to it" if self.code in _DENIED else BROKER_HINT
        return error_for(self.code, f"the broker refused {what} {printable(self.topic)}", hint)
