// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Stake} from "../../../contracts/interfaces/IProviderStaking.sol";
import {LeaseParams, LeaseState, Receipt as LeaseReceipt} from "../../../contracts/interfaces/LeaseTypes.sol";
import {Watchers} from "./Watchers.sol";

/// @notice Providers and their nodes stake, leave, swap nodes, give notice and answer disputes.
abstract contract Providers is Watchers {
    function _stake(uint256 seed) internal returns (bool) {
        _stakeMore(seed % PROVIDERS, uint128(_between(seed >> 40, 1, 50 * UNIT)));
        return true;
    }

    function _requestUnstake(uint256 seed) internal returns (bool) {
        address provider = _providers[seed % PROVIDERS];
        Stake storage stake = _stakes[provider];
        if (stake.deposited - stake.slashed == stake.unbonding) _stakeMore(seed % PROVIDERS, UNIT);
        uint128 amount = uint128(_between(seed >> 40, 1, stake.deposited - stake.slashed - stake.unbonding));
        vm.prank(provider);
        STAKING.requestUnstake(amount);
        stake.unbonding += amount;
        stake.unbondsAt = _now + UNBONDING;
        return true;
    }

    /// @dev Takes whoever has something to withdraw; if nobody has, one of them stakes more and asks for a part back.
    function _unstake(uint256 seed) internal returns (bool) {
        for (uint256 i = 0; i < PROVIDERS; i++) {
            if (_takeBack((seed % PROVIDERS + i) % PROVIDERS)) return true;
        }
        _stakeMore(seed % PROVIDERS, UNIT);
        _requestUnstake(seed);
        return _takeBack(seed % PROVIDERS);
    }

    /// @dev Waits for the period's end if need be, which ends most jobs as well.
    function _takeBack(uint256 index) private returns (bool) {
        address provider = _providers[index];
        Stake storage stake = _stakes[provider];
        uint256 expected = _least(stake.unbonding, stake.deposited - stake.slashed - _collateralOf(provider));
        if (expected == 0) return false;
        _leap(stake.unbondsAt);
        uint256 before = TOKEN.balanceOf(provider);
        vm.prank(provider);
        if (STAKING.withdraw(provider) != expected) revert Broken("what unbonds and is not locked leaves");
        if (TOKEN.balanceOf(provider) - before != expected) revert Broken("stake sent");
        stake.deposited -= uint128(expected);
        stake.unbonding -= uint128(expected);
        _withdrawn += expected;
        return true;
    }

    function _swapNode(uint256 seed) internal returns (bool) {
        uint256 index = seed % PROVIDERS;
        address node = _nodes[index];
        if (_providerOf[node] != address(0)) {
            vm.prank(seed % 2 == 0 ? _providers[index] : node);
            STAKING.revokeNode(node);
            _providerOf[node] = address(0);
        }
        if (seed % 5 != 0) _authorise(index);
        return true;
    }

    /// @dev For a lease whose exit a notice brings nearer.
    function _notice(uint256 seed) internal returns (bool) {
        uint256 count = _leases.length;
        bytes32 id;
        for (uint256 i = 0; i < count; i++) {
            bytes32 other = _leases[(seed % count + i) % count];
            if (_noticeHelps(other)) id = other;
        }
        if (id == bytes32(0) && _open(seed)) id = _leases[_leases.length - 1];
        if (id == bytes32(0) || !_noticeHelps(id)) return false;
        LeaseBook storage book = _leaseBooks[id];
        LeaseParams memory params = book.params;
        vm.prank(params.provider);
        ESCROW.notice(params);
        book.word.exitAt = uint40(_now + WINDOW);
        book.word.endsAt = uint40(_least(book.word.endsAt, _now + WINDOW));
        return true;
    }

    /// @dev With a sufficient receipt, an insufficient one, or none; in the window up to its last second.
    function _answer(uint256 seed) internal returns (bool) {
        bytes32 id = _suspended(seed);
        if (id == bytes32(0)) return false;
        LeaseBook storage book = _leaseBooks[id];
        LeaseParams memory params = book.params;
        if (_now > book.word.exitAt) return _fail(id, _keeper);
        if (seed % 4 == 0) _leap(book.word.exitAt);
        LeaseReceipt memory receipt = _noReceipt();
        bytes memory signature;
        bool cleared;
        if (seed % 3 != 0) {
            uint256 age = _now - book.word.startedAt;
            uint256 seenAt = book.word.startedAt + _between(seed >> 64, 0, age + 100);
            uint256 earned = _between(seed >> 128, 0, age + 100);
            receipt = LeaseReceipt(id, ++_nextSeq, uint64(seenAt), uint64(earned), seed >> 7 & 3 == 0, "root");
            signature = _signed(receipt, params.watcher);
            cleared = receipt.isFinal || seenAt + params.maxSilence >= book.word.endsAt;
        }
        vm.prank(cleared ? _keeper : seed >> 9 & 1 == 0 ? params.provider : params.node);
        ESCROW.answer(params, receipt, signature);
        if (receipt.leaseId != bytes32(0)) {
            _see(book.word, receipt);
            _bookPay(id);
        }
        if (cleared) _bookCleared(id);
        else _bookDrop(id);
        return true;
    }

    function _fail(bytes32 id, address caller) internal returns (bool) {
        LeaseParams memory params = _leaseBooks[id].params;
        vm.prank(caller);
        ESCROW.fail(params);
        _bookFail(id, caller);
        return true;
    }

    function _noticeHelps(bytes32 id) internal view returns (bool) {
        return _leaseBooks[id].word.state == LeaseState.Active && _now + WINDOW < _leaseBooks[id].word.exitAt;
    }
}
