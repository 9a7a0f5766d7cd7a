"""Plant known bugs in a copy of the contracts, one at a time, and show that the tests catch each.

Usage: python3 scripts/planted_bugs.py [--campaign] [NAME…]      --campaign asks the stateful campaign alone.

Prints one line per bug; exit status 1 if one went unnoticed. A bug that doesn't compile proves nothing and fails too.
"""

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from mutant_copies import ROOT, WORKERS, Copies

ESCROW = "contracts/LeaseEscrow.sol"
LEDGER = "contracts/escrow/JobLedger.sol"
LEASES = "contracts/escrow/LeaseLedger.sol"
STAKING = "contracts/ProviderStaking.sol"
SETTLEMENT = "contracts/libraries/Settlement.sol"
TYPED_DATA = "contracts/libraries/TypedData.sol"
DEPOSITS = "contracts/libraries/Deposits.sol"
SIGNATURES = "contracts/libraries/Signatures.sol"


@dataclass(frozen=True)
class Bug:
    """One edit: the first `old` in `path` becomes `new`."""

    name: str
    path: str
    old: str
    new: str


BUGS = (
    Bug("pay rounds up", SETTLEMENT, "earned / HOUR", "earned / HOUR + 1"),
    Bug(
        "affordable seconds are one too many",
        SETTLEMENT,
        "((money + 1) * HOUR - 1) / rate)",
        "((money + 1) * HOUR) / rate + 1)",
    ),
    Bug(
        "pay beyond the money there is",
        SETTLEMENT,
        "if (payFor(rate, wanted) <= money) return wanted;",
        "if (payFor(rate, wanted) <= money + HOUR) return wanted;",
    ),
    Bug(
        "pay forgets what was paid",
        LEASES,
        "uint256 due = params.rate.payFor(lease_.earned) - before;",
        "uint256 due = params.rate.payFor(lease_.earned);",
    ),
    Bug("paid seconds aren't kept", LEASES, "lease_.paid = lease_.earned;", ""),
    Bug(
        "paid seconds round up",
        LEASES,
        "before + aside + free, lease_.earned);",
        "before + aside + free, lease_.earned) + 1;",
    ),
    Bug(
        "pay isn't taken from what is free",
        LEASES,
        "if (free != 0) _jobs[params.jobId].free = uint104(free + aside - due);",
        "",
    ),
    Bug("pay is taken twice from what is free", LEASES, "uint104(free + aside - due)", "uint104(free - due)"),
    Bug(
        "a suspended lease draws on all",
        LEASES,
        "lease_.state == LeaseState.Active ? _jobs[params.jobId].free : 0",
        "_jobs[params.jobId].free",
    ),
    Bug(
        "fees round per call",
        LEASES,
        "(before + due).share(FEE_BPS) - before.share(FEE_BPS)",
        "due.share(FEE_BPS)",
    ),
    Bug("no fee is withheld", LEASES, "due - fee + bond", "due + bond"),
    Bug(
        "fees are lost at the end",
        LEASES,
        "job_.fees += uint96(params.rate.payFor(lease_.paid).share(FEE_BPS));",
        "",
    ),
    Bug(
        "fees of the unpaid at the end",
        LEASES,
        "params.rate.payFor(lease_.paid).share(FEE_BPS)",
        "params.rate.payFor(lease_.earned).share(FEE_BPS)",
    ),
    Bug("fees can be swept twice", LEDGER, "job_.fees = 0;", ""),
    Bug(
        "swept fees go to the caller",
        LEDGER,
        "_credit(TREASURY, amount, CreditReason.ServiceFee);",
        "_credit(msg.sender, amount, CreditReason.ServiceFee);",
    ),
    Bug("a lease settles twice", LEASES, "delete _leases[leaseId];", ""),
    Bug(
        "the end releases no money",
        LEASES,
        "job_.free += uint104(_setAside(params.rate, lease_) + bond + gained);",
        "job_.free += uint104(gained);",
    ),
    Bug(
        "what is free counts twice at the end",
        LEASES,
        "job_.free += uint104(_setAside(params.rate, lease_) + bond + gained);",
        "job_.free += uint104(2 * _setAside(params.rate, lease_) + bond + gained);",
    ),
    Bug("the job stays active", LEASES, "if (lease_.state == LeaseState.Active) job_.active = false;", ""),
    Bug(
        "a dispute's end frees the next lease's job",
        LEASES,
        "if (lease_.state == LeaseState.Active) job_.active = false;",
        "job_.active = false;",
    ),
    Bug("collateral isn't unlocked", LEASES, "account.locked -= unlocked;", ""),
    Bug(
        "collect unlocks",
        ESCROW,
        "_see(leaseId, params, lease_, receipt, signature);\n        _pay(leaseId, params, lease_, receipt, 0, 0);",
        "_see(leaseId, params, lease_, receipt, signature);\n        _pay(leaseId, params, lease_, receipt, 0, 1);",
    ),
    Bug(
        "the slashed part is unlocked",
        ESCROW,
        "locked -= params.collateral - penalty;",
        "locked -= params.collateral;",
    ),
    Bug(
        "the penalty isn't unlocked from the rest",
        ESCROW,
        "_accounts[params.provider].locked -= params.collateral - penalty;",
        "",
    ),
    Bug(
        "fail unlocks what it slashed",
        ESCROW,
        "_accounts[msg.sender].claimable += toCaller;",
        "_accounts[msg.sender].claimable += toCaller;\n        _accounts[params.provider].locked -= params.collateral;",
    ),
    Bug(
        "fail pays the caller twice",
        ESCROW,
        "_accounts[msg.sender].claimable += toCaller;",
        "_accounts[msg.sender].claimable += 2 * toCaller;",
    ),
    Bug(
        "fail within the window",
        ESCROW,
        "block.timestamp <= lease_.exitAt) revert AnswerWindowOpen",
        "block.timestamp < lease_.exitAt) revert AnswerWindowOpen",
    ),
    Bug(
        "answer after the window",
        ESCROW,
        "block.timestamp > lease_.exitAt) revert AnswerWindowClosed",
        "block.timestamp > lease_.exitAt + 1) revert AnswerWindowClosed",
    ),
    Bug(
        "suspend one second early",
        ESCROW,
        "if (silent <= params.maxSilence)",
        "if (silent < params.maxSilence)",
    ),
    Bug(
        "suspension keeps what was set aside",
        ESCROW,
        "lease_.covered = params.rate.secondsFor(money, lease_.earned + silent);",
        "",
    ),
    Bug(
        "suspension sets aside without taking",
        ESCROW,
        "uint256(job_.free) + before - reserve",
        "uint256(job_.free) + before",
    ),
    Bug("a suspended job stays active", ESCROW, "job_.active = false;\n        job_.free", "job_.free"),
    Bug(
        "anyone suspends",
        ESCROW,
        "_onlyTenantOrWatcher(params.tenant, params.watcher);\n        bool shown",
        "bool shown",
    ),
    Bug("anyone answers", ESCROW, "revert NotProviderOrNode(msg.sender);", ""),
    Bug(
        "anyone closes",
        ESCROW,
        "if (msg.sender != params.tenant && msg.sender != params.watcher) revert NotClosable(lease_.exitAt);",
        "",
    ),
    Bug(
        "anyone gives notice",
        ESCROW,
        "if (msg.sender != params.provider) revert NotProvider(msg.sender, params.provider);",
        "",
    ),
    Bug(
        "a late notice moves the exit",
        ESCROW,
        "if (served >= lease_.exitAt) revert NoticeChangesNothing(leaseId, lease_.exitAt);",
        "",
    ),
    Bug(
        "receipts of other leases count",
        LEASES,
        "if (receipt.leaseId != leaseId) revert WrongLease(receipt.leaseId, leaseId);",
        "",
    ),
    Bug(
        "receipts are not checked",
        LEASES,
        "if (!Signatures.isValid(params.watcher, digest, signature))",
        "if (digest == 0)",
    ),
    Bug(
        "receipts from the future count",
        LEASES,
        "Settlement.min(receipt.seenAt, Settlement.min(block.timestamp, lease_.endsAt))",
        "Settlement.min(receipt.seenAt, lease_.endsAt)",
    ),
    Bug(
        "receipts count beyond the end",
        LEASES,
        "Settlement.min(receipt.seenAt, Settlement.min(block.timestamp, lease_.endsAt))",
        "Settlement.min(receipt.seenAt, block.timestamp)",
    ),
    Bug(
        "an older receipt counts",
        LEASES,
        "if (earned > lease_.earned) lease_.earned = uint32(earned);",
        "lease_.earned = uint32(earned);",
    ),
    Bug("slots are reusable", ESCROW, "_useSlot(bid.provider, bid.slot);", ""),
    Bug("the bitmap ignores a slot's low bits", LEASES, "|= 1 << (slot & 0xff);", "|= 1;"),
    Bug(
        "the bitmap ignores a slot's high bits",
        LEASES,
        "_slots[provider][slot >> 8] |=",
        "_slots[provider][0] |=",
    ),
    Bug(
        "a lease's id leaves out the slot",
        TYPED_DATA,
        "hash := keccak256(free, 320)",
        "hash := keccak256(free, 288)",
    ),
    Bug(
        "a lease's id leaves out its job",
        TYPED_DATA,
        "hash := keccak256(free, 320)",
        "hash := keccak256(add(free, 32), 288)",
    ),
    Bug(
        "open takes no bond from what is free",
        ESCROW,
        "uint104(reserve + BOND + order.epochFee)",
        "uint104(reserve + order.epochFee)",
    ),
    Bug("open locks nothing", ESCROW, "_lock(bid.provider, bid.collateral, deposited);", ""),
    Bug(
        "open locks one lease's collateral alone",
        ESCROW,
        "locked = locked + collateral;",
        "locked = collateral;",
    ),
    Bug(
        "open doesn't ask for the minimum runtime",
        ESCROW,
        "if (required > free) revert InsufficientEscrow(free, required);",
        "",
    ),
    Bug(
        "open takes no notice of limits",
        LEDGER,
        "if (raised.deadline == 0) return Limits(order.deadline, order.maxEpochs, order.maxRatePerHour);",
        "if (raised.deadline == 0) return Limits(order.deadline, type(uint32).max, type(uint128).max);",
    ),
    Bug(
        "extensions are forgotten",
        LEDGER,
        "_extensions[jobId] = Limits(deadline, maxEpochs, maxRatePerHour);",
        "",
    ),
    Bug(
        "refund leaves what it paid",
        LEDGER,
        "amount = job_.free;\n        job_.free = 0;",
        "amount = job_.free;",
    ),
    Bug("refund while a lease runs", LEDGER, "if (job_.active) revert JobIsActive(jobId, job_.epochs);", ""),
    Bug("withdraw keeps the credit", LEDGER, "_accounts[msg.sender].claimable = 0;", ""),
    Bug("an order funds twice", LEDGER, "if (job_.funded) revert JobExists(jobId);", ""),
    Bug(
        "a revoked order funds",
        LEDGER,
        "if (job_.cancelled) revert JobIsCancelled(jobId);\n        _checkOrder",
        "_checkOrder",
    ),
    Bug(
        "anyone funds without a signature",
        LEDGER,
        "if (msg.sender != order.tenant && !Signatures.isValid(order.tenant, jobId, signature))",
        "if (jobId == 0)",
    ),
    Bug("anyone slashes", STAKING, "if (msg.sender != ESCROW) revert NotEscrow(msg.sender);", ""),
    Bug(
        "locked stake leaves",
        STAKING,
        "uint128 free = lockable(msg.sender);",
        "uint128 free = _staked(held);",
    ),
    Bug(
        "unbonding needs no time",
        STAKING,
        "if (block.timestamp < held.unbondsAt) revert StillUnbonding(held.unbondsAt);",
        "",
    ),
    Bug(
        "slashed stake unbonds",
        STAKING,
        "return held.unbonding < staked ? held.unbonding : staked;",
        "return held.unbonding;",
    ),
    Bug("new stake unbonds with the slashed", STAKING, "held.unbonding = _unbonding(held);\n", "\n"),
    Bug("consents are reusable", STAKING, "nonceUsed[node][auth.nonce] = true;", ""),
    Bug("deposits are believed", DEPOSITS, "if (received != amount)", "if (received > amount)"),
    Bug(
        "no guard on withdraw",
        LEDGER,
        "function withdraw(address to) external nonReentrant",
        "function withdraw(address to) external",
    ),
    Bug(
        "high s is accepted",
        SIGNATURES,
        "return SignatureChecker",
        "if (signature.length == 65) {\n"
        "            (bytes32 r, bytes32 s) = (bytes32(signature[:32]), bytes32(signature[32:64]));\n"
        "            return ecrecover(digest, uint8(signature[64]), r, s) == signer;\n"
        "        }\n        return SignatureChecker",
    ),
)


