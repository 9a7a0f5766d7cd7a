// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {LeaseParams, Receipt as LeaseReceipt} from "../../../contracts/interfaces/LeaseTypes.sol";
import {Providers} from "./Providers.sol";

/// @notice Anyone: shows receipts, runs the exits, sweeps fees, withdraws.
abstract contract Keepers is Providers {
    function _collect(uint256 seed) internal returns (bool) {
        bytes32 id = seed % 4 == 0 ? _suspended(seed) : _active(seed);
        if (id == bytes32(0)) return false;
        LeaseBook storage book = _leaseBooks[id];
        LeaseParams memory params = book.params;
        LeaseReceipt memory receipt = _anyReceipt(id, seed, false);
        ESCROW.collect(params, receipt, _signed(receipt, params.watcher));
        _see(book.word, receipt);
        _bookPay(id);
        return true;
    }

    function _closeFinal(uint256 seed) internal returns (bool) {
        bytes32 id = _active(seed);
        if (id == bytes32(0)) return false;
        LeaseBook storage book = _leaseBooks[id];
        LeaseParams memory params = book.params;
        LeaseReceipt memory receipt = _anyReceipt(id, seed, true);
        bytes memory signature = _signed(receipt, params.watcher);
        vm.prank(_keeper);
        ESCROW.close(params, receipt, signature);
        _see(book.word, receipt);
        _bookPay(id);
        _bookEnd(id, BOND, 0);
        return true;
    }

    /// @dev By anyone, once the exit is open: pays what receipts say.
    function _closeLate(bytes32 id) internal {
        LeaseBook storage book = _leaseBooks[id];
        LeaseParams memory params = book.params;
        _leap(book.word.exitAt + 1);
        vm.prank(_keeper);
        ESCROW.close(params, _noReceipt(), "");
        _bookPay(id);
        _bookEnd(id, BOND, 0);
    }

    function _failLate(uint256 seed) internal returns (bool) {
        bytes32 id = _suspended(seed);
        if (id == bytes32(0)) return false;
        _leap(_leaseBooks[id].word.exitAt + 1);
        return _fail(id, _keeper);
    }

    function _refundLate(uint256 seed) internal returns (bool) {
        if (_jobs.length == 0 && !_fund(seed)) return false;
        for (uint256 i = 0; i < _jobs.length; i++) {
            bytes32 jobId = _jobs[(seed % _jobs.length + i) % _jobs.length];
            JobBook storage job = _jobBooks[jobId];
            if (job.active || job.limits.deadline > _now + 600) continue;
            _leap(job.limits.deadline + 1);
            _refund(jobId, _keeper);
            return true;
        }
        return false;
    }

    function _sweepFees(uint256 seed) internal returns (bool) {
        if (_jobs.length == 0 && !_fund(seed)) return false;
        _sweep(_jobs[seed % _jobs.length], seed % 2 == 0 ? _keeper : _attacker);
        return true;
    }

    function _withdrawSome(uint256 seed) internal returns (bool) {
        for (uint256 i = 0; i < _accounts.length; i++) {
            address account = _accounts[(seed % _accounts.length + i) % _accounts.length];
            if (_due[account] == 0) continue;
            _withdraw(account);
            return true;
        }
        return false;
    }

    function _withdraw(address account) internal {
        uint256 before = TOKEN.balanceOf(account);
        vm.prank(account);
        if (ESCROW.withdraw(account) != _due[account]) revert Broken("all that is due leaves");
        if (TOKEN.balanceOf(account) - before != _due[account]) revert Broken("credit sent");
        _withdrawn += _due[account];
        _due[account] = 0;
    }

    /// @dev Also lies: heartbeats and service up to 100 s beyond what time allows, or older than what is known.
    function _anyReceipt(bytes32 id, uint256 seed, bool isFinal) private returns (LeaseReceipt memory) {
        uint256 startedAt = _leaseBooks[id].word.startedAt;
        uint256 age = _now - startedAt;
        return LeaseReceipt({
            leaseId: id,
            seq: ++_nextSeq,
            seenAt: uint64(startedAt + _between(seed >> 64, 0, age + 100)),
            earned: uint64(_between(seed >> 128, 0, age + 100)),
            isFinal: isFinal,
            checkpointRoot: "root"
        });
    }
}
