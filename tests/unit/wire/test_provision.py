"""Requests and replies of enrolment by claim: strict, bounded, and the topics that carry who asked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetctl.errors import Malformed
from fleetctl.model.device import DevicePath
from fleetctl.model.topic import matches
from fleetctl.wire.document import dump_json
from fleetctl.wire.provision import (
    CSR_LIMIT,
    REQUEST_LIMIT,
    ProvisionReply,
    ProvisionRequest,
    reply_topic,
    request_filter,
    request_topic,
    split_request,
)


def test_the_topic_of_a_request_says_who_asks() -> None:
    topic = request_topic("acme", "line-3", "SN1")
    assert topic == "acme/_fleet/provision/claim:line-3/SN1/request"
    assert split_request(topic) == ("line-3", "SN1")
    assert matches(request_filter("acme"), topic)
    assert not matches(request_filter("acme"), reply_topic("acme", "line-3", "SN1"))


@pytest.mark.parametrize(
    "topic",
    [
        "acme/_fleet/provision/line-3/SN1/request",
        "acme/_fleet/provision/op:alice/SN1/request",
        "acme/_fleet/provision/claim:/SN1/request",
        "acme/_fleet/provision/claim:a/SN 1/request",
        "acme/_fleet/provision/claim:a//request",
        "acme/_fleet/provision/claim:a/b/c/request",
        "acme/_fleet/provision/claim:a/SN1/reply",
        "acme/_fleet/trust/claim:a/SN1/request",
        "request",
    ],
)
def test_a_topic_of_another_shape_is_nobodys(topic: str) -> None:
    assert split_request(topic) is None


@pytest.mark.parametrize("request_", [ProvisionRequest("a1", "hello"), ProvisionRequest("a1", "enrol", "-----BEGIN")])
def test_a_request_reads_as_it_was_written(request_: ProvisionRequest) -> None:
    assert ProvisionRequest.decode(request_.encode()) == request_


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"id": "a"},
        {"id": "a", "step": "enrol"},
        {"id": "a", "step": "enrol", "csr": 5},
        {"id": "a", "step": "enrol", "csr": "x" * (CSR_LIMIT + 1)},
        {"id": "", "step": "hello"},
        {"id": "a b", "step": "hello"},
        {"id": "x" * 65, "step": "hello"},
        {"id": 7, "step": "hello"},
        {"id": "a", "step": "goodbye"},
        {"id": "a", "step": "hello", "pad": "x" * REQUEST_LIMIT},
    ],
)
def test_what_is_no_request_is_malformed(document: dict[str, object]) -> None:
    with pytest.raises(Malformed):
        ProvisionRequest.decode(dump_json(document))


@given(st.binary(max_size=300))
def test_garbage_is_malformed_and_nothing_else(payload: bytes) -> None:
    for kind in (ProvisionRequest, ProvisionReply):
        with pytest.raises(Malformed):
            kind.decode(payload)


def test_a_reply_reads_as_it_was_written() -> None:
    path = DevicePath("acme", "oslo", "pump", "p-1")
    for reply in (
        ProvisionReply("a1", "hello", "accepted", nonce="n"),
        ProvisionReply("a1", "enrol", "accepted", path=path, certificate="-----BEGIN"),
        ProvisionReply("a1", "enrol", "pending", "pending", "wait", retry_after=30.0),
        ProvisionReply(None, None, "rejected", "bad_request", "no"),
    ):
        assert ProvisionReply.decode(reply.encode()) == reply


def test_the_keys_of_a_reply_are_these() -> None:
    assert ProvisionReply("a1", "hello", "accepted").encode() == (
        b'{"id":"a1","step":"hello","status":"accepted","code":null,"detail":null,"nonce":null,"deviceId":null,"path":null,'
        b'"certificate":null,"retryAfter":null}'
    )


@pytest.mark.parametrize(
    "change",
    [{"path": "acme/oslo"}, {"deviceId": "p-2"}, {"status": "perhaps"}, {"retryAfter": -1}, {"step": "x"}, {"certificate": 1}],
)
def test_a_reply_that_contradicts_itself_is_malformed(change: dict[str, object]) -> None:
    good: dict[str, object] = {"id": "a", "step": "enrol", "status": "accepted", "path": "acme/oslo/pump/p-1", "deviceId": "p-1"}
    with pytest.raises(Malformed):
        ProvisionReply.decode(dump_json(good | change))
