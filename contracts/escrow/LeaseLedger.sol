// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

import {ILeaseEscrow} from "../interfaces/ILeaseEscrow.sol";
import {Account, Config, Job, Lease, LeaseParams, LeaseState, Receipt} from "../interfaces/LeaseTypes.sol";
import {Settlement} from "../libraries/Settlement.sol";
import {Signatures} from "../libraries/Signatures.sol";
import {TypedData} from "../libraries/TypedData.sol";
import {JobLedger} from "./JobLedger.sol";

/// @title Leases, their receipts and their pay
/// @notice A lease is read into memory, changed there, and written once by the call.
abstract contract LeaseLedger is JobLedger {
    using Settlement for uint128;
    using Settlement for uint256;

    mapping(bytes32 leaseId => Lease) internal _leases;
    mapping(address provider => mapping(uint256 word => uint256 bits)) private _slots;

    constructor(IERC20 escrowedAsset, Config memory terms) JobLedger(escrowedAsset, terms) {}

    /// @inheritdoc ILeaseEscrow
    function lease(bytes32 leaseId) external view returns (Lease memory) {
        return _leases[leaseId];
    }

    /// @inheritdoc ILeaseEscrow
    function slotUsed(address provider, uint256 slot) external view returns (bool) {
        return _slotUsed(provider, slot);
    }

    /// @inheritdoc ILeaseEscrow
    function hashReceipt(Receipt calldata receipt) public view returns (bytes32) {
        return _hashTypedDataV4(TypedData.structHash(receipt));
    }

    /// @inheritdoc ILeaseEscrow
    function leaseIdOf(LeaseParams calldata params) public pure returns (bytes32) {
        return TypedData.leaseId(params);
    }

    /// @dev Takes a receipt into account: what it says is bounded by now and by the end of service, and an older one
    /// changes nothing.
    function _see(
        bytes32 leaseId,
        LeaseParams calldata params,
        Lease memory lease_,
        Receipt calldata receipt,
        bytes calldata signature
    )
        internal
        view
    {
        if (receipt.leaseId != leaseId) revert WrongLease(receipt.leaseId, leaseId);
        bytes32 digest = hashReceipt(receipt);
        if (!Signatures.isValid(params.watcher, digest, signature)) {
            revert InvalidWatcherSignature(params.watcher, digest);
        }
        uint256 seenAt = Settlement.min(receipt.seenAt, Settlement.min(block.timestamp, lease_.endsAt));
        uint256 seen = seenAt > lease_.startedAt ? seenAt - lease_.startedAt : 0;
        uint256 earned = Settlement.min(receipt.earned, seen);
        if (earned > lease_.earned) lease_.earned = uint32(earned);
        if (seen > lease_.seen) lease_.seen = uint32(seen);
    }

    function _seeIfAny(
        bytes32 leaseId,
        LeaseParams calldata params,
        Lease memory lease_,
        Receipt calldata receipt,
        bytes calldata signature
    )
        internal
        view
        returns (bool shown)
    {
        shown = receipt.leaseId != bytes32(0);
        if (shown) _see(leaseId, params, lease_, receipt, signature);
    }

    /// @dev Pays what is earned and not paid yet. An active lease may draw on what it set aside and on all that is
    /// free, a suspended one on what it set aside alone; a shortfall is cut to whole seconds, and a later call pays
    /// the rest. The same write credits `bond` and unlocks `unlocked`.
    function _pay(
        bytes32 leaseId,
        LeaseParams calldata params,
        Lease memory lease_,
        Receipt calldata receipt,
        uint128 bond,
        uint128 unlocked
    )
        internal
    {
        uint256 before = params.rate.payFor(lease_.paid);
        uint256 aside = _setAside(params.rate, lease_);
        uint256 due = params.rate.payFor(lease_.earned) - before;
        if (due > aside) {
            uint256 free = lease_.state == LeaseState.Active ? _jobs[params.jobId].free : 0;
            lease_.paid = params.rate.secondsFor(before + aside + free, lease_.earned);
            due = params.rate.payFor(lease_.paid) - before;
            // All that was set aside is paid, for more was earned than it covers.
            // forge-lint: disable-next-line(unsafe-typecast)
            if (free != 0) _jobs[params.jobId].free = uint104(free + aside - due);
            aside = 0;
        } else {
            lease_.paid = lease_.earned;
            aside -= due;
        }
        // Fees are rounded on the lease's whole pay, so they don't depend on how it is cut up.
        uint256 fee = (before + due).share(FEE_BPS) - before.share(FEE_BPS);
        Account memory account = _accounts[params.provider];
        account.claimable += uint128(due - fee + bond);
        account.locked -= unlocked;
        _accounts[params.provider] = account;
        bool shown = receipt.leaseId != bytes32(0);
        emit LeaseCollected(
            params.jobId,
            leaseId,
            lease_.earned,
            lease_.startedAt + lease_.seen,
            shown ? receipt.seq : 0,
            uint128(due),
            uint128(fee),
            uint128(aside),
            shown ? receipt.checkpointRoot : bytes32(0)
        );
    }

    /// @dev Ends a lease: frees its storage and hands the job what it set aside, `bond` and `gained`. The fees that
    /// were withheld from its pay become the job's.
    function _end(
        bytes32 leaseId,
        LeaseParams calldata params,
        Lease memory lease_,
        uint128 bond,
        uint128 gained
    )
        internal
    {
        Job memory job_ = _jobs[params.jobId];
        job_.free += uint104(_setAside(params.rate, lease_) + bond + gained);
        job_.fees += uint96(params.rate.payFor(lease_.paid).share(FEE_BPS));
        if (lease_.state == LeaseState.Active) job_.active = false;
        _jobs[params.jobId] = job_;
        delete _leases[leaseId];
    }

    function _useSlot(address provider, uint256 slot) internal {
        _slots[provider][slot >> 8] |= 1 << (slot & 0xff);
    }

    function _slotUsed(address provider, uint256 slot) internal view returns (bool) {
        return _slots[provider][slot >> 8] >> (slot & 0xff) & 1 == 1;
    }

    function _leaseIn(LeaseParams calldata params, LeaseState expected) internal view returns (bytes32, Lease memory) {
        bytes32 leaseId = leaseIdOf(params);
        Lease memory lease_ = _leases[leaseId];
        if (lease_.state != expected) revert WrongLeaseState(leaseId, lease_.state);
        return (leaseId, lease_);
    }

    /// @dev What a lease has set aside: the pay of the seconds that are covered and not paid.
    function _setAside(uint128 rate, Lease memory lease_) internal pure returns (uint128) {
        if (lease_.covered <= lease_.paid) return 0;
        // It was free escrow, so it fits.
        // forge-lint: disable-next-line(unsafe-typecast)
        return uint128(rate.payFor(lease_.covered) - rate.payFor(lease_.paid));
    }
}
