"""Waves: how many devices are exposed before anyone looks (docs/protocol.md, "Rollouts" 2 and 4)."""

from itertools import accumulate


def wave_sizes(total: int, small_fleet: int, first: int, growth: int) -> tuple[int, ...]:
    """Geometric sizes that sum to `total`: 1, 2, 4, … below `small_fleet` devices, otherwise `first`, `first * growth`, …"""
    if total < small_fleet:
        first, growth = 1, 2
    sizes: list[int] = []
    left = total
    while left > 0:
        sizes.append(min(first, left))
        left -= sizes[-1]
        first *= growth
    return tuple(sizes)


def cumulative(sizes: tuple[int, ...]) -> tuple[int, ...]:
    """How many devices are exposed at the end of each wave."""
    return tuple(accumulate(sizes))
