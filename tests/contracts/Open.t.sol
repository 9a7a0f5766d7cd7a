// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Vm} from "forge-std/Vm.sol";

import {ILeaseEscrow} from "../../contracts/interfaces/ILeaseEscrow.sol";
import {Bid, Job, Lease, LeaseParams, LeaseState, Order} from "../../contracts/interfaces/LeaseTypes.sol";
import {Base} from "./Base.sol";

contract OpenTest is Base {
    uint256 private constant KEEPER_KEY = 0xEE;

    bytes32 private jobId;

    function setUp() public override {
        super.setUp();
        jobId = fund(anOrder());
    }

    function expectRefused(Bid memory bid, uint128 rate, bytes memory reason) private {
        bytes memory signature = sign(NODE_KEY, escrow.hashBid(bid));
        vm.prank(watcher);
        vm.expectRevert(reason);
        escrow.open(orders[jobId], bid, signature, rate);
    }

    function test_openLocksReservesAndPaysTheWatcher() public {
        Bid memory bid = aBid(jobId, 1);
        bytes32 leaseId = openBid(jobId, bid);
        LeaseParams memory params = LeaseParams({
            jobId: jobId,
            tenant: tenant,
            watcher: watcher,
            provider: provider,
            node: node,
            epoch: 1,
            maxSilence: SILENCE,
            rate: RATE,
            collateral: COLLATERAL,
            slot: 1
        });
        assertEq(leaseId, keccak256(abi.encode(params)));
        Lease memory lease = escrow.lease(leaseId);
        assertState(leaseId, LeaseState.Active);
        assertEq(lease.covered, 1 days);
        assertEq(reserveOf(leaseId), 1 days * PER_SECOND);
        assertEq(lease.startedAt, START);
        assertEq(lease.seen, 0);
        assertEq(lease.earned, 0);
        assertEq(lease.paid, 0);
        assertEq(lease.endsAt, DEADLINE);
        assertEq(lease.exitAt, DEADLINE + WINDOW);
        Job memory job = escrow.job(jobId);
        assertTrue(job.active);
        assertEq(job.epochs, 1);
        assertEq(job.free, DEPOSIT - EPOCH_FEE - BOND - 1 days * PER_SECOND);
        assertEq(escrow.claimable(watcher), EPOCH_FEE);
        assertEq(lockedBy(provider), COLLATERAL);
        assertTrue(escrow.slotUsed(provider, 1));
        assertConserved();
    }

    function test_openByTheTenantWithTheProvidersSignature() public {
        Bid memory bid = aBid(jobId, 1);
        bytes memory signature = sign(PROVIDER_KEY, escrow.hashBid(bid));
        keep(paramsOf(anOrder(), bid, RATE / 2));
        vm.prank(tenant);
        assertState(escrow.open(orders[jobId], bid, signature, RATE / 2), LeaseState.Active);
    }

    function test_openByNobodyElse() public {
        Bid memory bid = aBid(jobId, 1);
        bytes memory signature = sign(NODE_KEY, escrow.hashBid(bid));
        vm.prank(provider);
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.NotTenantOrWatcher.selector, provider));
        escrow.open(orders[jobId], bid, signature, RATE);
        Order memory order = anOrder();
        order.nonce = 404;
        bytes32 unknown = escrow.hashOrder(order);
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.UnknownJob.selector, unknown));
        escrow.open(order, bid, signature, RATE);
    }

    function test_openWhileActive() public {
        openBid(jobId, aBid(jobId, 1));
        expectRefused(aBid(jobId, 2), RATE, abi.encodeWithSelector(ILeaseEscrow.JobIsActive.selector, jobId, 1));
    }

    function test_openOfACancelledJob() public {
        vm.prank(tenant);
        escrow.cancel(orders[jobId]);
        expectRefused(aBid(jobId, 1), RATE, abi.encodeWithSelector(ILeaseEscrow.JobIsCancelled.selector, jobId));
    }

    function test_openDeadlineEdges() public {
        Bid memory bid = aBid(jobId, 1);
        bid.deadline = START + 100;
        vm.warp(START + 101);
        expectRefused(bid, RATE, abi.encodeWithSelector(ILeaseEscrow.BidExpired.selector, START + 100));
        vm.warp(DEADLINE + 1);
        expectRefused(bid, RATE, abi.encodeWithSelector(ILeaseEscrow.OrderExpired.selector, DEADLINE));
        vm.warp(START + 100);
        openBid(jobId, bid);
    }

    function test_openAtTheOrdersLastSecond() public {
        vm.warp(DEADLINE);
        openBid(jobId, aBid(jobId, 1));
    }

    function test_openRefusesEachBadBid() public {
        Bid memory bid = aBid(jobId, 1);
        bid.orderHash = bytes32("other");
        expectRefused(bid, RATE, abi.encodeWithSelector(ILeaseEscrow.WrongOrder.selector, bytes32("other"), jobId));
        bid = aBid(jobId, 2);
        expectRefused(bid, RATE, abi.encodeWithSelector(ILeaseEscrow.WrongEpoch.selector, 2, 1));
        bid = aBid(jobId, 0);
        expectRefused(bid, RATE, abi.encodeWithSelector(ILeaseEscrow.WrongEpoch.selector, 0, 1));
        bid = aBid(jobId, 1);
        bytes memory outOfBounds =
            abi.encodeWithSelector(ILeaseEscrow.RateOutOfBounds.selector, RATE + 1, RATE / 2, RATE);
        expectRefused(bid, RATE + 1, outOfBounds);
        outOfBounds = abi.encodeWithSelector(ILeaseEscrow.RateOutOfBounds.selector, RATE / 2 - 1, RATE / 2, RATE);
        expectRefused(bid, RATE / 2 - 1, outOfBounds);
        bid.collateral = COLLATERAL - 1;
        expectRefused(
            bid, RATE, abi.encodeWithSelector(ILeaseEscrow.CollateralTooLow.selector, COLLATERAL - 1, COLLATERAL)
        );
        bid.collateral = STAKE + 1;
        expectRefused(
            bid, RATE, abi.encodeWithSelector(ILeaseEscrow.InsufficientStake.selector, provider, STAKE + 1, STAKE)
        );
    }

    function test_openNeedsAnAuthorisedNode() public {
        vm.prank(provider);
        staking.revokeNode(node);
        expectRefused(
            aBid(jobId, 1), RATE, abi.encodeWithSelector(ILeaseEscrow.NodeNotAuthorised.selector, node, provider)
        );
    }

    function test_openNeedsTheBiddersSignature() public {
        Bid memory bid = aBid(jobId, 1);
        bytes32 bidHash = escrow.hashBid(bid);
        bytes memory signature = sign(WATCHER_KEY, bidHash);
        vm.prank(watcher);
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.InvalidBidSignature.selector, node, provider, bidHash));
        escrow.open(orders[jobId], bid, signature, RATE);
    }

    function test_bidsThatShareASlotExcludeEachOther() public {
        openBid(jobId, aBid(jobId, 1));
        Order memory order = anOrder();
        order.nonce = 8;
        jobId = fund(order);
        expectRefused(aBid(jobId, 1), RATE, abi.encodeWithSelector(ILeaseEscrow.SlotUsed.selector, provider, 1));
    }

    function test_openNeedsBondMinimumRuntimeAndFeeToTheUnit() public {
        Order memory order = anOrder();
        order.nonce = 9;
        order.deposit = RESERVE + BOND + EPOCH_FEE - 1;
        jobId = fund(order);
        bytes memory short =
            abi.encodeWithSelector(ILeaseEscrow.InsufficientEscrow.selector, order.deposit, uint256(order.deposit) + 1);
        expectRefused(aBid(jobId, 1), RATE, short);
        vm.startPrank(tenant);
        escrow.topUp(jobId, 1, noPermit());
        vm.stopPrank();
        openBid(jobId, aBid(jobId, 1));
        assertEq(freeOf(jobId), 0);
        assertConserved();
    }

    function test_epochsAreExhaustedAndExtended() public {
        Order memory order = anOrder();
        order.nonce = 10;
        order.maxEpochs = 1;
        jobId = fund(order);
        bytes32 leaseId = openBid(jobId, aBid(jobId, 1));
        vm.prank(tenant);
        escrow.close(leases[leaseId], noReceipt(), "");
        expectRefused(aBid(jobId, 2), RATE, abi.encodeWithSelector(ILeaseEscrow.EpochsExhausted.selector, 1));
        vm.prank(tenant);
        escrow.extend(orders[jobId], DEADLINE, 2, RATE);
        openBid(jobId, aBid(jobId, 2));
    }

    /// @dev A node that nobody owns isn't its own provider, even where no collateral is asked for.
    function test_aNodeOfNobodyBidsForNobody() public {
        Order memory order = anOrder();
        (order.nonce, order.minCollateral) = (11, 0);
        jobId = fund(order);
        Bid memory bid = aBid(jobId, 1);
        (bid.provider, bid.node, bid.collateral) = (address(0), vm.addr(KEEPER_KEY), 0);
        bytes memory signature = sign(KEEPER_KEY, escrow.hashBid(bid));
        vm.prank(watcher);
        vm.expectRevert(
            abi.encodeWithSelector(ILeaseEscrow.NodeNotAuthorised.selector, vm.addr(KEEPER_KEY), address(0))
        );
        escrow.open(order, bid, signature, RATE);
    }

    /// @dev Where both are short the escrow is named: the tenant can mend it.
    function test_theEscrowIsAskedBeforeTheStake() public {
        Order memory order = anOrder();
        (order.nonce, order.deposit) = (12, RESERVE);
        jobId = fund(order);
        Bid memory bid = aBid(jobId, 1);
        bid.collateral = STAKE + 1;
        uint256 required = RESERVE + BOND + EPOCH_FEE;
        expectRefused(bid, RATE, abi.encodeWithSelector(ILeaseEscrow.InsufficientEscrow.selector, RESERVE, required));
    }

    /// @dev Less than one base unit an hour is a rate, and so is nothing at all where the bid agrees.
    function test_aLeaseForNothing() public {
        bytes32 leaseId = openBid(jobId, aBid(jobId, 1, 0), 0);
        assertEq(escrow.lease(leaseId).covered, 1 days);
        assertEq(reserveOf(leaseId), 0);
        vm.warp(START + 100);
        vm.prank(tenant);
        escrow.close(leases[leaseId], noReceipt(), "");
        assertEq(escrow.claimable(provider), 0);
        assertConserved();
    }

    function test_anOpenWithoutEpochFeeCreditsNobody() public {
        Order memory order = anOrder();
        (order.nonce, order.epochFee) = (13, 0);
        jobId = fund(order);
        vm.recordLogs();
        openBid(jobId, aBid(jobId, 1));
        Vm.Log[] memory logs = vm.getRecordedLogs();
        assertEq(logs.length, 1);
        assertEq(logs[0].topics[0], ILeaseEscrow.LeaseOpened.selector);
        assertEq(escrow.claimable(watcher), 0);
        assertConserved();
    }

    function test_theTenantMayWatchItself() public {
        Order memory order = anOrder();
        (order.nonce, order.watcher) = (14, tenant);
        jobId = fund(order);
        bytes32 leaseId = openBid(jobId, aBid(jobId, 1));
        assertState(leaseId, LeaseState.Active);
        assertEq(escrow.claimable(tenant), EPOCH_FEE);
        assertConserved();
    }

    function test_unbondingStakeStaysLockable() public {
        vm.prank(provider);
        staking.requestUnstake(STAKE);
        openBid(jobId, aBid(jobId, 1));
        vm.warp(START + UNBONDING);
        vm.prank(provider);
        assertEq(staking.withdraw(provider), STAKE - COLLATERAL);
    }
}
