"""Merge patches, drift, and the words that make a patch."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetctl.errors import UsageError
from fleetctl.model.twin import (
    ABSENT,
    Difference,
    check_document,
    check_patch,
    check_size,
    convergence,
    drift,
    merge,
    parse_words,
    removal,
    same,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=12,
)
OBJECT = st.dictionaries(st.sampled_from("abc"), JSON, max_size=3)


@pytest.mark.parametrize(
    ("original", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_the_appendix_of_rfc_7396_holds(original: Any, patch: Any, result: Any) -> None:
    assert merge(original, patch) == result


@given(JSON, JSON)
def test_merging_twice_changes_nothing_more(target: Any, patch: Any) -> None:
    once = merge(target, patch)

    assert merge(once, patch) == once


@given(OBJECT, OBJECT)
def test_merging_leaves_its_arguments_alone(target: dict[str, Any], patch: dict[str, Any]) -> None:
    before = repr((target, patch))
    merge(target, patch)

    assert repr((target, patch)) == before


@given(OBJECT)
def test_a_device_that_reports_what_is_desired_does_not_drift(desired: dict[str, Any]) -> None:
    assert drift(desired, {**desired, "extra": 1}) == []


def test_drift_names_each_key_by_its_dotted_path() -> None:
    desired = {"interval": 60, "network": {"apn": "x", "roaming": False}, "tags": [1]}
    reported = {"interval": 30, "network": {"apn": "x"}, "tags": [True], "more": 1}

    assert drift(desired, reported) == [
        Difference("interval", 60, 30),
        Difference("network.roaming", False, ABSENT),
        Difference("tags", [1], [True]),
    ]
    assert drift({"a": 1}, None) == [Difference("a", 1, ABSENT)]
    assert drift({"a": {}}, {"a": {"b": 1}}) == [Difference("a", {}, {"b": 1})]


def test_one_and_true_differ_and_sixty_is_sixty() -> None:
    assert same(60, 60.0)
    assert not same(1, True)
    assert not same({"a": [0]}, {"a": [False]})


def test_words_become_a_patch() -> None:
    words = ["interval=60", "network.apn=iot.example", "network.roaming=false", "old=null", "name=a=b", 'text="60"', "list=[1,2]"]

    assert parse_words(words) == {
        "interval": 60,
        "network": {"apn": "iot.example", "roaming": False},
        "old": None,
        "name": "a=b",
        "text": "60",
        "list": [1, 2],
    }


@pytest.mark.parametrize("value", ["NaN", "Infinity", "{", "01", "tru", "", " "])
def test_a_value_that_is_not_json_is_text(value: str) -> None:
    assert parse_words([f"a={value}"]) == {"a": value}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing to set"),
        (["interval"], "`interval` is not KEY=VALUE"),
        (["=1"], "`=1` is not KEY=VALUE"),
        (["a..b=1"], "`a..b=1` is not KEY=VALUE"),
        (["a=1", "a.b=2"], "`a.b` contradicts another word"),
        (["a.b=2", "a=1"], "`a` is set twice"),
        (["$errors=1"], "`$errors` is a reserved key"),
        (["a.$b=1"], "`$b` is a reserved key"),
        (['a={"$b":1}'], "`$b` is a reserved key"),
        (['a=[{"$b":1}]'], "`$b` is a reserved key"),
        (["firmwareVersion=2.0.0"], "`firmwareVersion` is not set through the twin"),
        (["a=1e999"], "a number is larger than devices take"),
        ([f"a={10**400}"], "a number is larger than devices take"),
        (["a=9223372036854775808"], "a number is larger than devices take"),
        (['a="\\ud800"'], "`\\ud800` is not Unicode text"),
        (['a={"b":1,"b":2}'], "a key appears twice in one JSON value"),
        (["a=" + "[" * 20 + "]" * 20], "the change nests deeper than 16 levels"),
    ],
)
def test_bad_words_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_words(words)

    assert caught.value.message == message


def test_firmware_is_pointed_to_ota() -> None:
    with pytest.raises(UsageError) as caught:
        check_patch({"firmwareVersion": "2.0.0"})

    assert "ota start" in caught.value.hint


def test_a_desired_document_has_a_limit() -> None:
    assert check_size("pump-1", b"x" * 8192)
    with pytest.raises(UsageError, match="would be 8193 bytes, more than 8192"):
        check_size("pump-1", b"x" * 8193)


def test_values_may_all_be_text() -> None:
    words = ["revision=1.10", "on=true", "gone=null", "network.list=[1]"]

    assert parse_words(words, text=True) == {"revision": "1.10", "on": "true", "gone": "null", "network": {"list": "[1]"}}


def test_keys_are_removed_by_a_patch() -> None:
    assert removal(["a", "b.c", "b.d"]) == {"a": None, "b": {"c": None, "d": None}}
    assert merge({"a": 1, "b": {"c": 2, "e": 3}}, removal(["a", "b.c"])) == {"b": {"e": 3}}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ([], "nothing to unset"),
        (["a=1"], "`a=1` is not a key"),
        (["a..b"], "`a..b` is not a key"),
        (["$errors"], "`$errors` is a reserved key"),
        (["firmwareVersion"], "`firmwareVersion` is not set through the twin"),
        (["a", "a.b"], "`a.b` contradicts another word"),
        (["a.b", "a"], "`a` is set twice"),
    ],
)
def test_what_is_no_key_is_not_removed(keys: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        removal(keys)

    assert caught.value.message == message


def test_a_whole_document_has_no_null() -> None:
    assert check_document({"a": [None], "b": {}}) == {"a": [None], "b": {}}
    with pytest.raises(UsageError, match=r"`a\.b` is null"):
        check_document({"a": {"b": None}})
    with pytest.raises(UsageError, match="`firmwareVersion` is not set through the twin"):
        check_document({"firmwareVersion": "1.0.0"})


@pytest.mark.parametrize(
    ("version", "desired", "reported_version", "reported", "outcome", "detail"),
    [
        (0, {}, 0, None, "converged", "nothing is desired"),
        (1, {"a": 1}, 0, None, "waiting", "it has reported nothing"),
        (2, {"a": 1}, 1, {"a": 1}, "waiting", "it answers version 1"),
        (2, {"a": 1}, 2, {"a": 1.0, "b": 2}, "converged", None),
        (2, {"a": 1}, 2, {"a": 1, "$errors": {"z": "?"}}, "converged", None),
        (2, {"a": 1}, 2, {"$errors": {"a": "no\x1b"}}, "refused", "`a`: no\\x1b"),
        (2, {"a": 1}, 2, {"a": 2, "$errors": {}}, "waiting", "`a` differs"),
        (2, {"a": 1, "b": {"c": 1}}, 2, {}, "waiting", "2 values differ, the first is `a`"),
        (2, {"a": 1}, 1, {"$errors": {"a": "of version 1"}}, "waiting", "it answers version 1"),
    ],
)
def test_a_device_has_converged_when_it_answers_the_version_with_all_its_values(
    version: int, desired: Any, reported_version: int, reported: Any, outcome: str, detail: str | None
) -> None:
    assert convergence(version, desired, reported_version, reported) == (outcome, detail)


@given(OBJECT, st.integers(1, 9))
def test_whoever_reports_what_is_desired_converges(desired: dict[str, Any], version: int) -> None:
    assert convergence(version, desired, version, desired) == ("converged", None)
