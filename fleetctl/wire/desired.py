"""`B/ota/desired`: an assignment and the manifest it names, each in its envelope."""

from fleetctl.errors import Malformed
from fleetctl.wire.document import canonical_cbor, parse_cbor


def pack(assignment: bytes, manifest: bytes) -> bytes:
    """The payload that carries two COSE_Sign1."""
    return canonical_cbor([assignment, manifest])


def unpack(payload: bytes) -> tuple[bytes, bytes]:
    """The envelopes of the assignment and of the manifest, neither of them verified."""
    match parse_cbor(payload):
        case [bytes(assignment), bytes(manifest)]:
            return assignment, manifest
    raise Malformed("the update is not an array of two envelopes")
