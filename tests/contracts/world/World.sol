// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {CommonBase} from "forge-std/Base.sol";

import {LeaseEscrow} from "../../../contracts/LeaseEscrow.sol";
import {ProviderStaking} from "../../../contracts/ProviderStaking.sol";
import {Stake} from "../../../contracts/interfaces/IProviderStaking.sol";
import {
    Lease,
    LeaseParams,
    LeaseState,
    Limits,
    Order,
    Receipt as LeaseReceipt
} from "../../../contracts/interfaces/LeaseTypes.sol";
import {Permit} from "../../../contracts/libraries/Deposits.sol";
import {Wallet} from "./Wallet.sol";

interface IMintable {
    function mint(address account, uint256 amount) external;
    function approve(address spender, uint256 amount) external;
    function balanceOf(address account) external view returns (uint256);
}

/// @notice What is known of both contracts from the outside: accounts, jobs, leases, and a ledger of our own. No handler
/// reads the contracts: each books what a call must do by the documented rules, and the audit compares.
abstract contract World is CommonBase {
    uint256 internal constant TENANTS = 2;
    uint256 internal constant WATCHERS = 2;
    uint256 internal constant PROVIDERS = 3;
    uint256 internal constant MAX_JOBS = 5;
    uint256 internal constant MAX_LEASES = 10;
    uint256 internal constant KEPT_ENDED = 4;
    uint256 internal constant ATTACKER_KEY = 0x5000;
    uint64 internal constant WINDOW = 60;
    uint64 internal constant MIN_RUNTIME = 600;
    uint64 internal constant UNBONDING = 1 days;
    uint128 internal constant BOND = 100_000;

    /// @notice What the rules say of a job: money in base units, and how many of its leases run.
    struct JobBook {
        uint256 free;
        uint256 fees;
        Limits limits;
        uint32 opened;
        uint32 living;
        bool active;
        bool cancelled;
    }

    /// @notice What the rules say of a lease: the terms, the money paid and set aside, the most seconds that may be
    /// covered, and the word that the contract must hold.
    struct LeaseBook {
        LeaseParams params;
        uint256 paid;
        uint256 aside;
        uint32 mostCovered;
        Lease word;
    }

    /// @dev An invariant, or a rule of one call, doesn't hold.
    error Broken(string what);

    LeaseEscrow internal immutable ESCROW;
    ProviderStaking internal immutable STAKING;
    IMintable internal immutable TOKEN;
    /// @dev Base units of one coin.
    uint128 internal immutable UNIT;
    address internal immutable TREASURY;
    address internal immutable INSURANCE;

    address[] internal _tenants;
    address[] internal _watchers;
    address[] internal _providers;
    address[] internal _nodes;
    address[] internal _accounts;
    address internal _attacker = vm.addr(ATTACKER_KEY);
    address internal _keeper = address(0x6000);
    /// @dev Zero for a wallet.
    mapping(address account => uint256) internal _keys;

    bytes32[] internal _jobs;
    bytes32[] internal _leases;
    bytes32[] internal _ended;

    // The ledger, in base units.
    mapping(bytes32 jobId => Order) internal _orders;
    mapping(bytes32 jobId => JobBook) internal _jobBooks;
    mapping(bytes32 leaseId => LeaseBook) internal _leaseBooks;
    mapping(address account => uint256) internal _due;
    mapping(address provider => Stake) internal _stakes;
    mapping(address node => address) internal _providerOf;
    uint256 internal _deposited;
    uint256 internal _withdrawn;

    /// @dev The world's own clock, as viaIR may keep block.timestamp across a warp.
    uint64 internal _now;
    uint256 internal _nonce;
    uint64 internal _nextSeq;

    constructor(LeaseEscrow escrow, IMintable token, uint128 unit) {
        ESCROW = escrow;
        STAKING = ProviderStaking(escrow.staking());
        TOKEN = token;
        UNIT = unit;
        _now = uint64(vm.getBlockTimestamp());
        TREASURY = escrow.config().treasury;
        INSURANCE = escrow.config().insurance;
        _accounts = [TREASURY, INSURANCE, _attacker, _keeper];
        _tenants = [_key(0x1000), address(new Wallet())];
        _watchers = [_key(0x2000), address(new Wallet())];
        _providers = [_key(0x3000), _key(0x3001), address(new Wallet())];
        _nodes = [_key(0x4000), _key(0x4001), _key(0x4002)];
        _populate(_tenants);
        _populate(_watchers);
        _populate(_providers);
    }

    function _pass(uint256 duration) internal {
        _now += uint64(duration);
        vm.warp(_now);
    }

    function _leap(uint256 to) internal {
        if (to > _now) _now = uint64(to);
        vm.warp(_now);
    }

    /// @dev Some living lease in the state, from the seed's place on; zero if there is none.
    function _find(uint256 seed, LeaseState state) internal view returns (bytes32 id) {
        uint256 count = _leases.length;
        for (uint256 i = 0; i < count; i++) {
            id = _leases[(seed % count + i) % count];
            if (_leaseBooks[id].word.state == state) return id;
        }
        return bytes32(0);
    }

    function _sign(address signer, bytes32 digest) internal view returns (bytes memory) {
        uint256 key = _keys[signer];
        if (key == 0) return abi.encode(digest, signer, "wallet");
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        return abi.encodePacked(r, s, v);
    }

    function _signed(LeaseReceipt memory receipt, address watcher) internal view returns (bytes memory) {
        return _sign(watcher, ESCROW.hashReceipt(receipt));
    }

    function _between(uint256 seed, uint256 lowest, uint256 highest) internal pure returns (uint256) {
        return lowest + seed % (highest - lowest + 1);
    }

    function _least(uint256 a, uint256 b) internal pure returns (uint256) {
        return a < b ? a : b;
    }

    function _noPermit() internal pure returns (Permit memory permit) {}

    function _noReceipt() internal pure returns (LeaseReceipt memory receipt) {}

    function _key(uint256 key) private returns (address account) {
        account = vm.addr(key);
        _keys[account] = key;
    }

    function _populate(address[] storage group) private {
        for (uint256 i = 0; i < group.length; i++) {
            address account = group[i];
            _accounts.push(account);
            TOKEN.mint(account, uint256(UNIT) * 1e9);
            vm.startPrank(account);
            TOKEN.approve(address(ESCROW), type(uint256).max);
            TOKEN.approve(address(STAKING), type(uint256).max);
            vm.stopPrank();
        }
    }
}
