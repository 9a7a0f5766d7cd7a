// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Permit} from "../libraries/Deposits.sol";
import {Bid, Config, CreditReason, Job, Lease, LeaseParams, LeaseState, Limits, Order, Receipt} from "./LeaseTypes.sol";

/// @title Escrow per job, leases as its epochs
/// @notice Amounts are base units of the asset, rates base units per hour, times unix seconds.
/// What each party can do to the others at worst:
/// - A dishonest watcher can withhold receipts and suspend: the provider answers and loses the drop penalty, of which
///   the watcher gets nothing. It can sign for service that never was and overpay a provider out of that tenant's
///   escrow. It can open leases at the order's maximum rate and take `epochFee` for each, `maxEpochs` times. Nodes
///   bid only for watchers on their list, tenants name one they trust.
/// - A dishonest provider can waste one receipt interval and the work since the last checkpoint, against its
///   collateral.
/// - A dishonest tenant can waste one receipt interval: it may refuse to extend, top up or close, never take back
///   what a lease reserves. Closing early costs it the time since the last heartbeat that was shown.
/// - Anyone may relay: they can use up a permit (the allowance decides), never redirect money.
/// There is no owner, no pause and no upgrade. Every state has an exit that needs nobody's consent: an active lease
/// after `closableAt`, a suspended one after `answerBy`, a job's remainder after its deadline. `withdraw` alone sends
/// tokens out, so no blocklisted party can jam a transition. The asset has fewer than 2^96 base units in all and
/// charges no transfer fee.
interface ILeaseEscrow {
    // --- events: enough to rebuild every balance without calling the chain ---

    /// @notice A job's escrow was created with `deposit`.
    event JobFunded(
        bytes32 indexed jobId,
        address indexed tenant,
        address indexed watcher,
        bytes32 jobSpec,
        uint128 maxRatePerHour,
        uint128 deposit,
        uint128 minCollateral,
        uint32 maxSilence,
        uint32 maxEpochs,
        uint128 epochFee,
        uint64 deadline,
        uint256 nonce
    );
    event JobToppedUp(bytes32 indexed jobId, address indexed payer, uint128 amount);
    /// @notice No lease can be opened any more.
    event JobCancelled(bytes32 indexed jobId, address indexed tenant);
    /// @notice The tenant took back its signature under an order that isn't funded.
    event OrderRevoked(bytes32 indexed jobId, address indexed tenant);
    event JobExtended(bytes32 indexed jobId, uint64 deadline, uint32 maxEpochs, uint128 maxRatePerHour);
    /// @notice The job's free balance fell to zero by `amount`, credited to the tenant.
    event Refunded(bytes32 indexed jobId, address indexed tenant, uint128 amount, address caller);
    /// @notice The job's free balance fell by `reserve + bond + epochFee`; `collateral` was locked.
    event LeaseOpened(
        bytes32 indexed jobId,
        bytes32 indexed leaseId,
        address indexed provider,
        address node,
        uint32 epoch,
        uint128 rate,
        uint128 collateral,
        uint128 reserve,
        uint128 bond,
        uint128 epochFee,
        uint64 startedAt,
        uint64 endsAt,
        uint64 closableAt,
        uint256 slot
    );
    /// @notice The provider is credited with `amount - fee`; `fee` is withheld until it is swept. What the lease's
    /// reserve didn't fall by came from the job's free balance.
    /// @param earned The lease's earned seconds afterwards.
    /// @param seenAt The lease's last heartbeat afterwards.
    /// @param seq As in the receipt that was shown, or zero.
    /// @param amount Base units paid by this call, `fee` included; less than what is due where the escrow fell short.
    /// @param reserve The lease's reserve afterwards.
    /// @param checkpointRoot As in the receipt, or zero.
    event LeaseCollected(
        bytes32 indexed jobId,
        bytes32 indexed leaseId,
        uint64 earned,
        uint64 seenAt,
        uint64 seq,
        uint128 amount,
        uint128 fee,
        uint128 reserve,
        bytes32 checkpointRoot
    );
    /// @notice The lease is closed and its collateral unlocked; its reserve and bond are free again.
    event LeaseClosed(bytes32 indexed jobId, bytes32 indexed leaseId, address caller);
    /// @notice The provider leaves.
    event LeaseNotice(bytes32 indexed jobId, bytes32 indexed leaseId, uint64 endsAt, uint64 closableAt);
    /// @param suspendedAt See Lease.
    /// @param answerBy See Lease.
    /// @param reserve The lease's reserve afterwards; the job's free balance moved by the difference.
    event LeaseSuspended(
        bytes32 indexed jobId,
        bytes32 indexed leaseId,
        address caller,
        uint64 suspendedAt,
        uint64 answerBy,
        uint128 reserve
    );
    /// @notice The suspension was answered with a receipt; the bond is credited to the provider, the collateral
    /// unlocked, and the reserve free again.
    event LeaseCleared(bytes32 indexed jobId, bytes32 indexed leaseId, address caller);
    /// @notice The lease failed, and its reserve and bond are free again. What was slashed is `toJob + toCaller +
    /// toInsurance`; whatever else the collateral was is unlocked.
    /// @param answered True if the provider admitted the drop in time: the drop penalty alone was slashed.
    /// @param toJob Base units that the job's free balance rose by, besides reserve and bond.
    event LeaseFailed(
        bytes32 indexed jobId,
        bytes32 indexed leaseId,
        address caller,
        bool answered,
        uint128 toJob,
        uint128 toCaller,
        uint128 toInsurance
    );
    /// @notice Pay, bonds and the reward of `fail` have no event of their own: LeaseCollected, LeaseCleared and
    /// LeaseFailed say who gets what.
    event Credited(address indexed account, uint128 amount, CreditReason reason);
    /// @notice The fees withheld in the job's ended leases were credited to the treasury.
    event FeesSwept(bytes32 indexed jobId, uint128 amount);
    event Withdrawn(address indexed account, address indexed to, uint256 amount);

