"""The self-test as the process that it is."""

import threading
from pathlib import Path
from time import monotonic

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
