"""Firmware for the demo: an image that carries its own self-test, which the devices really run."""

import hashlib

HEALTHY = "exit 0"
BROKEN = 'echo "pump controller does not answer" >&2\nexit 1'
PADDING = 64 * 1024


def image(version: str, self_test: str) -> bytes:
    """A shell script that is the self-test of its version, followed by a payload that the shell never reaches."""
    head = f"#!/bin/sh\n# firmware {version}\n{self_test}\n".encode()
    return head + _noise(version, PADDING - len(head))


def _noise(seed: str, size: int) -> bytes:
    blocks = (hashlib.sha256(f"{seed}/{index}".encode()).hexdigest().encode() for index in range(size // 64 + 1))
    return b"".join(b"# " + block[2:] for block in blocks)[:size]
