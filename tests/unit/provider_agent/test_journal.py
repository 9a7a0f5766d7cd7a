"""The journal across kills: what was written is there, what was not is not, and a torn file opens."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

from everlease.wire.commands import CommandResult, Prepare
from everlease.wire.terms import BidModel, LeaseParamsModel, OrderModel, ReceiptModel, SignedReceipt
from provider_agent.journal import KEEP_S, Journal
from provider_agent.records import BidRecord, JobRecord, LeaseRecord

JOB = "0x" + "ab" * 32
LEASE = "0x" + "cd" * 32
WHO = "0x" + "77" * 20


def record(**changes: object) -> JobRecord:
    prepare = Prepare(job_id=JOB, fence=1, step="prepare/1", spec={}, store_token="t")
    return JobRecord(job_id=JOB, fence=1, phase="prepared", prepare=prepare).model_copy(update=changes)


def signed(seq: int) -> SignedReceipt:
    receipt = ReceiptModel(
        lease_id=LEASE, seq=seq, seen_at=seq, earned=seq, final=False, checkpoint_root="0x" + "00" * 32
    )
    return SignedReceipt(receipt=receipt, signature="0x" + "11" * 65)


def test_jobs_survive_a_restart(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    journal.put_job(record())
    journal.put_job(record(phase="running", container="c" * 64))
    journal.close()
    again = Journal(tmp_path / "journal.db")
    assert [(job.phase, job.container) for job in again.jobs()] == [("running", "c" * 64)]
    again.drop_job(JOB)
    again.close()
    last = Journal(tmp_path / "journal.db")
    assert last.jobs() == []
    assert last.job(JOB) is None
    last.close()


def test_a_result_is_recorded_once_and_waits_in_the_outbox(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    first = CommandResult(job_id=JOB, fence=1, step="s", ok=True, result={"seq": 1})
    journal.finish(first)
    journal.finish(CommandResult(job_id=JOB, fence=1, step="s", ok=False, error="a second answer"))
    assert journal.result(JOB, "s") == first
    assert [item.key for item in journal.outgoing()] == [f"result:{JOB}:s"]
    journal.acknowledged([f"result:{JOB}:s"])
    assert journal.outgoing() == []
    assert journal.result(JOB, "s") == first
    journal.close()


def test_the_outbox_keeps_order_and_takes_a_key_once(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    for key in ("a", "b", "a", "c"):
        journal.post(key, {"type": "drain", "reason": key})
    items = journal.outgoing()
    assert [item.key for item in items] == ["a", "b", "c"]
    assert [item.key for item in journal.outgoing(items[0].id)] == ["b", "c"]
    journal.close()


def bid_record(epoch: int) -> BidRecord:
    order = OrderModel(
        tenant=WHO, watcher=WHO, job_spec=JOB, max_rate_per_hour=9, deposit=9, min_collateral=1, max_silence=5,
        max_epochs=9, epoch_fee=0, deadline=99, nonce=1,
    )  # fmt: skip
    bid = BidModel(
        provider=WHO, node=WHO, order_hash=JOB, epoch=epoch, min_rate_per_hour=1, collateral=1, deadline=99, slot=epoch
    )
    return BidRecord(digest="0x" + f"{epoch:064x}", bid=bid, order=order)


def test_only_a_newer_receipt_replaces_one(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    assert journal.keep_receipt(signed(2))
    assert not journal.keep_receipt(signed(2))
    assert not journal.keep_receipt(signed(1))
    assert journal.keep_receipt(signed(3))
    kept = journal.receipt(LEASE)
    assert kept is not None
    assert kept.receipt.seq == 3
    journal.close()


def test_leases_leave_the_list_once_settled(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    lease = LeaseRecord(lease_id=LEASE, params=LeaseParamsModel.from_domain(bid_record(1).params(5)), fence=1)
    journal.put_lease(lease)
    assert journal.leases() == [lease]
    journal.put_lease(lease.model_copy(update={"settled": True}))
    assert journal.leases() == []
    assert journal.lease(LEASE) is not None
    journal.close()


def test_what_no_job_needs_is_forgotten_in_time(tmp_path: Path) -> None:
    now = [1e9]
    journal = Journal(tmp_path / "journal.db", lambda: now[0])
    lease = LeaseRecord(lease_id=LEASE, params=LeaseParamsModel.from_domain(bid_record(1).params(5)), fence=1)
    journal.put_bid(bid_record(1))
    journal.finish(CommandResult(job_id=JOB, fence=1, step="s", ok=True))
    journal.put_lease(lease.model_copy(update={"settled": True}))
    journal.keep_receipt(signed(1))

    def known() -> tuple[bool, ...]:
        kept = (journal.result(JOB, "s"), journal.lease(LEASE), journal.receipt(LEASE))
        return bool(journal.bids(JOB)), *(item is not None for item in kept)

    journal.put_job(record())
    now[0] += KEEP_S + 1
    assert journal.tidy()
    assert known() == (True, True, True, True), "the job is here"
    journal.drop_job(JOB)
    assert journal.tidy()
    assert known() == (False, False, False, False)
    journal.put_bid(bid_record(1))
    journal.put_lease(lease)
    journal.keep_receipt(signed(2))
    assert journal.tidy()
    assert known() == (True, False, True, True), "a lease that is not settled is owed to, and a bid may win yet"
    journal.close()


def test_bids_are_found_newest_first(tmp_path: Path) -> None:
    times = iter(range(1, 100))
    journal = Journal(tmp_path / "journal.db", lambda: next(times))
    for epoch in (1, 2):
        journal.put_bid(bid_record(epoch))
    assert [record.bid.epoch for record in journal.bids(JOB)] == [2, 1]
    journal.close()


def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    Journal(tmp_path / "journal.db").close()
    assert (tmp_path / "journal.db").stat().st_mode & 0o777 == 0o600


def test_a_kill_between_writes_loses_none_that_returned(tmp_path: Path) -> None:
    source = """
        import sys
        from pathlib import Path
        from provider_agent.journal import Journal
        journal = Journal(Path(sys.argv[1]))
        for number in range(10_000):
            journal.post(str(number), {"number": number})
            print(number, flush=True)
    """
    argv = [sys.executable, "-c", textwrap.dedent(source), str(tmp_path / "journal.db")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]) as writer:
        assert writer.stdout is not None
        for _ in range(40):
            told = int(writer.stdout.readline())
        os.kill(writer.pid, signal.SIGKILL)
        rest = [int(line) for line in writer.stdout.read().split(b"\n")[:-1]]
    told = rest[-1] if rest else told
    journal = Journal(tmp_path / "journal.db")
    assert [item.body["number"] for item in journal.outgoing()][: told + 1] == list(range(told + 1))
    journal.close()
