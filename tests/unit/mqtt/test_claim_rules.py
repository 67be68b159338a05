import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetctl.model.access import Action, allowed, claim_rules, fill

RULES = claim_rules("acme")
BASE = "acme/_fleet/provision/claim:line-7"
HOSTILE = ["", "a/b", "+", "#", "a/+", "a\0b", "SN-1/request", "/", "#/"]


def may(action: Action, topic: str, client_id: str, identity: str = "claim:line-7") -> bool:
    return allowed(RULES, identity, action, topic, client_id)


def test_a_claim_writes_requests_and_reads_replies_of_its_serial_number() -> None:
    assert may(Action.WRITE, f"{BASE}/SN-1/request", "SN-1")
    assert may(Action.READ, f"{BASE}/SN-1/reply", "SN-1")
    assert not may(Action.READ, f"{BASE}/SN-1/request", "SN-1")
    assert not may(Action.WRITE, f"{BASE}/SN-1/reply", "SN-1")
    assert not may(Action.WRITE, f"{BASE}/SN-2/request", "SN-1")
    assert not may(Action.WRITE, f"{BASE}/SN-1/request", "SN-1", "claim:other")


@pytest.mark.parametrize("client_id", HOSTILE)
def test_a_client_id_that_is_not_one_level_may_do_nothing(client_id: str) -> None:
    for topic in (f"{BASE}/SN-1/request", f"{BASE}/{client_id}/request", f"{BASE}/a/b/request", f"{BASE}//request"):
        assert not may(Action.WRITE, topic, client_id)
    assert fill(RULES[0].pattern, "claim:line-7", client_id) is None


@pytest.mark.parametrize("identity", HOSTILE)
def test_nor_may_such_an_identity(identity: str) -> None:
    assert not may(Action.WRITE, f"acme/_fleet/provision/{identity}/SN-1/request", "SN-1", identity)


@given(st.text(max_size=8), st.text(st.sampled_from("ab/+#%uc"), max_size=6))
def test_whatever_the_names_only_the_one_topic_is_permitted(identity: str, client_id: str) -> None:
    for victim in ("SN-1", "a", "b"):
        if may(Action.WRITE, f"acme/_fleet/provision/{identity}/{victim}/request", client_id, identity):
            assert client_id == victim
