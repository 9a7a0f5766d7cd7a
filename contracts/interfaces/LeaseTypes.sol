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
/// @param isFinal Named `final` in the type string: service ended in agreement (a drain's checkpoint or the job's
/// end).
/// @param checkpointRoot Root of the last committed checkpoint, for evidence only.
struct Receipt {
    bytes32 leaseId;
    uint64 seq;
    uint64 seenAt;
    uint64 earned;
    bool isFinal;
    bytes32 checkpointRoot;
}

/// @notice What is fixed at open: who, for which job, on which terms. leaseId = keccak256(abi.encode(params));
/// every call about a lease brings its params and the contract stores none of them. All of it is in the events
/// JobFunded and LeaseOpened, so anyone can make any permissionless call.
/// @param jobId Digest of the order.
/// @param tenant The order's.
/// @param watcher The order's.
/// @param provider The bid's.
/// @param node The bid's.
/// @param epoch The bid's: the lease's number in its job, from 1.
/// @param maxSilence The order's.
/// @param rate Base units per hour.
/// @param collateral The bid's, base units.
/// @param slot The bid's, so that awards which compete after a reorg have ids of their own.
struct LeaseParams {
    bytes32 jobId;
    address tenant;
    address watcher;
    address provider;
    address node;
    uint32 epoch;
    uint32 maxSilence;
    uint128 rate;
    uint128 collateral;
    uint256 slot;
}

/// @notice None -> Active -> Closed | Suspended -> Cleared | Failed. On chain an ended lease is None again: its
/// storage is freed, and since a job's epochs only rise it can't be opened twice. Its end is in the events.
enum LeaseState {
    None,
    Active,
    Closed,
    Suspended,
    Cleared,
    Failed
}

/// @notice Why an account was credited, where the event of the call doesn't say it.
enum CreditReason {
    ServiceFee,
    EpochFee,
    Insurance,
    Refund
}

/// @notice Escrow of one job, one word. The order itself is not stored: its digest is the job's id, and calls bring
/// it.
/// @param free Base units that no lease has set aside.
/// @param fees Base units withheld as service fees from the pay of leases that have ended; `sweepFees` credits them
/// to the treasury. Of a lease that lives, the fee on what it was paid is withheld besides.
/// @param epochs Leases opened so far.
/// @param funded Whether the job is known.
/// @param active Whether its latest lease is Active.
/// @param cancelled Whether further leases are forbidden; also set for an order taken back before it was funded.
struct Job {
    uint104 free;
    uint96 fees;
    uint32 epochs;
    bool funded;
    bool active;
    bool cancelled;
}

/// @notice What `extend` can raise.
/// @param deadline Unix second until which (inclusive) leases can be opened.
/// @param maxEpochs Most leases that the job may have.
/// @param maxRatePerHour Highest rate, base units per hour.
struct Limits {
    uint64 deadline;
    uint32 maxEpochs;
    uint128 maxRatePerHour;
}

/// @notice What changes while a lease lives, one word. Pay of n seconds is floor(rate * n / 3600), so `paid` and
/// `covered` are money counted in seconds: what is paid is the pay of `paid` seconds, and what is set aside is the
/// pay of `covered` seconds less that.
/// @param startedAt Unix second of open.
/// @param endsAt Unix second at which the provider's duty ends: the job's deadline at open, or a notice's window.
/// Once Suspended, the second of the suspension, or the former if that was earlier.
/// @param exitAt Unix second after which anyone may close (Active), or fail (Suspended; the last one for an answer).
/// @param seen Seconds from `startedAt` to the last heartbeat shown.
/// @param earned Highest earned seconds shown.
/// @param paid Seconds paid for.
/// @param covered Seconds for which money is paid or set aside.
struct Lease {
    LeaseState state;
    uint40 startedAt;
    uint40 endsAt;
    uint40 exitAt;
    uint32 seen;
    uint32 earned;
    uint32 paid;
    uint32 covered;
}

/// @notice What the escrow knows of an account, one word.
/// @param claimable Base units that it can withdraw.
/// @param locked Base units of its deposited stake that are collateral of active and suspended leases, or were
/// slashed.
struct Account {
    uint128 claimable;
    uint128 locked;
}

/// @notice Terms of a deployment; all immutable.
/// @param answerWindow Seconds to answer a suspension; also a notice's window and the wait after a lease's end.
/// @param minRuntime Seconds of pay that must be in escrow at open.
/// @param unbondingPeriod Seconds from a request to unstake to the withdrawal; longer than the answer window.
/// @param maxLifetime Most seconds that an order's deadline may lie ahead.
/// @param minSilence Lowest `maxSilence` of an order, seconds.
/// @param maxSilence Highest `maxSilence` of an order, seconds.
/// @param feeBps Share of a provider's pay that goes to the treasury.
/// @param dropPenaltyBps Share of the collateral that a provider loses who answers without a sufficient receipt; to
/// the insurance.
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
