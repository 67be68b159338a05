"""The device's update state machine: two slots, a trial that confirms itself or falls back (docs/protocol.md, "Updates").

Everything that must survive a power cut is in one `Record`, replaced atomically. What to do next is a function of that record
(`due`), so that going on after a crash is the same as going on. Order of the durable steps, each of which leaves the old or the
new image and says which:

1. accept: order, content and attempt, before anything else happens;
2. forget the inactive slot's image, before its first byte is overwritten (`Do.BEGIN`);
3. remember the new image, after it was read back (`Do.WRITE`);
4. set the boot flag (`Do.COMMIT`), only if this session has shown the assignment that is being executed;
5. count the try, before jumping to the trial slot (`boot`);
6. confirm in one write (`judged`), or clear the flag and start the old slot;
7. raise the security counter, only after the confirmation (`Do.RAISE_COUNTER`).
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from fleetctl.errors import UsageError
from fleetctl.model.attempt import COMMITTED, Attempt, Code, Image, Offer, Phase, Record, Slot, Terms
from fleetctl.model.release import Version, is_downgrade

TRIES = 3
MINUTES_OF_DAY = 24 * 60


class Verdict(StrEnum):
    """What became of an offer."""

    ACCEPTED = "accepted"
    CANCELED = "canceled"
    DECLINED = "declined"
    REPEATED = "repeated"
    REFUSED = "refused"
    POSTPONED = "postponed"


@dataclass(frozen=True, slots=True)
class Moment:
    """`now` is Unix seconds, or None without a clock; `waited` is how long this boot has known the assignment."""

    now: float | None
    waited: float = 0.0


def receive(record: Record, offer: Offer, moment: Moment, slot_size: int) -> tuple[Verdict, tuple[Record, ...]]:
    """The verdict on an offer and the records it leads to; the last is to be stored, each is a status to publish.

    1. An order counts once: the same again is nothing new, anything else that does not rise is a replay.
    2. Once the boot flag is set the attempt runs to its end: ask again then.
    3. A cancel stops what has not set its boot flag; of an attempt never seen it says that it was received.
    4. An attempt of a rollout counts once, whatever its order.
    5. What was under way is superseded, and says so.
    6. A flawed manifest fails; what this device must not or cannot install is rejected; the rest is accepted.
    """
    if offer.order <= record.order:
        same = offer.order == record.order and offer.content == record.content
        return (Verdict.REPEATED if same else Verdict.REFUSED), ()
    held = record.attempt
    if held is not None and held.phase in COMMITTED:
        return Verdict.POSTPONED, ()
    known = replace(record, order=offer.order, content=offer.content)
    if offer.cancel:
        return Verdict.CANCELED, (_canceled(known, offer),)
    if held is not None and held.rollout_id == offer.rollout_id and offer.attempt <= held.number:
        return Verdict.REFUSED, ()
    before = () if held is None or held.final else (_step(record, Phase.CANCELED, Code.CANCELED, "superseded"),)
    objection = _objection(record, offer, moment, slot_size)
    phase = Phase.ACCEPTED if objection is None else Phase.FAILED if offer.image is None else Phase.REJECTED
    code, detail = objection or (None, "")
    attempt = replace(_opened(known, offer, phase), code=code, detail=detail)
    return (Verdict.DECLINED if objection else Verdict.ACCEPTED), (*before, replace(known, attempt=attempt))


def _canceled(known: Record, offer: Offer) -> Record:
    held = known.attempt
    if held is not None and not held.final:
        ordered = replace(known, attempt=replace(held, order=offer.order))
        return _step(ordered, Phase.CANCELED, Code.CANCELED, f"canceled by order {offer.order}")
    if held is not None and held.rollout_id == offer.rollout_id and held.number >= offer.attempt:
        return known
    return replace(known, attempt=replace(_opened(known, offer, Phase.CANCELED), code=Code.CANCELED, accepted_boot=None))


def _opened(known: Record, offer: Offer, phase: Phase) -> Attempt:
    accepted = phase is Phase.ACCEPTED
    return Attempt(
        rollout_id=offer.rollout_id,
        number=offer.attempt,
        order=offer.order,
        manifest=offer.manifest,
        phase=phase,
        image=offer.image,
        from_version=known.current.version,
        slot=known.active.other if accepted else None,
        accepted_boot=known.boot if accepted else None,
        terms=offer.terms,
    )


def _objection(record: Record, offer: Offer, moment: Moment, slot_size: int) -> tuple[Code, str] | None:
    image, terms = offer.image, offer.terms
    if image is None:
        return offer.flaw or Code.INTERNAL, offer.detail
    floor = record.security_counter
    objections = (
        (not offer.compatible, Code.INCOMPATIBLE, offer.detail),
        (image.security_counter < floor, Code.DOWNGRADE, f"security counter {image.security_counter} is below {floor}"),
        (
            not offer.allow_downgrade and _older(image, record.current),
            Code.DOWNGRADE,
            f"{image.version} is older than {record.current.version}",
        ),
        (image.size > slot_size, Code.NO_SPACE, f"{image.size} bytes do not fit a slot of {slot_size}"),
        (terms.needs_clock and moment.now is None, Code.NO_CLOCK, "the assignment names times and the clock is not set"),
        (_expired(terms, moment), Code.EXPIRED, "the assignment's time is over"),
    )
    return next(((code, detail) for holds, code, detail in objections if holds), None)


def _older(new: Image, running: Image) -> bool:
    """Versions that are not semantic have no order: then the security counter alone decides."""
    try:
        return is_downgrade(running.version, Version.parse(new.version))
    except UsageError:
        return False


def _expired(terms: Terms, moment: Moment) -> bool:
    return terms.not_after is not None and moment.now is not None and moment.now > terms.not_after


def hold(terms: Terms, moment: Moment) -> float:
    """Seconds until the terms let an attempt go on; 0 when they do. The delay counts from when this boot learnt of it."""
    wait = max(0.0, terms.delay - moment.waited)
    if moment.now is None:
        return wait
    wait = max(wait, (terms.not_before or moment.now) - moment.now)
    return wait + _until_window(terms.window, moment.now + wait)


def _until_window(window: tuple[int, int] | None, at: float) -> float:
    if window is None:
        return 0.0
    start, end = window[0] % MINUTES_OF_DAY, window[1] % MINUTES_OF_DAY
    minute = at / 60 % MINUTES_OF_DAY
    inside = start <= minute < end if start < end else minute >= start or minute < end
    return 0.0 if inside else (start - minute) % MINUTES_OF_DAY * 60


class Do(StrEnum):
    """What is due: `wait` and `nothing` have no effect, the first five events follow at once, the rest is work."""

    NOTHING = "nothing"
    WAIT = "wait"
    DEFER = "defer"
    START = "start"
    EXPIRE = "expire"
    BEGIN = "begin"
    COMMIT = "commit"
    FETCH = "fetch"
    VERIFY = "verify"
    WRITE = "write"
    REBOOT = "reboot"
    TEST = "test"
    RAISE_COUNTER = "raise_counter"


_DUE = {
    Phase.DOWNLOADING: Do.FETCH,
    Phase.DOWNLOADED: Do.VERIFY,
    Phase.VERIFIED: Do.BEGIN,
    Phase.INSTALLED: Do.REBOOT,
    Phase.REBOOTING: Do.REBOOT,
    Phase.TESTING: Do.TEST,
    Phase.ROLLING_BACK: Do.REBOOT,
}


def due(record: Record, moment: Moment, confirmed: bool) -> Do:
    """What to do next; `confirmed` says that this MQTT session has shown the assignment that the record executes."""
    attempt = record.attempt
    if attempt is None or attempt.final:
        return Do.RAISE_COUNTER if record.security_counter < _floor(record) else Do.NOTHING
    if attempt.phase not in COMMITTED and _expired(attempt.terms, moment):
        return Do.EXPIRE
    if attempt.phase in (Phase.ACCEPTED, Phase.DEFERRED):
        wait = Do.DEFER if attempt.phase is Phase.ACCEPTED else Do.WAIT
        return wait if hold(attempt.terms, moment) > 0 else Do.START
    if attempt.phase is Phase.INSTALLING:
        return _due_of_install(record, attempt, moment, confirmed)
    return _DUE[attempt.phase]


def _due_of_install(record: Record, attempt: Attempt, moment: Moment, confirmed: bool) -> Do:
    if record.image(record.active.other) != attempt.image:
        return Do.WRITE
    waited = replace(attempt.terms, delay=0.0)
    return Do.COMMIT if confirmed and hold(waited, moment) <= 0 else Do.WAIT


def _floor(record: Record) -> int:
    image = record.image(record.active)
    return image.security_counter if image else 0


_DONE: dict[Do, tuple[frozenset[Phase], Phase]] = {
    Do.DEFER: (frozenset({Phase.ACCEPTED}), Phase.DEFERRED),
    Do.START: (frozenset({Phase.ACCEPTED, Phase.DEFERRED}), Phase.DOWNLOADING),
    Do.FETCH: (frozenset({Phase.DOWNLOADING}), Phase.DOWNLOADED),
    Do.VERIFY: (frozenset({Phase.DOWNLOADED}), Phase.VERIFIED),
    Do.BEGIN: (frozenset({Phase.VERIFIED}), Phase.INSTALLING),
    Do.WRITE: (frozenset({Phase.INSTALLING}), Phase.INSTALLING),
    Do.COMMIT: (frozenset({Phase.INSTALLING}), Phase.INSTALLED),
    Do.REBOOT: (frozenset({Phase.INSTALLED, Phase.REBOOTING, Phase.ROLLING_BACK}), Phase.REBOOTING),
}


def done(record: Record, do: Do) -> Record:
    """The record after `do` was done; what fails goes to `failed`, and a test to `judged`.

    Raises:
        ValueError: it was not due.
    """
    if do is Do.RAISE_COUNTER:
        return replace(record, security_counter=max(record.security_counter, _floor(record)))
    if do is Do.EXPIRE:
        return failed(record, Code.EXPIRED, "the assignment's time is over")
    allowed, phase = _DONE.get(do, (frozenset(), Phase.FAILED))
    attempt = record.attempt
    if attempt is None or attempt.phase not in allowed:
        raise ValueError(f"{do} is not due in {attempt.phase if attempt else None}")
    inactive = record.active.other
    after = record if attempt.phase in (phase, Phase.ROLLING_BACK) else _step(record, phase)
    if do is Do.BEGIN:
        return _with_image(after, inactive, None)
    if do is Do.WRITE:
        return _with_image(after, inactive, attempt.image)
    if do is not Do.COMMIT:
        return after
    if record.image(inactive) != attempt.image:
        raise ValueError(f"slot {inactive} does not hold the image")
    return replace(after, trial=inactive, tries=TRIES)


def progressed(record: Record, percent: int) -> Record:
    """The record with more downloaded; the same record where that is nothing new."""
    attempt = record.attempt
    if attempt is None or attempt.phase is not Phase.DOWNLOADING or percent <= attempt.progress:
        return record
    return replace(record, attempt=replace(attempt, step=attempt.step + 1, progress=min(percent, 100)))


def failed(record: Record, code: Code, detail: str = "") -> Record:
    """The record after work failed before the boot flag was set; the running slot was never touched."""
    if record.attempt is None or record.attempt.final or record.attempt.phase in COMMITTED:
        raise ValueError(f"nothing is under way that could fail with {code}")
    return _step(record, Phase.FAILED, code, detail)


def judged(record: Record, healthy: bool, detail: str) -> Record:
    """The record after the self-test of the trial slot: confirmed, or falling back; one write either way."""
    if record.attempt is None or record.attempt.phase is not Phase.TESTING or record.trial is None:
        raise ValueError("nothing is under test")
    if healthy:
        return replace(_step(record, Phase.SUCCEEDED), active=record.trial, trial=None, tries=0)
    return replace(_step(record, Phase.ROLLING_BACK, Code.HEALTH_FAILED, detail), trial=None, tries=0)


def boot(record: Record, trial_intact: bool = True) -> tuple[Record, ...]:
    """The bootloader: what starts now, counted before it starts; the last record is to be stored before the jump.

    A trial slot is started while it has tries and its image is what was written; otherwise the confirmed slot is, for good.
    """
    record = replace(record, boot=record.boot + 1)
    attempt = record.attempt
    if record.trial is not None and trial_intact and record.tries > 0:
        left = record.tries - 1
        detail = f"start {TRIES - left} of {TRIES}"
        return (replace(_step(record, Phase.TESTING, None, detail), running=record.trial, tries=left),)
    old = replace(record, running=record.active, trial=None, tries=0)
    if record.trial is not None:
        detail = "the new image was started without a result" if trial_intact else "the new image is damaged"
        falling = _step(old, Phase.ROLLING_BACK, Code.BOOT_FAILED, detail)
        return falling, _step(falling, Phase.ROLLED_BACK, Code.BOOT_FAILED, detail)
    if attempt is not None and attempt.phase is Phase.ROLLING_BACK:
        return (_step(old, Phase.ROLLED_BACK, attempt.code, attempt.detail),)
    return (old,)


def _with_image(record: Record, slot: Slot, image: Image | None) -> Record:
    return replace(record, a=image) if slot is Slot.A else replace(record, b=image)


def _step(record: Record, phase: Phase, code: Code | None = None, detail: str = "") -> Record:
    if record.attempt is None:
        raise ValueError(f"no attempt can be {phase}")
    progress = 100 if phase is Phase.DOWNLOADED else record.attempt.progress
    attempt = replace(record.attempt, phase=phase, step=record.attempt.step + 1, code=code, detail=detail, progress=progress)
    return replace(record, attempt=attempt)
