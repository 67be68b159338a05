"""The selector language: what it selects, and where it says it is wrong."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetctl.errors import UsageError
from fleetctl.model.criteria import DeviceView, duration
from fleetctl.model.device import DevicePath
from fleetctl.model.selector import limit, parse

PUMP = DeviceView(
    DevicePath("acme", "oslo", "pump", "pump-1"),
    {"site": "north-7", "group": "canary", "floor": "12", "type": "odd"},
    "2.0.5",
    "online",
    3600.0,
    {"reportingInterval": 60, "network": {"apn": "iot.example"}, "armed": True, "version": "60", "nothing": None},
)
BARE = DeviceView(DevicePath("acme", "bergen", "sensor", "s-2"))


@pytest.mark.parametrize(
    ("text", "pump", "bare"),
    [
        ("type=*", True, True),
        ("type=pump", True, False),
        ("type==pump", True, False),
        ("type!=pump", False, True),
        ("type = pump , location = oslo", True, False),
        ("type=pump and location=bergen", False, False),
        ("location in (oslo,bergen)", True, True),
        ("location in (oslo)", True, False),
        ("location notin (oslo, troms*)", False, True),
        ("id=pump-?", True, False),
        ('id="pump-?"', False, False),
        ('site="north-7"', True, False),
        ("site!=north-7", False, True),
        ("site", True, False),
        ("!site", False, True),
        ("! site", False, True),
        ("label.type=odd", True, False),
        ("label.site=north-*", True, False),
        ("floor>9", True, False),
        ("floor<9", False, False),
        ("site>9", False, False),
        (f"floor<{10**400}", True, False),
        ("firmware<2.1.0", True, False),
        ("firmware<2.0.5", False, False),
        ("firmware>=2.0.5", True, False),
        ("firmware>2.0.5-rc.1", True, False),
        ("firmware<10.0.0", True, False),
        ("firmware=2.*", True, False),
        ("firmware!=2.0.5", False, True),
        ("firmware", True, False),
        ("!firmware", False, True),
        ("status=online", True, False),
        ("status in (online,unknown)", True, True),
        ("status!=online", False, True),
        ("idle>30m", True, False),
        ("idle>1h", False, False),
        ("idle>=1h", True, False),
        ("idle<2h", True, False),
        ("!idle", False, True),
        ("twin.reportingInterval=60", True, False),
        ("twin.reportingInterval=60.0", True, False),
        ("twin.reportingInterval>59.5", True, False),
        ('twin.reportingInterval="60"', False, False),
        ("twin.version=60", True, False),
        ("twin.version>1", False, False),
        ("twin.network.apn=iot.*", True, False),
        ("twin.network.apn.deeper=1", False, False),
        ("twin.armed=true", True, False),
        ("twin.armed=1", False, False),
        ("twin.armed>0", False, False),
        ("twin.nothing", False, False),
        ("!twin.absent", True, True),
        ("type=pump or type=sensor", True, True),
        ("type=sensor or group=canary,site=north-7", True, True),
        ("type=sensor or group=canary,site=south", False, True),
        ("(type=sensor or group=canary),site=south", False, False),
        ("((type=pump))", True, False),
    ],
)
def test_a_selector_selects_what_it_says(text: str, pump: bool, bare: bool) -> None:
    selector = parse(text)

    assert (selector.matches(PUMP), selector.matches(BARE)) == (pump, bare)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("type=sensor,(a=1)) ", "unexpected ')' at 18"),
        ("type=", "unexpected end at 6"),
        ("type=pump,", "unexpected end at 11"),
        ("(type=pump", "unexpected end at 11"),
        ("type=pump site=x", "unexpected 'site' at 11"),
        ("or type=pump", "unexpected 'or' at 1"),
        ("a=1 or or b=1", "unexpected 'or' at 8"),
        ("=pump", "unexpected '=' at 1"),
        ("location in oslo", "unexpected 'oslo' at 13"),
        ("location in ()", "unexpected ')' at 14"),
        ('site="north', "a quotation mark that is never closed at 6"),
        ("!(a=1)", "unexpected '(' at 2"),
        ("type<3", "`type` at 1 has no order"),
        ("a=1,type", "`type` at 5 is compared with nothing"),
        ("idle=1h", "`idle` at 1 is compared with < or >"),
        ("idle>1", "`1` is not a duration"),
        ("status=onlin", "`onlin` after `status` at 1 is no status"),
        ("firmware<two", "`two` after `<` at 1 is not a version, such as 2.1.0"),
        ("floor>high", "`high` after `>` at 1 is not a number"),
        ("floor>NaN", "`NaN` after `>` at 1 is not a number"),
        ("pump-*", "`pump-*` at 1 names no field"),
        ("twin.=1", "`twin.` at 1 names no field"),
        ("twin.a..b=1", "`twin.a..b` at 1 names no field"),
        ("label.=1", "`label.` at 1 names no field"),
        ("(" * 60 + "a=1" + ")" * 60, "parentheses nest deeper than 50 at 51"),
        ("a" * 20_001, "the selector is longer than 20000 characters"),
    ],
)
def test_an_error_says_what_and_where(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)

    assert caught.value.message == message
    assert caught.value.hint


@pytest.mark.parametrize("text", ["", "  ", "\t\n"])
def test_an_empty_selector_is_never_everything(text: str) -> None:
    with pytest.raises(UsageError, match="an empty selector selects nothing"):
        parse(text)


def test_a_selector_knows_whether_it_asks_for_live_fields() -> None:
    assert parse("type=pump,site=oslo").fields == {"type", "label.site"}
    assert not parse("type=pump,site=oslo").is_live
    assert parse("a=1 or (b=1,twin.x=1)").is_live
    assert parse("firmware<2.0.0").is_live


@given(st.text(max_size=60))
def test_any_text_is_parsed_or_refused_in_words(text: str) -> None:
    with contextlib.suppress(UsageError):
        parse(text).matches(PUMP)


@given(st.sampled_from(["type", "id", "site", "firmware", "twin.version"]), st.text("abc*?[]0.1-", min_size=1))
def test_unequal_is_the_opposite_of_equal(field: str, value: str) -> None:
    for view in (PUMP, BARE):
        assert parse(f'{field}="{value}"').matches(view) is not parse(f'{field}!="{value}"').matches(view)
        assert parse(f"{field} in ({value},x)").matches(view) is not parse(f"{field} notin ({value},x)").matches(view)


@given(st.sets(st.text("abcdefgh-", min_size=1, max_size=6), max_size=60), st.integers(1, 100), st.integers(1, 100))
def test_a_smaller_share_is_a_part_of_a_larger_one(ids: set[str], one: int, other: int) -> None:
    small, large = sorted((one, other))
    smaller, larger = limit(sorted(ids), f"{small}%"), limit(sorted(ids), f"{large}%")

    assert set(smaller) <= set(larger)
    assert limit(sorted(ids, reverse=True), f"{small}%") == sorted(smaller, reverse=True)
    assert len(limit(sorted(ids), "100%")) == len(ids)


def test_a_limit_counts_or_shares_and_rounds_up() -> None:
    ids = [f"d{number}" for number in range(30)]

    assert len(limit(ids, "10%")) == 3
    assert len(limit(ids, "1%")) == 1
    assert len(limit(ids, "12.5%")) == 4
    assert len(limit(ids, "7")) == 7
    assert limit(ids, "100") == ids


@pytest.mark.parametrize("size", ["", "0", "0%", "101%", "-1", "ten", "10 %", "%"])
def test_a_bad_limit_is_a_usage_error(size: str) -> None:
    with pytest.raises(UsageError, match="is not a limit"):
        limit(["a"], size)


def test_durations_need_a_unit() -> None:
    assert duration("1.5h") == 5400.0
    assert duration("2w") == 1209600.0
    with pytest.raises(UsageError):
        duration("90")


GROUPS = {"canary": "site=oslo,type=pump", "early": "group=canary or site=bergen", "loop": "group=loop2", "loop2": "group=loop"}


def test_a_group_stands_for_its_selector() -> None:
    oslo = DeviceView(DevicePath("acme", "x", "pump", "p1"), {"site": "oslo"})
    bergen = DeviceView(DevicePath("acme", "x", "sensor", "s1"), {"site": "bergen", "group": "other"})
    for text, matched in {
        "group=canary": (True, False),
        "group=early": (True, True),
        "group!=canary": (False, True),
        "group in (canary,other)": (True, True),
        "group notin (early)": (False, False),
        "group=ca*": (False, False),
        "label.group=canary": (False, False),
        "group": (False, True),
    }.items():
        asked = parse(text, GROUPS)
        assert (asked.matches(oslo), asked.matches(bergen)) == matched, text
    assert parse("group!=early", GROUPS).fields == {"label.site", "type"}


def test_a_group_made_of_itself_is_refused_with_its_way() -> None:
    with pytest.raises(UsageError) as caught:
        parse("group=loop", GROUPS)
    assert caught.value.message == "group `loop` is made of itself: loop > loop2 > loop"
    many = {f"g{n}": f"group=g{n + 1} or group=g{n + 1}" for n in range(30)} | {"g30": "site=a"}
    with pytest.raises(UsageError, match="stands for more than 200 groups"):
        parse("group=g0", many)
    with pytest.raises(UsageError, match="group `bad` cannot be read: unexpected end at 6"):
        parse("group=bad", {"bad": "site="})
