// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";

import {ILeaseEscrow} from "../interfaces/ILeaseEscrow.sol";
import {Config, CreditReason, Job, Order} from "../interfaces/LeaseTypes.sol";
import {Deposits, Permit} from "../libraries/Deposits.sol";
import {Signatures} from "../libraries/Signatures.sol";
import {TypedData} from "../libraries/TypedData.sol";
import {Terms} from "./Terms.sol";

/// @title Jobs' escrow and accounts' credits
/// @notice The asset's balance of the contract is at least the sum of all jobs' balances and all accounts' claimable
/// credits.
abstract contract JobLedger is Terms, EIP712, ReentrancyGuardTransient {
    using Deposits for IERC20;
    using SafeERC20 for IERC20;

    uint128 private constant MAX_BALANCE = type(uint128).max >> 1;

    IERC20 internal immutable ASSET;

    mapping(bytes32 jobId => Job) internal _jobs;

    /// @inheritdoc ILeaseEscrow
    mapping(address account => uint256) public override claimable;

    /// @inheritdoc ILeaseEscrow
    mapping(address tenant => mapping(bytes32 jobId => bool)) public override orderRevoked;

    constructor(IERC20 escrowedAsset, Config memory terms) EIP712(TypedData.NAME, TypedData.VERSION) Terms(terms) {
        if (address(escrowedAsset) == address(0)) revert ZeroAddress();
        ASSET = escrowedAsset;
    }

    /// @inheritdoc ILeaseEscrow
    function fund(
        Order calldata order,
        bytes calldata signature,
        Permit calldata permit
    )
        external
        nonReentrant
        returns (bytes32 jobId)
    {
        jobId = hashOrder(order);
        if (_jobs[jobId].tenant != address(0)) revert JobExists(jobId);
        if (orderRevoked[order.tenant][jobId]) revert JobIsCancelled(jobId);
        _checkOrder(order);
        if (!Signatures.isValid(order.tenant, jobId, signature)) revert InvalidTenantSignature(order.tenant, jobId);

        _jobs[jobId] = Job({
            tenant: order.tenant,
            deadline: order.deadline,
            maxSilence: order.maxSilence,
            watcher: order.watcher,
            maxEpochs: order.maxEpochs,
            epochs: 0,
            cancelled: false,
            maxRatePerHour: order.maxRatePerHour,
            minCollateral: order.minCollateral,
            epochFee: order.epochFee,
            balance: order.deposit,
            reserved: 0,
            activeLease: bytes32(0)
        });
        _emitFunded(jobId, order);
        ASSET.pull(order.tenant, order.deposit, permit);
    }

    /// @inheritdoc ILeaseEscrow
    function topUp(bytes32 jobId, uint128 amount, Permit calldata permit) external nonReentrant {
        Job storage job_ = _knownJob(jobId);
        if (job_.cancelled) revert JobIsCancelled(jobId);
        if (amount == 0) revert ZeroAmount();
        uint256 balance = uint256(job_.balance) + amount;
        if (balance > MAX_BALANCE) revert DepositTooLarge(balance, MAX_BALANCE);
        job_.balance += amount;
        emit JobToppedUp(jobId, msg.sender, amount, job_.balance);
        ASSET.pull(msg.sender, amount, permit);
    }

    /// @inheritdoc ILeaseEscrow
    function cancel(bytes32 jobId) external nonReentrant {
        Job storage job_ = _jobs[jobId];
        if (job_.tenant == address(0)) {
            orderRevoked[msg.sender][jobId] = true;
            emit OrderRevoked(msg.sender, jobId);
            return;
        }
        _onlyTenant(job_);
        if (job_.cancelled) revert JobIsCancelled(jobId);
        job_.cancelled = true;
        emit JobCancelled(jobId, job_.tenant);
    }

    /// @inheritdoc ILeaseEscrow
    function extend(bytes32 jobId, uint64 deadline, uint32 maxEpochs, uint128 maxRatePerHour) external nonReentrant {
        Job storage job_ = _knownJob(jobId);
        _onlyTenant(job_);
        if (job_.cancelled) revert JobIsCancelled(jobId);
        if (deadline < job_.deadline) revert ExtensionLowers("deadline");
        if (maxEpochs < job_.maxEpochs) revert ExtensionLowers("maxEpochs");
        if (maxRatePerHour < job_.maxRatePerHour) revert ExtensionLowers("maxRatePerHour");
        _checkLifetime(deadline);
        job_.deadline = deadline;
        job_.maxEpochs = maxEpochs;
        job_.maxRatePerHour = maxRatePerHour;
        emit JobExtended(jobId, deadline, maxEpochs, maxRatePerHour);
    }

    /// @inheritdoc ILeaseEscrow
    function refund(bytes32 jobId) external nonReentrant returns (uint128 amount) {
        Job storage job_ = _knownJob(jobId);
        if (job_.activeLease != bytes32(0)) revert JobIsActive(jobId, job_.activeLease);
        if (msg.sender != job_.tenant && block.timestamp <= job_.deadline) revert RefundTooEarly(job_.deadline);
        amount = job_.balance - job_.reserved;
        job_.balance = job_.reserved;
        emit Refunded(jobId, job_.tenant, amount, msg.sender);
        _credit(job_.tenant, amount, CreditReason.Refund);
    }

    /// @inheritdoc ILeaseEscrow
    function withdraw(address to) external nonReentrant returns (uint256 amount) {
        if (to == address(0)) revert ZeroAddress();
        amount = claimable[msg.sender];
        if (amount == 0) revert NothingToWithdraw(msg.sender);
        claimable[msg.sender] = 0;
        emit Withdrawn(msg.sender, to, amount);
        ASSET.safeTransfer(to, amount);
    }

    /// @inheritdoc ILeaseEscrow
    function job(bytes32 jobId) external view returns (Job memory) {
        return _jobs[jobId];
    }

    /// @inheritdoc ILeaseEscrow
    function asset() external view returns (address) {
        return address(ASSET);
    }

    /// @inheritdoc ILeaseEscrow
    function hashOrder(Order calldata order) public view returns (bytes32) {
        return _hashTypedDataV4(TypedData.structHash(order));
    }

    function _credit(address account, uint128 amount, CreditReason reason) internal {
        if (amount == 0) return;
        claimable[account] += amount;
        emit Credited(account, amount, reason);
    }

    function _knownJob(bytes32 jobId) internal view returns (Job storage job_) {
        job_ = _jobs[jobId];
        if (job_.tenant == address(0)) revert UnknownJob(jobId);
    }

    function _emitFunded(bytes32 jobId, Order calldata order) private {
        emit JobFunded(
            jobId,
            order.tenant,
            order.watcher,
            order.jobSpec,
            order.maxRatePerHour,
            order.deposit,
            order.minCollateral,
            order.maxSilence,
            order.maxEpochs,
            order.epochFee,
            order.deadline,
            order.nonce
        );
    }

    function _checkOrder(Order calldata order) private view {
        if (block.timestamp > order.deadline) revert OrderExpired(order.deadline);
        _checkLifetime(order.deadline);
        if (order.watcher == address(0)) revert InvalidOrder("watcher");
        if (order.maxRatePerHour == 0) revert InvalidOrder("maxRatePerHour");
        if (order.maxEpochs == 0) revert InvalidOrder("maxEpochs");
        if (order.deposit == 0) revert InvalidOrder("deposit");
        if (order.deposit > MAX_BALANCE) revert DepositTooLarge(order.deposit, MAX_BALANCE);
        if (order.maxSilence < MIN_SILENCE || order.maxSilence > MAX_SILENCE) {
            revert SilenceOutOfBounds(order.maxSilence, MIN_SILENCE, MAX_SILENCE);
        }
    }

    function _checkLifetime(uint64 deadline) private view {
        uint64 latest = uint64(block.timestamp) + MAX_LIFETIME;
        if (deadline > latest) revert DeadlineTooFar(deadline, latest);
    }

    function _onlyTenant(Job storage job_) private view {
        if (msg.sender != job_.tenant) revert NotTenant(msg.sender, job_.tenant);
    }
}
