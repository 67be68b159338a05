"""A context whose registry is a database that a team shares."""

import json
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.contract.registry.postgres import server
from tests.e2e.console import Console


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with server() as found:
        with psycopg.connect(f"{found}/postgres", autocommit=True) as connection:
            connection.execute("CREATE DATABASE fleet")
        yield f"{found}/fleet"


def test_a_fleet_lives_in_a_database(url: str, tmp_path: Path) -> None:
    console = Console(tmp_path)
    made = console.run("init", "team", "--tenant", "acme", "--registry", url, "-o", "json")
    assert made.json["name"] == "team"
    assert not (tmp_path / "team" / "registry.db").exists()
    (tmp_path / "devices.csv").write_text("id,type,location,site\np-1,pump,oslo,north\np-2,pump,oslo,south\n")
    assert console.run("provision", "import", tmp_path / "devices.csv", "-o", "json").json["added"] == 2
    console.run("groups", "create", "northern", "-l", "site=north")
    assert console.run("provision", "list", "-l", "group=northern", "-o", "name").out == "p-1\n"
    console.run("twin", "set", "p-1", "interval=60")  # no broker runs: it is owed
    assert console.run("twin", "get", "p-1", "-o", "json").json["desired"] == {"interval": 60}
    actions = [each["action"] for each in console.run("audit", "-o", "jsonl").lines]
    assert actions[:2] == ["imported", "group.created"]

    again = console.run("init", "other", "--tenant", "acme", "--registry", url, "-o", "json")
    again.error(5, url)
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM devices").fetchall() == [(2,)]
    assert json.loads(console.run("context", "list", "-o", "json").out)[0]["name"] == "team"


@pytest.mark.parametrize(
    "wrong", ["postgresql://u:secret@host/db", "mysql://host/db", "postgresql://host", "postgresql://h/d?password=x"]
)
def test_a_url_with_a_password_is_refused(tmp_path: Path, wrong: str) -> None:
    said = Console(tmp_path).run("init", "--tenant", "acme", "--registry", wrong, "-o", "json")
    said.error(2, "--registry")
    assert "secret" not in said.err