def plant(copies: Copies, bug: Bug, campaign: bool) -> tuple[str, float]:
    """Outcome and seconds of one bug."""
    source = (ROOT / bug.path).read_text(encoding="utf-8")
    if bug.old not in source:
        return "NOT PLANTED: the text to edit is gone", 0.0
    verdict = copies.judge(bug.path, source.replace(bug.old, bug.new, 1), campaign=campaign)
    if verdict.kind == "invalid":
        log = ROOT / ".build" / "logs" / "planted.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(verdict.detail, encoding="utf-8")
        return f"DOES NOT RUN, see {log.relative_to(ROOT)}", verdict.seconds
    return f"caught by {verdict.detail}" if verdict.kind == "caught" else verdict.kind.upper(), verdict.seconds


def main(arguments: list[str]) -> int:
    """Plant all bugs, or those named, in as many copies as there are cores."""
    names = [word for word in arguments if not word.startswith("--")]
    bugs = [bug for bug in BUGS if not names or bug.name in names]
    started = time.monotonic()
    copies = Copies(ROOT / ".build" / "planted")

    def run(bug: Bug) -> tuple[Bug, str, float]:
        return bug, *plant(copies, bug, "--campaign" in arguments)

    missed = 0
    with ThreadPoolExecutor(max_workers=WORKERS) as pool:
        for bug, outcome, seconds in pool.map(run, bugs):
            missed += not outcome.startswith("caught")
            print(f"{bug.name:42} {seconds:5.0f} s  {outcome}", flush=True)
    copies.close()
    print(f"{len(bugs) - missed} of {len(bugs)} planted bugs caught in {time.monotonic() - started:.0f} s")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
