"""The test that halts: an e-value, valid however often it is looked at (docs/concepts/halting.md).

1. Under the hypothesis that each exposed device fails with a chance of at most p0, the mean over rates p of
   (p/p0)^f ((1-p)/(1-p0))^(n-f) has an expectation of at most 1 at every moment; by Ville's inequality it ever reaches 1/alpha
   with a chance of at most alpha.
2. n is the number of *exposed* devices: one that has not resolved counts as a success. The value rises with f, so what is seen
   never exceeds what will have been true, in whatever order devices report.
3. The same value is computed for the whole rollout, for each stratum and for each wave. Means of such values are such values:
   a third of the weight is the whole, a third is shared by the strata, a third by the waves of the plan. So a bad revision that
   comes late is not hidden by the good ones before it.
4. A device is one trial; failures of one site within one heartbeat are one failure, for they share a cause more likely than not.
"""

from math import exp, inf, log

from fleetctl.model.rollout.events import Evidence
from fleetctl.model.rollout.ledger import COUNTED, Ledger
from fleetctl.model.rollout.plan import Plan

_LARGEST_EXPONENT = 600.0


class Bets:
    """The mixture over a grid of rates above p0."""

    def __init__(self, p0: float, grid: tuple[float, ...]) -> None:
        self._logs = [(log(rate / p0), log((1 - rate) / (1 - p0))) for rate in grid]

    def value(self, failures: int, exposed: int) -> float:
        """The e-value of this many failures among this many exposed devices."""
        successes = max(0, exposed - failures)
        powers = (failures * lost + successes * won for lost, won in self._logs)
        return sum(exp(min(power, _LARGEST_EXPONENT)) for power in powers) / len(self._logs)


class Trials:
    """Which failures count, and what they are worth."""

    def __init__(self, plan: Plan, ledger: Ledger) -> None:
        self._ledger = ledger
        self._bets = Bets(plan.parameters.p0, plan.parameters.grid)
        self._bound = 1 / plan.parameters.alpha
        self._planned_waves = max(1, len(plan.waves))
        self._site_hit_at = [-inf] * len(ledger.sites)
        self.failures = 0
        self._strata: dict[int, int] = {}
        self._waves: dict[int, int] = {}

    def count(self, index: int, at: float, *, known: bool = False) -> None:
        """Count a failure unless its site has had one within this heartbeat; `known` repeats an earlier driver's decision."""
        ledger = self._ledger
        site = ledger.site[index]
        clustered = abs(at - self._site_hit_at[site]) < ledger.heartbeat[index] and ledger.sites[site] != ""
        if ledger.flags[index] & COUNTED or (clustered and not known):
            return
        self._site_hit_at[site] = at
        self._add(index, 1)

    def forget(self, index: int) -> None:
        """A device that was silent has proved its update after all."""
        if self._ledger.flags[index] & COUNTED:
            self._add(index, -1)

    def _add(self, index: int, change: int) -> None:
        ledger = self._ledger
        ledger.flags[index] ^= COUNTED
        self.failures += change
        stratum, wave = ledger.stratum[index], ledger.wave[index]
        self._strata[stratum] = self._strata.get(stratum, 0) + change
        self._waves[wave] = self._waves.get(wave, 0) + change

    def evidence(self) -> Evidence:
        """The e-value now. Scopes without a failure are taken as 0, which is less than they are worth and costs nothing."""
        ledger, value = self._ledger, self._bets.value
        whole = value(self.failures, ledger.exposed)
        strata = {number: value(hits, ledger.exposed_strata[number]) for number, hits in self._strata.items() if hits}
        waves = {number: value(hits, ledger.exposed_in(number)) for number, hits in self._waves.items() if hits}
        mean = (whole + sum(strata.values()) / len(ledger.exposed_strata) + sum(waves.values()) / self._planned_waves) / 3
        named = [(whole, "the rollout")]
        named += [(worth, f"stratum {ledger.strata[number] or '-'}") for number, worth in strata.items()]
        named += [(worth, f"wave {number}") for number, worth in waves.items()]
        scope = max(named, key=lambda pair: pair[0])[1]
        return Evidence("e-value", mean, self._bound, self.failures, ledger.exposed, scope)
