"""The self-test as the process that it is."""

import threading
from pathlib import Path
from time import monotonic, sleep

import pytest

from fleetctl.agent.selftest import Trial, from_command
from fleetctl.errors import ConfigError


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    image = tmp_path / "an image"
    image.write_text('test "$FLEETCTL_SLOT $FLEETCTL_VERSION" = "B 2.0.0" && test "$FLEETCTL_IMAGE" = "$0"')
    return Trial(image, "B", "2.0.0", threading.Event())


def test_a_command_learns_of_the_image_by_its_words_and_its_environment(trial: Trial) -> None:
    assert from_command("sh {image}")(trial).healthy


def test_no_shell_reads_the_command(trial: Trial) -> None:
    assert from_command("true && false; {image}")(trial).healthy
    assert from_command("sh -c 'echo $1; exit 1' - $HOME")(trial).detail.endswith(": $HOME")


def test_a_status_other_than_0_says_why(trial: Trial) -> None:
    health = from_command("sh -c 'echo the pump is dry; exit 3'")(trial)
    assert (health.healthy, health.detail) == (False, "the self-test ended with status 3: the pump is dry")


def test_a_command_that_does_not_exist_is_not_healthy(trial: Trial) -> None:
    assert from_command("/no/such/test")(trial).detail == "the self-test does not start: No such file or directory"


@pytest.mark.parametrize("command", ["", "  ", "sh 'unclosed"])
def test_what_is_no_command_is_refused_at_once(command: str) -> None:
    with pytest.raises(ConfigError, match="the self-test"):
        from_command(command)


def test_a_command_that_hangs_is_killed_with_its_children(trial: Trial) -> None:
    began = monotonic()
    health = from_command("sh -c 'sleep 60 & sleep 60'", 0.2)(trial)
    assert (health.healthy, health.detail) == (False, "the self-test did not end within 0.2 s")
    assert monotonic() - began < 5


def test_a_command_that_nobody_waits_for_is_killed(trial: Trial) -> None:
    threading.Timer(0.2, trial.stop.set).start()
    began = monotonic()
    from_command("sleep 60")(trial)
    assert monotonic() - began < 5


def test_a_flood_of_words_is_read_to_its_end_and_only_the_end_is_kept(trial: Trial) -> None:
    health = from_command("sh -c 'yes | head -c 20000000; echo the pump is dry; exit 3'")(trial)
    assert not health.healthy
    assert health.detail.endswith("y the pump is dry")
    assert len(health.detail) < 300


def test_a_flood_without_an_end_is_cut_off_in_time(trial: Trial) -> None:
    began = monotonic()
    assert "did not end" in from_command("yes", 0.3)(trial).detail
    assert monotonic() - began < 5


def test_its_children_end_with_it(trial: Trial, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    assert from_command(f"sh -c '(sleep 0.5; touch {mark}) & exit 0'")(trial).healthy
    sleep(0.8)
    assert not mark.exists()


def test_a_command_that_closes_its_output_is_still_waited_for(trial: Trial) -> None:
    health = from_command("sh -c 'exec >&- 2>&-; sleep 0.3; exit 4'")(trial)
    assert health.detail == "the self-test ended with status 4"
