"""The trust document that a device goes by: the bundle's, or a greater one that it has received."""

from fleetctl.agent.identity import Identity
from fleetctl.agent.storage import Storage
from fleetctl.errors import Untrusted
from fleetctl.wire.document import PAYLOAD_LIMIT
from fleetctl.wire.trust import TrustDocument

FILE = "trust.cose"


class HeldTrust:
    """`document` is the greatest that counted, durable."""

    def __init__(self, storage: Storage, identity: Identity) -> None:
        self._storage, self._identity = storage, identity
        self.document, self._envelope = identity.trust, identity.trust_envelope
        envelope = storage.read(FILE, PAYLOAD_LIMIT)
        if envelope is not None:
            try:
                self.document, self._envelope = self._newer(envelope), envelope
            except Untrusted:
                storage.remove(FILE)

    def receive(self, envelope: bytes) -> bool:
        """Take a document; whether it is new. Raises `Malformed` or `Untrusted` for one that must not count."""
        document = self._newer(envelope)
        if document.version == self.document.version:
            return False
        self._storage.write(FILE, envelope)
        self.document, self._envelope = document, envelope
        return True

    def _newer(self, envelope: bytes) -> TrustDocument:
        return self._identity.newer_trust(envelope, self.document, self._envelope)
