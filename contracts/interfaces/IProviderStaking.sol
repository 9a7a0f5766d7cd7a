// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Permit} from "../libraries/Deposits.sol";

/// @notice A node's consent to work for a provider, signed by the node's key.
/// EIP-712 type: NodeAuth(address provider,address node,uint64 deadline,uint256 nonce)
/// @param provider Owner of the stake that the node bids with.
/// @param node The hot key on one host.
/// @param deadline Unix second until which (inclusive) the consent can be used.
/// @param nonce Single-use per node.
struct NodeAuth {
    address provider;
    address node;
    uint64 deadline;
    uint256 nonce;
}

/// @notice A provider's stake, in base units of the asset; the first two are one word.
/// @param deposited What was staked and not withdrawn, the parts below included.
/// @param slashed What of it was taken. It stays locked for good, so that a slash writes one word.
/// @param unbonding Asked to leave; it stays lockable and slashable until it is withdrawn. What is locked can't
/// leave: the escrow knows how much that is.
/// @param unbondsAt Unix second from which `unbonding` can be withdrawn.
struct Stake {
    uint128 deposited;
    uint128 slashed;
    uint128 unbonding;
    uint64 unbondsAt;
}

/// @title Stake of the providers and the nodes that they answer for
/// @notice Trust assumptions:
/// - The escrow, fixed at deployment, is the only caller of `slash`, and says what is locked. It locks only what a
///   bid signed by the provider or by a node of theirs names. A provider's loss to a stolen node key is bounded by
/// their stake.
/// - There is no owner, no pause and no upgrade. The unbonding period is immutable and longer than the escrow's
///   answer window.
/// - The asset is a plain ERC-20 with fewer than 2^96 base units in all. An asset that takes a fee is refused at
///   deposit. An asset that can be paused stops deposits, withdrawals and slashes while it is paused, and nothing is
/// lost by that.
interface IProviderStaking {
    /// @param provider Whose stake grew.
    /// @param amount Base units added.
    /// @param staked The stake afterwards.
    event ProviderStaked(address indexed provider, uint128 amount, uint128 staked);
    /// @param amount Base units that were asked for by this call.
    /// @param unbonding All that is unbonding afterwards.
    /// @param unbondsAt Unix second from which all of it can be withdrawn.
    event UnstakeRequested(address indexed provider, uint128 amount, uint128 unbonding, uint64 unbondsAt);
    /// @param staked The stake afterwards.
    /// @param unbonding What is still unbonding afterwards (more than zero if a part was locked).
    event StakeWithdrawn(
        address indexed provider, address indexed to, uint128 amount, uint128 staked, uint128 unbonding
    );
    event NodeAuthorised(address indexed provider, address indexed node, uint256 nonce);
    event NodeRevoked(address indexed provider, address indexed node);
    /// @param cid CID of a JSON document that describes the provider.
    event MetadataSet(address indexed provider, string cid);
    /// @notice Unbonding stake falls with it where it would be more than is staked.
    /// @param staked The stake afterwards.
    event StakeSlashed(address indexed provider, uint128 amount, uint128 staked);

    error NotEscrow(address caller);
    error ZeroAmount();
    error ZeroAddress();
    error StakeTooLarge(uint256 staked, uint256 maximum);
    /// @param requested Base units asked for.
    /// @param available Base units that could be given.
    error InsufficientStake(address provider, uint128 requested, uint128 available);
    error NothingToWithdraw(address provider);
    error StillUnbonding(uint64 unbondsAt);
    error NotAuthProvider(address caller, address provider);
    error NodeAuthExpired(uint64 deadline);
    error NodeAuthUsed(address node, uint256 nonce);
    error NodeTaken(address node, address provider);
    error InvalidNodeSignature(address node);
    error NotNodeOwner(address caller, address node);
    error MetadataTooLong(uint256 length, uint256 maximum);

    /// @notice Adds stake for the caller.
    /// @param amount Base units, pulled from the caller.
    /// @param permit EIP-2612 permit of the caller for this contract; a zero deadline means none. A permit that fails
    /// is ignored: the allowance decides.
    function stake(uint128 amount, Permit calldata permit) external;

    /// @notice Starts the unbonding of a part of the caller's stake. A second request is added to the first and
    /// starts the period anew.
    function requestUnstake(uint128 amount) external;

    /// @notice Sends the caller what has unbonded and isn't locked, to the address `to`.
    /// @return amount Base units sent.
    function withdraw(address to) external returns (uint128 amount);

    /// @notice Binds a node to the caller. A node has one provider at a time.
    /// @param signature By the node: ECDSA, else ERC-1271.
    function authoriseNode(NodeAuth calldata auth, bytes calldata signature) external;

    /// @notice Unbinds a node; by its provider or the node itself. Touches new opens only, leases that run go on.
    function revokeNode(address node) external;

    /// @notice Announces the CID of the caller's description; at most 128 bytes.
    function setMetadata(string calldata cid) external;

    /// @notice Takes locked collateral, which stays locked for good, and sends it to the escrow; the escrow only.
    function slash(address provider, uint128 amount) external;

    /// @notice The stake of a provider.
    function stakeOf(address provider) external view returns (Stake memory);

    /// @notice The provider that a node is bound to, or zero, and what it has deposited: what the escrow asks at
    /// open.
    function backingOf(address node) external view returns (address provider, uint128 deposited);

    /// @notice Base units that a new lease can lock: deposited less locked.
    function lockable(address provider) external view returns (uint128);

    /// @notice The provider that a node is bound to, or zero.
    function providerOf(address node) external view returns (address);

    /// @notice Whether a node's consent with this nonce has been used.
    function nonceUsed(address node, uint256 nonce) external view returns (bool);

    /// @notice EIP-712 digest of a NodeAuth under this contract's domain.
    function hashNodeAuth(NodeAuth calldata auth) external view returns (bytes32);

    /// @notice Address of the ERC-20 asset.
    function asset() external view returns (address);

    /// @notice The only contract that may slash; it also says what is locked.
    function escrow() external view returns (address);

    /// @notice Seconds from a request to the withdrawal.
    function unbondingPeriod() external view returns (uint64);
}
