// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Stake} from "../../../contracts/interfaces/IProviderStaking.sol";
import {Job, Lease, LeaseState, Receipt as LeaseReceipt} from "../../../contracts/interfaces/LeaseTypes.sol";
import {Watchers} from "./Watchers.sol";

/// @notice Providers and their nodes stake, leave, swap nodes, give notice and answer disputes.
abstract contract Providers is Watchers {
    function stake(uint256 seed, uint128 amount) external asked("stake", seed) {
        _stake(seed % PROVIDERS, uint128(bound(amount, 1, 50 * UNIT)));
        acted("stake");
    }

    function requestUnstake(uint256 seed, uint128 amount) external asked("requestUnstake", seed) {
        address provider = providers[seed % PROVIDERS];
        if (staked[provider] == unbonding[provider]) _stake(seed % PROVIDERS, UNIT);
        amount = uint128(bound(amount, 1, staked[provider] - unbonding[provider]));
        vm.prank(provider);
        STAKING.requestUnstake(amount);
        unbonding[provider] += amount;
        assertEq(STAKING.stakeOf(provider).unbondsAt, _now + STAKING.unbondingPeriod(), "the period starts anew");
        _touchStake(provider);
        acted("requestUnstake");
    }

    /// @dev Now and then waits for the period's end, which ends most jobs as well.
    function unstake(uint256 seed) external asked("unstake", seed) {
        for (uint256 i = 0; i < PROVIDERS; i++) {
            address provider = providers[(seed % PROVIDERS + i) % PROVIDERS];
            Stake memory held = STAKING.stakeOf(provider);
            if (held.unbonding == 0 || held.locked == held.staked) continue;
            _leap(held.unbondsAt);
            uint256 free = held.staked - held.locked;
            uint256 expected = held.unbonding < free ? held.unbonding : free;
            uint256 before = TOKEN.balanceOf(provider);
            vm.prank(provider);
            assertEq(STAKING.withdraw(provider), expected, "what unbonds and is not locked");
            assertEq(TOKEN.balanceOf(provider) - before, expected, "stake sent");
            staked[provider] -= expected;
            unbonding[provider] -= expected;
            withdrawn += expected;
            _touchStake(provider);
            return acted("unstake");
        }
    }

    function swapNode(uint256 seed) external asked("swapNode", seed) {
        uint256 index = seed % PROVIDERS;
        if (STAKING.providerOf(nodes[index]) != address(0)) {
            vm.prank(seed % 2 == 0 ? providers[index] : nodes[index]);
            STAKING.revokeNode(nodes[index]);
        }
        if (seed % 5 != 0) _authorise(index);
        acted("swapNode");
    }

    function notice(uint256 seed) external asked("notice", seed) {
        for (uint256 i = 0; i <= leases.length; i++) {
            (bytes32 id, Lease memory lease) = _find(seed % 1000 + i, LeaseState.Active);
            if (id == bytes32(0) || lease.noticed) {
                if (i < leases.length || !_open(seed >> 1)) continue;
                id = leases[leases.length - 1];
                lease = ESCROW.lease(id);
            }
            vm.prank(lease.provider);
            ESCROW.notice(id);
            assertEq(ESCROW.lease(id).endsAt, _least(lease.endsAt, _now + WINDOW), "notice ends service");
            _touch(id, lease);
            return acted("notice");
        }
    }

    /// @dev With a sufficient receipt, an insufficient one, or none; in the window up to its last second.
    function answer(uint256 seed, uint64 seen, uint64 served, bool isFinal) external asked("answer", seed) {
        (bytes32 id, Lease memory lease) = _suspended(seed);
        if (id == bytes32(0)) return;
        if (_now > lease.answerBy) return _fail(id, lease, keepers[0], "answer");
        if (seed % 4 == 0) _leap(lease.answerBy);
        Job memory job = ESCROW.job(lease.jobId);
        LeaseReceipt memory receipt = _noReceipt();
        bytes memory signature;
        bool cleared;
        if (seed % 3 != 0) {
            uint64 age = _now - lease.startedAt;
            seen = lease.startedAt + uint64(bound(seen, 0, age + 100));
            receipt = LeaseReceipt(id, lease.seq, seen, uint64(bound(served, 0, age + 100)), isFinal, "root");
            signature = _signed(receipt, job.watcher);
            cleared = isFinal || uint256(seen) + job.maxSilence >= lease.suspendedAt;
            _answerWith(id, lease, job, receipt, signature, cleared);
        } else {
            vm.prank(seed % 2 == 0 ? lease.provider : lease.node);
            ESCROW.answer(id, receipt, signature);
            _bookDrop(id, lease);
        }
        acted("answer");
    }

    function _fail(bytes32 id, Lease memory lease, address caller, string memory name) internal {
        vm.prank(caller);
        ESCROW.fail(id);
        uint256 toJob = uint256(lease.collateral) * 3000 / 10_000;
        uint256 toCaller = uint256(lease.collateral) * 500 / 10_000;
        jobIn[lease.jobId] += toJob;
        due[caller] += toCaller;
        due[insurance] += lease.collateral - toJob - toCaller;
        _bookSlash(lease.provider, lease.collateral);
        _touch(id, lease);
        acted(name);
    }

    function _answerWith(
        bytes32 id,
        Lease memory lease,
        Job memory job,
        LeaseReceipt memory receipt,
        bytes memory signature,
        bool cleared
    )
        private
    {
        uint64 earned = _earned(lease, receipt);
        vm.prank(cleared ? keepers[0] : lease.provider);
        ESCROW.answer(id, receipt, signature);
        _bookPay(id, lease, job, earned);
        if (!cleared) return _bookDrop(id, lease);
        assertEq(uint8(ESCROW.lease(id).state), uint8(LeaseState.Cleared));
        jobOut[lease.jobId] += BOND;
        due[lease.provider] += BOND;
        _touch(id, lease);
    }

    function _bookDrop(bytes32 id, Lease memory lease) private {
        assertEq(uint8(ESCROW.lease(id).state), uint8(LeaseState.Failed));
        uint256 penalty = uint256(lease.collateral) * 500 / 10_000;
        due[insurance] += penalty;
        _bookSlash(lease.provider, penalty);
        _touch(id, lease);
    }
}
