"""A fleet in memory: what the other platforms promise, without broker or file; the contract tests keep it honest."""

from fleetctl.platforms.memory.fleet import MemoryFleet

__all__ = ["MemoryFleet"]
