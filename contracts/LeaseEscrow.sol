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
/// @notice See ILeaseEscrow. Each change goes: checks, what the receipt earned, storage, events, calls to the staking
/// contract.
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
        Job storage job_ = _knownJob(jobId);
        _onlyTenantOrWatcher(job_);
        if (job_.cancelled) revert JobIsCancelled(jobId);
        if (block.timestamp > job_.deadline) revert OrderExpired(job_.deadline);
        if (job_.activeLease != bytes32(0)) revert JobIsActive(jobId, job_.activeLease);
        if (job_.epochs >= job_.maxEpochs) revert EpochsExhausted(job_.maxEpochs);
        bytes32 bidHash = _checkBid(jobId, job_, bid, signature, rate);
        uint128 reserve = _checkFunds(job_, rate);

        slotUsed[bid.provider][bid.slot] = true;
        leaseId = leaseIdOf(jobId, bid.epoch, bidHash, rate);
        job_.epochs = bid.epoch;
        job_.activeLease = leaseId;
        job_.balance -= job_.epochFee;
        job_.reserved += reserve + BOND;
        uint64 startedAt = uint64(block.timestamp);
        Lease storage lease_ = _leases[leaseId];
        lease_.jobId = jobId;
        lease_.provider = bid.provider;
        lease_.epoch = bid.epoch;
        lease_.state = LeaseState.Active;
        lease_.node = bid.node;
        lease_.startedAt = startedAt;
        lease_.rate = rate;
        lease_.collateral = bid.collateral;
        lease_.reserve = reserve;
        lease_.bond = BOND;
        lease_.seenAt = startedAt;
        lease_.endsAt = job_.deadline;
        lease_.closableAt = job_.deadline + ANSWER_WINDOW;
        _emitOpened(leaseId, lease_, job_.epochFee, bid.slot, bidHash);
        _credit(job_.watcher, job_.epochFee, CreditReason.EpochFee);
        STAKING.lock(bid.provider, bid.collateral);
    }

    /// @inheritdoc ILeaseEscrow
    function collect(bytes32 leaseId, Receipt calldata receipt, bytes calldata signature) external nonReentrant {
        Lease storage lease_ = _leases[leaseId];
        if (lease_.state != LeaseState.Active && lease_.state != LeaseState.Suspended) {
            revert WrongLeaseState(leaseId, lease_.state);
        }
        Job storage job_ = _jobs[lease_.jobId];
        _see(leaseId, lease_, job_, receipt, signature);
        _pay(leaseId, lease_, job_, receipt.checkpointRoot);
    }

    /// @inheritdoc ILeaseEscrow
    function close(bytes32 leaseId, Receipt calldata receipt, bytes calldata signature) external nonReentrant {
        Lease storage lease_ = _leaseIn(leaseId, LeaseState.Active);
        Job storage job_ = _jobs[lease_.jobId];
        bool shown = _seeIfAny(leaseId, lease_, job_, receipt, signature);
        if (!(shown && receipt.isFinal) && block.timestamp <= lease_.closableAt) {
            if (msg.sender != job_.tenant && msg.sender != job_.watcher) revert NotClosable(lease_.closableAt);
            // Whoever ends service before its time, and without the provider, pays up to now.
            uint64 end = Settlement.earlier(uint64(block.timestamp), lease_.endsAt);
            lease_.earned += Settlement.elapsed(lease_.seenAt, end);
            if (end > lease_.seenAt) lease_.seenAt = end;
        }
        _pay(leaseId, lease_, job_, receipt.checkpointRoot);

        lease_.state = LeaseState.Closed;
        job_.activeLease = bytes32(0);
        uint128 released = _release(lease_, job_);
        emit LeaseClosed(lease_.jobId, leaseId, msg.sender, released);
        STAKING.unlock(lease_.provider, lease_.collateral);
    }

    /// @inheritdoc ILeaseEscrow
    function notice(bytes32 leaseId) external nonReentrant {
        Lease storage lease_ = _leaseIn(leaseId, LeaseState.Active);
        if (msg.sender != lease_.provider) revert NotProvider(msg.sender, lease_.provider);
        if (lease_.noticed) revert AlreadyNoticed(leaseId);
        uint64 served = uint64(block.timestamp) + ANSWER_WINDOW;
        lease_.noticed = true;
        lease_.endsAt = Settlement.earlier(lease_.endsAt, served);
        lease_.closableAt = Settlement.earlier(lease_.closableAt, served);
        emit LeaseNotice(lease_.jobId, leaseId, lease_.endsAt, lease_.closableAt);
    }

    /// @inheritdoc ILeaseEscrow
    function suspend(bytes32 leaseId, Receipt calldata receipt, bytes calldata signature) external nonReentrant {
        Lease storage lease_ = _leaseIn(leaseId, LeaseState.Active);
        Job storage job_ = _jobs[lease_.jobId];
        _onlyTenantOrWatcher(job_);
        bool shown = _seeIfAny(leaseId, lease_, job_, receipt, signature);
        // A provider owes heartbeats until the lease's end, so silence after it is none.
        uint64 suspendedAt = Settlement.earlier(uint64(block.timestamp), lease_.endsAt);
        if (suspendedAt <= uint256(lease_.seenAt) + job_.maxSilence) revert NotSilent(lease_.seenAt, job_.maxSilence);
        if (shown) _pay(leaseId, lease_, job_, receipt.checkpointRoot);

        lease_.state = LeaseState.Suspended;
        lease_.suspendedAt = suspendedAt;
        lease_.answerBy = uint64(block.timestamp) + ANSWER_WINDOW;
        job_.activeLease = bytes32(0);
        uint128 others = job_.reserved - lease_.reserve;
        uint128 reserve = Settlement.clamp(lease_.rate.reserveFor(suspendedAt - lease_.seenAt), job_.balance - others);
        lease_.reserve = reserve;
        job_.reserved = others + reserve;
        emit LeaseSuspended(lease_.jobId, leaseId, msg.sender, suspendedAt, lease_.answerBy, reserve);
    }

    /// @inheritdoc ILeaseEscrow
    function answer(bytes32 leaseId, Receipt calldata receipt, bytes calldata signature) external nonReentrant {
        Lease storage lease_ = _leaseIn(leaseId, LeaseState.Suspended);
        if (block.timestamp > lease_.answerBy) revert AnswerWindowClosed(lease_.answerBy);
        Job storage job_ = _jobs[lease_.jobId];
        bool shown = _seeIfAny(leaseId, lease_, job_, receipt, signature);
        bool cleared = shown && (receipt.isFinal || uint256(receipt.seenAt) + job_.maxSilence >= lease_.suspendedAt);
        if (!cleared && msg.sender != lease_.provider && msg.sender != lease_.node) {
            revert NotProviderOrNode(msg.sender);
        }
        if (shown) _pay(leaseId, lease_, job_, receipt.checkpointRoot);
        if (cleared) _clear(leaseId, lease_, job_);
        else _drop(leaseId, lease_, job_);
    }

    /// @inheritdoc ILeaseEscrow
    function fail(bytes32 leaseId) external nonReentrant {
        Lease storage lease_ = _leaseIn(leaseId, LeaseState.Suspended);
        if (block.timestamp <= lease_.answerBy) revert AnswerWindowOpen(lease_.answerBy);
        Job storage job_ = _jobs[lease_.jobId];

        lease_.state = LeaseState.Failed;
        uint128 released = _release(lease_, job_);
        uint128 slashed = _slash(lease_.provider, lease_.collateral);
        uint128 toJob = slashed.share(SLASH_TO_JOB_BPS);
        uint128 toCaller = slashed.share(SLASH_TO_CALLER_BPS);
        uint128 toInsurance = slashed - toJob - toCaller;
        job_.balance += toJob;
        emit LeaseFailed(lease_.jobId, leaseId, msg.sender, false, slashed, toJob, toCaller, toInsurance, released);
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

    /// @dev Takes a receipt into account: what it says is bounded by now and by the end of service, and an older one
    /// changes nothing.
    function _see(
        bytes32 leaseId,
        Lease storage lease_,
        Job storage job_,
        Receipt calldata receipt,
        bytes calldata signature
    )
        private
    {
        if (receipt.leaseId != leaseId) revert WrongLease(receipt.leaseId, leaseId);
        bytes32 digest = hashReceipt(receipt);
        if (!Signatures.isValid(job_.watcher, digest, signature)) revert InvalidWatcherSignature(job_.watcher, digest);
        uint64 seenAt = Settlement.earlier(receipt.seenAt, uint64(block.timestamp));
        uint64 end = lease_.state == LeaseState.Suspended ? lease_.suspendedAt : lease_.endsAt;
        uint64 served = Settlement.elapsed(lease_.startedAt, Settlement.earlier(seenAt, end));
        uint64 earned = Settlement.earlier(receipt.earned, served);
        if (earned > lease_.earned) lease_.earned = earned;
        if (seenAt > lease_.seenAt) lease_.seenAt = seenAt;
        if (receipt.seq > lease_.seq) lease_.seq = receipt.seq;
    }

    function _seeIfAny(
        bytes32 leaseId,
        Lease storage lease_,
        Job storage job_,
        Receipt calldata receipt,
        bytes calldata signature
    )
        private
        returns (bool shown)
    {
        shown = receipt.leaseId != bytes32(0);
        if (shown) _see(leaseId, lease_, job_, receipt, signature);
    }

    /// @dev Pays what is earned and not paid yet. An active lease may draw on all that no other lease reserves, a
    /// suspended one on its reserve alone; a shortfall is paid by a later call, after a top-up.
    function _pay(bytes32 leaseId, Lease storage lease_, Job storage job_, bytes32 checkpointRoot) private {
        uint128 reserve = lease_.reserve;
        uint128 available = lease_.state == LeaseState.Active ? reserve + (job_.balance - job_.reserved) : reserve;
        uint128 amount = Settlement.clamp(lease_.rate.payFor(lease_.earned) - lease_.paid, available);
        uint128 fromReserve = Settlement.clamp(amount, reserve);
        uint128 fee = amount.share(FEE_BPS);
        lease_.paid += amount;
        lease_.reserve = reserve - fromReserve;
        job_.reserved -= fromReserve;
        job_.balance -= amount;
        emit LeaseCollected(
            lease_.jobId, leaseId, lease_.earned, lease_.seenAt, lease_.seq, amount, fee, lease_.reserve, checkpointRoot
        );
        _credit(lease_.provider, amount - fee, CreditReason.Service);
        _credit(TREASURY, fee, CreditReason.ServiceFee);
    }

    /// @dev Hands a lease's reserve and bond back to the job's free balance.
    function _release(Lease storage lease_, Job storage job_) private returns (uint128 released) {
        released = lease_.reserve + lease_.bond;
        job_.reserved -= released;
        lease_.reserve = 0;
        lease_.bond = 0;
    }

    function _clear(bytes32 leaseId, Lease storage lease_, Job storage job_) private {
        lease_.state = LeaseState.Cleared;
        uint128 bond = lease_.bond;
        uint128 released = _release(lease_, job_) - bond;
        job_.balance -= bond;
        emit LeaseCleared(lease_.jobId, leaseId, msg.sender, bond, released);
        _credit(lease_.provider, bond, CreditReason.Bond);
        STAKING.unlock(lease_.provider, lease_.collateral);
    }

    /// @dev The provider admits the drop: the penalty goes wholly to the insurance, so nobody gains by causing it.
    function _drop(bytes32 leaseId, Lease storage lease_, Job storage job_) private {
        lease_.state = LeaseState.Failed;
        uint128 released = _release(lease_, job_);
        uint128 penalty = lease_.collateral.share(DROP_PENALTY_BPS);
        STAKING.unlock(lease_.provider, lease_.collateral - penalty);
        uint128 slashed = _slash(lease_.provider, penalty);
        emit LeaseFailed(lease_.jobId, leaseId, msg.sender, true, slashed, 0, 0, slashed, released);
        _credit(INSURANCE, slashed, CreditReason.Insurance);
    }

    /// @dev Credits only what arrives, so an asset that starts to take a fee can neither jam this nor make the escrow
    /// insolvent.
    function _slash(address provider, uint128 amount) private returns (uint128 received) {
        if (amount == 0) return 0;
        uint256 before = ASSET.balanceOf(address(this));
        STAKING.slash(provider, amount);
        received = Settlement.clamp(ASSET.balanceOf(address(this)) - before, amount);
    }

    function _emitOpened(
        bytes32 leaseId,
        Lease storage lease_,
        uint128 epochFee,
        uint256 slot,
        bytes32 bidHash
    )
        private
    {
        emit LeaseOpened(
            lease_.jobId,
            leaseId,
            lease_.provider,
            lease_.node,
            lease_.epoch,
            lease_.rate,
            lease_.collateral,
            lease_.reserve,
            lease_.bond,
            epochFee,
            lease_.startedAt,
            lease_.endsAt,
            lease_.closableAt,
            slot,
            bidHash
        );
    }

    function _checkBid(
        bytes32 jobId,
        Job storage job_,
        Bid calldata bid,
        bytes calldata signature,
        uint128 rate
    )
        private
        view
        returns (bytes32 bidHash)
    {
        if (bid.orderHash != jobId) revert WrongOrder(bid.orderHash, jobId);
        if (bid.epoch != job_.epochs + 1) revert WrongEpoch(bid.epoch, job_.epochs + 1);
        if (block.timestamp > bid.deadline) revert BidExpired(bid.deadline);
        if (rate < bid.minRatePerHour || rate > job_.maxRatePerHour) {
            revert RateOutOfBounds(rate, bid.minRatePerHour, job_.maxRatePerHour);
        }
        if (bid.collateral < job_.minCollateral) revert CollateralTooLow(bid.collateral, job_.minCollateral);
        if (slotUsed[bid.provider][bid.slot]) revert SlotUsed(bid.provider, bid.slot);
        if (STAKING.providerOf(bid.node) != bid.provider) revert NodeNotAuthorised(bid.node, bid.provider);
        bidHash = hashBid(bid);
        if (!Signatures.isValid(bid.node, bidHash, signature) && !Signatures.isValid(bid.provider, bidHash, signature))
        {
            revert InvalidBidSignature(bid.node, bid.provider, bidHash);
        }
    }

    function _checkFunds(Job storage job_, uint128 rate) private view returns (uint128 reserve) {
        uint128 free = job_.balance - job_.reserved;
        uint256 runtime = rate.reserveFor(MIN_RUNTIME);
        uint256 required = runtime + BOND + job_.epochFee;
        if (required > free) revert InsufficientEscrow(free, required);
        reserve = Settlement.clamp(runtime, free);
    }

    function _leaseIn(bytes32 leaseId, LeaseState expected) private view returns (Lease storage lease_) {
        lease_ = _leases[leaseId];
        if (lease_.state != expected) revert WrongLeaseState(leaseId, lease_.state);
    }

    function _onlyTenantOrWatcher(Job storage job_) private view {
        if (msg.sender != job_.tenant && msg.sender != job_.watcher) revert NotTenantOrWatcher(msg.sender);
    }
}
