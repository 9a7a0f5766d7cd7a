// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Job, Lease, LeaseState, Receipt as LeaseReceipt} from "../../../contracts/interfaces/LeaseTypes.sol";
import {Providers} from "./Providers.sol";

/// @notice Anyone: shows receipts, runs the exits, withdraws.
abstract contract Keepers is Providers {
    function collect(uint256 seed, uint64 seen, uint64 served) external asked("collect", seed) {
        (bytes32 id, Lease memory lease) = seed % 4 == 0 ? _suspended(seed) : _active(seed);
        if (id == bytes32(0)) return;
        Job memory job = ESCROW.job(lease.jobId);
        LeaseReceipt memory receipt = _anyReceipt(id, lease, seen, served, false);
        ESCROW.collect(id, receipt, _signed(receipt, job.watcher));
        _bookPay(id, lease, job, _earned(lease, receipt));
        _touch(id, lease);
        acted("collect");
    }

    function closeFinal(uint256 seed, uint64 seen, uint64 served) external asked("closeFinal", seed) {
        (bytes32 id, Lease memory lease) = _active(seed);
        if (id == bytes32(0)) return;
        Job memory job = ESCROW.job(lease.jobId);
        LeaseReceipt memory receipt = _anyReceipt(id, lease, seen, served, true);
        bytes memory signature = _signed(receipt, job.watcher);
        vm.prank(keepers[0]);
        ESCROW.close(id, receipt, signature);
        _bookPay(id, lease, job, _earned(lease, receipt));
        _touch(id, lease);
        acted("closeFinal");
    }

    function closeLate(uint256 seed) external asked("closeLate", seed) {
        (bytes32 id, Lease memory lease) = _active(seed);
        if (id == bytes32(0)) return;
        Job memory job = ESCROW.job(lease.jobId);
        _leap(lease.closableAt + 1);
        vm.prank(keepers[0]);
        ESCROW.close(id, _noReceipt(), "");
        _bookPay(id, lease, job, lease.earned);
        _touch(id, lease);
        acted("closeLate");
    }

    function fail(uint256 seed) external asked("fail", seed) {
        (bytes32 id, Lease memory lease) = _suspended(seed);
        if (id == bytes32(0)) return;
        _leap(lease.answerBy + 1);
        _fail(id, lease, keepers[0], "fail");
    }

    function refundLate(uint256 seed) external asked("refundLate", seed) {
        if (jobs.length == 0 && !_fund(seed)) return;
        for (uint256 i = 0; i < jobs.length; i++) {
            bytes32 jobId = jobs[(seed % jobs.length + i) % jobs.length];
            Job memory job = ESCROW.job(jobId);
            if (job.activeLease != bytes32(0) || job.deadline > _now + 600) continue;
            _leap(job.deadline + 1);
            _refund(jobId, keepers[0]);
            return acted("refundLate");
        }
    }

    function withdraw(uint256 seed) external asked("withdraw", seed) {
        for (uint256 i = 0; i < accounts.length; i++) {
            address account = accounts[(seed % accounts.length + i) % accounts.length];
            if (due[account] == 0) continue;
            _withdraw(account);
            return acted("withdraw");
        }
    }

    function _withdraw(address account) internal {
        uint256 before = TOKEN.balanceOf(account);
        vm.prank(account);
        assertEq(ESCROW.withdraw(account), due[account], "all that is due");
        assertEq(TOKEN.balanceOf(account) - before, due[account], "credit sent");
        withdrawn += due[account];
        due[account] = 0;
    }

    /// @dev Also lies: heartbeats and service up to 100 s beyond what time allows, or older than what is known.
    function _anyReceipt(
        bytes32 id,
        Lease memory lease,
        uint64 seen,
        uint64 served,
        bool isFinal
    )
        private
        view
        returns (LeaseReceipt memory)
    {
        uint64 age = _now - lease.startedAt;
        return LeaseReceipt({
            leaseId: id,
            seq: lease.seq + 1,
            seenAt: lease.startedAt + uint64(bound(seen, 0, age + 100)),
            earned: uint64(bound(served, 0, age + 100)),
            isFinal: isFinal,
            checkpointRoot: bytes32(0)
        });
    }
}
