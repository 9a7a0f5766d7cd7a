// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {Test} from "forge-std/Test.sol";
import {Vm} from "forge-std/Vm.sol";

import {LeaseEscrow} from "../../contracts/LeaseEscrow.sol";
import {ProviderStaking} from "../../contracts/ProviderStaking.sol";
import {ILeaseEscrow} from "../../contracts/interfaces/ILeaseEscrow.sol";
import {NodeAuth} from "../../contracts/interfaces/IProviderStaking.sol";
import {
    Bid,
    Config,
    Lease,
    LeaseParams,
    LeaseState,
    Order,
    Receipt as LeaseReceipt
} from "../../contracts/interfaces/LeaseTypes.sol";
import {Permit} from "../../contracts/libraries/Deposits.sol";
import {MockDollar} from "../../contracts/mocks/MockDollar.sol";

/// @notice A deployment with one tenant, watcher and provider with a node. Times are absolute: viaIR may keep
/// block.timestamp across a warp.
abstract contract Base is Test {
    uint64 internal constant START = 1_800_000_000;
    uint64 internal constant DEADLINE = START + 1 days;
    uint64 internal constant WINDOW = 60;
    uint64 internal constant MIN_RUNTIME = 600;
    uint64 internal constant UNBONDING = 1 days;
    uint32 internal constant SILENCE = 5;
    /// @dev 1000 base units a second.
    uint128 internal constant RATE = 3_600_000;
    uint128 internal constant PER_SECOND = 1000;
    uint128 internal constant DEPOSIT = 100e6;
    uint128 internal constant COLLATERAL = 10e6;
    uint128 internal constant STAKE = 50e6;
    uint128 internal constant BOND = 100_000;
    uint128 internal constant EPOCH_FEE = 1000;
    uint128 internal constant RESERVE = PER_SECOND * uint128(MIN_RUNTIME);

    uint256 internal constant TENANT_KEY = 0xA11CE;
    uint256 internal constant WATCHER_KEY = 0xB0B;
    uint256 internal constant PROVIDER_KEY = 0xCA5;
    uint256 internal constant NODE_KEY = 0xD0D0;

    address internal tenant = vm.addr(TENANT_KEY);
    address internal watcher = vm.addr(WATCHER_KEY);
    address internal provider = vm.addr(PROVIDER_KEY);
    address internal node = vm.addr(NODE_KEY);
    address internal keeper = makeAddr("keeper");
    address internal treasury = makeAddr("treasury");
    address internal insurance = makeAddr("insurance");

    MockDollar internal dollar;
    LeaseEscrow internal escrow;
    ProviderStaking internal staking;

    /// @dev What was funded and opened by the functions below; calls bring it back.
    mapping(bytes32 jobId => Order) internal orders;
    mapping(bytes32 leaseId => LeaseParams) internal leases;
    bytes32[] internal jobIds;
    bytes32[] internal leaseIds;
    /// @dev How leases ended, as far as the events have been read.
    mapping(bytes32 leaseId => LeaseState) internal ends;

    function setUp() public virtual {
        vm.recordLogs();
        vm.warp(START);
        dollar = new MockDollar();
        escrow = new LeaseEscrow(IERC20(address(dollar)), terms());
        staking = ProviderStaking(escrow.staking());
        dollar.mint(tenant, 1000e6);
        dollar.mint(provider, 1000e6);
        vm.prank(tenant);
        dollar.approve(address(escrow), type(uint256).max);
        vm.startPrank(provider);
        dollar.approve(address(staking), type(uint256).max);
        staking.stake(STAKE, noPermit());
        NodeAuth memory auth = NodeAuth(provider, node, START + 1 hours, 1);
        staking.authoriseNode(auth, sign(NODE_KEY, staking.hashNodeAuth(auth)));
        vm.stopPrank();
    }

    function terms() internal view returns (Config memory) {
        return Config({
            answerWindow: WINDOW,
            minRuntime: MIN_RUNTIME,
            unbondingPeriod: UNBONDING,
            maxLifetime: 365 days,
            minSilence: 2,
            maxSilence: 300,
            feeBps: 100,
            dropPenaltyBps: 500,
            slashToJobBps: 3000,
            slashToCallerBps: 500,
            bond: BOND,
            treasury: treasury,
            insurance: insurance
        });
    }

    function sign(uint256 key, bytes32 digest) internal pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        return abi.encodePacked(r, s, v);
    }

    function noPermit() internal pure returns (Permit memory permit) {}

    function noReceipt() internal pure returns (LeaseReceipt memory receipt) {}

    function anOrder() internal view returns (Order memory) {
        return Order({
            tenant: tenant,
            watcher: watcher,
            jobSpec: keccak256("spec"),
            maxRatePerHour: RATE,
            deposit: DEPOSIT,
            minCollateral: COLLATERAL,
            maxSilence: SILENCE,
            maxEpochs: 10,
            epochFee: EPOCH_FEE,
            deadline: DEADLINE,
            nonce: 7
        });
    }

    function anOrder(uint128 maxRatePerHour) internal view returns (Order memory order) {
        order = anOrder();
        order.maxRatePerHour = maxRatePerHour;
    }

    function fund(Order memory order) internal returns (bytes32 jobId) {
        jobId = escrow.fund(order, sign(TENANT_KEY, escrow.hashOrder(order)), noPermit());
        keep(order);
    }

    /// @dev Registers an order, funded by whatever means.
    function keep(Order memory order) internal returns (bytes32 jobId) {
        jobId = escrow.hashOrder(order);
        orders[jobId] = order;
        jobIds.push(jobId);
    }

    function aBid(bytes32 jobId, uint32 epoch) internal view returns (Bid memory) {
        return Bid({
            provider: provider,
            node: node,
            orderHash: jobId,
            epoch: epoch,
            minRatePerHour: RATE / 2,
            collateral: COLLATERAL,
            deadline: DEADLINE,
            slot: epoch
        });
    }

    function aBid(bytes32 jobId, uint32 epoch, uint128 minRatePerHour) internal view returns (Bid memory bid) {
        bid = aBid(jobId, epoch);
        bid.minRatePerHour = minRatePerHour;
    }

    function openBid(bytes32 jobId, Bid memory bid) internal returns (bytes32 leaseId) {
        return openBid(jobId, bid, RATE);
    }

    function openBid(bytes32 jobId, Bid memory bid, uint128 rate) internal returns (bytes32 leaseId) {
        bytes memory signature = sign(NODE_KEY, escrow.hashBid(bid));
        keep(paramsOf(orders[jobId], bid, rate));
        vm.prank(orders[jobId].watcher);
        return escrow.open(orders[jobId], bid, signature, rate);
    }

    /// @dev Registers a lease that is opened, or may be.
    function keep(LeaseParams memory params) internal returns (bytes32 leaseId) {
        leaseId = escrow.leaseIdOf(params);
        leases[leaseId] = params;
        leaseIds.push(leaseId);
    }

    function paramsOf(Order memory order, Bid memory bid, uint128 rate) internal pure returns (LeaseParams memory) {
        return LeaseParams({
            jobId: bid.orderHash,
            tenant: order.tenant,
            watcher: order.watcher,
            provider: bid.provider,
            node: bid.node,
            epoch: bid.epoch,
            maxSilence: order.maxSilence,
            rate: rate,
            collateral: bid.collateral,
            slot: bid.slot
        });
    }

    function openLease() internal returns (bytes32 jobId, bytes32 leaseId) {
        jobId = fund(anOrder());
        leaseId = openBid(jobId, aBid(jobId, 1));
    }

    /// @dev Funds, opens at START and suspends at START + delay, without a receipt.
    function openAndSuspend(uint64 delay) internal returns (bytes32 jobId, bytes32 leaseId) {
        (jobId, leaseId) = openLease();
        vm.warp(START + delay);
        vm.prank(watcher);
        escrow.suspend(leases[leaseId], noReceipt(), "");
    }

    /// @dev `seen` and `earned` in seconds since START.
    function aReceipt(bytes32 leaseId, uint64 seen, uint64 earned) internal pure returns (LeaseReceipt memory) {
        return LeaseReceipt(leaseId, seen, START + seen, earned, false, keccak256("root"));
    }

    function aFinal(bytes32 leaseId, uint64 seen, uint64 earned) internal pure returns (LeaseReceipt memory) {
        return LeaseReceipt(leaseId, seen, START + seen, earned, true, keccak256("root"));
    }

    function signed(LeaseReceipt memory receipt) internal view returns (bytes memory) {
        return sign(WATCHER_KEY, escrow.hashReceipt(receipt));
    }

    function collect(bytes32 leaseId, uint64 seen, uint64 earned) internal {
        LeaseReceipt memory receipt = aReceipt(leaseId, seen, earned);
        escrow.collect(leases[leaseId], receipt, signed(receipt));
    }

    function stateOf(bytes32 leaseId) internal view returns (LeaseState) {
        return escrow.lease(leaseId).state;
    }

    /// @dev Pay for some seconds, less the fee of 1 %.
    function net(uint128 secondsEarned) internal pure returns (uint128) {
        uint128 gross = secondsEarned * PER_SECOND;
        return gross - gross / 100;
    }

    /// @dev Of a lease that has ended the chain keeps nothing; its events tell which end it was.
    function assertState(bytes32 leaseId, LeaseState expected) internal {
        bool living = expected == LeaseState.Active || expected == LeaseState.Suspended;
        assertEq(uint8(stateOf(leaseId)), uint8(living ? expected : LeaseState.None), "state");
        if (!living) assertEq(uint8(endOf(leaseId)), uint8(expected), "end");
    }

    function endOf(bytes32 leaseId) internal returns (LeaseState) {
        Vm.Log[] memory logs = vm.getRecordedLogs();
        for (uint256 i = 0; i < logs.length; i++) {
            if (logs[i].emitter != address(escrow) || logs[i].topics.length != 3) continue;
            bytes32 topic = logs[i].topics[0];
            LeaseState end = LeaseState.None;
            if (topic == ILeaseEscrow.LeaseClosed.selector) end = LeaseState.Closed;
            else if (topic == ILeaseEscrow.LeaseCleared.selector) end = LeaseState.Cleared;
            else if (topic == ILeaseEscrow.LeaseFailed.selector) end = LeaseState.Failed;
            if (end != LeaseState.None) ends[logs[i].topics[2]] = end;
        }
        return ends[leaseId];
    }

    /// @dev What a lease has set aside and still may draw, its bond besides.
    function reserveOf(bytes32 leaseId) internal view returns (uint128) {
        Lease memory lease = escrow.lease(leaseId);
        if (lease.covered <= lease.paid) return 0;
        uint128 rate = leases[leaseId].rate;
        return uint128(uint256(rate) * lease.covered / 3600 - uint256(rate) * lease.paid / 3600);
    }

    function freeOf(bytes32 jobId) internal view returns (uint128) {
        return escrow.job(jobId).free;
    }

    function stakedBy(address account) internal view returns (uint128) {
        return staking.stakeOf(account).deposited - staking.stakeOf(account).slashed;
    }

    function feesOf(bytes32 jobId) internal view returns (uint96) {
        return escrow.job(jobId).fees;
    }

    /// @dev Collateral of living leases.
    function lockedBy(address account) internal view returns (uint128) {
        return escrow.lockedOf(account) - staking.stakeOf(account).slashed;
    }

    /// @dev The fee on what a living lease was paid.
    function withheldOf(bytes32 leaseId) internal view returns (uint256) {
        return uint256(leases[leaseId].rate) * escrow.lease(leaseId).paid / 3600 / 100;
    }

    /// @dev Everyone to whom a test's calls may credit something.
    function parties() internal view virtual returns (address[] memory accounts) {
        accounts = new address[](8);
        (accounts[0], accounts[1], accounts[2], accounts[3]) = (tenant, watcher, provider, node);
        (accounts[4], accounts[5], accounts[6], accounts[7]) = (keeper, treasury, insurance, address(this));
    }

    /// @dev The escrow holds exactly what it owes to all jobs, living leases and accounts; the staking contract exactly
    /// the stake; locked is exactly the collateral of living leases.
    function assertConserved() internal view {
        (uint256 aside, uint256 collateral) = owedToLeases();
        assertEq(dollar.balanceOf(address(escrow)), owedToJobs() + aside + owedToAccounts(), "escrow");
        assertEq(dollar.balanceOf(address(staking)), stakedBy(provider), "stake");
        assertEq(lockedBy(provider), collateral, "locked");
    }

    /// @dev These three are public so that the optimizer leaves them functions of their own: as one, they are too deep for
    /// the stack.
    function owedToJobs() public view returns (uint256 owed) {
        for (uint256 i = 0; i < jobIds.length; i++) {
            owed += uint256(freeOf(jobIds[i])) + escrow.job(jobIds[i]).fees;
        }
    }

    function owedToLeases() public view returns (uint256 owed, uint256 collateral) {
        for (uint256 i = 0; i < leaseIds.length; i++) {
            if (stateOf(leaseIds[i]) == LeaseState.None) continue;
            owed += reserveOf(leaseIds[i]) + BOND + withheldOf(leaseIds[i]);
            collateral += leases[leaseIds[i]].collateral;
        }
    }

    function owedToAccounts() public view returns (uint256 owed) {
        address[] memory accounts = parties();
        for (uint256 i = 0; i < accounts.length; i++) {
            owed += escrow.claimable(accounts[i]);
        }
    }
}
