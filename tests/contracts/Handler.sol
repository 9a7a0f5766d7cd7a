// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Test} from "forge-std/Test.sol";

import {LeaseEscrow} from "../../contracts/LeaseEscrow.sol";
import {ProviderStaking} from "../../contracts/ProviderStaking.sol";
import {NodeAuth, Stake} from "../../contracts/interfaces/IProviderStaking.sol";
import {Bid, Job, Lease, LeaseState, Order, Receipt as LeaseReceipt} from "../../contracts/interfaces/LeaseTypes.sol";
import {Permit} from "../../contracts/libraries/Deposits.sol";
import {MockDollar} from "../../contracts/mocks/MockDollar.sol";

/// @notice Drives the contracts by random calls of which each is possible at that moment; the time is the handler's
/// own.
contract Handler is Test {
    uint256 private constant TENANT_KEY = 0xA11CE;
    uint256 private constant WATCHER_KEY = 0xB0B;
    uint256 private constant PROVIDERS = 3;
    uint256 private constant MAX_JOBS = 4;

    LeaseEscrow private immutable ESCROW;
    ProviderStaking private immutable STAKING;
    MockDollar private immutable DOLLAR;

    bytes32[] public jobs;
    bytes32[] public leases;
    address[] public accounts;
    uint64 private _now;
    uint256 private _slot;

    constructor(LeaseEscrow escrow, MockDollar dollar, address[] memory others) {
        ESCROW = escrow;
        STAKING = ProviderStaking(escrow.staking());
        DOLLAR = dollar;
        _now = uint64(vm.getBlockTimestamp());
        accounts = others;
        accounts.push(vm.addr(TENANT_KEY));
        accounts.push(vm.addr(WATCHER_KEY));
        for (uint256 i = 0; i < PROVIDERS; i++) {
            accounts.push(providerAt(i));
            approveAll(providerAt(i));
            authorise(i);
        }
        approveAll(vm.addr(TENANT_KEY));
    }

    modifier timed(uint256 seed) {
        _now += uint64(seed % 40);
        vm.warp(_now);
        _;
    }

    function counts() external view returns (uint256 jobCount, uint256 leaseCount, uint256 accountCount) {
        return (jobs.length, leases.length, accounts.length);
    }

    function providerAt(uint256 seed) public pure returns (address) {
        return vm.addr(100 + seed % PROVIDERS);
    }

    function stake(uint256 seed, uint128 amount) external timed(seed) {
        vm.prank(providerAt(seed));
        STAKING.stake(uint128(bound(amount, 1, 50e6)), noPermit());
    }

    function requestUnstake(uint256 seed, uint128 amount) external timed(seed) {
        Stake memory held = STAKING.stakeOf(providerAt(seed));
        if (held.staked == held.unbonding) return;
        vm.prank(providerAt(seed));
        STAKING.requestUnstake(uint128(bound(amount, 1, held.staked - held.unbonding)));
    }

    function unstake(uint256 seed) external {
        Stake memory held = STAKING.stakeOf(providerAt(seed));
        if (held.unbonding == 0 || held.locked == held.staked) return;
        if (_now < held.unbondsAt) _now = held.unbondsAt;
        vm.warp(_now);
        vm.prank(providerAt(seed));
        STAKING.withdraw(providerAt(seed));
    }

    function fund(uint256 seed, uint128 deposit, uint128 rate, uint32 silence) external timed(seed) {
        if (jobs.length == MAX_JOBS) return;
        Order memory order = Order({
            tenant: vm.addr(TENANT_KEY),
            watcher: vm.addr(WATCHER_KEY),
            jobSpec: bytes32(seed),
            maxRatePerHour: uint128(bound(rate, 1, 10_000_001)),
            deposit: uint128(bound(deposit, 1, 5e6)),
            minCollateral: 0,
            maxSilence: uint32(bound(silence, 2, 20)),
            maxEpochs: 20,
            epochFee: uint128(seed % 1000),
            deadline: _now + 4000,
            nonce: jobs.length
        });
        bytes32 jobId = ESCROW.hashOrder(order);
        jobs.push(ESCROW.fund(order, sign(TENANT_KEY, jobId), noPermit()));
    }

    function topUp(uint256 seed, uint128 amount) external timed(seed) {
        if (jobs.length == 0) return;
        vm.prank(vm.addr(TENANT_KEY));
        ESCROW.topUp(jobs[seed % jobs.length], uint128(bound(amount, 1, 3e6)), noPermit());
    }

    function extend(uint256 seed) external timed(seed) {
        if (jobs.length == 0) return;
        bytes32 jobId = jobs[seed % jobs.length];
        Job memory job = ESCROW.job(jobId);
        vm.prank(job.tenant);
        ESCROW.extend(jobId, job.deadline + 2000, job.maxEpochs + 1, job.maxRatePerHour);
    }

    function refund(uint256 seed) external timed(seed) {
        if (jobs.length == 0) return;
        Job memory job = ESCROW.job(jobs[seed % jobs.length]);
        if (job.activeLease != bytes32(0)) return;
        vm.prank(job.tenant);
        ESCROW.refund(jobs[seed % jobs.length]);
    }

    function open(uint256 seed, uint128 rate, uint128 collateral) external timed(seed) {
        if (jobs.length == 0) return;
        bytes32 jobId = jobs[seed % jobs.length];
        Job memory job = ESCROW.job(jobId);
        rate = uint128(bound(rate, 0, job.maxRatePerHour));
        uint256 needed = (uint256(rate) * 600 + 3599) / 3600 + ESCROW.config().bond + job.epochFee;
        if (job.activeLease != bytes32(0) || _now > job.deadline || job.epochs == job.maxEpochs) return;
        if (needed > job.balance - job.reserved) return;
        address provider = providerAt(seed);
        Bid memory bid = Bid({
            provider: provider,
            node: vm.addr(200 + seed % PROVIDERS),
            orderHash: jobId,
            epoch: job.epochs + 1,
            minRatePerHour: 0,
            collateral: uint128(bound(collateral, 0, STAKING.lockable(provider))),
            deadline: _now,
            slot: ++_slot
        });
        bytes memory signature = sign(200 + seed % PROVIDERS, ESCROW.hashBid(bid));
        vm.prank(job.watcher);
        leases.push(ESCROW.open(jobId, bid, signature, rate));
    }

    function collect(uint256 seed, uint64 seen, uint64 earned) external timed(seed) {
        (bytes32 id, Lease memory lease) = pick(seed);
        if (lease.state != LeaseState.Active && lease.state != LeaseState.Suspended) return;
        (LeaseReceipt memory receipt, bytes memory signature) = receiptOf(id, lease, seen, earned, false);
        ESCROW.collect(id, receipt, signature);
    }

    function notice(uint256 seed) external timed(seed) {
        (bytes32 id, Lease memory lease) = pick(seed);
        if (lease.state != LeaseState.Active || lease.noticed) return;
        vm.prank(lease.provider);
        ESCROW.notice(id);
    }

    function close(uint256 seed, uint64 seen, uint64 earned, bool isFinal) external timed(seed) {
        (bytes32 id, Lease memory lease) = pick(seed);
        if (lease.state != LeaseState.Active) return;
        (LeaseReceipt memory receipt, bytes memory signature) = receiptOf(id, lease, seen, earned, isFinal);
        if (!isFinal && _now <= lease.closableAt) vm.prank(vm.addr(TENANT_KEY));
        ESCROW.close(id, receipt, signature);
    }

    function suspend(uint256 seed) external timed(seed) {
        (bytes32 id, Lease memory lease) = pick(seed);
        if (lease.state != LeaseState.Active) return;
        uint64 at = _now < lease.endsAt ? _now : lease.endsAt;
        if (at <= lease.seenAt + ESCROW.job(lease.jobId).maxSilence) return;
        LeaseReceipt memory none;
        vm.prank(vm.addr(WATCHER_KEY));
        ESCROW.suspend(id, none, "");
    }

    function answer(uint256 seed, uint64 seen, uint64 earned) external timed(seed) {
        (bytes32 id, Lease memory lease) = pick(seed);
        if (lease.state != LeaseState.Suspended || _now > lease.answerBy) return;
        (LeaseReceipt memory receipt, bytes memory signature) = receiptOf(id, lease, seen, earned, false);
        vm.prank(lease.provider);
        ESCROW.answer(id, receipt, signature);
    }

    function fail(uint256 seed, bool patient) external timed(seed) {
        (bytes32 id, Lease memory lease) = pick(seed);
        if (lease.state != LeaseState.Suspended) return;
        if (patient && _now <= lease.answerBy) _now = lease.answerBy + 1;
        if (_now <= lease.answerBy) return;
        vm.warp(_now);
        vm.prank(accounts[0]);
        ESCROW.fail(id);
    }

    function withdraw(uint256 seed) external timed(seed) {
        address account = accounts[seed % accounts.length];
        if (ESCROW.claimable(account) == 0) return;
        vm.prank(account);
        ESCROW.withdraw(account);
    }

    function pick(uint256 seed) private view returns (bytes32 id, Lease memory lease) {
        if (leases.length == 0) return (id, lease);
        id = leases[leases.length - 1 - (seed % leases.length) % 4 % leases.length];
        lease = ESCROW.lease(id);
    }

    /// @dev Also lies: service and heartbeats up to 100 s beyond what time allows.
    function receiptOf(
        bytes32 id,
        Lease memory lease,
        uint64 seen,
        uint64 earned,
        bool isFinal
    )
        private
        view
        returns (LeaseReceipt memory receipt, bytes memory signature)
    {
        uint64 age = _now - lease.startedAt;
        receipt = LeaseReceipt({
            leaseId: id,
            seq: seen,
            seenAt: lease.startedAt + uint64(bound(seen, 0, age + 100)),
            earned: uint64(bound(earned, 0, age + 100)),
            isFinal: isFinal,
            checkpointRoot: bytes32(0)
        });
        signature = sign(WATCHER_KEY, ESCROW.hashReceipt(receipt));
    }

    function authorise(uint256 index) private {
        NodeAuth memory auth = NodeAuth(providerAt(index), vm.addr(200 + index), _now, 1);
        bytes memory signature = sign(200 + index, STAKING.hashNodeAuth(auth));
        vm.prank(auth.provider);
        STAKING.authoriseNode(auth, signature);
    }

    function approveAll(address account) private {
        DOLLAR.mint(account, 1e15);
        vm.startPrank(account);
        DOLLAR.approve(address(ESCROW), type(uint256).max);
        DOLLAR.approve(address(STAKING), type(uint256).max);
        vm.stopPrank();
    }

    function sign(uint256 key, bytes32 digest) private pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        return abi.encodePacked(r, s, v);
    }

    function noPermit() private pure returns (Permit memory permit) {}
}
