// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";

import {ILeaseEscrow} from "../interfaces/ILeaseEscrow.sol";
import {Account, Config, CreditReason, Job, Limits, Order} from "../interfaces/LeaseTypes.sol";
import {Deposits, Permit} from "../libraries/Deposits.sol";
import {Signatures} from "../libraries/Signatures.sol";
import {TypedData} from "../libraries/TypedData.sol";
import {Terms} from "./Terms.sol";

/// @title Jobs' escrow and accounts' credits
/// @notice The asset's balance of the contract is at least what is free in all jobs, what their leases set aside, and
/// what is owed because of accounts.
abstract contract JobLedger is Terms, EIP712, ReentrancyGuardTransient {
    using Deposits for IERC20;
    using SafeERC20 for IERC20;

    uint96 private constant MAX_BALANCE = type(uint96).max >> 1;

    IERC20 internal immutable ASSET;

    mapping(bytes32 jobId => Job) internal _jobs;
    mapping(bytes32 jobId => Limits) private _extensions;
    mapping(address account => Account) internal _accounts;

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
        Job memory job_ = _jobs[jobId];
        if (job_.funded) revert JobExists(jobId);
        if (job_.cancelled) revert JobIsCancelled(jobId);
        _checkOrder(order);
        if (msg.sender != order.tenant && !Signatures.isValid(order.tenant, jobId, signature)) {
            revert InvalidTenantSignature(order.tenant, jobId);
        }

        // At most MAX_BALANCE.
        // forge-lint: disable-next-line(unsafe-typecast)
        job_.free = uint104(order.deposit);
        job_.funded = true;
        _jobs[jobId] = job_;
        _emitFunded(jobId, order);
        ASSET.pull(order.tenant, order.deposit, permit);
    }

    /// @inheritdoc ILeaseEscrow
    function topUp(bytes32 jobId, uint128 amount, Permit calldata permit) external nonReentrant {
        Job storage job_ = _knownJob(jobId);
        if (job_.cancelled) revert JobIsCancelled(jobId);
        if (amount == 0) revert ZeroAmount();
        uint256 free = uint256(job_.free) + amount;
        if (free > MAX_BALANCE) revert DepositTooLarge(free, MAX_BALANCE);
        // forge-lint: disable-next-line(unsafe-typecast)
        job_.free = uint104(free);
        emit JobToppedUp(jobId, msg.sender, amount);
        ASSET.pull(msg.sender, amount, permit);
    }

    /// @inheritdoc ILeaseEscrow
    function cancel(Order calldata order) external nonReentrant {
        bytes32 jobId = hashOrder(order);
        Job storage job_ = _jobs[jobId];
        _onlyTenant(order);
        if (job_.cancelled) revert JobIsCancelled(jobId);
        job_.cancelled = true;
        if (job_.funded) emit JobCancelled(jobId, order.tenant);
        else emit OrderRevoked(jobId, order.tenant);
    }

    /// @inheritdoc ILeaseEscrow
    function extend(
        Order calldata order,
        uint64 deadline,
        uint32 maxEpochs,
        uint128 maxRatePerHour
    )
        external
        nonReentrant
    {
        bytes32 jobId = hashOrder(order);
        Job storage job_ = _knownJob(jobId);
        _onlyTenant(order);
        if (job_.cancelled) revert JobIsCancelled(jobId);
        Limits memory present = _limits(jobId, order);
        if (deadline < present.deadline) revert ExtensionLowers("deadline");
        if (maxEpochs < present.maxEpochs) revert ExtensionLowers("maxEpochs");
        if (maxRatePerHour < present.maxRatePerHour) revert ExtensionLowers("maxRatePerHour");
        _checkLifetime(deadline);
        _extensions[jobId] = Limits(deadline, maxEpochs, maxRatePerHour);
        emit JobExtended(jobId, deadline, maxEpochs, maxRatePerHour);
    }

    /// @inheritdoc ILeaseEscrow
    function refund(Order calldata order) external nonReentrant returns (uint128 amount) {
        bytes32 jobId = hashOrder(order);
        Job storage job_ = _knownJob(jobId);
        if (job_.active) revert JobIsActive(jobId, job_.epochs);
        uint64 deadline = _limits(jobId, order).deadline;
        if (msg.sender != order.tenant && block.timestamp <= deadline) revert RefundTooEarly(deadline);
        amount = job_.free;
        job_.free = 0;
        emit Refunded(jobId, order.tenant, amount, msg.sender);
        _credit(order.tenant, amount, CreditReason.Refund);
    }

    /// @inheritdoc ILeaseEscrow
    function sweepFees(bytes32 jobId) external nonReentrant returns (uint128 amount) {
        Job storage job_ = _knownJob(jobId);
        amount = job_.fees;
        job_.fees = 0;
        emit FeesSwept(jobId, amount);
        _credit(TREASURY, amount, CreditReason.ServiceFee);
    }

    /// @inheritdoc ILeaseEscrow
    function withdraw(address to) external nonReentrant returns (uint256 amount) {
        if (to == address(0)) revert ZeroAddress();
        amount = _accounts[msg.sender].claimable;
        if (amount == 0) revert NothingToWithdraw(msg.sender);
        _accounts[msg.sender].claimable = 0;
        emit Withdrawn(msg.sender, to, amount);
        ASSET.safeTransfer(to, amount);
    }

    /// @inheritdoc ILeaseEscrow
    function job(bytes32 jobId) external view returns (Job memory) {
        return _jobs[jobId];
    }

    /// @inheritdoc ILeaseEscrow
    function limits(Order calldata order) external view returns (Limits memory) {
        return _limits(hashOrder(order), order);
    }

    /// @inheritdoc ILeaseEscrow
    function claimable(address account) external view returns (uint256) {
        return _accounts[account].claimable;
    }

    /// @inheritdoc ILeaseEscrow
    function lockedOf(address provider) external view returns (uint128) {
        return _accounts[provider].locked;
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
        _accounts[account].claimable += amount;
        emit Credited(account, amount, reason);
    }

    function _knownJob(bytes32 jobId) internal view returns (Job storage job_) {
        job_ = _jobs[jobId];
        if (!job_.funded) revert UnknownJob(jobId);
    }

    /// @dev The order's own limits until they are raised for the first time.
    function _limits(bytes32 jobId, Order calldata order) internal view returns (Limits memory raised) {
        raised = _extensions[jobId];
        if (raised.deadline == 0) return Limits(order.deadline, order.maxEpochs, order.maxRatePerHour);
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

    function _onlyTenant(Order calldata order) private view {
        if (msg.sender != order.tenant) revert NotTenant(msg.sender, order.tenant);
    }
}
