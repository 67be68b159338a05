from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetctl.errors import UsageError
from fleetctl.model.release import Release, Version, is_downgrade

# Semantic Versioning 2.0.0 section 11.4.4, and its neighbours.
ASCENDING = [
    "0.9.9",
    "1.0.0-0",
    "1.0.0-2",
    "1.0.0-10",
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0",
    "1.0.10",
    "1.2.0",
    "10.0.0",
]
WORD = st.from_regex(r"(?:0|[1-9][0-9]{0,3}|[a-z-][a-z0-9-]{0,3})", fullmatch=True)
VERSIONS = st.builds(
    Version, st.integers(0, 99), st.integers(0, 99), st.integers(0, 99), st.lists(WORD, max_size=3).map(tuple), st.just(())
)


def test_versions_are_ordered_as_the_specification_orders_them() -> None:
    versions = [Version.parse(text) for text in ASCENDING]
    assert all(earlier < later for earlier, later in combinations(versions, 2))


@given(VERSIONS)
def test_a_version_survives_its_spelling(version: Version) -> None:
    again = Version.parse(str(version))
    assert again == version
    assert str(again) == str(version)


@given(VERSIONS, VERSIONS, VERSIONS)
def test_the_order_is_total(a: Version, b: Version, c: Version) -> None:
    assert (a < b) + (b < a) + (a == b) == 1
    assert not (a <= b <= c) or a <= c


def test_build_metadata_does_not_count() -> None:
    assert Version.parse("1.0.0+a") == Version.parse("1.0.0+b")
    assert hash(Version.parse("1.0.0+a")) == hash(Version.parse("1.0.0"))
    assert str(Version.parse("1.0.0-rc.1+build.7")) == "1.0.0-rc.1+build.7"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "1.0",
        "v1.0.0",
        "1.0.0.0",
        "01.0.0",
        "1.0.0-",
        "1.0.0-01",
        "1.0.0-a..b",
        "1.0.0+",
        "1.0.0 ",
        "1.0.0\n",
        "\u0661.0.0",
    ],
)
def test_what_is_no_semantic_version_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a semantic version"):
        Version.parse(text)


def test_a_version_that_never_ends_is_refused() -> None:
    with pytest.raises(UsageError):
        Version.parse("1.0." + "9" * 100000)


def test_a_release_is_named_type_at_version() -> None:
    release = Release.parse("pump@1.4.2")
    assert (release.device_type, str(release.version), release.name, str(release)) == (
        "pump",
        "1.4.2",
        "pump@1.4.2",
        "pump@1.4.2",
    )


@pytest.mark.parametrize("text", ["pump", "@1.0.0", "pump@", "pu/mp@1.0.0", "pump@1.0", "_x@1.0.0"])
def test_what_names_no_release_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Release.parse(text)


def test_a_downgrade_is_what_the_device_runs_being_later() -> None:
    offered = Version.parse("2.0.0")
    assert is_downgrade("2.0.1", offered)
    assert not is_downgrade("2.0.0", offered)
    assert not is_downgrade("2.0.0-rc.1", offered)
    assert not is_downgrade(None, offered)
    assert not is_downgrade("factory image", offered)
