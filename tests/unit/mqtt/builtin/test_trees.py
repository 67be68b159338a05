"""The two trees against the plain definition of matching, and the rules against theirs."""

from hypothesis import given
from hypothesis import strategies as st

from fleetctl.model.access import Action, Rule, device_rules
from fleetctl.model.topic import is_filter, matches
from fleetctl.mqtt.builtin.limits import Limits
from fleetctl.mqtt.builtin.message import Message
from fleetctl.mqtt.builtin.policy import Policy, covers, identity_of, overlaps
from fleetctl.mqtt.builtin.retained import Retained
from fleetctl.mqtt.builtin.router import Router, Subscription

LEVELS = ["a", "b", "", "$x"]
topics = st.lists(st.sampled_from(LEVELS), min_size=1, max_size=4).map("/".join).filter(bool)
filters = (
    st.lists(st.sampled_from([*LEVELS, "+"]), max_size=4)
    .flatmap(lambda levels: st.sampled_from(["/".join(levels), "/".join([*levels, "#"])]))
    .filter(is_filter)
)


def message(topic: str, payload: bytes = b"x", expires_at: float | None = None) -> Message:
    return Message(topic, payload, 1, True, "c", expires_at, 0, None, None, None, ())


@given(st.lists(st.tuples(st.integers(0, 3), filters), max_size=8), st.lists(st.integers(0, 7), max_size=4), topics)
def test_the_router_finds_what_matches(added: list[tuple[int, str]], removed: list[int], topic: str) -> None:
    router: Router[int] = Router()
    held = set(added)
    for subscriber, pattern in added:
        router.add(subscriber, Subscription(pattern, 1))
    for index in removed:
        if index < len(added):
            router.remove(*added[index])
            held.discard(added[index])
    found = [(subscriber, subscription.filter) for subscriber, subscription in router.match(topic)]
    assert sorted(found) == sorted((subscriber, pattern) for subscriber, pattern in held if matches(pattern, topic))


@given(st.lists(filters, max_size=8))
def test_a_router_that_was_emptied_holds_nothing(patterns: list[str]) -> None:
    router: Router[int] = Router()
    for pattern in patterns:
        router.add(1, Subscription(pattern, 0))
    for pattern in patterns:
        router.remove(1, pattern)
    assert not router._root.children


@given(st.lists(topics, max_size=8), st.lists(topics, max_size=3), filters)
def test_retained_messages_are_found_by_filter(stored: list[str], cleared: list[str], pattern: str) -> None:
    retained = Retained(Limits())
    for topic in stored:
        retained.store(message(topic))
    for topic in cleared:
        retained.store(message(topic, b""))
    held = set(stored) - set(cleared)
    assert sorted(found.topic for found in retained.match(pattern, 0)) == sorted(t for t in held if matches(pattern, t))
    for topic in held:
        retained.clear(topic)
    assert (retained._all.bytes, retained._shares, retained._root.children) == (0, {}, {})


@given(filters, filters, topics)
def test_two_filters_that_match_one_topic_overlap(one: str, other: str, topic: str) -> None:
    assert overlaps(one, other) == overlaps(other, one)
    if matches(one, topic) and matches(other, topic):
        assert overlaps(one, other)


@given(filters, filters, topics)
def test_a_filter_that_covers_another_matches_what_that_matches(wide: str, narrow: str, topic: str) -> None:
    if covers(wide, narrow) and matches(narrow, topic):
        assert matches(wide, topic)


def test_filters_cover_themselves_and_narrower_ones() -> None:
    for wide, narrow in (("a/#", "a"), ("a/#", "a/+/#"), ("a/+", "a/b"), ("+/b", "+/b"), ("#", "a/#")):
        assert covers(wide, narrow)
    for wide, narrow in (("a/b", "a/+"), ("a/+", "a/#"), ("a/+", "#"), ("a/b", "a/c"), ("#", "$x/a"), ("a", "a/#")):
        assert not covers(wide, narrow)


def test_filters_that_share_no_topic_do_not_overlap() -> None:
    for one, other in (("a/b", "a/c"), ("a/+", "a"), ("a/b/#", "a/c/#"), ("+", "$x"), ("#", "$x/a"), ("+/b", "a/c")):
        assert not overlaps(one, other)
    for one, other in (("a/#", "a"), ("+/b", "a/+"), ("#", "a/b"), ("a", "a")):
        assert overlaps(one, other)


def test_a_policy_answers_like_the_rules_it_remembers() -> None:
    policy = Policy(device_rules("acme"), "dev-1")
    for _ in range(2):
        assert policy.may_write("acme/h/s/dev-1/telemetry")
        assert not policy.may_read("acme/h/s/dev-1/telemetry")
        assert not policy.may_write("acme/h/s/dev-2/telemetry")
    known = set(policy._granted)
    assert not policy.may_write("acme/secret")
    assert policy._granted == known
    for number in range(1000):
        assert policy.may_write(f"acme/h/s{number}/dev-1/telemetry")
    assert len(policy._granted) <= 256


def test_a_message_weighs_all_that_belongs_to_it() -> None:
    plain = message("a").size
    heavy = Message("a", b"x", 1, True, "c", None, 0, "t" * 1000, "r" * 1000, b"c" * 1000, (("k", "v"),) * 100)
    assert plain > 256
    assert heavy.size > plain + 3000 + 100 * 100


def test_an_identity_that_could_be_a_wildcard_may_nothing() -> None:
    rules = (Rule(Action.WRITE, "%u/x"), Rule(Action.READ, "%u/x"))
    assert not Policy(rules, "+").may_write("+/x")
    assert not Policy(rules, "#").may_read("a/x")


def test_an_identity_is_one_common_name_that_may_stand_in_a_topic() -> None:
    def subject(*names: str) -> dict[str, object]:
        return {"subject": ((("organizationName", "Acme"),), *((("commonName", name),) for name in names))}

    assert identity_of(subject("dev-1")) == "dev-1"
    assert identity_of(subject("op:alice")) == "op:alice"
    for names in ((), ("",), ("a", "b"), ("a/b",), ("+",), ("#",), ("a\0b",), ("a\nb",)):
        assert identity_of(subject(*names)) is None
    assert identity_of({}) is None
    both = {"subject": ((("commonName", "a"), ("commonName", "b")),)}
    assert identity_of(both) is None
