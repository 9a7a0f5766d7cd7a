// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Job, Lease, LeaseState, Order} from "../../../contracts/interfaces/LeaseTypes.sol";
import {World} from "./World.sol";

/// @notice Tenants fund, extend, cancel, take back what is free, and end leases early.
abstract contract Tenants is World {
    Order internal _lastOrder;
    bytes internal _lastOrderSignature;

    function fund(uint256 seed) external asked("fund", seed) {
        if (_fund(seed)) acted("fund");
    }

    function topUp(uint256 seed, uint128 amount) external asked("topUp", seed) {
        if (jobs.length == 0 && !_fund(seed)) return;
        bytes32 jobId = jobs[seed % jobs.length];
        if (ESCROW.job(jobId).cancelled) return;
        amount = uint128(bound(amount, 1, 3 * UNIT));
        vm.prank(tenants[seed % TENANTS]);
        ESCROW.topUp(jobId, amount, _noPermit());
        jobIn[jobId] += amount;
        deposited += amount;
        _touchJob(jobId);
        acted("topUp");
    }

    function extend(uint256 seed) external asked("extend", seed) {
        if (jobs.length == 0 && !_fund(seed)) return;
        bytes32 jobId = jobs[seed % jobs.length];
        Job memory job = ESCROW.job(jobId);
        if (job.cancelled) return;
        if (job.deadline + 2000 > _now + 30 days) return;
        vm.prank(job.tenant);
        ESCROW.extend(jobId, job.deadline + uint64(seed % 2000), job.maxEpochs + 1, job.maxRatePerHour + 1);
        _touchJob(jobId);
        acted("extend");
    }

    function cancel(uint256 seed) external asked("cancel", seed) {
        if (jobs.length == 0 && !_fund(seed)) return;
        for (uint256 i = 0; i < jobs.length; i++) {
            bytes32 jobId = jobs[(seed % jobs.length + i) % jobs.length];
            Job memory job = ESCROW.job(jobId);
            if (job.cancelled) continue;
            vm.prank(job.tenant);
            ESCROW.cancel(jobId);
            _touchJob(jobId);
            return acted("cancel");
        }
    }

    function refund(uint256 seed) external asked("refund", seed) {
        if (jobs.length == 0 && !_fund(seed)) return;
        for (uint256 i = 0; i < jobs.length; i++) {
            bytes32 jobId = jobs[(seed % jobs.length + i) % jobs.length];
            if (ESCROW.job(jobId).activeLease != bytes32(0)) continue;
            _refund(jobId, ESCROW.job(jobId).tenant);
            return acted("refund");
        }
    }

    /// @dev By the tenant or the watcher, without a receipt: pays all since the last heartbeat that was shown.
    function closeEarly(uint256 seed, bool byWatcher) external asked("closeEarly", seed) {
        (bytes32 id, Lease memory lease) = _find(seed, LeaseState.Active);
        if (id == bytes32(0)) return;
        _closeEarly(id, lease, byWatcher);
        acted("closeEarly");
    }

    function _closeEarly(bytes32 id, Lease memory lease, bool byWatcher) internal {
        Job memory job = ESCROW.job(lease.jobId);
        uint64 earned = lease.earned;
        if (_now <= lease.closableAt) {
            uint64 end = _least(_now, lease.endsAt);
            if (end > lease.seenAt) earned += end - lease.seenAt;
        }
        vm.prank(byWatcher ? job.watcher : job.tenant);
        ESCROW.close(id, _noReceipt(), "");
        _bookPay(id, lease, job, earned);
        _touch(id, lease);
    }

    function _refund(bytes32 jobId, address caller) internal {
        Job memory job = ESCROW.job(jobId);
        vm.prank(caller);
        uint256 amount = ESCROW.refund(jobId);
        assertEq(amount, job.balance - job.reserved, "refund is all that is free");
        jobOut[jobId] += amount;
        due[job.tenant] += amount;
        _touchJob(jobId);
    }

    function _fund(uint256 seed) internal returns (bool) {
        if (jobs.length == MAX_JOBS && !_makeRoom(seed)) return false;
        Order memory order = Order({
            tenant: tenants[seed % TENANTS],
            watcher: watchers[seed / 7 % WATCHERS],
            jobSpec: bytes32(seed),
            maxRatePerHour: uint128(bound(seed >> 8, 1, 10 * UNIT)),
            deposit: uint128(bound(seed >> 16, 1, 8 * UNIT)),
            minCollateral: uint128(bound(seed >> 24, 0, UNIT)),
            maxSilence: uint32(bound(seed >> 32, 2, 30)),
            maxEpochs: uint32(1 + seed % 20),
            epochFee: uint128(seed % 1000),
            deadline: _now + uint64(bound(seed >> 40, 0, 6000)),
            nonce: ++_nonce
        });
        bytes32 jobId = ESCROW.hashOrder(order);
        bytes memory signature = _sign(TENANT_KEY + seed % TENANTS, jobId);
        assertEq(ESCROW.fund(order, signature, _noPermit()), jobId);
        jobs.push(jobId);
        jobIn[jobId] = order.deposit;
        deposited += order.deposit;
        _lastOrder = order;
        _lastOrderSignature = signature;
        _touchJob(jobId);
        return true;
    }

    /// @dev Forgets a job that has nothing running: it is refunded first, so that it can't hide money.
    function _makeRoom(uint256 seed) private returns (bool) {
        for (uint256 i = 0; i < jobs.length; i++) {
            uint256 index = (seed % jobs.length + i) % jobs.length;
            Job memory job = ESCROW.job(jobs[index]);
            if (job.activeLease != bytes32(0) || job.reserved != 0 || _waits(jobs[index])) continue;
            _refund(jobs[index], job.tenant);
            assertEq(ESCROW.job(jobs[index]).balance, 0, "a job without leases is refunded to the last unit");
            _dropJob(index);
            return true;
        }
        return false;
    }

    function _waits(bytes32 jobId) private view returns (bool) {
        for (uint256 i = 0; i < leases.length; i++) {
            if (ESCROW.lease(leases[i]).jobId == jobId) return true;
        }
        return false;
    }
}
