"""Files of devices: the good lines or none, each bad one by its number, in flat memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fleetctl.errors import FleetError, NotFound, Partial, UsageError
from fleetctl.platforms.device_records import Imported
from fleetctl.platforms.memory import MemoryFleet
from fleetctl.platforms.protocol import Targets
from fleetctl.platforms.rows import SERIALS, read_rows

HEADER = "id,type,location\n"


def imported(fleet: MemoryFleet, path: Path, *, atomic: bool = False, errors: Path | None = None) -> Imported:
    return fleet.devices.import_file(path, atomic=atomic, errors=errors)


@pytest.fixture
def fleet() -> MemoryFleet:
    return MemoryFleet("acme")


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    path = tmp_path / "devices.csv"
    path.write_text(HEADER + "p-1,pump,oslo\n" + "bad/1,pump,oslo\n" * 150 + "p-2,pump,oslo\n")
    return path


def test_every_refused_line_is_in_the_file_of_errors(fleet: MemoryFleet, mixed: Path, tmp_path: Path) -> None:
    with pytest.raises(Partial) as caught:
        imported(fleet, mixed, errors=tmp_path / "refused.jsonl")
    record = caught.value.record
    assert isinstance(record, dict)
    assert (record["added"], record["refused"], len(record["errors"])) == (2, 150, 100)
    lines = [json.loads(line) for line in (tmp_path / "refused.jsonl").read_text().splitlines()]
    assert [line["line"] for line in lines] == list(range(3, 153))
    assert set(lines[0]) == {"line", "id", "error"}


def test_all_or_nothing_is_nothing_where_a_line_is_bad(fleet: MemoryFleet, mixed: Path) -> None:
    with pytest.raises(FleetError, match="nothing was added") as caught:
        imported(fleet, mixed, atomic=True)
    assert caught.value.record is not None
    assert type(caught.value) is FleetError
    assert list(fleet.devices.list(Targets())) == []
    mixed.write_text(HEADER + "p-1,pump,oslo\np-2,pump,oslo\n")
    assert imported(fleet, mixed, atomic=True).added == 2
    assert imported(fleet, mixed, atomic=True).unchanged == 2


def test_progress_is_told_of_every_line(fleet: MemoryFleet, tmp_path: Path) -> None:
    path = tmp_path / "devices.csv"
    path.write_text(HEADER + "".join(f"p-{number},pump,oslo\n" for number in range(1201)))
    told: list[int] = []
    fleet.devices.import_file(path, progress=told.append)
    assert (sum(told), len(told)) == (1201, 3)


def test_a_file_of_errors_that_cannot_be_written_imports_nothing(fleet: MemoryFleet, mixed: Path, tmp_path: Path) -> None:
    with pytest.raises(FleetError, match="cannot write"):
        imported(fleet, mixed, errors=tmp_path / "nowhere" / "x.jsonl")
    assert list(fleet.devices.list(Targets())) == []


def test_a_line_without_end_is_one_bad_line(fleet: MemoryFleet, tmp_path: Path) -> None:
    for name, good, bad in (
        ("a.csv", HEADER + "p-1,pump,oslo\n", "x" * 70_000 + "\n"),
        ("b.csv", HEADER, '"' + "x" * 70_000 + "\n"),
        ("c.csv", HEADER, "p-1,pump,oslo\0\n"),
        ("d.jsonl", "", '{"id":"' + "x" * 70_000 + "\n"),
    ):
        path = tmp_path / name
        path.write_text(
            good + bad + ("p-2,pump,oslo\n" if name != "d.jsonl" else '{"id":"p-2","type":"pump","location":"oslo"}\n')
        )
        with pytest.raises(FleetError) as caught:
            imported(fleet, path)
        record = caught.value.record
        assert isinstance(record, dict)
        assert record["refused"] >= 1
        assert len(str(record)) < 1000


def test_serials_may_have_an_id_and_labels(tmp_path: Path) -> None:
    path = tmp_path / "serials.csv"
    path.write_text("serial,id,label.site\nSN1,pump-1,north\nSN2,,\n")
    first, second = read_rows(path, SERIALS)
    assert (first.fields, dict(first.labels)) == ({"serial": "SN1", "id": "pump-1"}, {"site": "north"})
    assert (second.fields["id"], dict(second.labels)) == ("", {})
    path.write_text("id\nx\n")
    with pytest.raises(UsageError, match="no column `serial`"):
        list(read_rows(path, SERIALS))
    with pytest.raises(NotFound):
        list(read_rows(tmp_path / "none.csv", SERIALS))


MEASURE = """
import resource, sys
from pathlib import Path
from fleetctl.platforms.importing import Intake, take_in
from fleetctl.platforms.rows import DEVICES, read_rows
from contextlib import nullcontext
path = Path(sys.argv[1])
report = take_in(read_rows(path, DEVICES), lambda row: "added", path, Intake(nullcontext))
print(report.added, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak(tmp_path: Path, rows: int) -> int:
    path = tmp_path / f"{rows}.csv"
    with path.open("w") as file:
        file.write("id,type,location,site\n")
        file.writelines(f"device-{number:06d},pump,oslo,site-{number % 7}\n" for number in range(rows))
    done = subprocess.run([sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True)
    added, kibibytes = map(int, done.stdout.split())
    assert added == rows
    return kibibytes


def test_reading_fifty_thousand_lines_takes_no_more_memory_than_two_thousand(tmp_path: Path) -> None:
    assert peak(tmp_path, 50_000) < peak(tmp_path, 2_000) + 2048
