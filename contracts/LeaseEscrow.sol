// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {Multicall} from "@openzeppelin/contracts/utils/Multicall.sol";

import {ProviderStaking} from "./ProviderStaking.sol";
import {LeaseLedger} from "./escrow/LeaseLedger.sol";
import {ILeaseEscrow} from "./interfaces/ILeaseEscrow.sol";
import {
    Bid,
    Config,
    CreditReason,
    Job,
    Lease,
    LeaseParams,
    LeaseState,
    Limits,
    Order,
    Receipt
} from "./interfaces/LeaseTypes.sol";
import {Settlement} from "./libraries/Settlement.sol";
import {Signatures} from "./libraries/Signatures.sol";
import {TypedData} from "./libraries/TypedData.sol";

/// @title LeaseEscrow
/// @notice See ILeaseEscrow. Each change goes: checks, what the receipt earned, storage, events, calls to the staking
/// contract. Jobs and leases are read into memory, changed there, and written once.
contract LeaseEscrow is LeaseLedger, Multicall {
    using Settlement for uint128;
    using Settlement for uint256;

    ProviderStaking private immutable STAKING;

    /// @notice Deploys the staking contract as well.
    constructor(IERC20 escrowedAsset, Config memory terms) LeaseLedger(escrowedAsset, terms) {
        STAKING = new ProviderStaking(escrowedAsset, terms.unbondingPeriod);
    }

    /// @inheritdoc ILeaseEscrow
    function open(
        Order calldata order,
        Bid calldata bid,
        bytes calldata signature,
        uint128 rate
    )
        external
        nonReentrant
        returns (bytes32 leaseId)
    {
        bytes32 jobId = hashOrder(order);
        Job memory job_ = _knownJob(jobId);
        _onlyTenantOrWatcher(order.tenant, order.watcher);
        if (job_.cancelled) revert JobIsCancelled(jobId);
        Limits memory limits_ = _limits(jobId, order);
        if (block.timestamp > limits_.deadline) revert OrderExpired(limits_.deadline);
        if (job_.active) revert JobIsActive(jobId, job_.epochs);
        if (job_.epochs >= limits_.maxEpochs) revert EpochsExhausted(limits_.maxEpochs);
        _checkTerms(jobId, job_.epochs + 1, order.minCollateral, limits_.maxRatePerHour, bid, rate);
        uint128 deposited = _checkConsent(bid, signature);
        uint32 covered = _checkFunds(job_.free, rate, order.epochFee, limits_.deadline - uint64(block.timestamp));

        _lock(bid.provider, bid.collateral, deposited);
        _useSlot(bid.provider, bid.slot);
        uint128 reserve = uint128(rate.payFor(covered));
        job_.epochs = bid.epoch;
        job_.active = true;
        // Within what is free, by _checkFunds.
        // forge-lint: disable-next-line(unsafe-typecast)
        job_.free -= uint104(reserve + BOND + order.epochFee);
        _jobs[jobId] = job_;
        LeaseParams memory params = _paramsOf(jobId, order, bid, rate);
        leaseId = keccak256(abi.encode(params));
        _leases[leaseId] = Lease({
            state: LeaseState.Active,
            startedAt: uint40(block.timestamp),
            endsAt: uint40(limits_.deadline),
            exitAt: uint40(limits_.deadline + ANSWER_WINDOW),
            seen: 0,
            earned: 0,
            paid: 0,
            covered: covered
        });
        _emitOpened(leaseId, params, reserve, order.epochFee, limits_.deadline);
        _credit(order.watcher, order.epochFee, CreditReason.EpochFee);
    }

    /// @inheritdoc ILeaseEscrow
    function collect(
        LeaseParams calldata params,
        Receipt calldata receipt,
        bytes calldata signature
    )
        external
        nonReentrant
    {
        bytes32 leaseId = leaseIdOf(params);
        Lease memory lease_ = _leases[leaseId];
        if (lease_.state == LeaseState.None) revert WrongLeaseState(leaseId, LeaseState.None);
        _see(leaseId, params, lease_, receipt, signature);
        _pay(leaseId, params, lease_, receipt, 0, 0);
        _leases[leaseId] = lease_;
    }

    /// @inheritdoc ILeaseEscrow
    function close(
        LeaseParams calldata params,
        Receipt calldata receipt,
        bytes calldata signature
    )
        external
        nonReentrant
    {
        (bytes32 leaseId, Lease memory lease_) = _leaseIn(params, LeaseState.Active);
        bool shown = _seeIfAny(leaseId, params, lease_, receipt, signature);
        if (!(shown && receipt.isFinal) && block.timestamp <= lease_.exitAt) {
            if (msg.sender != params.tenant && msg.sender != params.watcher) revert NotClosable(lease_.exitAt);
            // Whoever ends service before its time, and without the provider, pays up to now.
            uint256 end = Settlement.min(block.timestamp, lease_.endsAt);
            lease_.earned += uint32(end - lease_.startedAt - lease_.seen);
            lease_.seen = uint32(end - lease_.startedAt);
        }
        _pay(leaseId, params, lease_, receipt, 0, params.collateral);
        _end(leaseId, params, lease_, BOND, 0);
        emit LeaseClosed(params.jobId, leaseId, msg.sender);
    }

    /// @inheritdoc ILeaseEscrow
    function notice(LeaseParams calldata params) external nonReentrant {
        (bytes32 leaseId, Lease memory lease_) = _leaseIn(params, LeaseState.Active);
        if (msg.sender != params.provider) revert NotProvider(msg.sender, params.provider);
        uint40 served = uint40(block.timestamp + ANSWER_WINDOW);
        // A second notice comes later than the first, and one after the end changes nothing.
        if (served >= lease_.exitAt) revert NoticeChangesNothing(leaseId, lease_.exitAt);
        lease_.exitAt = served;
        if (served < lease_.endsAt) lease_.endsAt = served;
        _leases[leaseId] = lease_;
        emit LeaseNotice(params.jobId, leaseId, lease_.endsAt, lease_.exitAt);
    }

    /// @inheritdoc ILeaseEscrow
    function suspend(
        LeaseParams calldata params,
        Receipt calldata receipt,
        bytes calldata signature
    )
        external
        nonReentrant
    {
        (bytes32 leaseId, Lease memory lease_) = _leaseIn(params, LeaseState.Active);
        _onlyTenantOrWatcher(params.tenant, params.watcher);
        bool shown = _seeIfAny(leaseId, params, lease_, receipt, signature);
        // A provider owes heartbeats until the lease's end, so silence after it is none.
        uint40 suspendedAt = uint40(Settlement.min(block.timestamp, lease_.endsAt));
        // Within the lifetime that Terms bounds.
        // forge-lint: disable-next-line(unsafe-typecast)
        uint32 silent = uint32(suspendedAt - lease_.startedAt - lease_.seen);
        if (silent <= params.maxSilence) revert NotSilent(lease_.startedAt + lease_.seen, params.maxSilence);
        if (shown) _pay(leaseId, params, lease_, receipt, 0, 0);

        Job memory job_ = _jobs[params.jobId];
        uint128 before = _setAside(params.rate, lease_);
        uint256 money = params.rate.payFor(lease_.paid) + before + job_.free;
        lease_.covered = params.rate.secondsFor(money, lease_.earned + silent);
        uint128 reserve = _setAside(params.rate, lease_);
        lease_.state = LeaseState.Suspended;
        lease_.endsAt = suspendedAt;
        lease_.exitAt = uint40(block.timestamp + ANSWER_WINDOW);
        _leases[leaseId] = lease_;
        job_.active = false;
        job_.free = uint104(uint256(job_.free) + before - reserve);
        _jobs[params.jobId] = job_;
        emit LeaseSuspended(params.jobId, leaseId, msg.sender, suspendedAt, lease_.exitAt, reserve);
    }

    /// @inheritdoc ILeaseEscrow
    function answer(
        LeaseParams calldata params,
        Receipt calldata receipt,
        bytes calldata signature
    )
        external
        nonReentrant
    {
        (bytes32 leaseId, Lease memory lease_) = _leaseIn(params, LeaseState.Suspended);
        if (block.timestamp > lease_.exitAt) revert AnswerWindowClosed(lease_.exitAt);
        bool shown = _seeIfAny(leaseId, params, lease_, receipt, signature);
        bool cleared = shown && (receipt.isFinal || uint256(receipt.seenAt) + params.maxSilence >= lease_.endsAt);
        if (!cleared && msg.sender != params.provider && msg.sender != params.node) {
            revert NotProviderOrNode(msg.sender);
        }
        if (cleared) {
            _pay(leaseId, params, lease_, receipt, BOND, params.collateral);
            _end(leaseId, params, lease_, 0, 0);
            emit LeaseCleared(params.jobId, leaseId, msg.sender);
        } else {
            if (shown) _pay(leaseId, params, lease_, receipt, 0, 0);
            _drop(leaseId, params, lease_);
        }
    }

    /// @inheritdoc ILeaseEscrow
    function fail(LeaseParams calldata params) external nonReentrant {
        (bytes32 leaseId, Lease memory lease_) = _leaseIn(params, LeaseState.Suspended);
        if (block.timestamp <= lease_.exitAt) revert AnswerWindowOpen(lease_.exitAt);

        uint128 slashed = _slash(params.provider, params.collateral);
        uint128 toJob = uint128(uint256(slashed).share(SLASH_TO_JOB_BPS));
        uint128 toCaller = uint128(uint256(slashed).share(SLASH_TO_CALLER_BPS));
        uint128 toInsurance = slashed - toJob - toCaller;
        _end(leaseId, params, lease_, BOND, toJob);
        _accounts[msg.sender].claimable += toCaller;
        emit LeaseFailed(params.jobId, leaseId, msg.sender, false, toJob, toCaller, toInsurance);
        _credit(INSURANCE, toInsurance, CreditReason.Insurance);
    }

    /// @inheritdoc ILeaseEscrow
    function staking() external view returns (address) {
        return address(STAKING);
    }

    /// @inheritdoc ILeaseEscrow
    function hashBid(Bid calldata bid) public view returns (bytes32) {
        return _hashTypedDataV4(TypedData.structHash(bid));
    }

    /// @dev The provider admits the drop: the penalty goes wholly to the insurance, so nobody gains by causing it.
    function _drop(bytes32 leaseId, LeaseParams calldata params, Lease memory lease_) private {
        _end(leaseId, params, lease_, BOND, 0);
        uint128 penalty = uint128(uint256(params.collateral).share(DROP_PENALTY_BPS));
        _accounts[params.provider].locked -= params.collateral - penalty;
        uint128 slashed = _slash(params.provider, penalty);
        emit LeaseFailed(params.jobId, leaseId, msg.sender, true, 0, 0, slashed);
        _credit(INSURANCE, slashed, CreditReason.Insurance);
    }

    /// @dev Takes locked stake, which stays locked for good. Credits only what arrives, so an asset that starts to
    /// take a fee can neither jam this nor make the escrow insolvent.
    function _slash(address provider, uint128 amount) private returns (uint128) {
        if (amount == 0) return 0;
        uint256 before = ASSET.balanceOf(address(this));
        STAKING.slash(provider, amount);
        // forge-lint: disable-next-line(unsafe-typecast)
        return uint128(Settlement.min(ASSET.balanceOf(address(this)) - before, amount));
    }

    function _lock(address provider, uint128 collateral, uint128 deposited) private {
        uint128 locked = _accounts[provider].locked;
        if (collateral > deposited - locked) revert InsufficientStake(provider, collateral, deposited - locked);
        _accounts[provider].locked = locked + collateral;
    }

    function _emitOpened(
        bytes32 leaseId,
        LeaseParams memory params,
        uint128 reserve,
        uint128 epochFee,
        uint64 endsAt
    )
        private
    {
        emit LeaseOpened(
            params.jobId,
            leaseId,
            params.provider,
            params.node,
            params.epoch,
            params.rate,
            params.collateral,
            reserve,
            BOND,
            epochFee,
            uint64(block.timestamp),
            endsAt,
            endsAt + ANSWER_WINDOW,
            params.slot
        );
    }

    function _checkTerms(
        bytes32 jobId,
        uint32 epoch,
        uint128 minCollateral,
        uint128 maxRatePerHour,
        Bid calldata bid,
        uint128 rate
    )
        private
        view
    {
        if (bid.orderHash != jobId) revert WrongOrder(bid.orderHash, jobId);
        if (bid.epoch != epoch) revert WrongEpoch(bid.epoch, epoch);
        if (block.timestamp > bid.deadline) revert BidExpired(bid.deadline);
        if (rate < bid.minRatePerHour || rate > maxRatePerHour) {
            revert RateOutOfBounds(rate, bid.minRatePerHour, maxRatePerHour);
        }
        if (bid.collateral < minCollateral) revert CollateralTooLow(bid.collateral, minCollateral);
        if (_slotUsed(bid.provider, bid.slot)) revert SlotUsed(bid.provider, bid.slot);
    }

    /// @return deposited What the bid's provider has at stake, locked or not.
    function _checkConsent(Bid calldata bid, bytes calldata signature) private view returns (uint128 deposited) {
        address provider;
        (provider, deposited) = STAKING.backingOf(bid.node);
        if (provider == address(0) || provider != bid.provider) revert NodeNotAuthorised(bid.node, bid.provider);
        bytes32 bidHash = hashBid(bid);
        if (!Signatures.isValid(bid.node, bidHash, signature) && !Signatures.isValid(bid.provider, bidHash, signature))
        {
            revert InvalidBidSignature(bid.node, bid.provider, bidHash);
        }
    }

    /// @dev The minimum runtime must be affordable; set aside is the pay of as much of the lease's time as there is
    /// money.
    function _checkFunds(
        uint128 free,
        uint128 rate,
        uint128 epochFee,
        uint64 duration
    )
        private
        view
        returns (uint32 covered)
    {
        uint256 extras = uint256(BOND) + epochFee;
        uint256 required = rate.payFor(MIN_RUNTIME) + extras;
        if (required > free) revert InsufficientEscrow(free, required);
        covered = rate.secondsFor(free - extras, uint32(duration));
    }

    function _onlyTenantOrWatcher(address tenant, address watcher) private view {
        if (msg.sender != tenant && msg.sender != watcher) revert NotTenantOrWatcher(msg.sender);
    }

    function _paramsOf(
        bytes32 jobId,
        Order calldata order,
        Bid calldata bid,
        uint128 rate
    )
        private
        pure
        returns (LeaseParams memory)
    {
        return LeaseParams({
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
    }
}
