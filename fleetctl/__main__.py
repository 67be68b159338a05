"""Where the program starts: what needs no parser is answered before one is loaded."""

import gc
import os
import sys


def main() -> int:
    """Run the words of the command line and return the exit status."""
    if sys.argv[1:] == ["--version"]:
        from fleetctl import __version__

        sys.stdout.write(f"fleetctl {__version__}\n")
        return 0
    if "_FLEETCTL_COMPLETE" in os.environ:
        from fleetctl.cli import quick

        if quick.main():
            return 0
    # starting makes many objects and no garbage: looking for it would cost a tenth of a short command
    gc.set_threshold(20_000, 20, 20)
    try:
        from fleetctl.cli.main import run

        return run(sys.argv[1:])
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
