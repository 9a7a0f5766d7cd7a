// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Test} from "forge-std/Test.sol";

import {LeaseEscrow} from "../../../contracts/LeaseEscrow.sol";
import {ProviderStaking} from "../../../contracts/ProviderStaking.sol";
import {NodeAuth, Stake} from "../../../contracts/interfaces/IProviderStaking.sol";
import {Job, Lease, LeaseState, Receipt as LeaseReceipt} from "../../../contracts/interfaces/LeaseTypes.sol";
import {Permit} from "../../../contracts/libraries/Deposits.sol";

interface IMintable {
    function mint(address account, uint256 amount) external;
    function approve(address spender, uint256 amount) external;
    function balanceOf(address account) external view returns (uint256);
}

/// @notice What is known of both contracts from the outside: accounts, jobs, leases, and a ledger of our own in which
/// every unit is booked by the documented rule, never by what the contracts say they moved.
abstract contract World is Test {
    uint256 internal constant TENANTS = 2;
    uint256 internal constant WATCHERS = 2;
    uint256 internal constant PROVIDERS = 3;
    uint256 internal constant MAX_JOBS = 5;
    uint256 internal constant MAX_LEASES = 10;
    uint256 internal constant KEPT_ENDED = 4;
    uint256 internal constant TENANT_KEY = 0x1000;
    uint256 internal constant WATCHER_KEY = 0x2000;
    uint256 internal constant PROVIDER_KEY = 0x3000;
    uint256 internal constant NODE_KEY = 0x4000;
    uint256 internal constant ATTACKER_KEY = 0x5000;
    uint64 internal constant WINDOW = 60;
    uint64 internal constant MIN_RUNTIME = 600;
    uint128 internal constant BOND = 100_000;

    /// @notice What a handler did: asked to act, acted.
    struct Tally {
        uint64 asked;
        uint64 acted;
    }

    /// @notice What a lease was opened with, and the most that it may have set aside.
    struct Opening {
        uint128 bidRate;
        uint128 orderRate;
        uint128 reserveCap;
        bool wasSuspended;
    }

    LeaseEscrow public immutable ESCROW;
    ProviderStaking public immutable STAKING;
    IMintable public immutable TOKEN;
    /// @dev Base units of one coin.
    uint128 internal immutable UNIT;

    address[] public tenants;
    address[] public watchers;
    address[] public providers;
    address[] public nodes;
    address[] public keepers;
    address[] public accounts;
    address public attacker = vm.addr(ATTACKER_KEY);
    address public treasury;
    address public insurance;
    bytes32[] public jobs;
    bytes32[] public leases;
    bytes32[] public ended;

    // The ledger: base units.
    mapping(bytes32 jobId => uint256) public jobIn;
    mapping(bytes32 jobId => uint256) public jobOut;
    mapping(bytes32 jobId => uint32) public opens;
    mapping(address account => uint256) public due;
    mapping(address provider => uint256) public staked;
    mapping(address provider => uint256) public unbonding;
    uint256 public deposited;
    uint256 public withdrawn;
    uint256 public minted;

    // Fingerprints of what only a call about it may change.
    mapping(bytes32 leaseId => bytes32) public leaseHash;
    mapping(bytes32 jobId => bytes32) public jobHash;
    mapping(address provider => bytes32) public stakeHash;
    mapping(bytes32 leaseId => Opening) public openings;

    mapping(string name => Tally) public tallies;
    string[] public names;
    uint256 public attacksThatWorked;
    uint256 public oddRefusals;

    uint64 internal _now;
    uint256 internal _nonce;

    constructor(LeaseEscrow escrow, IMintable token, uint128 unit) {
        ESCROW = escrow;
        STAKING = ProviderStaking(escrow.staking());
        TOKEN = token;
        UNIT = unit;
        _now = uint64(vm.getBlockTimestamp());
        treasury = escrow.config().treasury;
        insurance = escrow.config().insurance;
        accounts.push(treasury);
        accounts.push(insurance);
        accounts.push(attacker);
        _populate(tenants, TENANTS, TENANT_KEY);
        _populate(watchers, WATCHERS, WATCHER_KEY);
        _populate(providers, PROVIDERS, PROVIDER_KEY);
        for (uint256 i = 0; i < PROVIDERS; i++) {
            nodes.push(vm.addr(NODE_KEY + i));
            _authorise(i);
            stakeHash[providers[i]] = keccak256(abi.encode(STAKING.stakeOf(providers[i])));
        }
        keepers.push(makeAddr("keeper"));
        accounts.push(keepers[0]);
    }

    /// @dev Time passes, mostly little; the handler's own clock, as viaIR may keep block.timestamp across a warp.
    modifier asked(string memory name, uint256 seed) {
        _pass(seed % 97 == 0 ? seed % 3000 : seed % 30);
        Tally storage tally = tallies[name];
        if (tally.asked == 0) names.push(name);
        tally.asked++;
        _;
    }

    function acted(string memory name) internal {
        tallies[name].acted++;
    }

    function counts() external view returns (uint256, uint256, uint256, uint256, uint256) {
        return (jobs.length, leases.length, ended.length, accounts.length, names.length);
    }

    function _pass(uint256 duration) internal {
        _now += uint64(duration);
        vm.warp(_now);
    }

    function _leap(uint64 to) internal {
        if (to > _now) _now = to;
        vm.warp(_now);
    }

    /// @dev Some live lease in the state, from the seed's place on; zero if there is none.
    function _find(uint256 seed, LeaseState state) internal view returns (bytes32 id, Lease memory lease) {
        uint256 count = leases.length;
        for (uint256 i = 0; i < count; i++) {
            id = leases[(seed % count + i) % count];
            lease = ESCROW.lease(id);
            if (lease.state == state) return (id, lease);
        }
        return (bytes32(0), lease);
    }

    /// @dev Books what a call on a lease paid by the documented rule: everything earned, as far as money is there.
    function _bookPay(bytes32 id, Lease memory before, Job memory job, uint64 earned) internal {
        Lease memory afterwards = ESCROW.lease(id);
        assertEq(afterwards.earned, earned, "earned as documented");
        uint256 available = before.reserve;
        if (before.state == LeaseState.Active) available += job.balance - job.reserved;
        uint256 amount = uint256(before.rate) * earned / 3600 - before.paid;
        if (amount > available) amount = available;
        assertEq(afterwards.paid, before.paid + amount, "paid as documented");
        uint256 fee = amount / 100;
        jobOut[before.jobId] += amount;
        due[before.provider] += amount - fee;
        due[treasury] += fee;
    }

    /// @dev Seconds earned after a receipt, by the documented rule.
    function _earned(Lease memory lease, LeaseReceipt memory receipt) internal view returns (uint64 earned) {
        uint64 end = lease.state == LeaseState.Suspended ? lease.suspendedAt : lease.endsAt;
        uint64 seen = _least(_least(receipt.seenAt, _now), end);
        uint64 served = seen > lease.startedAt ? seen - lease.startedAt : 0;
        earned = _least(receipt.earned, served);
        if (earned < lease.earned) earned = lease.earned;
    }

    /// @dev After a call about a lease: time never runs back in it, and the fingerprints follow.
    function _touch(bytes32 id, Lease memory before) internal {
        Lease memory lease = ESCROW.lease(id);
        assertGe(lease.earned, before.earned, "earned fell");
        assertGe(lease.seenAt, before.seenAt, "seenAt fell");
        assertGe(lease.seq, before.seq, "seq fell");
        assertGe(lease.paid, before.paid, "paid fell");
        assertTrue(_legal(before.state, lease.state), "illegal move");
        leaseHash[id] = keccak256(abi.encode(lease));
        _touchJob(lease.jobId);
        _touchStake(lease.provider);
        if (lease.state != LeaseState.Active && lease.state != LeaseState.Suspended) _retire(id);
    }

    function _touchJob(bytes32 jobId) internal {
        jobHash[jobId] = keccak256(abi.encode(ESCROW.job(jobId)));
    }

    function _touchStake(address provider) internal {
        stakeHash[provider] = keccak256(abi.encode(STAKING.stakeOf(provider)));
    }

    function _bookSlash(address provider, uint256 amount) internal {
        staked[provider] -= amount;
        if (unbonding[provider] > staked[provider]) unbonding[provider] = staked[provider];
    }

    function _dropJob(uint256 index) internal {
        jobs[index] = jobs[jobs.length - 1];
        jobs.pop();
    }

    function _sign(uint256 key, bytes32 digest) internal pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        return abi.encodePacked(r, s, v);
    }

    /// @dev The watcher's signature over a receipt of one of its jobs.
    function _signed(LeaseReceipt memory receipt, address watcher) internal view returns (bytes memory) {
        uint256 key = watcher == watchers[0] ? WATCHER_KEY : WATCHER_KEY + 1;
        return _sign(key, ESCROW.hashReceipt(receipt));
    }

    function _authorise(uint256 index) internal {
        NodeAuth memory auth = NodeAuth(providers[index], nodes[index], _now, ++_nonce);
        bytes memory signature = _sign(NODE_KEY + index, STAKING.hashNodeAuth(auth));
        vm.prank(auth.provider);
        STAKING.authoriseNode(auth, signature);
    }

    function _least(uint64 a, uint64 b) internal pure returns (uint64) {
        return a < b ? a : b;
    }

    function _noPermit() internal pure returns (Permit memory permit) {}

    function _noReceipt() internal pure returns (LeaseReceipt memory receipt) {}

    function _retire(bytes32 id) private {
        for (uint256 i = 0; i < leases.length; i++) {
            if (leases[i] != id) continue;
            leases[i] = leases[leases.length - 1];
            leases.pop();
        }
        if (ended.length < KEPT_ENDED) ended.push(id);
        else ended[uint256(id) % KEPT_ENDED] = id;
    }

    function _legal(LeaseState from, LeaseState to) private pure returns (bool) {
        if (from == to) return from == LeaseState.Active || from == LeaseState.Suspended;
        if (from == LeaseState.None) return to == LeaseState.Active;
        if (from == LeaseState.Active) return to == LeaseState.Closed || to == LeaseState.Suspended;
        return from == LeaseState.Suspended && (to == LeaseState.Cleared || to == LeaseState.Failed);
    }

    function _populate(address[] storage group, uint256 size, uint256 key) private {
        for (uint256 i = 0; i < size; i++) {
            address account = vm.addr(key + i);
            group.push(account);
            accounts.push(account);
            uint256 fortune = uint256(UNIT) * 1e9;
            minted += fortune;
            TOKEN.mint(account, fortune);
            vm.startPrank(account);
            TOKEN.approve(address(ESCROW), type(uint256).max);
            TOKEN.approve(address(STAKING), type(uint256).max);
            vm.stopPrank();
        }
    }
}
