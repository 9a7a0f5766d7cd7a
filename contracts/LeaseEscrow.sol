// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {Multicall} from "@openzeppelin/contracts/utils/Multicall.sol";

import {ProviderStaking} from "./ProviderStaking.sol";
import {JobLedger} from "./escrow/JobLedger.sol";
import {ILeaseEscrow} from "./interfaces/ILeaseEscrow.sol";
import {Bid, Config, CreditReason, Job, Lease, LeaseState, Receipt} from "./interfaces/LeaseTypes.sol";
import {Settlement} from "./libraries/Settlement.sol";
import {Signatures} from "./libraries/Signatures.sol";
import {TypedData} from "./libraries/TypedData.sol";

/// @title LeaseEscrow
/// @notice See ILeaseEscrow. Each change goes: checks, what the receipt earned, storage, events, calls to the staking contract.
contract LeaseEscrow is JobLedger, Multicall {
    using Settlement for uint128;

    ProviderStaking private immutable STAKING;

    mapping(bytes32 leaseId => Lease) private _leases;

    /// @inheritdoc ILeaseEscrow
    mapping(address provider => mapping(uint256 slot => bool)) public override slotUsed;

    /// @notice Deploys the staking contract as well.
    constructor(IERC20 escrowedAsset, Config memory terms) JobLedger(escrowedAsset, terms) {
        STAKING = new ProviderStaking(escrowedAsset, terms.unbondingPeriod);
    }

    /// @inheritdoc ILeaseEscrow
    function open(
        bytes32 jobId,
        Bid calldata bid,
        bytes calldata signature,
        uint128 rate
    )
        external
        nonReentrant
        returns (bytes32 leaseId)
    {
        Job storage j = _knownJob(jobId);
        _onlyTenantOrWatcher(j);
        if (j.cancelled) revert JobIsCancelled(jobId);
        if (block.timestamp > j.deadline) revert OrderExpired(j.deadline);
        if (j.activeLease != bytes32(0)) revert JobIsActive(jobId, j.activeLease);
        if (j.epochs >= j.maxEpochs) revert EpochsExhausted(j.maxEpochs);
        bytes32 bidHash = _checkBid(jobId, j, bid, signature, rate);
        uint128 reserve = _checkFunds(j, rate);

        slotUsed[bid.provider][bid.slot] = true;
        leaseId = leaseIdOf(jobId, bid.epoch, bidHash, rate);
        j.epochs = bid.epoch;
        j.activeLease = leaseId;
        j.balance -= j.epochFee;
        j.reserved += reserve + BOND;
        uint64 startedAt = uint64(block.timestamp);
        Lease storage l = _leases[leaseId];
        l.jobId = jobId;
        l.provider = bid.provider;
        l.epoch = bid.epoch;
        l.state = LeaseState.Active;
        l.node = bid.node;
        l.startedAt = startedAt;
        l.rate = rate;
        l.collateral = bid.collateral;
        l.reserve = reserve;
        l.bond = BOND;
        l.seenAt = startedAt;
        l.endsAt = j.deadline;
        l.closableAt = j.deadline + ANSWER_WINDOW;
        _emitOpened(leaseId, l, j.epochFee, bid.slot, bidHash);
        _credit(j.watcher, j.epochFee, CreditReason.EpochFee);
        STAKING.lock(bid.provider, bid.collateral);
    }

    /// @inheritdoc ILeaseEscrow
    function collect(bytes32 leaseId, Receipt calldata receipt, bytes calldata signature) external nonReentrant {
        Lease storage l = _leases[leaseId];
        if (l.state != LeaseState.Active && l.state != LeaseState.Suspended) revert WrongLeaseState(leaseId, l.state);
        Job storage j = _jobs[l.jobId];
        _see(leaseId, l, j, receipt, signature);
        _pay(leaseId, l, j, receipt.checkpointRoot);
    }

    /// @inheritdoc ILeaseEscrow
    function close(bytes32 leaseId, Receipt calldata receipt, bytes calldata signature) external nonReentrant {
        Lease storage l = _leaseIn(leaseId, LeaseState.Active);
        Job storage j = _jobs[l.jobId];
        bool shown = _seeIfAny(leaseId, l, j, receipt, signature);
        if (!(shown && receipt.isFinal) && block.timestamp <= l.closableAt) {
            if (msg.sender != j.tenant && msg.sender != j.watcher) revert NotClosable(l.closableAt);
            // Whoever ends service before its time, and without the provider, pays up to now.
            uint64 end = Settlement.earlier(uint64(block.timestamp), l.endsAt);
            l.earned += Settlement.elapsed(l.seenAt, end);
            if (end > l.seenAt) l.seenAt = end;
        }
        _pay(leaseId, l, j, receipt.checkpointRoot);

        l.state = LeaseState.Closed;
        j.activeLease = bytes32(0);
        uint128 released = _release(l, j);
        emit LeaseClosed(l.jobId, leaseId, msg.sender, released);
        STAKING.unlock(l.provider, l.collateral);
    }

    /// @inheritdoc ILeaseEscrow
    function notice(bytes32 leaseId) external nonReentrant {
        Lease storage l = _leaseIn(leaseId, LeaseState.Active);
        if (msg.sender != l.provider) revert NotProvider(msg.sender, l.provider);
        if (l.noticed) revert AlreadyNoticed(leaseId);
        uint64 served = uint64(block.timestamp) + ANSWER_WINDOW;
        l.noticed = true;
        l.endsAt = Settlement.earlier(l.endsAt, served);
        l.closableAt = Settlement.earlier(l.closableAt, served);
        emit LeaseNotice(l.jobId, leaseId, l.endsAt, l.closableAt);
    }

    /// @inheritdoc ILeaseEscrow
    function suspend(bytes32 leaseId, Receipt calldata receipt, bytes calldata signature) external nonReentrant {
        Lease storage l = _leaseIn(leaseId, LeaseState.Active);
        Job storage j = _jobs[l.jobId];
        _onlyTenantOrWatcher(j);
        bool shown = _seeIfAny(leaseId, l, j, receipt, signature);
        // A provider owes heartbeats until the lease's end, so silence after it is none.
        uint64 suspendedAt = Settlement.earlier(uint64(block.timestamp), l.endsAt);
        if (suspendedAt <= uint256(l.seenAt) + j.maxSilence) revert NotSilent(l.seenAt, j.maxSilence);
        if (shown) _pay(leaseId, l, j, receipt.checkpointRoot);

        l.state = LeaseState.Suspended;
        l.suspendedAt = suspendedAt;
        l.answerBy = uint64(block.timestamp) + ANSWER_WINDOW;
        j.activeLease = bytes32(0);
        uint128 others = j.reserved - l.reserve;
        uint128 reserve = Settlement.clamp(l.rate.reserveFor(suspendedAt - l.seenAt), j.balance - others);
        l.reserve = reserve;
        j.reserved = others + reserve;
        emit LeaseSuspended(l.jobId, leaseId, msg.sender, suspendedAt, l.answerBy, reserve);
    }

    /// @inheritdoc ILeaseEscrow
    function answer(bytes32 leaseId, Receipt calldata receipt, bytes calldata signature) external nonReentrant {
        Lease storage l = _leaseIn(leaseId, LeaseState.Suspended);
        if (block.timestamp > l.answerBy) revert AnswerWindowClosed(l.answerBy);
        Job storage j = _jobs[l.jobId];
        bool shown = _seeIfAny(leaseId, l, j, receipt, signature);
        bool cleared = shown && (receipt.isFinal || uint256(receipt.seenAt) + j.maxSilence >= l.suspendedAt);
        if (!cleared && msg.sender != l.provider && msg.sender != l.node) revert NotProviderOrNode(msg.sender);
        if (shown) _pay(leaseId, l, j, receipt.checkpointRoot);
        if (cleared) _clear(leaseId, l, j);
        else _drop(leaseId, l, j);
    }

    /// @inheritdoc ILeaseEscrow
    function fail(bytes32 leaseId) external nonReentrant {
        Lease storage l = _leaseIn(leaseId, LeaseState.Suspended);
        if (block.timestamp <= l.answerBy) revert AnswerWindowOpen(l.answerBy);
        Job storage j = _jobs[l.jobId];

        l.state = LeaseState.Failed;
        uint128 released = _release(l, j);
        uint128 slashed = _slash(l.provider, l.collateral);
        uint128 toJob = slashed.share(SLASH_TO_JOB_BPS);
        uint128 toCaller = slashed.share(SLASH_TO_CALLER_BPS);
        uint128 toInsurance = slashed - toJob - toCaller;
        j.balance += toJob;
        emit LeaseFailed(l.jobId, leaseId, msg.sender, false, slashed, toJob, toCaller, toInsurance, released);
        _credit(msg.sender, toCaller, CreditReason.FailReward);
        _credit(INSURANCE, toInsurance, CreditReason.Insurance);
    }

    /// @inheritdoc ILeaseEscrow
    function lease(bytes32 leaseId) external view returns (Lease memory) {
        return _leases[leaseId];
    }

    /// @inheritdoc ILeaseEscrow
    function staking() external view returns (address) {
        return address(STAKING);
    }

    /// @inheritdoc ILeaseEscrow
    function hashBid(Bid calldata bid) public view returns (bytes32) {
        return _hashTypedDataV4(TypedData.structHash(bid));
    }

    /// @inheritdoc ILeaseEscrow
    function hashReceipt(Receipt calldata receipt) public view returns (bytes32) {
        return _hashTypedDataV4(TypedData.structHash(receipt));
    }

    /// @inheritdoc ILeaseEscrow
    function leaseIdOf(bytes32 jobId, uint32 epoch, bytes32 bidHash, uint128 rate) public pure returns (bytes32) {
        return keccak256(abi.encode(jobId, epoch, bidHash, rate));
    }

    /// @dev Takes a receipt into account: what it says is bounded by now and by the end of service, and an older one changes nothing.
    function _see(
        bytes32 leaseId,
        Lease storage l,
        Job storage j,
        Receipt calldata receipt,
        bytes calldata signature
    )
        private
    {
        if (receipt.leaseId != leaseId) revert WrongLease(receipt.leaseId, leaseId);
        bytes32 digest = hashReceipt(receipt);
        if (!Signatures.isValid(j.watcher, digest, signature)) revert InvalidWatcherSignature(j.watcher, digest);
        uint64 seenAt = Settlement.earlier(receipt.seenAt, uint64(block.timestamp));
        uint64 end = l.state == LeaseState.Suspended ? l.suspendedAt : l.endsAt;
        uint64 served = Settlement.elapsed(l.startedAt, Settlement.earlier(seenAt, end));
        uint64 earned = Settlement.earlier(receipt.earned, served);
        if (earned > l.earned) l.earned = earned;
        if (seenAt > l.seenAt) l.seenAt = seenAt;
        if (receipt.seq > l.seq) l.seq = receipt.seq;
    }

    function _seeIfAny(
        bytes32 leaseId,
        Lease storage l,
        Job storage j,
        Receipt calldata receipt,
        bytes calldata signature
    )
        private
        returns (bool shown)
    {
        shown = receipt.leaseId != bytes32(0);
        if (shown) _see(leaseId, l, j, receipt, signature);
    }

    /// @dev Pays what is earned and not paid yet. An active lease may draw on all that no other lease reserves, a suspended one on its
    /// reserve alone; a shortfall is paid by a later call, after a top-up.
    function _pay(bytes32 leaseId, Lease storage l, Job storage j, bytes32 checkpointRoot) private {
        uint128 reserve = l.reserve;
        uint128 available = l.state == LeaseState.Active ? reserve + (j.balance - j.reserved) : reserve;
        uint128 amount = Settlement.clamp(l.rate.payFor(l.earned) - l.paid, available);
        uint128 fromReserve = Settlement.clamp(amount, reserve);
        uint128 fee = amount.share(FEE_BPS);
        l.paid += amount;
        l.reserve = reserve - fromReserve;
        j.reserved -= fromReserve;
        j.balance -= amount;
        emit LeaseCollected(l.jobId, leaseId, l.earned, l.seenAt, l.seq, amount, fee, l.reserve, checkpointRoot);
        _credit(l.provider, amount - fee, CreditReason.Service);
        _credit(TREASURY, fee, CreditReason.ServiceFee);
    }

    /// @dev Hands a lease's reserve and bond back to the job's free balance.
    function _release(Lease storage l, Job storage j) private returns (uint128 released) {
        released = l.reserve + l.bond;
        j.reserved -= released;
        l.reserve = 0;
        l.bond = 0;
    }

    function _clear(bytes32 leaseId, Lease storage l, Job storage j) private {
        l.state = LeaseState.Cleared;
        uint128 bond = l.bond;
        uint128 released = _release(l, j) - bond;
        j.balance -= bond;
        emit LeaseCleared(l.jobId, leaseId, msg.sender, bond, released);
        _credit(l.provider, bond, CreditReason.Bond);
        STAKING.unlock(l.provider, l.collateral);
    }

    /// @dev The provider admits the drop: the penalty goes wholly to the insurance, so nobody gains by causing it.
    function _drop(bytes32 leaseId, Lease storage l, Job storage j) private {
        l.state = LeaseState.Failed;
        uint128 released = _release(l, j);
        uint128 penalty = l.collateral.share(DROP_PENALTY_BPS);
        STAKING.unlock(l.provider, l.collateral - penalty);
        uint128 slashed = _slash(l.provider, penalty);
        emit LeaseFailed(l.jobId, leaseId, msg.sender, true, slashed, 0, 0, slashed, released);
        _credit(INSURANCE, slashed, CreditReason.Insurance);
    }

    /// @dev Credits only what arrives, so an asset that starts to take a fee can neither jam this nor make the escrow insolvent.
    function _slash(address provider, uint128 amount) private returns (uint128 received) {
        if (amount == 0) return 0;
        uint256 before = ASSET.balanceOf(address(this));
        STAKING.slash(provider, amount);
        received = Settlement.clamp(ASSET.balanceOf(address(this)) - before, amount);
    }

    function _emitOpened(bytes32 leaseId, Lease storage l, uint128 epochFee, uint256 slot, bytes32 bidHash) private {
        emit LeaseOpened(
            l.jobId,
            leaseId,
            l.provider,
            l.node,
            l.epoch,
            l.rate,
            l.collateral,
            l.reserve,
            l.bond,
            epochFee,
            l.startedAt,
            l.endsAt,
            l.closableAt,
            slot,
            bidHash
        );
    }

    function _checkBid(
        bytes32 jobId,
        Job storage j,
        Bid calldata bid,
        bytes calldata signature,
        uint128 rate
    )
        private
        view
        returns (bytes32 bidHash)
    {
        if (bid.orderHash != jobId) revert WrongOrder(bid.orderHash, jobId);
        if (bid.epoch != j.epochs + 1) revert WrongEpoch(bid.epoch, j.epochs + 1);
        if (block.timestamp > bid.deadline) revert BidExpired(bid.deadline);
        if (rate < bid.minRatePerHour || rate > j.maxRatePerHour) {
            revert RateOutOfBounds(rate, bid.minRatePerHour, j.maxRatePerHour);
        }
        if (bid.collateral < j.minCollateral) revert CollateralTooLow(bid.collateral, j.minCollateral);
        if (slotUsed[bid.provider][bid.slot]) revert SlotUsed(bid.provider, bid.slot);
        if (STAKING.providerOf(bid.node) != bid.provider) revert NodeNotAuthorised(bid.node, bid.provider);
        bidHash = hashBid(bid);
        if (!Signatures.isValid(bid.node, bidHash, signature) && !Signatures.isValid(bid.provider, bidHash, signature))
        {
            revert InvalidBidSignature(bid.node, bid.provider, bidHash);
        }
    }

    function _checkFunds(Job storage j, uint128 rate) private view returns (uint128 reserve) {
        uint128 free = j.balance - j.reserved;
        uint256 runtime = rate.reserveFor(MIN_RUNTIME);
        uint256 required = runtime + BOND + j.epochFee;
        if (required > free) revert InsufficientEscrow(free, required);
        reserve = Settlement.clamp(runtime, free);
    }

    function _leaseIn(bytes32 leaseId, LeaseState expected) private view returns (Lease storage l) {
        l = _leases[leaseId];
        if (l.state != expected) revert WrongLeaseState(leaseId, l.state);
    }

    function _onlyTenantOrWatcher(Job storage j) private view {
        if (msg.sender != j.tenant && msg.sender != j.watcher) revert NotTenantOrWatcher(msg.sender);
    }
}
