// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";

import {ILeaseEscrow} from "./interfaces/ILeaseEscrow.sol";
import {IProviderStaking, NodeAuth, Stake} from "./interfaces/IProviderStaking.sol";
import {Deposits, Permit} from "./libraries/Deposits.sol";
import {Signatures} from "./libraries/Signatures.sol";
import {TypedData} from "./libraries/TypedData.sol";

/// @title ProviderStaking
/// @notice See IProviderStaking. Deployed by the escrow, so that each knows the other from the start.
contract ProviderStaking is IProviderStaking, EIP712, ReentrancyGuardTransient {
    using Deposits for IERC20;
    using SafeERC20 for IERC20;

    /// @dev As a job's escrow, so that a share of a slash fits the job's word.
    uint128 private constant MAX_STAKE = type(uint96).max >> 1;
    uint256 private constant MAX_CID_LENGTH = 128;

    IERC20 private immutable ASSET;
    address private immutable ESCROW;
    uint64 private immutable UNBONDING_PERIOD;

    mapping(address provider => Stake) private _stakes;

    /// @inheritdoc IProviderStaking
    mapping(address node => address) public override providerOf;

    /// @inheritdoc IProviderStaking
    mapping(address node => mapping(uint256 nonce => bool)) public override nonceUsed;

    modifier onlyEscrow() {
        _onlyEscrow();
        _;
    }

    /// @param stakedAsset The ERC-20 asset.
    /// @param period Seconds from a request to the withdrawal.
    constructor(IERC20 stakedAsset, uint64 period) EIP712(TypedData.NAME, TypedData.VERSION) {
        ASSET = stakedAsset;
        ESCROW = msg.sender;
        UNBONDING_PERIOD = period;
    }

    /// @inheritdoc IProviderStaking
    function stake(uint128 amount, Permit calldata permit) external nonReentrant {
        if (amount == 0) revert ZeroAmount();
        Stake storage held = _stakes[msg.sender];
        uint256 deposited = uint256(held.deposited) + amount;
        if (deposited > MAX_STAKE) revert StakeTooLarge(deposited, MAX_STAKE);
        // What a slash took of the unbonding part doesn't come back with new stake.
        held.unbonding = _unbonding(held);
        // forge-lint: disable-next-line(unsafe-typecast)
        held.deposited = uint128(deposited);
        emit ProviderStaked(msg.sender, amount, _staked(held));
        ASSET.pull(msg.sender, amount, permit);
    }

    /// @inheritdoc IProviderStaking
    function requestUnstake(uint128 amount) external nonReentrant {
        if (amount == 0) revert ZeroAmount();
        Stake storage held = _stakes[msg.sender];
        uint128 unbonding = _unbonding(held);
        uint128 available = _staked(held) - unbonding;
        if (amount > available) revert InsufficientStake(msg.sender, amount, available);
        held.unbonding = unbonding + amount;
        held.unbondsAt = uint64(block.timestamp) + UNBONDING_PERIOD;
        emit UnstakeRequested(msg.sender, amount, held.unbonding, held.unbondsAt);
    }

    /// @inheritdoc IProviderStaking
    function withdraw(address to) external nonReentrant returns (uint128 amount) {
        if (to == address(0)) revert ZeroAddress();
        Stake storage held = _stakes[msg.sender];
        uint128 unbonding = _unbonding(held);
        if (unbonding == 0) revert NothingToWithdraw(msg.sender);
        if (block.timestamp < held.unbondsAt) revert StillUnbonding(held.unbondsAt);
        uint128 free = lockable(msg.sender);
        amount = unbonding < free ? unbonding : free;
        if (amount == 0) revert NothingToWithdraw(msg.sender);
        held.unbonding = unbonding - amount;
        held.deposited -= amount;
        emit StakeWithdrawn(msg.sender, to, amount, _staked(held), held.unbonding);
        ASSET.safeTransfer(to, amount);
    }

    /// @inheritdoc IProviderStaking
    function authoriseNode(NodeAuth calldata auth, bytes calldata signature) external nonReentrant {
        address node = auth.node;
        if (msg.sender != auth.provider) revert NotAuthProvider(msg.sender, auth.provider);
        if (block.timestamp > auth.deadline) revert NodeAuthExpired(auth.deadline);
        if (nonceUsed[node][auth.nonce]) revert NodeAuthUsed(node, auth.nonce);
        if (providerOf[node] != address(0)) revert NodeTaken(node, providerOf[node]);
        if (!Signatures.isValid(node, hashNodeAuth(auth), signature)) revert InvalidNodeSignature(node);
        nonceUsed[node][auth.nonce] = true;
        providerOf[node] = msg.sender;
        emit NodeAuthorised(msg.sender, node, auth.nonce);
    }

    /// @inheritdoc IProviderStaking
    function revokeNode(address node) external nonReentrant {
        address provider = providerOf[node];
        if (provider == address(0) || (msg.sender != provider && msg.sender != node)) {
            revert NotNodeOwner(msg.sender, node);
        }
        delete providerOf[node];
        emit NodeRevoked(provider, node);
    }

    /// @inheritdoc IProviderStaking
    function setMetadata(string calldata cid) external {
        if (bytes(cid).length > MAX_CID_LENGTH) revert MetadataTooLong(bytes(cid).length, MAX_CID_LENGTH);
        emit MetadataSet(msg.sender, cid);
    }

    /// @inheritdoc IProviderStaking
    function slash(address provider, uint128 amount) external onlyEscrow nonReentrant {
        Stake storage held = _stakes[provider];
        held.slashed += amount;
        emit StakeSlashed(provider, amount, _staked(held));
        ASSET.safeTransfer(ESCROW, amount);
    }

    /// @inheritdoc IProviderStaking
    function stakeOf(address provider) external view returns (Stake memory held) {
        held = _stakes[provider];
        held.unbonding = _unbonding(_stakes[provider]);
    }

    /// @inheritdoc IProviderStaking
    function backingOf(address node) external view returns (address provider, uint128 deposited) {
        provider = providerOf[node];
        deposited = _stakes[provider].deposited;
    }

    /// @inheritdoc IProviderStaking
    function asset() external view returns (address) {
        return address(ASSET);
    }

    /// @inheritdoc IProviderStaking
    function escrow() external view returns (address) {
        return ESCROW;
    }

    /// @inheritdoc IProviderStaking
    function unbondingPeriod() external view returns (uint64) {
        return UNBONDING_PERIOD;
    }

    /// @inheritdoc IProviderStaking
    function lockable(address provider) public view returns (uint128) {
        return _stakes[provider].deposited - ILeaseEscrow(ESCROW).lockedOf(provider);
    }

    /// @inheritdoc IProviderStaking
    function hashNodeAuth(NodeAuth calldata auth) public view returns (bytes32) {
        return _hashTypedDataV4(TypedData.structHash(auth));
    }

    /// @dev A slash doesn't touch the stored amount, which is in another word, but can leave less than that.
    function _unbonding(Stake storage held) private view returns (uint128) {
        uint128 staked = _staked(held);
        return held.unbonding < staked ? held.unbonding : staked;
    }

    function _staked(Stake storage held) private view returns (uint128) {
        return held.deposited - held.slashed;
    }

    function _onlyEscrow() private view {
        if (msg.sender != ESCROW) revert NotEscrow(msg.sender);
    }
}
