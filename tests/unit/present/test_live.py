import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetctl.present.live import WIDTH, Bar, board
from fleetctl.present.progress import counted, progress


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))
def test_a_bar_always_fills_its_cells(good: int, bad: int, busy: int, rest: int) -> None:
    shares = Bar("x", good, bad, busy, good + bad + busy + rest).shares()
    assert sum(shares.values()) == WIDTH
    assert all(each >= 0 for each in shares.values())
    assert (shares.get("bad", 0) > 0) == (bad > 0)


@pytest.mark.parametrize("out", [io.StringIO(), Screen()])
def test_progress_counts_what_passes(out: io.StringIO) -> None:
    assert list(counted(range(3), "reading", 3, out)) == [0, 1, 2]
    with progress("reading", None, out) as advance:
        advance(1)
    assert bool(out.getvalue()) == out.isatty()


@pytest.mark.parametrize("out", [io.StringIO(), Screen()])
def test_a_board_is_drawn_on_a_terminal_only(out: io.StringIO) -> None:
    with board(out) as draw:
        draw([Bar("2.0.0", good=3, bad=1, busy=1, total=10, note="wave 2\x1b[2J")], "pump-1 is testing")
    assert ("4/10" in out.getvalue()) == out.isatty()
    assert "\x1b[2J" not in out.getvalue()
