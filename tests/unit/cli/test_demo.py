import io

from fleetctl.cli.demo import SUMMARY
from fleetctl.present.format import Format
from fleetctl.present.render import Page, render


def test_the_names_of_a_demo_are_its_rollouts() -> None:
    out = io.StringIO()
    record = {"broker": {}, "devices": 3, "rollouts": [{"id": "r-1"}, {"id": "r-2"}], "seconds": 1.5}
    render(record, SUMMARY, Page(out, Format.NAME))
    assert out.getvalue() == "r-1\nr-2\n"
