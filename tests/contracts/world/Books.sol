// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Stake} from "../../../contracts/interfaces/IProviderStaking.sol";
import {Lease, LeaseState, Receipt as LeaseReceipt} from "../../../contracts/interfaces/LeaseTypes.sol";
import {World} from "./World.sol";

/// @notice The rules of docs/protocol.md about pay, coverage, ends and slashes, as entries of our own ledger.
abstract contract Books is World {
    uint256 private constant FEE_BPS = 100;
    uint256 private constant DROP_PENALTY_BPS = 500;
    uint256 private constant SLASH_TO_JOB_BPS = 3000;
    uint256 private constant SLASH_TO_CALLER_BPS = 500;

    /// @dev The fee on a lease's whole pay.
    function _feeOf(uint256 pay) internal pure returns (uint256) {
        return pay * FEE_BPS / 10_000;
    }

    function _payFor(uint256 rate, uint256 duration) internal pure returns (uint256) {
        return rate * duration / 3600;
    }

    /// @dev The most seconds up to `wanted` whose pay the money covers, found by trying.
    function _affordable(uint256 rate, uint256 money, uint256 wanted) internal pure returns (uint256 duration) {
        if (_payFor(rate, wanted) <= money) return wanted;
        duration = money * 3600 / rate;
        while (_payFor(rate, duration + 1) <= money) duration++;
    }

    /// @dev What a receipt shows is bounded by now and by the end of service; an older one changes nothing.
    function _see(Lease storage word, LeaseReceipt memory receipt) internal {
        uint256 seenAt = _least(_least(receipt.seenAt, _now), word.endsAt);
        uint256 seen = seenAt < word.startedAt ? 0 : seenAt - word.startedAt;
        uint256 earned = _least(receipt.earned, seen);
        if (earned > word.earned) word.earned = uint32(earned);
        if (seen > word.seen) word.seen = uint32(seen);
    }

    /// @dev What the lease is paid: all that it earned, as far as money is there, in whole seconds.
    function _bookPay(bytes32 id) internal {
        LeaseBook storage book = _leaseBooks[id];
        JobBook storage job = _jobBooks[book.params.jobId];
        uint256 available = book.aside;
        if (book.word.state == LeaseState.Active) available += job.free;
        uint256 duration = _affordable(book.params.rate, book.paid + available, book.word.earned);
        uint256 amount = _payFor(book.params.rate, duration) - book.paid;
        uint256 fromAside = _least(amount, book.aside);
        book.aside -= fromAside;
        job.free -= amount - fromAside;
        _due[book.params.provider] += amount - (_feeOf(book.paid + amount) - _feeOf(book.paid));
        book.paid += amount;
        book.word.paid = uint32(duration);
    }

    /// @dev The lease sets aside the pay of `wanted` seconds in all, or as much as there is money for.
    function _bookCover(bytes32 id, uint256 wanted) internal {
        LeaseBook storage book = _leaseBooks[id];
        JobBook storage job = _jobBooks[book.params.jobId];
        uint256 money = book.aside + job.free;
        uint256 covered = _affordable(book.params.rate, book.paid + money, wanted);
        uint256 pay = _payFor(book.params.rate, covered);
        book.aside = pay > book.paid ? pay - book.paid : 0;
        job.free = money - book.aside;
        book.word.covered = uint32(covered);
        book.mostCovered = uint32(wanted);
    }

    /// @dev What the lease set aside, the bond unless it was given away, and `gained` are the job's again; the fees
    /// withheld from its pay wait there.
    function _bookEnd(bytes32 id, uint256 bond, uint256 gained) internal {
        LeaseBook storage book = _leaseBooks[id];
        JobBook storage job = _jobBooks[book.params.jobId];
        job.free += book.aside + bond + gained;
        job.fees += _feeOf(book.paid);
        job.living--;
        if (book.word.state == LeaseState.Active) job.active = false;
        delete book.word;
        _retire(id);
    }

    function _bookFail(bytes32 id, address caller) internal {
        LeaseBook storage book = _leaseBooks[id];
        uint256 collateral = book.params.collateral;
        uint256 toJob = collateral * SLASH_TO_JOB_BPS / 10_000;
        uint256 toCaller = collateral * SLASH_TO_CALLER_BPS / 10_000;
        _due[caller] += toCaller;
        _due[INSURANCE] += collateral - toJob - toCaller;
        _bookSlash(book.params.provider, collateral);
        _bookEnd(id, BOND, toJob);
    }

    function _bookDrop(bytes32 id) internal {
        LeaseBook storage book = _leaseBooks[id];
        uint256 penalty = uint256(book.params.collateral) * DROP_PENALTY_BPS / 10_000;
        _due[INSURANCE] += penalty;
        _bookSlash(book.params.provider, penalty);
        _bookEnd(id, BOND, 0);
    }

    function _bookCleared(bytes32 id) internal {
        _due[_leaseBooks[id].params.provider] += BOND;
        _bookEnd(id, 0, 0);
    }

    function _bookSlash(address provider, uint256 amount) private {
        Stake storage stake = _stakes[provider];
        stake.slashed += uint128(amount);
        stake.unbonding = uint128(_least(stake.unbonding, stake.deposited - stake.slashed));
    }

    function _retire(bytes32 id) private {
        uint256 last = _leases.length - 1;
        for (uint256 i = 0; i < last; i++) {
            if (_leases[i] == id) _leases[i] = _leases[last];
        }
        _leases.pop();
        if (_ended.length < KEPT_ENDED) _ended.push(id);
        else _ended[uint256(id) % KEPT_ENDED] = id;
    }
}