    // --- errors ---

    error ZeroAddress();
    error ZeroAmount();
    error InvalidConfig(bytes32 field);
    error DepositTooLarge(uint256 balance, uint256 maximum);
    error InvalidTenantSignature(address tenant, bytes32 jobId);
    error InvalidBidSignature(address node, address provider, bytes32 bidHash);
    error InvalidWatcherSignature(address watcher, bytes32 receiptHash);
    error InvalidOrder(bytes32 field);
    error SilenceOutOfBounds(uint32 maxSilence, uint32 lowest, uint32 highest);
    error DeadlineTooFar(uint64 deadline, uint64 latest);
    error OrderExpired(uint64 deadline);
    error BidExpired(uint64 deadline);
    error JobExists(bytes32 jobId);
    error UnknownJob(bytes32 jobId);
    error JobIsCancelled(bytes32 jobId);
    error JobIsActive(bytes32 jobId, uint32 epoch);
    error NotTenant(address caller, address tenant);
    error NotTenantOrWatcher(address caller);
    error NotProvider(address caller, address provider);
    error NotProviderOrNode(address caller);
    error RefundTooEarly(uint64 deadline);
    error ExtensionLowers(bytes32 field);
    error WrongOrder(bytes32 orderHash, bytes32 jobId);
    error WrongEpoch(uint32 epoch, uint32 next);
    error EpochsExhausted(uint32 maxEpochs);
    error RateOutOfBounds(uint128 rate, uint128 lowest, uint128 highest);
    error CollateralTooLow(uint128 collateral, uint128 lowest);
    error NodeNotAuthorised(address node, address provider);
    error SlotUsed(address provider, uint256 slot);
    error InsufficientEscrow(uint128 available, uint256 required);
    error InsufficientStake(address provider, uint128 requested, uint128 available);
    /// @notice The call isn't possible in the lease's state.
    error WrongLeaseState(bytes32 leaseId, LeaseState state);
    error WrongLease(bytes32 receiptLeaseId, bytes32 leaseId);
    error NotClosable(uint64 closableAt);
    /// @notice Anyone may close at `closableAt`, which is no later than a notice would make it.
    error NoticeChangesNothing(bytes32 leaseId, uint64 closableAt);
    /// @notice The provider was seen within `maxSilence` of now, or of the lease's end.
    error NotSilent(uint64 seenAt, uint32 maxSilence);
    error AnswerWindowClosed(uint64 answerBy);
    error AnswerWindowOpen(uint64 answerBy);
    error NothingToWithdraw(address account);

    // --- a job's escrow ---

    /// @notice Creates a job's escrow: pulls `order.deposit` from the tenant. By the tenant, or by anyone who has
    /// the tenant's signature.
    /// @param signature By the tenant over the order: ECDSA, else ERC-1271; not looked at if the tenant calls.
    /// @param permit EIP-2612 permit of the tenant for this contract; a zero deadline means none; one that fails is
    /// ignored.
    /// @return jobId Digest of the order.
    function fund(
        Order calldata order,
        bytes calldata signature,
        Permit calldata permit
    )
        external
        returns (bytes32 jobId);

    /// @notice Adds escrow, pulled from the caller. By anyone.
    function topUp(bytes32 jobId, uint128 amount, Permit calldata permit) external;

