import io

from fleetctl.cli.ota import RELEASE, with_outcome
from fleetctl.platforms.updates import ReleaseEntry
from fleetctl.present.format import Format
from fleetctl.present.render import Page, render


def printed(result: object) -> str:
    out = io.StringIO()
    render(result, RELEASE, Page(out, Format.TABLE))
    return out.getvalue()


def test_what_was_done_to_a_release_is_shown_and_that_it_was_read_is_not() -> None:
    entry = ReleaseEntry("pump@2.1.0", "pump", "2.1.0", 5, "sha256:00", "sha256:11", 0, 1, "verified")
    assert "Outcome:" not in printed(entry)
    assert printed(with_outcome(entry)).endswith("Outcome:          verified\n")
