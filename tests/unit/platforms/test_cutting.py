"""Who is connected, as mosquitto's log tells it."""

from pathlib import Path

from fleetctl.platforms.local.cutting import client_ids

CAME = "2026-11-24T01:00:00: New client connected from 127.0.0.1:40000 as {id} (p5, c1, k30, u'{user}')."


def test_each_client_id_of_a_subject_is_found_until_it_is_gone(tmp_path: Path) -> None:
    log = tmp_path / "mosquitto.log"
    lines = [
        CAME.format(id="one", user="op:bob"),
        CAME.format(id="two", user="op:bob"),
        CAME.format(id="three", user="op:alice"),
        "2026-11-24T01:00:01: Client two disconnected.",
        CAME.format(id="a (p5, c1, k30, u'op:alice').", user="op:bob"),
        "2026-11-24T01:00:01: Client four closed its connection.",
    ]
    log.write_text("\n".join(lines) + "\n")
    found = client_ids(log, ["op:bob", "op:carol"])
    assert found == {"op:bob": ["one", "a (p5, c1, k30, u'op:alice')."], "op:carol": []}


def test_without_a_log_nothing_is_known_of_anybody(tmp_path: Path) -> None:
    assert client_ids(tmp_path / "none", ["op:bob"]) == {}
