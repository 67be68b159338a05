"""Enrolment by claim, one try: hello, a nonce, a signing request that carries it, a certificate, an ordinary bundle."""

import secrets
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Self

from fleetctl import files
from fleetctl.agent.certificate import chain_pem, check_issued, credential_of, parse_chain
from fleetctl.agent.identities import Identities
from fleetctl.agent.identity import SMALL
from fleetctl.errors import ConfigError, Conflict, Denied, FleetError, Malformed, NotFound, Unavailable, Untrusted
from fleetctl.keys.store import generate_key, load_key, load_public_key
from fleetctl.keys.trust import UnverifiedTrust
from fleetctl.mqtt.endpoint import Endpoint
from fleetctl.mqtt.session import Session, open_session
from fleetctl.pki.csr import make_csr, spki_of
from fleetctl.tls import client_context
from fleetctl.wire import bundle
from fleetctl.wire.bundle import ClaimConfig
from fleetctl.wire.document import PAYLOAD_LIMIT
from fleetctl.wire.provision import ProvisionReply, ProvisionRequest, Step, reply_topic, request_topic

LISTEN = 0.5
TEMPORARY = frozenset({"pending", "rate_limited", "not_yet_open", "quota", "no_nonce", "stale_csr"})
"""What time, or a person of the fleet, can mend while the device waits."""
_CONFLICTS = frozenset({"already_active", "already_claimed", "duplicate_key"})
_HINT = "ask whoever gave you the claim: fleetctl provision claim list"
_CONFLICT_HINT = "if this unit shall have it, ask whoever gave you the claim: fleetctl provision reset DEVICE --reason TEXT"


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim bundle that was found whole; `parts` are the files that every identity made of it takes along."""

    folder: Path
    config: ClaimConfig
    endpoint: Endpoint
    parts: dict[str, bytes]
    not_after: float

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a claim bundle.

        Raises:
            ConfigError: it is not whole, or a part of it does not belong to the others.
            NotFound, Denied: a file of it is missing, or may be read by others.
            Untrusted: its trust document is not signed by its root key.
        """
        config = _config(folder)
        ca, cert, key = (folder / name for name in (bundle.AUTHORITY, bundle.CLAIM_CERTIFICATE, bundle.CLAIM_KEY))
        load_key(key)
        client_context(ca, cert, key)
        parts = {name: files.read_limited(folder / name, SMALL) for name in (bundle.AUTHORITY, bundle.ROOT)}
        parts[bundle.TRUST] = files.read_limited(folder / bundle.TRUST, PAYLOAD_LIMIT)
        root = load_public_key(parts[bundle.ROOT], f"`{folder / bundle.ROOT}`")
        UnverifiedTrust(parts[bundle.TRUST]).verify(root, config.tenant)
        endpoint = Endpoint.parse_url(config.broker, ca=ca, cert=cert, key=key)
        end = credential_of(parse_chain(files.read_limited(cert, SMALL))).not_after
        return cls(folder, config, endpoint, parts, end)


@dataclass(frozen=True, slots=True)
class Waiting:
    """Not yet: try again, after `seconds` if the fleet has said so. Without a `code` it was never asked.

    `key` is what `fleetctl provision pending` shows of the key that was sent.
    """

    code: str | None
    detail: str
    seconds: float | None = None
    key: str | None = None


class Refused(Exception):
    """The fleet has said no, for good; `error` is what ends the agent."""

    def __init__(self, code: str, error: FleetError) -> None:
        super().__init__(error.message)
        self.code = code
        self.error = error


def is_claim(folder: Path) -> bool:
    return (folder / bundle.CLAIM_CONFIG).exists()


def enrol(
    claim: Claim,
    serial: str,
    identities: Identities,
    now: float | None,
    stop: threading.Event,
    timeout: float,
) -> Path | Waiting | Refused:
    """Ask once, and store what is granted as an identity; never raises. The key is made once, however often this is called.

    `timeout` is the seconds that the fleet has for one answer.
    """
    try:
        _check_time(claim, now)
        key = identities.candidate_key(generate_key("p256"))
        with open_session(claim.endpoint, "claim", client_id=serial, timeout=timeout) as session:
            talk = _Talk(session, claim.config, serial, stop, timeout)
            talk.listen()
            hello = talk.ask("hello")
            if hello.nonce is None:
                raise Malformed("the fleet answered without a nonce")
            granted = talk.ask("enrol", make_csr(key, serial, hello.nonce).decode())
        return _keep(granted, claim, identities, now)
    except Refused as refused:
        return refused
    except _Later as later:
        return replace(later.waiting, key=spki_of(key.public_key()))
    except FleetError as error:
        return Waiting(None, error.message)
    except Exception as error:
        return Waiting(None, f"enrolling failed: {type(error).__name__}: {error}")


