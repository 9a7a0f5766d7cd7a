// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ILeaseEscrow} from "../../contracts/interfaces/ILeaseEscrow.sol";
import {Bid, Job, Limits, Order} from "../../contracts/interfaces/LeaseTypes.sol";
import {Permit} from "../../contracts/libraries/Deposits.sol";
import {Base} from "./Base.sol";

contract FundTest is Base {
    uint128 private constant TOO_MUCH = (type(uint96).max >> 1) + 1;

    function expectRefused(Order memory order, bytes memory reason) private {
        bytes memory signature = sign(TENANT_KEY, escrow.hashOrder(order));
        vm.expectRevert(reason);
        escrow.fund(order, signature, noPermit());
    }

    function unknownOrder() private view returns (Order memory order) {
        order = anOrder();
        order.nonce = 404;
    }

    function expectUnknown() private {
        bytes32 jobId = escrow.hashOrder(unknownOrder());
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.UnknownJob.selector, jobId));
    }

    function permitBy(uint256 key, address owner, uint256 value) private view returns (Permit memory) {
        bytes32 typehash =
            keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)");
        bytes32 content = keccak256(abi.encode(typehash, owner, address(escrow), value, dollar.nonces(owner), DEADLINE));
        (uint8 v, bytes32 r, bytes32 s) =
            vm.sign(key, keccak256(abi.encodePacked("\x19\x01", dollar.DOMAIN_SEPARATOR(), content)));
        return Permit(value, DEADLINE, v, r, s);
    }

    function test_fundPullsTheDepositFromTheTenantWhoeverCalls() public {
        vm.prank(keeper);
        bytes32 jobId = fund(anOrder());
        Job memory job = escrow.job(jobId);
        assertEq(jobId, escrow.hashOrder(anOrder()));
        assertEq(job.free, DEPOSIT);
        assertTrue(job.funded);
        assertEq(job.epochs, 0);
        assertFalse(job.active || job.cancelled);
        assertEq(dollar.balanceOf(tenant), 1000e6 - DEPOSIT);
        assertConserved();
    }

    function test_fundByPermitWithoutAllowance() public {
        vm.prank(tenant);
        dollar.approve(address(escrow), 0);
        Order memory order = anOrder();
        bytes memory signature = sign(TENANT_KEY, escrow.hashOrder(order));
        escrow.fund(order, signature, permitBy(TENANT_KEY, tenant, DEPOSIT));
        assertEq(dollar.balanceOf(address(escrow)), DEPOSIT);
    }

    function test_aPermitThatFailsIsIgnoredAndTheAllowanceDecides() public {
        Order memory order = anOrder();
        bytes memory signature = sign(TENANT_KEY, escrow.hashOrder(order));
        escrow.fund(order, signature, permitBy(WATCHER_KEY, tenant, DEPOSIT));
        assertEq(dollar.balanceOf(address(escrow)), DEPOSIT);
    }

    function test_withoutADeadlineThereIsNoPermit() public {
        vm.expectCall(address(dollar), abi.encodeWithSelector(dollar.permit.selector), 0);
        fund(anOrder());
    }

    function test_fundTwice() public {
        bytes32 jobId = fund(anOrder());
        expectRefused(anOrder(), abi.encodeWithSelector(ILeaseEscrow.JobExists.selector, jobId));
    }

    function test_fundAfterARefundIsStillASecondFund() public {
        bytes32 jobId = fund(anOrder());
        vm.prank(tenant);
        escrow.refund(orders[jobId]);
        expectRefused(anOrder(), abi.encodeWithSelector(ILeaseEscrow.JobExists.selector, jobId));
    }

    function test_fundDeadlineEdges() public {
        Order memory order = anOrder();
        vm.warp(DEADLINE + 1);
        expectRefused(order, abi.encodeWithSelector(ILeaseEscrow.OrderExpired.selector, DEADLINE));
        vm.warp(DEADLINE);
        fund(order);
    }

    function test_fundRefusesEachBadField() public {
        Order memory order = anOrder();
        order.watcher = address(0);
        expectRefused(order, abi.encodeWithSelector(ILeaseEscrow.InvalidOrder.selector, bytes32("watcher")));
        order = anOrder();
        order.maxRatePerHour = 0;
        expectRefused(order, abi.encodeWithSelector(ILeaseEscrow.InvalidOrder.selector, bytes32("maxRatePerHour")));
        order = anOrder();
        order.maxEpochs = 0;
        expectRefused(order, abi.encodeWithSelector(ILeaseEscrow.InvalidOrder.selector, bytes32("maxEpochs")));
        order = anOrder();
        order.deposit = 0;
        expectRefused(order, abi.encodeWithSelector(ILeaseEscrow.InvalidOrder.selector, bytes32("deposit")));
        order.deposit = TOO_MUCH;
        expectRefused(
            order, abi.encodeWithSelector(ILeaseEscrow.DepositTooLarge.selector, uint256(TOO_MUCH), TOO_MUCH - 1)
        );
        order = anOrder();
        order.maxSilence = 1;
        expectRefused(order, abi.encodeWithSelector(ILeaseEscrow.SilenceOutOfBounds.selector, 1, 2, 300));
        order.maxSilence = 301;
        expectRefused(order, abi.encodeWithSelector(ILeaseEscrow.SilenceOutOfBounds.selector, 301, 2, 300));
        order = anOrder();
        order.deadline = START + 365 days + 1;
        expectRefused(
            order, abi.encodeWithSelector(ILeaseEscrow.DeadlineTooFar.selector, START + 365 days + 1, START + 365 days)
        );
    }

    function test_fundTakesFieldsOnTheirBounds() public {
        Order memory order = anOrder();
        (order.maxSilence, order.nonce, order.deposit) = (2, 1, 1);
        assertEq(freeOf(fund(order)), 1);
        (order.maxSilence, order.nonce) = (300, 2);
        assertEq(freeOf(fund(order)), 1);
        (order.maxRatePerHour, order.maxEpochs, order.deadline) = (1, 1, START + 365 days);
        assertEq(freeOf(fund(order)), 1);
        assertConserved();
    }

    function test_fundNeedsTheTenantsSignature() public {
        Order memory order = anOrder();
        bytes32 jobId = escrow.hashOrder(order);
        bytes memory signature = sign(WATCHER_KEY, jobId);
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.InvalidTenantSignature.selector, tenant, jobId));
        escrow.fund(order, signature, noPermit());
    }

    function test_theTenantFundsWithoutASignatureWhateverItGives() public {
        bytes32 jobId = keep(anOrder());
        vm.expectEmit(address(escrow));
        emit ILeaseEscrow.JobFunded(
            jobId, tenant, watcher, keccak256("spec"), RATE, DEPOSIT, COLLATERAL, SILENCE, 10, EPOCH_FEE, DEADLINE, 7
        );
        vm.prank(tenant);
        assertEq(escrow.fund(anOrder(), "", noPermit()), jobId);
        Order memory order = anOrder();
        order.nonce = 8;
        keep(order);
        bytes memory wrong = sign(WATCHER_KEY, jobId);
        vm.prank(tenant);
        escrow.fund(order, wrong, noPermit());
        assertConserved();
    }

    function test_othersFundWithTheTenantsSignatureOverThisOrderAlone() public {
        Order memory order = anOrder();
        bytes32 jobId = escrow.hashOrder(order);
        order.nonce = 8;
        bytes[4] memory wrong = [
            bytes(""),
            new bytes(65),
            sign(TENANT_KEY, escrow.hashOrder(order)),
            bytes.concat(sign(TENANT_KEY, jobId), bytes1(0))
        ];
        for (uint256 i = 0; i < wrong.length; i++) {
            vm.prank(watcher);
            vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.InvalidTenantSignature.selector, tenant, jobId));
            escrow.fund(anOrder(), wrong[i], noPermit());
        }
        vm.prank(watcher);
        fund(anOrder());
        assertConserved();
    }

    function test_anOrderTakenBackIsNoJob() public {
        bytes32 jobId = escrow.hashOrder(anOrder());
        vm.startPrank(tenant);
        escrow.cancel(anOrder());
        bytes memory unknown = abi.encodeWithSelector(ILeaseEscrow.UnknownJob.selector, jobId);
        vm.expectRevert(unknown);
        escrow.topUp(jobId, 1, noPermit());
        vm.expectRevert(unknown);
        escrow.extend(anOrder(), DEADLINE, 10, RATE);
        vm.expectRevert(unknown);
        escrow.refund(anOrder());
        vm.expectRevert(unknown);
        escrow.sweepFees(jobId);
        vm.stopPrank();
        assertFalse(escrow.job(jobId).funded);
        assertConserved();
    }

    function test_aJobHoldsNoMoreThanItsBoundAndExactlyThatMuch() public {
        dollar.mint(tenant, TOO_MUCH);
        Order memory order = anOrder();
        order.deposit = TOO_MUCH - 1;
        bytes32 jobId = fund(order);
        assertEq(freeOf(jobId), TOO_MUCH - 1);
        vm.startPrank(tenant);
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.DepositTooLarge.selector, uint256(TOO_MUCH), TOO_MUCH - 1));
        escrow.topUp(jobId, 1, noPermit());
        assertEq(escrow.refund(order), TOO_MUCH - 1);
        assertEq(escrow.withdraw(tenant), TOO_MUCH - 1);
        vm.stopPrank();
    }

    function test_aZeroTenantIsNoOne() public {
        Order memory order = anOrder();
        order.tenant = address(0);
        bytes32 jobId = escrow.hashOrder(order);
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.InvalidTenantSignature.selector, address(0), jobId));
        escrow.fund(order, new bytes(65), noPermit());
    }

    function test_topUpByAnyone() public {
        bytes32 jobId = fund(anOrder());
        vm.startPrank(provider);
        dollar.approve(address(escrow), 5e6);
        vm.expectEmit(address(escrow));
        emit ILeaseEscrow.JobToppedUp(jobId, provider, 5e6);
        escrow.topUp(jobId, 5e6, noPermit());
        vm.stopPrank();
        assertEq(freeOf(jobId), DEPOSIT + 5e6);
        assertConserved();
    }

    function test_aTopUpFillsAJobToItsBound() public {
        dollar.mint(provider, TOO_MUCH);
        bytes32 jobId = fund(anOrder());
        vm.startPrank(provider);
        dollar.approve(address(escrow), TOO_MUCH);
        escrow.topUp(jobId, TOO_MUCH - 1 - DEPOSIT, noPermit());
        assertEq(freeOf(jobId), TOO_MUCH - 1);
    }

    function test_topUpRefusals() public {
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.UnknownJob.selector, bytes32("none")));
        escrow.topUp(bytes32("none"), 1, noPermit());
        bytes32 jobId = fund(anOrder());
        vm.expectRevert(ILeaseEscrow.ZeroAmount.selector);
        escrow.topUp(jobId, 0, noPermit());
        vm.expectRevert(
            abi.encodeWithSelector(ILeaseEscrow.DepositTooLarge.selector, uint256(TOO_MUCH) + DEPOSIT, TOO_MUCH - 1)
        );
        escrow.topUp(jobId, TOO_MUCH, noPermit());
        vm.prank(tenant);
        escrow.cancel(orders[jobId]);
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.JobIsCancelled.selector, jobId));
        escrow.topUp(jobId, 1, noPermit());
    }

    function test_cancel() public {
        bytes32 jobId = fund(anOrder());
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.NotTenant.selector, address(this), tenant));
        escrow.cancel(orders[jobId]);
        vm.startPrank(tenant);
        vm.expectEmit(address(escrow));
        emit ILeaseEscrow.JobCancelled(jobId, tenant);
        escrow.cancel(orders[jobId]);
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.JobIsCancelled.selector, jobId));
        escrow.cancel(orders[jobId]);
        vm.stopPrank();
        assertTrue(escrow.job(jobId).cancelled);
    }

    function test_aTenantTakesBackAnOrderBeforeItIsFundedAndNobodyElseCan() public {
        bytes32 jobId = escrow.hashOrder(anOrder());
        vm.prank(keeper);
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.NotTenant.selector, keeper, tenant));
        escrow.cancel(anOrder());
        vm.startPrank(tenant);
        vm.expectEmit(address(escrow));
        emit ILeaseEscrow.OrderRevoked(jobId, tenant);
        escrow.cancel(anOrder());
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.JobIsCancelled.selector, jobId));
        escrow.cancel(anOrder());
        // Not even by itself.
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.JobIsCancelled.selector, jobId));
        escrow.fund(anOrder(), "", noPermit());
        vm.stopPrank();
        expectRefused(anOrder(), abi.encodeWithSelector(ILeaseEscrow.JobIsCancelled.selector, jobId));
    }

    function test_extendRaisesAndNeverLowers() public {
        bytes32 jobId = fund(anOrder());
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.NotTenant.selector, address(this), tenant));
        escrow.extend(orders[jobId], DEADLINE, 10, RATE);
        vm.startPrank(tenant);
        expectUnknown();
        escrow.extend(unknownOrder(), DEADLINE, 10, RATE);
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.ExtensionLowers.selector, bytes32("deadline")));
        escrow.extend(orders[jobId], DEADLINE - 1, 10, RATE);
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.ExtensionLowers.selector, bytes32("maxEpochs")));
        escrow.extend(orders[jobId], DEADLINE, 9, RATE);
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.ExtensionLowers.selector, bytes32("maxRatePerHour")));
        escrow.extend(orders[jobId], DEADLINE, 10, RATE - 1);
        vm.expectRevert(
            abi.encodeWithSelector(ILeaseEscrow.DeadlineTooFar.selector, START + 366 days, START + 365 days)
        );
        escrow.extend(orders[jobId], START + 366 days, 10, RATE);
        vm.expectEmit(address(escrow));
        emit ILeaseEscrow.JobExtended(jobId, DEADLINE + 1, 11, RATE + 1);
        escrow.extend(orders[jobId], DEADLINE + 1, 11, RATE + 1);
        Limits memory limits = escrow.limits(orders[jobId]);
        assertEq(limits.deadline, DEADLINE + 1);
        assertEq(limits.maxEpochs, 11);
        assertEq(limits.maxRatePerHour, RATE + 1);
        // From now on the raised limits are what can't be lowered.
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.ExtensionLowers.selector, bytes32("deadline")));
        escrow.extend(orders[jobId], DEADLINE, 11, RATE + 1);
        escrow.cancel(orders[jobId]);
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.JobIsCancelled.selector, jobId));
        escrow.extend(orders[jobId], DEADLINE + 1, 11, RATE + 1);
        vm.stopPrank();
    }

    function test_extendLeavesARunningLeasesEnd() public {
        (bytes32 jobId, bytes32 leaseId) = openLease();
        vm.prank(tenant);
        escrow.extend(orders[jobId], DEADLINE + 1 days, 10, RATE);
        assertEq(escrow.lease(leaseId).endsAt, DEADLINE);
    }

    function test_limitsAreTheOrdersUntilTheyAreRaised() public {
        assertLimits(DEADLINE, 10, RATE);
        fund(anOrder());
        assertLimits(DEADLINE, 10, RATE);
        vm.startPrank(tenant);
        escrow.extend(anOrder(), DEADLINE, 10, RATE);
        assertLimits(DEADLINE, 10, RATE);
        escrow.extend(anOrder(), DEADLINE + 5, 11, 2 * RATE);
        assertLimits(DEADLINE + 5, 11, 2 * RATE);
        escrow.extend(anOrder(), DEADLINE + 5, 11, 2 * RATE + 1);
        assertLimits(DEADLINE + 5, 11, 2 * RATE + 1);
        vm.stopPrank();
    }

    function assertLimits(uint64 deadline, uint32 maxEpochs, uint128 maxRatePerHour) private view {
        Limits memory limits = escrow.limits(anOrder());
        assertEq(limits.deadline, deadline);
        assertEq(limits.maxEpochs, maxEpochs);
        assertEq(limits.maxRatePerHour, maxRatePerHour);
    }

    function test_leasesToComeFollowTheRaisedLimits() public {
        (bytes32 jobId, bytes32 first) = openAndSuspend(20);
        vm.prank(tenant);
        escrow.extend(orders[jobId], DEADLINE + 1 days, 10, 2 * RATE);
        assertEq(escrow.lease(first).exitAt, START + 20 + WINDOW);
        vm.warp(DEADLINE + 1);
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.RefundTooEarly.selector, DEADLINE + 1 days));
        escrow.refund(orders[jobId]);
        Bid memory bid = aBid(jobId, 2);
        bid.deadline = DEADLINE + 1;
        bytes32 second = openBid(jobId, bid, 2 * RATE);
        assertEq(escrow.lease(second).endsAt, DEADLINE + 1 days);
        assertEq(escrow.lease(second).exitAt, DEADLINE + 1 days + WINDOW);
        assertEq(leases[second].rate, 2 * RATE);
        assertConserved();
    }

    function test_anExpiredJobIsRevivedByAnExtension() public {
        bytes32 jobId = fund(anOrder());
        vm.warp(DEADLINE + 100);
        vm.prank(tenant);
        escrow.extend(orders[jobId], DEADLINE + 1000, 10, RATE);
        Bid memory bid = aBid(jobId, 1);
        bid.deadline = DEADLINE + 100;
        assertEq(escrow.lease(openBid(jobId, bid)).covered, 900);
        assertConserved();
    }

    function test_refundByTheTenantAtAnyTime() public {
        bytes32 jobId = fund(anOrder());
        vm.prank(tenant);
        assertEq(escrow.refund(orders[jobId]), DEPOSIT);
        assertEq(escrow.claimable(tenant), DEPOSIT);
        vm.prank(tenant);
        assertEq(escrow.refund(orders[jobId]), 0);
        assertConserved();
    }

    function test_refundByAnyoneStrictlyAfterTheDeadline() public {
        bytes32 jobId = fund(anOrder());
        vm.warp(DEADLINE);
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.RefundTooEarly.selector, DEADLINE));
        escrow.refund(orders[jobId]);
        vm.warp(DEADLINE + 1);
        escrow.refund(orders[jobId]);
        assertEq(escrow.claimable(tenant), DEPOSIT);
    }

    function test_refundNeverWhileActiveAndNeverAReserve() public {
        expectUnknown();
        escrow.refund(unknownOrder());
        (bytes32 jobId, bytes32 leaseId) = openLease();
        vm.prank(tenant);
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.JobIsActive.selector, jobId, 1));
        escrow.refund(orders[jobId]);
        vm.warp(START + 20);
        vm.startPrank(tenant);
        escrow.suspend(leases[leaseId], noReceipt(), "");
        assertEq(escrow.refund(orders[jobId]), DEPOSIT - EPOCH_FEE - BOND - 20 * PER_SECOND);
        vm.stopPrank();
        assertConserved();
    }

    function test_withdraw() public {
        bytes32 jobId = fund(anOrder());
        vm.startPrank(tenant);
        escrow.refund(orders[jobId]);
        vm.expectRevert(ILeaseEscrow.ZeroAddress.selector);
        escrow.withdraw(address(0));
        vm.expectEmit(address(escrow));
        emit ILeaseEscrow.Withdrawn(tenant, keeper, DEPOSIT);
        assertEq(escrow.withdraw(keeper), DEPOSIT);
        assertEq(dollar.balanceOf(keeper), DEPOSIT);
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.NothingToWithdraw.selector, tenant));
        escrow.withdraw(keeper);
        vm.stopPrank();
    }
}
