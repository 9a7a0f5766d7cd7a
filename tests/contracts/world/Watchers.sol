// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {NodeAuth} from "../../../contracts/interfaces/IProviderStaking.sol";
import {
    Bid,
    Lease,
    LeaseParams,
    LeaseState,
    Limits,
    Order,
    Receipt as LeaseReceipt
} from "../../../contracts/interfaces/LeaseTypes.sol";
import {Tenants} from "./Tenants.sol";

/// @notice Watchers open and suspend; nodes and providers bid.
abstract contract Watchers is Tenants {
    bytes32 internal _lastBidJob;
    Bid internal _lastBid;
    bytes internal _lastBidSignature;
    uint128 internal _lastRate;

    /// @dev Some active lease; one is opened if there is none.
    function _active(uint256 seed) internal returns (bytes32 id) {
        id = _find(seed, LeaseState.Active);
        if (id == bytes32(0) && _open(seed)) id = _leases[_leases.length - 1];
    }

    /// @dev Some suspended lease; one is suspended if there is none.
    function _suspended(uint256 seed) internal returns (bytes32 id) {
        id = _find(seed, LeaseState.Suspended);
        if (id == bytes32(0)) id = _suspend(seed, seed >> 9 & 1 == 1);
    }

    function _suspend(uint256 seed, bool withReceipt) internal returns (bytes32 id) {
        id = _active(seed);
        if (id == bytes32(0)) return id;
        LeaseBook storage book = _leaseBooks[id];
        LeaseParams memory params = book.params;
        uint256 seenAt = book.word.startedAt + book.word.seen;
        if (book.word.endsAt <= seenAt + params.maxSilence) {
            // Too close to its end to be silent: it ends instead.
            _closeEarly(id, true);
            return bytes32(0);
        }
        uint256 later = seed >> 12 & 3;
        _leap(seenAt + params.maxSilence + 1 + later);
        LeaseReceipt memory receipt = _noReceipt();
        bytes memory signature;
        if (withReceipt) {
            if (book.word.endsAt > seenAt + later + params.maxSilence) seenAt += later;
            receipt = LeaseReceipt(id, ++_nextSeq, uint64(seenAt), uint64(seenAt - book.word.startedAt), false, "root");
            signature = _signed(receipt, params.watcher);
        }
        vm.prank(seed % 2 == 0 ? params.watcher : params.tenant);
        ESCROW.suspend(params, receipt, signature);
        if (withReceipt) {
            _see(book.word, receipt);
            _bookPay(id);
        }
        uint256 suspendedAt = _least(_now, book.word.endsAt);
        _bookCover(id, book.word.earned + suspendedAt - book.word.startedAt - book.word.seen);
        book.word.state = LeaseState.Suspended;
        book.word.endsAt = uint40(suspendedAt);
        book.word.exitAt = uint40(_now + WINDOW);
        _jobBooks[params.jobId].active = false;
    }

    function _open(uint256 seed) internal returns (bool) {
        if (_leases.length >= MAX_LEASES) return false;
        (bytes32 jobId, uint128 rate) = _openable(seed);
        if (jobId == bytes32(0)) return false;
        Order memory order = _orders[jobId];
        Bid memory bid = _bid(seed, jobId, order.minCollateral, rate);
        bytes memory signature = _sign(seed % 2 == 0 ? bid.node : bid.provider, ESCROW.hashBid(bid));
        LeaseParams memory params = LeaseParams({
            jobId: jobId,
            tenant: order.tenant,
            watcher: order.watcher,
            provider: bid.provider,
            node: bid.node,
            epoch: bid.epoch,
            maxSilence: order.maxSilence,
            rate: rate,
            collateral: bid.collateral,
            slot: bid.slot
        });
        bytes32 id = keccak256(abi.encode(params));
        vm.prank(seed % 3 == 0 ? order.tenant : order.watcher);
        if (ESCROW.open(order, bid, signature, rate) != id) revert Broken("a lease's id is its params' hash");
        _bookOpen(id, params, order.epochFee);
        (_lastBidJob, _lastBid, _lastBidSignature, _lastRate) = (jobId, bid, signature, rate);
        return true;
    }

    function _stakeMore(uint256 index, uint128 amount) internal {
        address provider = _providers[index];
        vm.prank(provider);
        STAKING.stake(amount, _noPermit());
        _stakes[provider].deposited += amount;
        _deposited += amount;
    }

    function _authorise(uint256 index) internal {
        NodeAuth memory auth = NodeAuth(_providers[index], _nodes[index], _now, ++_nonce);
        bytes memory signature = _sign(auth.node, STAKING.hashNodeAuth(auth));
        vm.prank(auth.provider);
        STAKING.authoriseNode(auth, signature);
        _providerOf[auth.node] = auth.provider;
    }

    /// @dev Collateral of what runs.
    function _collateralOf(address provider) internal view returns (uint256 total) {
        for (uint256 i = 0; i < _leases.length; i++) {
            LeaseParams storage params = _leaseBooks[_leases[i]].params;
            if (params.provider == provider) total += params.collateral;
        }
    }

    function _bookOpen(bytes32 id, LeaseParams memory params, uint128 epochFee) private {
        JobBook storage job = _jobBooks[params.jobId];
        LeaseBook storage book = _leaseBooks[id];
        _leases.push(id);
        job.opened++;
        job.living++;
        job.active = true;
        job.free -= BOND + epochFee;
        _due[params.watcher] += epochFee;
        book.params = params;
        book.word = Lease({
            state: LeaseState.Active,
            startedAt: uint40(_now),
            endsAt: uint40(job.limits.deadline),
            exitAt: uint40(job.limits.deadline + WINDOW),
            seen: 0,
            earned: 0,
            paid: 0,
            covered: 0
        });
        _bookCover(id, job.limits.deadline - _now);
    }

    function _bid(uint256 seed, bytes32 jobId, uint128 lowest, uint128 rate) private returns (Bid memory) {
        uint256 index = seed % PROVIDERS;
        address provider = _providers[index];
        uint128 collateral = lowest + uint128(_between(seed >> 50, 0, UNIT));
        uint256 free = _stakes[provider].deposited - _stakes[provider].slashed - _collateralOf(provider);
        if (free < collateral) _stakeMore(index, collateral);
        if (_providerOf[_nodes[index]] == address(0)) _authorise(index);
        return Bid({
            provider: provider,
            node: _nodes[index],
            orderHash: jobId,
            epoch: _jobBooks[jobId].opened + 1,
            minRatePerHour: seed >> 70 & 1 == 0 ? rate : rate / 2,
            collateral: collateral,
            deadline: _now,
            slot: ++_nonce
        });
    }

    /// @dev A job that can open now, at a rate that its money carries; a new one if there is none.
    function _openable(uint256 seed) private returns (bytes32 jobId, uint128 rate) {
        uint256 count = _jobs.length;
        for (uint256 i = 0; i <= count; i++) {
            // A new job's money is enough for any lease.
            if (i == count && !_fund(seed | 1 << 36)) break;
            jobId = i == count ? _jobs[_jobs.length - 1] : _jobs[(seed % count + i) % count];
            JobBook storage job = _jobBooks[jobId];
            Limits memory limits = job.limits;
            if (job.active || job.cancelled || _now > limits.deadline || job.opened >= limits.maxEpochs) continue;
            uint256 extras = uint256(BOND) + _orders[jobId].epochFee;
            if (job.free < extras) continue;
            // Up to the last unit that ten minutes may cost, and never beyond the order's maximum.
            uint256 most = _least((job.free - extras) * 6 + 5, limits.maxRatePerHour);
            return (jobId, uint128(_between(seed >> 60, 0, most)));
        }
        return (bytes32(0), 0);
    }
}
