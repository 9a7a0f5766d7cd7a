// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Bid, Job, Lease, LeaseState, Receipt as LeaseReceipt} from "../../../contracts/interfaces/LeaseTypes.sol";
import {Tenants} from "./Tenants.sol";

/// @notice Watchers open, sign receipts (honest ones and lies, of the past and of the future) and suspend.
abstract contract Watchers is Tenants {
    Bid internal _lastBid;
    bytes internal _lastBidSignature;
    uint128 internal _lastRate;

    function open(uint256 seed) external asked("open", seed) {
        if (_open(seed)) acted("open");
    }

    function suspend(uint256 seed, bool withReceipt) external asked("suspend", seed) {
        if (_suspend(seed, withReceipt) != bytes32(0)) acted("suspend");
    }

    /// @dev Some active lease; one is opened if there is none.
    function _active(uint256 seed) internal returns (bytes32 id, Lease memory lease) {
        (id, lease) = _find(seed, LeaseState.Active);
        if (id == bytes32(0) && _open(seed)) (id, lease) = _find(seed, LeaseState.Active);
    }

    /// @dev Some suspended lease; one is suspended if there is none.
    function _suspended(uint256 seed) internal returns (bytes32 id, Lease memory lease) {
        (id, lease) = _find(seed, LeaseState.Suspended);
        if (id == bytes32(0)) {
            id = _suspend(seed, false);
            lease = ESCROW.lease(id);
        }
    }

    function _suspend(uint256 seed, bool withReceipt) internal returns (bytes32 id) {
        if (leases.length >= MAX_LEASES) return id;
        Lease memory lease;
        (id, lease) = _active(seed);
        if (id == bytes32(0)) return id;
        Job memory job = ESCROW.job(lease.jobId);
        if (lease.endsAt <= lease.seenAt + job.maxSilence) {
            // Too close to its end to be silent: it ends instead.
            _closeEarly(id, lease, true);
            return bytes32(0);
        }
        _leap(lease.seenAt + job.maxSilence + 1 + uint64(seed % 3));
        uint64 suspendedAt = _least(_now, lease.endsAt);
        LeaseReceipt memory receipt = _noReceipt();
        bytes memory signature;
        uint64 earned = lease.earned;
        if (withReceipt) {
            receipt = LeaseReceipt(id, lease.seq + 1, lease.seenAt, lease.seenAt - lease.startedAt, false, "root");
            signature = _signed(receipt, job.watcher);
            earned = _earned(lease, receipt);
        }
        vm.prank(seed % 2 == 0 ? job.watcher : job.tenant);
        ESCROW.suspend(id, receipt, signature);
        _bookPay(id, lease, job, earned);
        Lease memory afterwards = ESCROW.lease(id);
        assertEq(afterwards.suspendedAt, suspendedAt, "suspendedAt as documented");
        assertEq(afterwards.answerBy, _now + WINDOW, "answerBy as documented");
        openings[id].wasSuspended = true;
        uint256 cap = (uint256(lease.rate) * (suspendedAt - lease.seenAt) + 3599) / 3600;
        // forge-lint: disable-next-line(unsafe-typecast)
        openings[id].reserveCap = uint128(cap);
        _touch(id, lease);
    }

    function _open(uint256 seed) internal returns (bool) {
        if (leases.length >= MAX_LEASES) return false;
        (bytes32 jobId, uint128 rate) = _openable(seed);
        if (jobId == bytes32(0)) return false;
        Job memory job = ESCROW.job(jobId);
        uint256 index = seed % PROVIDERS;
        uint128 collateral = job.minCollateral + uint128(bound(seed >> 50, 0, UNIT));
        if (STAKING.lockable(providers[index]) < collateral) _stake(index, collateral);
        if (STAKING.providerOf(nodes[index]) == address(0)) _authorise(index);
        Bid memory bid = Bid({
            provider: providers[index],
            node: nodes[index],
            orderHash: jobId,
            epoch: job.epochs + 1,
            minRatePerHour: rate / 2,
            collateral: collateral,
            deadline: _now,
            slot: ++_nonce
        });
        bytes32 bidHash = ESCROW.hashBid(bid);
        bytes memory signature = _sign((seed % 2 == 0 ? NODE_KEY : PROVIDER_KEY) + index, bidHash);
        vm.prank(seed % 3 == 0 ? job.tenant : job.watcher);
        bytes32 id = ESCROW.open(jobId, bid, signature, rate);
        leases.push(id);
        opens[jobId]++;
        jobOut[jobId] += job.epochFee;
        due[job.watcher] += job.epochFee;
        // forge-lint: disable-next-line(unsafe-typecast)
        uint128 cap = uint128((uint256(rate) * MIN_RUNTIME + 3599) / 3600);
        openings[id] = Opening(bid.minRatePerHour, job.maxRatePerHour, cap, false);
        (_lastBid, _lastBidSignature, _lastRate) = (bid, signature, rate);
        Lease memory none;
        _touch(id, none);
        return true;
    }

    /// @dev A job that can open now, at a rate that its money carries; a new one if there is none.
    function _openable(uint256 seed) private returns (bytes32 jobId, uint128 rate) {
        for (uint256 i = 0; i <= jobs.length; i++) {
            bool isNew = i == jobs.length;
            if (isNew && !_fund(seed >> 3 | 1 << 250)) return (bytes32(0), 0);
            jobId = isNew ? jobs[jobs.length - 1] : jobs[(seed % jobs.length + i) % jobs.length];
            Job memory job = ESCROW.job(jobId);
            bool may = job.activeLease == bytes32(0) && !job.cancelled && _now <= job.deadline;
            uint256 free = job.balance - job.reserved;
            if (may && job.epochs < job.maxEpochs && free > BOND + job.epochFee + 1000) {
                // Half an hour's or more of what is free, and never beyond the order's maximum.
                rate = uint128(bound(seed >> 60, 0, (free - BOND - job.epochFee - 1) * 6));
                return (jobId, rate < job.maxRatePerHour ? rate : job.maxRatePerHour);
            }
            if (isNew) return (bytes32(0), 0);
        }
    }

    function _stake(uint256 index, uint128 amount) internal {
        vm.prank(providers[index]);
        STAKING.stake(amount, _noPermit());
        staked[providers[index]] += amount;
        deposited += amount;
        _touchStake(providers[index]);
    }
}