class _Later(Exception):
    def __init__(self, waiting: Waiting) -> None:
        super().__init__(waiting.detail)
        self.waiting = waiting


class _Talk:
    """The questions of one try and their answers."""

    def __init__(self, session: Session, config: ClaimConfig, serial: str, stop: threading.Event, timeout: float) -> None:
        self._session, self._stop, self._timeout = session, stop, timeout
        self._request = request_topic(config.tenant, config.claim, serial)
        self._reply = reply_topic(config.tenant, config.claim, serial)

    def listen(self) -> None:
        """Before anything is asked: an answer must not come to nobody."""
        self._session.subscribe([self._reply], timeout=self._timeout)

    def ask(self, step: Step, csr: str | None = None) -> ProvisionReply:
        """The answer, where it is a yes."""
        request = ProvisionRequest(secrets.token_hex(8), step, csr)
        self._session.publish(self._request, request.encode(), timeout=self._timeout)
        reply = self._answer(request)
        if reply.status == "accepted":
            return reply
        code = reply.code or reply.status
        detail = reply.detail or code.replace("_", " ")
        if reply.status == "pending" or code in TEMPORARY or reply.retry_after is not None:
            raise _Later(Waiting(code, detail, reply.retry_after))
        kind, hint = (Conflict, _CONFLICT_HINT) if code in _CONFLICTS else (Denied, _HINT)
        raise Refused(code, kind(f"the fleet refused the enrolment ({code}): {detail}", hint))

    def _answer(self, request: ProvisionRequest) -> ProvisionReply:
        """What does not parse, and what answers something else, is passed over.

        So is a refusal without a name, as long as another answer may come: whoever else holds the claim can ask in our place
        what nobody can read.
        """
        deadline, nameless = monotonic() + self._timeout, None
        while (left := deadline - monotonic()) > 0 and not self._stop.is_set():
            for message in self._session.receive(min(left, LISTEN)):
                try:
                    reply = ProvisionReply.decode(message.payload)
                except Malformed:
                    continue
                if message.topic == self._reply and (reply.id, reply.step) == (request.id, request.step):
                    return reply
                if message.topic == self._reply and reply.id is None and reply.status == "rejected":
                    nameless = reply
        if nameless is not None:
            code = nameless.code or nameless.status
            raise _Later(Waiting(code, nameless.detail or code.replace("_", " "), nameless.retry_after))
        raise Unavailable(f"nobody answered the {request.step} in time", "does the fleet provision? fleetctl provision serve")


def _keep(granted: ProvisionReply, claim: Claim, identities: Identities, now: float | None) -> Path:
    if granted.path is None or granted.certificate is None:
        raise Malformed("the fleet answered without a path or a certificate")
    if granted.path.tenant != claim.config.tenant:
        raise Untrusted(f"the fleet answered for the tenant `{granted.path.tenant}`")
    folder = identities.candidate
    if folder is None:
        raise NotFound("the key of the enrolment is gone")
    chain = parse_chain(granted.certificate.encode())
    check_issued(chain, load_key(folder / bundle.KEY), granted.path, now)
    config = bundle.render_yaml(claim.config.device(granted.path)).encode()
    identities.complete({**claim.parts, bundle.CONFIG: config, bundle.CERTIFICATE: chain_pem(chain)})
    identities.commit()
    kept = identities.current
    if kept is None:
        raise NotFound("the identity was not stored")
    return kept


def _check_time(claim: Claim, now: float | None) -> None:
    if now is not None and now >= claim.not_after:
        error = Denied(f"the claim in `{claim.folder}` has expired", "ask for a new one: fleetctl provision claim create")
        raise Refused("claim_expired", error)


def _config(folder: Path) -> ClaimConfig:
    try:
        return bundle.parse_claim_yaml(files.read_limited(folder / bundle.CLAIM_CONFIG, bundle.CONFIG_LIMIT).decode())
    except (Malformed, UnicodeDecodeError) as error:
        words = error.message if isinstance(error, FleetError) else "it is not UTF-8"
        raise ConfigError(f"`{folder}` is not a claim: {words}", "make one: fleetctl provision claim create") from error
