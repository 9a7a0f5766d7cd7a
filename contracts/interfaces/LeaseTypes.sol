// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @notice Signed demand of a tenant; its EIP-712 digest is the job's id.
/// EIP-712 type: Order(address tenant,address watcher,bytes32 jobSpec,uint128 maxRatePerHour,uint128 deposit,uint128
/// minCollateral, uint32 maxSilence,uint32 maxEpochs,uint128 epochFee,uint64 deadline,uint256 nonce)
/// @param tenant Payer; signs by ECDSA or ERC-1271.
/// @param watcher Signs receipts, opens and suspends; a key or an ERC-1271 wallet.
/// @param jobSpec Hash of the canonical job; nodes check the preimage.
/// @param maxRatePerHour Highest rate, base units per hour.
/// @param deposit Base units pulled from the tenant by `fund`.
/// @param minCollateral Lowest collateral of a bid, base units.
/// @param maxSilence Seconds without a heartbeat after which a lease can be suspended.
/// @param maxEpochs Most leases that the job may have.
/// @param epochFee Base units paid to the watcher at each open.
/// @param deadline Unix second until which (inclusive) the order can be funded and opened; leases end there.
/// @param nonce Tells equal orders apart.
struct Order {
    address tenant;
    address watcher;
    bytes32 jobSpec;
    uint128 maxRatePerHour;
    uint128 deposit;
    uint128 minCollateral;
    uint32 maxSilence;
    uint32 maxEpochs;
    uint128 epochFee;
    uint64 deadline;
    uint256 nonce;
}

/// @notice An offer for one epoch of one job, signed by the node or by the provider.
/// EIP-712 type: Bid(address provider,address node,bytes32 orderHash,uint32 epoch,uint128 minRatePerHour,uint128
/// collateral, uint64 deadline,uint256 slot)
/// @param provider Whose stake backs the lease and who is paid.
/// @param node The host's key, authorised by the provider.
/// @param orderHash The job's id.
/// @param epoch The epoch that is bid for, from 1.
/// @param minRatePerHour Lowest rate, base units per hour.
/// @param collateral Base units of stake to lock.
/// @param deadline Unix second until which (inclusive) the bid can be opened.
/// @param slot Single-use per provider: of bids that share a slot one can be opened.
struct Bid {
    address provider;
    address node;
    bytes32 orderHash;
    uint32 epoch;
    uint128 minRatePerHour;
    uint128 collateral;
    uint64 deadline;
    uint256 slot;
}

/// @notice The watcher's statement of the service seen. EIP-712 type: Receipt(bytes32 leaseId,uint64 seq,uint64
/// seenAt,uint64 earned, bool final,bytes32 checkpointRoot)
/// @param leaseId The lease; zero where a call takes a receipt optionally and there is none.
/// @param seq Counts the receipts of a lease.
/// @param seenAt Unix second of the last heartbeat.
/// @param earned Seconds of service so far, cumulative.
/// @param isFinal Named `final` in the type string: service ended in agreement (a drain's checkpoint or the job's end).
/// @param checkpointRoot Root of the last committed checkpoint, for evidence only.
struct Receipt {
    bytes32 leaseId;
    uint64 seq;
    uint64 seenAt;
    uint64 earned;
    bool isFinal;
    bytes32 checkpointRoot;
}

/// @notice None -> Active -> Closed | Suspended -> Cleared | Failed.
enum LeaseState {
    None,
    Active,
    Closed,
    Suspended,
    Cleared,
    Failed
}

/// @notice Why an account was credited.
enum CreditReason {
    Service,
    ServiceFee,
    EpochFee,
    Bond,
    FailReward,
    Insurance,
    Refund
}

/// @notice Escrow of one job. `balance` includes `reserved`, the sum of its leases' reserves and bonds.
struct Job {
    address tenant;
    uint64 deadline;
    uint32 maxSilence;
    address watcher;
    uint32 maxEpochs;
    uint32 epochs;
    bool cancelled;
    uint128 maxRatePerHour;
    uint128 minCollateral;
    uint128 epochFee;
    uint128 balance;
    uint128 reserved;
    bytes32 activeLease;
}

/// @notice One epoch of a job.
/// @param rate Base units per hour.
/// @param reserve Base units of the job's escrow set aside for this lease's pay.
/// @param bond Base units set aside for a provider that is suspended wrongly.
/// @param paid Base units paid for service so far, fee included.
/// @param earned Highest earned seconds seen; `seenAt` the latest heartbeat seen, at first `startedAt`.
/// @param endsAt Unix second at which the provider's duty ends: the order's deadline at open, or a notice's window.
/// @param closableAt Unix second after which anyone may close.
/// @param suspendedAt Unix second of the suspension, or `endsAt` if that was earlier; zero if never.
/// @param answerBy Last unix second for an answer; zero if never suspended.
struct Lease {
    bytes32 jobId;
    address provider;
    uint32 epoch;
    LeaseState state;
    bool noticed;
    address node;
    uint64 startedAt;
    uint128 rate;
    uint128 collateral;
    uint128 reserve;
    uint128 bond;
    uint128 paid;
    uint64 earned;
    uint64 seenAt;
    uint64 seq;
    uint64 endsAt;
    uint64 closableAt;
    uint64 suspendedAt;
    uint64 answerBy;
}

/// @notice Terms of a deployment; all immutable.
/// @param answerWindow Seconds to answer a suspension; also a notice's window and the wait after a lease's end.
/// @param minRuntime Seconds of pay that must be in escrow at open.
/// @param unbondingPeriod Seconds from a request to unstake to the withdrawal; longer than the answer window.
/// @param maxLifetime Most seconds that an order's deadline may lie ahead.
/// @param minSilence Lowest `maxSilence` of an order, seconds.
/// @param maxSilence Highest `maxSilence` of an order, seconds.
/// @param feeBps Share of a provider's pay that goes to the treasury.
/// @param dropPenaltyBps Share of the collateral that a provider loses who answers without a sufficient receipt; to the
/// insurance.
/// @param slashToJobBps Share of a slash that goes to the job's escrow.
/// @param slashToCallerBps Share of a slash that goes to the caller of `fail`; the rest goes to the insurance.
/// @param bond Base units set aside at open for a provider that is suspended wrongly.
/// @param treasury Account credited with fees.
/// @param insurance Account credited with the insurance's share of slashes; an address without a key burns it.
struct Config {
    uint64 answerWindow;
    uint64 minRuntime;
    uint64 unbondingPeriod;
    uint64 maxLifetime;
    uint32 minSilence;
    uint32 maxSilence;
    uint16 feeBps;
    uint16 dropPenaltyBps;
    uint16 slashToJobBps;
    uint16 slashToCallerBps;
    uint128 bond;
    address treasury;
    address insurance;
}
