// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {LeaseParams, LeaseState, Limits, Order} from "../../../contracts/interfaces/LeaseTypes.sol";
import {Books} from "./Books.sol";

/// @notice Tenants fund, extend, cancel, take back what is free, and end leases early.
abstract contract Tenants is Books {
    Order internal _lastOrder;
    bytes internal _lastOrderSignature;

    function _fund(uint256 seed) internal returns (bool) {
        if (_jobs.length == MAX_JOBS && !_makeRoom(seed)) return false;
        Order memory order = _anOrder(seed);
        bytes32 jobId = ESCROW.hashOrder(order);
        _lastOrder = order;
        _lastOrderSignature = _sign(order.tenant, jobId);
        // The tenant itself needs no signature.
        bool relayed = seed % 3 == 0;
        vm.prank(relayed ? _keeper : order.tenant);
        ESCROW.fund(order, relayed ? _lastOrderSignature : bytes(""), _noPermit());
        _jobs.push(jobId);
        _orders[jobId] = order;
        JobBook storage job = _jobBooks[jobId];
        job.free = order.deposit;
        job.limits = Limits(order.deadline, order.maxEpochs, order.maxRatePerHour);
        _deposited += order.deposit;
        return true;
    }

    /// @dev A signature is taken back before it was used; then it can't be.
    function _revoke(uint256 seed) internal returns (bool) {
        Order memory order = _anOrder(seed);
        vm.prank(order.tenant);
        ESCROW.cancel(order);
        _lastOrder = order;
        _lastOrderSignature = _sign(order.tenant, ESCROW.hashOrder(order));
        return true;
    }

    function _topUp(uint256 seed) internal returns (bool) {
        bytes32 jobId = _aJob(seed, false);
        if (jobId == bytes32(0)) return false;
        uint128 amount = uint128(_between(seed >> 40, 1, 3 * UNIT));
        vm.prank(_tenants[seed % TENANTS]);
        ESCROW.topUp(jobId, amount, _noPermit());
        _jobBooks[jobId].free += amount;
        _deposited += amount;
        return true;
    }

    function _extend(uint256 seed) internal returns (bool) {
        bytes32 jobId = _aJob(seed, false);
        if (jobId == bytes32(0)) return false;
        Limits storage limits = _jobBooks[jobId].limits;
        uint64 later = uint64(limits.deadline + seed % 2000);
        if (later > _now + 30 days) return false;
        Limits memory raised = Limits(later, limits.maxEpochs + 1, limits.maxRatePerHour + 1);
        vm.prank(_orders[jobId].tenant);
        ESCROW.extend(_orders[jobId], raised.deadline, raised.maxEpochs, raised.maxRatePerHour);
        _jobBooks[jobId].limits = raised;
        return true;
    }

    function _cancel(uint256 seed) internal returns (bool) {
        bytes32 jobId = _aJob(seed, false);
        if (jobId == bytes32(0)) return false;
        vm.prank(_orders[jobId].tenant);
        ESCROW.cancel(_orders[jobId]);
        _jobBooks[jobId].cancelled = true;
        return true;
    }

    function _refundEarly(uint256 seed) internal returns (bool) {
        bytes32 jobId = _aJob(seed, true);
        if (jobId == bytes32(0)) return false;
        _refund(jobId, _orders[jobId].tenant);
        return true;
    }

    /// @dev By the tenant or the watcher, without a receipt: pays all since the last heartbeat that was shown.
    function _closeEarly(bytes32 id, bool byWatcher) internal {
        LeaseBook storage book = _leaseBooks[id];
        LeaseParams memory params = book.params;
        if (_now <= book.word.exitAt) {
            uint256 seen = _least(_now, book.word.endsAt) - book.word.startedAt;
            book.word.earned += uint32(seen - book.word.seen);
        }
        vm.prank(byWatcher ? params.watcher : params.tenant);
        ESCROW.close(params, _noReceipt(), "");
        _bookPay(id);
        _bookEnd(id, BOND, 0);
    }

    function _refund(bytes32 jobId, address caller) internal {
        JobBook storage job = _jobBooks[jobId];
        vm.prank(caller);
        if (ESCROW.refund(_orders[jobId]) != job.free) revert Broken("refund is all that is free");
        _due[_orders[jobId].tenant] += job.free;
        job.free = 0;
    }

    function _sweep(bytes32 jobId, address caller) internal {
        JobBook storage job = _jobBooks[jobId];
        vm.prank(caller);
        if (ESCROW.sweepFees(jobId) != job.fees) revert Broken("swept are the fees of the leases that ended");
        _due[TREASURY] += job.fees;
        job.fees = 0;
    }

    function _anOrder(uint256 seed) private returns (Order memory) {
        return Order({
            tenant: _tenants[seed % TENANTS],
            watcher: _watchers[seed / 7 % WATCHERS],
            jobSpec: bytes32(seed),
            maxRatePerHour: uint128(_between(seed >> 8, 1, 10 * UNIT)),
            deposit: uint128(_between(seed >> 16, 1, 8 * UNIT)),
            minCollateral: uint128(_between(seed >> 24, 0, UNIT)),
            maxSilence: uint32(_between(seed >> 32, 2, 30)),
            maxEpochs: uint32(1 + seed % 20),
            epochFee: uint128(seed % 1000),
            deadline: _now + uint64(_between(seed >> 40, 0, 6000)),
            nonce: ++_nonce
        });
    }

    /// @dev A job that isn't cancelled, or one without an active lease; a new one if there is none.
    function _aJob(uint256 seed, bool idle) private returns (bytes32 jobId) {
        uint256 count = _jobs.length;
        for (uint256 i = 0; i < count; i++) {
            jobId = _jobs[(seed % count + i) % count];
            if (idle ? !_jobBooks[jobId].active : !_jobBooks[jobId].cancelled) return jobId;
        }
        return _fund(seed) ? _jobs[_jobs.length - 1] : bytes32(0);
    }

    /// @dev Forgets a job that has nothing running: it is refunded and swept first, so that it can't hide money.
    function _makeRoom(uint256 seed) private returns (bool) {
        for (uint256 i = 0; i < _jobs.length; i++) {
            uint256 index = (seed % _jobs.length + i) % _jobs.length;
            bytes32 jobId = _jobs[index];
            if (_jobBooks[jobId].living != 0) continue;
            _refund(jobId, _orders[jobId].tenant);
            _sweep(jobId, _keeper);
            if (ESCROW.job(jobId).free + ESCROW.job(jobId).fees != 0) revert Broken("a job without leases is emptied");
            _jobs[index] = _jobs[_jobs.length - 1];
            _jobs.pop();
            return true;
        }
        return false;
    }
}
