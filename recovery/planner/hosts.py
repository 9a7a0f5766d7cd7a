"""What hosts say of themselves: that they stop in order, that their own Docker ended the container, or that it does not
run.
"""

from everlease.domain.job import PLACED, JobEvent, JobState
from everlease.domain.snapshot import Award, Command, Snapshot
from recovery.moves import CountRestart, IssueCommand, NoteAward, Record
from recovery.planner.draft import Draft
from recovery.planner.history import since_resumed
from recovery.planner.settling import LOST
from recovery.planner.verdict import MOVED, UNDUMPABLE

HOST_FAULT = "host_fault"
"""The outcome of an award whose host's Docker went away too often, or did not get the job going again."""

UNREADY = "unready"
"""The outcome of an award whose host could not prepare, start or restore the job, but may later."""

LATE = "late"
"""The outcome of an award whose node did not answer in time: nothing failed, and it may be running the job."""

NOT_OPENED = "open_failed"
"""The outcome of an award whose lease the chain refused: nobody's fault, but not to be tried again at once."""

UNSENT = "unsent"
"""The outcome of an award whose Start could not be sent: its node was away, or the marketplace had no key for it."""

UNSTORED = "unstored"
"""The outcome of an award under which the job ended well and its outputs were not stored."""

GAVE_NOTICE = "gave_notice"
"""The outcome of an award whose provider gave notice on chain, and whose lease ended before the job was elsewhere."""

_KEPT_OUT = frozenset({GAVE_NOTICE, HOST_FAULT, UNREADY, "prepare_failed", LATE, LOST, NOT_OPENED, UNSENT})
_OF_HEAD = frozenset({"restore_failed", "unfit", UNREADY})
"""They count as long as the checkpoint is the head."""
_ENDED_THERE = frozenset({MOVED, UNSTORED, UNDUMPABLE})
"""They count until the job got on elsewhere, whatever progress there was."""
_WHY = {
    LOST: "was lost with the job",
    MOVED: "could not keep the job running",
    UNDUMPABLE: "could not checkpoint the job",
    UNSTORED: "could not store the job's outputs",
    LATE: "was late with the job",
    GAVE_NOTICE: "gave notice and ended its lease with the job on it",
    NOT_OPENED: "won the job, and its lease could not be opened",
    UNSENT: "won the job, and it could not be handed over",
}
STOPPED, LEFT = "stopped", "left"
"""Outcomes of an award whose host stopped in order: its workload stands still, or may run until its guard's time."""


def host_failed(draft: Draft, award: Award) -> None:
    """Start again in place from the last checkpoint; after ``max_host_faults`` of a lease, elsewhere."""
    number = award.host_faults + 1
    step = f"restart/{award.fence}/host-{number}"
    answer = draft.snapshot.command(step)
    if answer is not None and answer.ok is None:
        return
    if answer is not None and answer.ok:
        draft.add(CountRestart(award.fence, host_fault=True))
        draft.event(JobEvent.RESTARTED, award.host_fault, fence=award.fence, host_fault=number)
    elif answer is None and award.host_faults < draft.policy.max_host_faults:
        payload = {"checkpoint": draft.snapshot.job.head_manifest}
        draft.add(IssueCommand(award.node, award.fence, step, "restart", payload, draft.policy.start_timeout_s))
    else:
        draft.end(award, HOST_FAULT)
        draft.event(JobEvent.MOVED, f"{award.node} failed the job: {award.host_fault}")


def idle_too_long(draft: Draft, award: Award) -> str:
    """Why to leave a host whose heartbeats say, without a break, that the job does not run there; else nothing.

    Only what was heard counts, by the database's clock: neither our own absence nor that of the gateway. The time in
    which a command was out is left out, and a restart in place begins anew; an end that waits to be written down
    explains a pause, too. Outputs and checkpoints that are being stored have their own time.
    """
    policy, asked = draft.policy, [c for c in draft.snapshot.commands if _is_of(c, award)]
    if award.idle_since is None or draft.snapshot.unread or any(c.ok is None for c in asked):
        return ""
    restarts = (c.finished_at or 0.0 for c in asked if c.kind == "restart")
    since, heard = max(award.idle_since, award.started_at or 0.0, *restarts), award.last_beat_at or 0.0
    bound = policy.storing_after_s if award.storing else policy.idle_after_s
    idle = heard - since - _commanded_s(asked, since, heard)
    if idle < bound:
        draft.wait_until(heard + bound - idle)
        return ""
    return f"the job did not run there for {idle:.0f} s"


def _commanded_s(commands: list[Command], since: float, until: float) -> float:
    """Seconds of this time in which a command was out, or a job that was held waited to be thawed."""
    thaws = {c.step.removeprefix("thaw"): c.finished_at for c in commands if c.kind == "thaw"}
    spans = ((c.created_at, thaws.get(c.step.removeprefix("hold")) or c.finished_at or until) for c in commands)
    total, reached = 0.0, since
    for begin, end in sorted(spans):
        out = min(end, until) - max(begin, reached)
        if out > 0:
            total, reached = total + out, min(end, until)
    return total


def leave_idle(draft: Draft, award: Award) -> bool:
    """A host that keeps the job from running fails it, whatever the cause. True where it does.

    Where the outputs are in, as where such a host is lost, only word of the exit is missing.
    """
    why = idle_too_long(draft, award)
    if why and ended_well(draft.snapshot, award):
        _note_end(draft, award)
    elif why:
        draft.end(award, HOST_FAULT)
        draft.event(JobEvent.MOVED, f"{award.node} failed the job: {why}")
    return bool(why)