    /// @notice Forbids further leases, for good. A lease that runs goes on. By the tenant; an order that was never
    /// funded can't be any more.
    function cancel(Order calldata order) external;

    /// @notice Raises a job's deadline, epochs or rate for leases to come; leases that run keep their end. By the
    /// tenant.
    /// @param deadline Not below the present one.
    /// @param maxEpochs Not below the present one.
    /// @param maxRatePerHour Not below the present one.
    function extend(Order calldata order, uint64 deadline, uint32 maxEpochs, uint128 maxRatePerHour) external;

    /// @notice Credits the tenant with all that no lease reserves. By the tenant, or by anyone after the deadline;
    /// never while a lease is active.
    /// @return amount Base units credited; may be zero.
    function refund(Order calldata order) external returns (uint128 amount);

    // --- leases ---

    /// @notice Opens the job's next lease. By its watcher or tenant.
    /// @param signature By the bid's node or provider: ECDSA, else ERC-1271.
    /// @param rate Base units per hour, within the bid's minimum and the job's maximum.
    /// @return leaseId keccak256(abi.encode(LeaseParams))
    function open(
        Order calldata order,
        Bid calldata bid,
        bytes calldata signature,
        uint128 rate
    )
        external
        returns (bytes32 leaseId);

    /// @notice Credits the provider up to the receipt's earned seconds, never beyond the lease's end or money. By
    /// anyone, while Active or Suspended. An older receipt changes nothing.
    /// @param signature By the job's watcher: ECDSA, else ERC-1271; so for every receipt below.
    function collect(LeaseParams calldata params, Receipt calldata receipt, bytes calldata signature) external;

    /// @notice Ends an active lease. By anyone with a final receipt (pays what it says); by the tenant or the watcher
    /// (pays the earned seconds plus all since the last heartbeat shown); by anyone after `closableAt` (pays what
    /// receipts say).
    function close(LeaseParams calldata params, Receipt calldata receipt, bytes calldata signature) external;

    /// @notice The provider's way out: it serves on through the answer window, then anyone may close.
    function notice(LeaseParams calldata params) external;

    /// @notice Disputes an active lease whose provider is silent for more than `maxSilence`. By the tenant or the
    /// watcher. The job can open its next lease at once.
    /// @param receipt The latest one, or one with a zero leaseId.
    function suspend(LeaseParams calldata params, Receipt calldata receipt, bytes calldata signature) external;

    /// @notice Answers a suspension, to the window's last second. With a final receipt, or one whose seenAt +
    /// maxSilence reaches `suspendedAt`, by anyone: Cleared, the bond goes to the provider. Else by the provider or
    /// the node: Failed with the drop penalty.
    function answer(LeaseParams calldata params, Receipt calldata receipt, bytes calldata signature) external;

    /// @notice Fails a suspended lease after the answer window; the whole collateral is slashed. By anyone.
    function fail(LeaseParams calldata params) external;

    /// @notice Credits the treasury with the fees withheld in the job's ended leases. By anyone.
    /// @return amount Base units credited; may be zero.
    function sweepFees(bytes32 jobId) external returns (uint128 amount);

    /// @notice Sends the caller all that was credited, to the address `to`.
    /// @return amount Base units sent.
    function withdraw(address to) external returns (uint256 amount);

    // --- views ---

    /// @notice EIP-712 digest of an order: the job's id.
    function hashOrder(Order calldata order) external view returns (bytes32);
    /// @notice EIP-712 digest of a bid.
    function hashBid(Bid calldata bid) external view returns (bytes32);
    /// @notice EIP-712 digest of a receipt.
    function hashReceipt(Receipt calldata receipt) external view returns (bytes32);
    /// @notice The id that a lease has, or would have.
    function leaseIdOf(LeaseParams calldata params) external pure returns (bytes32);
    function job(bytes32 jobId) external view returns (Job memory);
    /// @notice The order's deadline, epochs and rate as they stand after extensions.
    function limits(Order calldata order) external view returns (Limits memory);
    function lease(bytes32 leaseId) external view returns (Lease memory);
    /// @notice Base units that `account` can withdraw.
    function claimable(address account) external view returns (uint256);
    function slotUsed(address provider, uint256 slot) external view returns (bool);
    /// @notice Base units of `provider`'s deposited stake that are collateral of active and suspended leases, or
    /// were slashed.
    function lockedOf(address provider) external view returns (uint128);
    /// @notice The terms of this deployment.
    function config() external view returns (Config memory);
    /// @notice Address of the ERC-20 asset.
    function asset() external view returns (address);
    /// @notice Address of the ProviderStaking contract that holds the collateral.
    function staking() external view returns (address);
}
