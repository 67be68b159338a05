"""Ranges as RFC 9110 section 14 has them."""

import pytest

from fleetctl.ota.server import parse_range


@pytest.mark.parametrize(
    ("header", "span"),
    [
        (None, None),
        ("bytes=0-", (0, 100)),
        ("bytes=0-0", (0, 1)),
        ("bytes=10-19", (10, 20)),
        ("bytes=90-1000", (90, 100)),
        ("bytes=-10", (90, 100)),
        ("bytes=-1000", (0, 100)),
    ],
)
def test_one_range_is_cut_to_the_size(header: str | None, span: tuple[int, int] | None) -> None:
    assert parse_range(header, 100) == span


@pytest.mark.parametrize("header", ["bytes=-", "bytes=5-4", "bytes=0-1,5-6", "items=0-1", "bytes=a-b", "bytes=0-1;x", ""])
def test_what_is_not_one_plain_range_is_ignored(header: str) -> None:
    assert parse_range(header, 100) is None


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=100-200", "bytes=-0"])
def test_a_range_outside_the_artifact_is_unsatisfiable(header: str) -> None:
    with pytest.raises(ValueError, match="bytes"):
        parse_range(header, 100)


def test_an_empty_artifact_has_no_range() -> None:
    with pytest.raises(ValueError, match="bytes"):
        parse_range("bytes=-5", 0)