def _is_of(command: Command, award: Award) -> bool:
    return command.fence == award.fence and command.node == award.node


def kept_out(draft: Draft) -> dict[str, str]:
    """Providers and nodes that may not have the job yet: their hosts failed it, did not get it going, or were late."""
    return {address: why for address, (at, why) in _let_in(draft).items() if draft.now < at}


def let_in_at(draft: Draft) -> dict[str, float]:
    """When such a provider, or node, may have the job again (unix seconds)."""
    return {address: at for address, (at, _) in _let_in(draft).items()}


def _let_in(draft: Draft) -> dict[str, tuple[float, str]]:
    """A provider waits longer with each such failure of any of its hosts at this head: else bad hosts that alone fit
    would use up the order's leases, however many there are.

    The hosts that failed wait twice as long as its others. So where nobody else bids, a provider with one broken host
    has the job on another soon, however cheap the broken one is. A lease under which a host served for longer than it
    would be kept out counts for nothing. Leases that could not be opened alone cost ``capacity_wait_max_s`` at most.
    """
    policy = draft.policy
    faults: dict[str, list[Award]] = {}
    for award in since_resumed(draft.snapshot):
        if _counts(draft, award):
            faults.setdefault(award.provider, []).append(award)
    out: dict[str, tuple[float, str]] = {}
    for provider, found in faults.items():
        own = sum(award.outcome != NOT_OPENED for award in found)
        wait = max(policy.fault_wait_s(own), min(policy.fault_wait_s(len(found)), policy.capacity_wait_max_s))
        half, ended = wait / 2, found[-1].ended_at or draft.now
        told = _WHY.get(found[-1].outcome, "failed the job") + _told(draft.snapshot, found[-1])
        out[provider] = (ended + half, f"a host of this provider {told}: its others are asked again after {half:.0f} s")
        why = f"this host {told}: it is asked again after {wait:.0f} s"
        out |= {award.node: (ended + wait, why) for award in found}
    return out


def _counts(draft: Draft, award: Award) -> bool:
    job, head = draft.snapshot.job, draft.snapshot.head
    if award.fence <= job.resumed_fence:
        return False
    if award.outcome in _OF_HEAD:
        return award.restore_manifest == job.head_manifest
    if award.outcome in _ENDED_THERE:
        return head is None or head.fence <= award.fence
    short = award.earned_s < draft.policy.fault_wait_max_s
    return award.outcome in _KEPT_OUT and award.restore_seq >= job.head_seq and short


def _told(snapshot: Snapshot, award: Award) -> str:
    """What its host said of that, in brackets; empty where it said nothing."""
    answers = (snapshot.command(f"{kind}/{award.fence}") for kind in ("prepare", "start"))
    said = award.host_fault or next((answer.error for answer in answers if answer is not None and answer.error), "")
    return f" ({said[:200]})" if said else ""


def said_goodbye(draft: Draft) -> bool:
    """The host of the current award stops in order: the job moves at once, nobody is punished and nothing is counted.

    Beyond ``max_stops_a_week`` the goodbye is not taken: the monitor finds the node gone, and that is a loss. Where the
    outputs are in, it came between them and word of the exit: the job has ended.
    """
    award, state = draft.snapshot.award, draft.snapshot.job.state
    word = award.goodbye if award is not None else None
    if award is None or word is None or state not in PLACED | {JobState.CANCELLING}:
        return False
    if ended_well(draft.snapshot, award):
        return _note_end(draft, award)
    if word.recent > draft.policy.max_stops_a_week:
        told = {"node": award.node, "fence": award.fence, "stops": word.recent}
        draft.add(NoteAward(award.fence, facts={"goodbye": None}), Record("node.stop_not_excused", told))
        return True
    if state is JobState.CANCELLING:
        draft.end(award, "cancelled")
        draft.event(JobEvent.STOPPED, "its host stopped")
        return True
    draft.abandon_auction("the host stopped")
    head = draft.snapshot.head
    kept = head is not None and head.fence == award.fence and head.manifest == word.head
    draft.end(award, STOPPED if word.still else LEFT)
    told = {"fence": award.fence, "node": award.node, "lossless": kept and word.still, "why": word.why}
    draft.event(JobEvent.HOST_STOPPED, word.reason or "its host stopped in order", **told)
    return True


def outputs_stored(snapshot: Snapshot, award: Award) -> bool:
    """Whether the job ran under this award and a final checkpoint was committed."""
    head = snapshot.head
    return award.started_at is not None and head is not None and head.final and head.fence == award.fence


def ended_well(snapshot: Snapshot, award: Award) -> bool:
    """Whether the outputs are in and the host told of the end that they are of: by word of the exit, or by heartbeats
    that say that the job stands still to be stored. A final checkpoint alone ends nothing.
    """
    exited = award.exit_code == 0 and not award.host_fault
    return outputs_stored(snapshot, award) and (exited or (award.storing and award.idle_since is not None))


def _note_end(draft: Draft, award: Award) -> bool:
    """The outputs are in, so the job ended well, whatever was said before. False where that is noted already."""
    if award.exit_code == 0 and not award.host_fault:
        return False
    draft.add(NoteAward(award.fence, facts={"exit_code": 0, "exited_at": draft.now, "host_fault": None}))
    return True
