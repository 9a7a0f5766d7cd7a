"""Plant known bugs in a copy of the contracts, one at a time, and show that the tests catch each.

Usage: python3 scripts/planted_bugs.py [--campaign] [NAME…]      --campaign asks the stateful campaign alone.

Prints one line per bug; exit status 1 if one went unnoticed. A bug that doesn't compile proves nothing and fails too.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COPIES = ROOT / ".build" / "planted"
FORGE = ROOT / "node_modules/@foundry-rs/forge-linux-amd64/bin/forge"
ESCROW = "contracts/LeaseEscrow.sol"
LEDGER = "contracts/escrow/JobLedger.sol"
STAKING = "contracts/ProviderStaking.sol"
SETTLEMENT = "contracts/libraries/Settlement.sol"
DEPOSITS = "contracts/libraries/Deposits.sol"
SIGNATURES = "contracts/libraries/Signatures.sol"
CAMPAIGN = "Campaigns"


@dataclass(frozen=True)
class Bug:
    """One edit: the first `old` in `path` becomes `new`. `suite` is the test file that is asked."""

    name: str
    path: str
    old: str
    new: str
    suite: str


BUGS = (
    Bug("pay rounds up", SETTLEMENT, "earned / HOUR", "earned / HOUR + 1", "Service"),
    Bug("reserve rounds down", SETTLEMENT, "duration + HOUR - 1", "duration", "Money"),
    Bug("time may run backwards", SETTLEMENT, "end > start ? end - start : 0", "end - start", "Money"),
    Bug("pay forgets what was paid", ESCROW, "payFor(lease_.earned) - lease_.paid", "payFor(lease_.earned)", "Service"),
    Bug("pay isn't taken from the job", ESCROW, "job_.balance -= amount;", "", "Service"),
    Bug(
        "a suspended lease draws on all",
        ESCROW,
        "lease_.state == LeaseState.Active ? reserve +",
        "true ? reserve +",
        "Dispute",
    ),
    Bug("a lease settles twice", ESCROW, "lease_.state = LeaseState.Closed;", "", "Service"),
    Bug(
        "fail doesn't end the lease",
        ESCROW,
        "lease_.state = LeaseState.Failed;",
        "",
        "Dispute",
    ),
    Bug(
        "fail within the window",
        ESCROW,
        "block.timestamp <= lease_.answerBy",
        "block.timestamp < lease_.answerBy",
        "Dispute",
    ),
    Bug(
        "answer after the window",
        ESCROW,
        "block.timestamp > lease_.answerBy",
        "block.timestamp > lease_.answerBy + 1",
        "Dispute",
    ),
    Bug(
        "suspend one second early",
        ESCROW,
        "suspendedAt <= uint256(lease_.seenAt)",
        "suspendedAt < uint256(lease_.seenAt)",
        "Dispute",
    ),
    Bug("anyone suspends", ESCROW, "_onlyTenantOrWatcher(job_);\n        bool shown", "bool shown", "Dispute"),
    Bug(
        "anyone closes",
        ESCROW,
        "if (msg.sender != job_.tenant && msg.sender != job_.watcher) revert NotClosable(lease_.closableAt);",
        "",
        "Service",
    ),
    Bug(
        "receipts of other leases count",
        ESCROW,
        "if (receipt.leaseId != leaseId) revert WrongLease(receipt.leaseId, leaseId);",
        "",
        "Service",
    ),
    Bug(
        "receipts are not checked",
        ESCROW,
        "if (!Signatures.isValid(job_.watcher, digest, signature))",
        "if (digest == 0)",
        "Service",
    ),
    Bug(
        "receipts from the future count",
        ESCROW,
        "Settlement.earlier(receipt.seenAt, uint64(block.timestamp))",
        "receipt.seenAt",
        "Service",
    ),
    Bug("slots are reusable", ESCROW, "slotUsed[bid.provider][bid.slot] = true;", "", "Open"),
    Bug(
        "open reserves nothing for the bond",
        ESCROW,
        "job_.reserved += reserve + BOND;",
        "job_.reserved += reserve;",
        "Open",
    ),
    Bug(
        "refund takes reserves",
        LEDGER,
        "amount = job_.balance - job_.reserved;\n        job_.balance = job_.reserved;",
        "amount = job_.balance;\n        job_.balance = 0;",
        "Fund",
    ),
    Bug(
        "refund while a lease runs",
        LEDGER,
        "if (job_.activeLease != bytes32(0)) revert JobIsActive(jobId, job_.activeLease);",
        "",
        "Fund",
    ),
    Bug("withdraw keeps the credit", LEDGER, "claimable[msg.sender] = 0;", "", "Fund"),
    Bug("an order funds twice", LEDGER, "if (_jobs[jobId].tenant != address(0)) revert JobExists(jobId);", "", "Fund"),
    Bug("anyone slashes", STAKING, "if (msg.sender != ESCROW) revert NotEscrow(msg.sender);", "", "Staking"),
    Bug(
        "locked stake leaves",
        STAKING,
        "uint128 free = held.staked - held.locked;",
        "uint128 free = held.staked;",
        "Staking",
    ),
    Bug(
        "unbonding needs no time",
        STAKING,
        "if (block.timestamp < held.unbondsAt) revert StillUnbonding(held.unbondsAt);",
        "",
        "Staking",
    ),
    Bug(
        "a slash leaves the lock",
        STAKING,
        "held.locked -= amount;\n        held.staked -= amount;",
        "held.staked -= amount;",
        "Dispute",
    ),
    Bug("consents are reusable", STAKING, "nonceUsed[node][auth.nonce] = true;", "", "Staking"),
    Bug("deposits are believed", DEPOSITS, "if (received != amount)", "if (received > amount)", "HostileTokens"),
    Bug(
        "no guard on withdraw",
        LEDGER,
        "function withdraw(address to) external nonReentrant",
        "function withdraw(address to) external",
        "HostileTokens",
    ),
    Bug(
        "high s is accepted",
        SIGNATURES,
        "return SignatureChecker",
        "if (signature.length == 65) {\n"
        "            (bytes32 r, bytes32 s) = (bytes32(signature[:32]), bytes32(signature[32:64]));\n"
        "            return ecrecover(digest, uint8(signature[64]), r, s) == signer;\n"
        "        }\n        return SignatureChecker",
        "Signatures",
    ),
)


def plant(bug: Bug, suite: str) -> tuple[Bug, str, float]:
    """Outcome and seconds of one bug: 'caught by …', or why not."""
    started = time.monotonic()
    folder = COPIES / re.sub(r"\W+", "-", bug.name)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in ("contracts", "tests/contracts"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "foundry.toml", folder)
    for name in ("node_modules", "scripts"):
        (folder / name).symlink_to(ROOT / name)
    path = folder / bug.path
    source = path.read_text(encoding="utf-8")
    if bug.old not in source:
        return bug, "NOT PLANTED: the text to edit is gone", 0.0
    path.write_text(source.replace(bug.old, bug.new, 1), encoding="utf-8")
    # A bug of the source is one without the optimizer too, which takes most of a compile's time.
    env = os.environ | {
        "FOUNDRY_INVARIANT_SHRINK_RUN_LIMIT": "0",
        "FOUNDRY_DENY": "never",
        "FOUNDRY_OPTIMIZER": "false",
    }
    argv = [str(FORGE), "test", "--fail-fast", "--match-path", f"tests/contracts/{suite}.t.sol"]
    done = subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, check=False)
    shutil.rmtree(folder, ignore_errors=True)
    seconds = time.monotonic() - started
    caught = re.search(r"\[FAIL.*?\] *(\w+)\(|^ *(invariant_all)\(", done.stdout, re.MULTILINE)
    if done.returncode == 0:
        return bug, "UNNOTICED", seconds
    if not caught:
        log = ROOT / ".build" / "logs" / "planted.log"
        log.write_text(done.stdout + done.stderr, encoding="utf-8")
        return bug, f"DOES NOT RUN, see {log.relative_to(ROOT)}", seconds
    return bug, f"caught by {suite}.{caught.group(1) or caught.group(2)}", seconds


def main(arguments: list[str]) -> int:
    """Plant all bugs, or those named, two at a time."""
    names = [word for word in arguments if not word.startswith("--")]
    bugs = [bug for bug in BUGS if not names or bug.name in names]
    started = time.monotonic()
    missed = 0
    with ThreadPoolExecutor(max_workers=2) as pool:
        suites = [CAMPAIGN if "--campaign" in arguments else bug.suite for bug in bugs]
        for bug, outcome, seconds in pool.map(plant, bugs, suites):
            missed += not outcome.startswith("caught")
            print(f"{bug.name:38} {seconds:5.0f} s  {outcome}", flush=True)
    print(f"{len(bugs) - missed} of {len(bugs)} planted bugs caught in {time.monotonic() - started:.0f} s")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
