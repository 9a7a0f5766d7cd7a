// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ILeaseEscrow} from "../../contracts/interfaces/ILeaseEscrow.sol";
import {Bid, Lease, LeaseState, Order, Receipt as LeaseReceipt} from "../../contracts/interfaces/LeaseTypes.sol";
import {Base} from "./Base.sol";

/// @notice suspend, answer and fail.
contract DisputeTest is Base {
    function expectNotSilent(bytes32 leaseId, LeaseReceipt memory receipt, uint64 seenAt) private {
        bytes memory signature = receipt.leaseId == bytes32(0) ? bytes("") : signed(receipt);
        vm.prank(watcher);
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.NotSilent.selector, seenAt, SILENCE));
        escrow.suspend(leases[leaseId], receipt, signature);
    }

    function answerAs(address caller, bytes32 leaseId, LeaseReceipt memory receipt) private {
        bytes memory signature = receipt.leaseId == bytes32(0) ? bytes("") : signed(receipt);
        vm.prank(caller);
        escrow.answer(leases[leaseId], receipt, signature);
    }

    // --- suspend ---

    function test_suspendIsPossibleStrictlyAfterMaxSilence() public {
        (bytes32 jobId, bytes32 leaseId) = openLease();
        vm.warp(START + SILENCE - 1);
        expectNotSilent(leaseId, noReceipt(), START);
        vm.warp(START + SILENCE);
        expectNotSilent(leaseId, noReceipt(), START);
        vm.warp(START + SILENCE + 1);
        vm.prank(tenant);
        escrow.suspend(leases[leaseId], noReceipt(), "");
        assertState(leaseId, LeaseState.Suspended);
        Lease memory lease = escrow.lease(leaseId);
        assertEq(lease.endsAt, START + 6);
        assertEq(lease.exitAt, START + 6 + WINDOW);
        assertEq(reserveOf(leaseId), 6 * PER_SECOND);
        assertFalse(escrow.job(jobId).active);
        assertEq(freeOf(jobId), DEPOSIT - EPOCH_FEE - 6 * PER_SECOND - BOND);
        assertEq(lockedBy(provider), COLLATERAL);
        assertConserved();
    }

    function test_suspendWithAReceiptPaysItAndReservesTheRest() public {
        (, bytes32 leaseId) = openLease();
        vm.warp(START + 105);
        expectNotSilent(leaseId, aReceipt(leaseId, 100, 90), START + 100);
        vm.warp(START + 106);
        LeaseReceipt memory receipt = aReceipt(leaseId, 100, 90);
        bytes memory signature = signed(receipt);
        vm.prank(watcher);
        escrow.suspend(leases[leaseId], receipt, signature);
        assertEq(escrow.claimable(provider), net(90));
        assertEq(reserveOf(leaseId), 6 * PER_SECOND);
        assertConserved();
    }

    function test_aCollectedReceiptCountsAgainstASuspensionWithoutOne() public {
        (, bytes32 leaseId) = openLease();
        vm.warp(START + 100);
        collect(leaseId, 100, 90);
        vm.warp(START + 105);
        expectNotSilent(leaseId, noReceipt(), START + 100);
    }

    function test_suspendByNobodyElse() public {
        (, bytes32 leaseId) = openLease();
        vm.warp(START + 100);
        vm.prank(provider);
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.NotTenantOrWatcher.selector, provider));
        escrow.suspend(leases[leaseId], noReceipt(), "");
    }

    function test_silenceAfterTheLeasesEndIsNone() public {
        (, bytes32 leaseId) = openLease();
        vm.prank(provider);
        escrow.notice(leases[leaseId]);
        vm.warp(START + WINDOW + 1000);
        expectNotSilent(leaseId, aReceipt(leaseId, WINDOW - SILENCE, WINDOW - SILENCE), START + WINDOW - SILENCE);
        LeaseReceipt memory receipt = aReceipt(leaseId, WINDOW - SILENCE - 1, WINDOW - SILENCE - 1);
        bytes memory signature = signed(receipt);
        vm.prank(watcher);
        escrow.suspend(leases[leaseId], receipt, signature);
        assertEq(escrow.lease(leaseId).endsAt, START + WINDOW);
        assertEq(escrow.lease(leaseId).exitAt, START + WINDOW + 1000 + WINDOW);
    }

    function test_theReserveOfASuspensionIsAllThatALaterReceiptMayClaim() public {
        (, bytes32 leaseId) = openAndSuspend(86_000);
        assertEq(reserveOf(leaseId), 86_000 * PER_SECOND);
    }

    function test_aReserveClampsWhereTheJobIsPoor() public {
        (bytes32 jobId, bytes32 first) = openAndSuspend(60_000);
        vm.startPrank(tenant);
        escrow.refund(orders[jobId]);
        escrow.topUp(jobId, RESERVE + BOND + EPOCH_FEE + 5, noPermit());
        vm.stopPrank();
        bytes32 second = openBid(jobId, aBid(jobId, 2));
        vm.warp(START + 61_000);
        vm.prank(watcher);
        escrow.suspend(leases[second], noReceipt(), "");
        assertEq(reserveOf(first), 60_000 * PER_SECOND);
        // The five units over don't pay a whole second.
        assertEq(reserveOf(second), RESERVE);
        assertEq(freeOf(jobId), 5);
        vm.prank(tenant);
        assertEq(escrow.refund(orders[jobId]), 5);
        collect(first, 60_000, 60_000);
        assertEq(escrow.lease(first).paid, 60_000);
        assertEq(escrow.claimable(provider), net(60_000));
        assertConserved();
    }

    function test_aSuspendedLeaseDrawsOnItsReserveAlone() public {
        Order memory order = anOrder();
        order.deposit = RESERVE + BOND + EPOCH_FEE;
        bytes32 jobId = fund(order);
        bytes32 leaseId = openBid(jobId, aBid(jobId, 1));
        vm.warp(START + 1000);
        vm.prank(watcher);
        escrow.suspend(leases[leaseId], noReceipt(), "");
        vm.prank(tenant);
        escrow.topUp(jobId, DEPOSIT, noPermit());
        collect(leaseId, 1000, 1000);
        assertEq(escrow.lease(leaseId).paid, MIN_RUNTIME);
        assertEq(escrow.claimable(provider), net(uint128(MIN_RUNTIME)));
        assertEq(freeOf(jobId), DEPOSIT);
        assertConserved();
    }

    function test_suspendAndOpenInOneTransaction() public {
        (bytes32 jobId, bytes32 leaseId) = openLease();
        vm.warp(START + 100);
        Bid memory bid = aBid(jobId, 2);
        bytes[] memory calls = new bytes[](2);
        calls[0] = abi.encodeCall(ILeaseEscrow.suspend, (leases[leaseId], noReceipt(), bytes("")));
        calls[1] = abi.encodeCall(ILeaseEscrow.open, (orders[jobId], bid, sign(NODE_KEY, escrow.hashBid(bid)), RATE));
        keep(paramsOf(orders[jobId], bid, RATE));
        vm.prank(watcher);
        bytes[] memory results = escrow.multicall(calls);
        assertState(leaseId, LeaseState.Suspended);
        assertState(abi.decode(results[1], (bytes32)), LeaseState.Active);
        assertEq(lockedBy(provider), 2 * COLLATERAL);
        assertConserved();
    }

    // --- answer ---

    function test_anyoneClearsWithAReceiptThatReachesTheSuspension() public {
        (bytes32 jobId, bytes32 leaseId) = openAndSuspend(100);
        vm.warp(START + 110);
        answerAs(keeper, leaseId, aReceipt(leaseId, 100 - SILENCE, 95));
        assertState(leaseId, LeaseState.Cleared);
        assertEq(escrow.claimable(provider), net(95) + BOND);
        assertEq(freeOf(jobId), DEPOSIT - EPOCH_FEE - BOND - 95 * PER_SECOND);
        assertEq(feesOf(jobId), 95 * PER_SECOND / 100);
        assertEq(lockedBy(provider), 0);
        assertConserved();
    }

    function test_aFinalReceiptClearsHoweverOld() public {
        (, bytes32 leaseId) = openAndSuspend(100);
        answerAs(keeper, leaseId, aFinal(leaseId, 50, 50));
        assertState(leaseId, LeaseState.Cleared);
    }

    function test_aReceiptOneSecondTooOldDoesNotClear() public {
        (, bytes32 leaseId) = openAndSuspend(100);
        LeaseReceipt memory receipt = aReceipt(leaseId, 100 - SILENCE - 1, 94);
        bytes memory signature = signed(receipt);
        vm.prank(keeper);
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.NotProviderOrNode.selector, keeper));
        escrow.answer(leases[leaseId], receipt, signature);
        answerAs(node, leaseId, receipt);
        assertState(leaseId, LeaseState.Failed);
        assertEq(escrow.claimable(provider), net(94));
        assertConserved();
    }

    function test_theProviderAdmitsADropForTheSmallPenalty() public {
        (bytes32 jobId, bytes32 leaseId) = openAndSuspend(100);
        vm.warp(START + 100 + WINDOW);
        answerAs(provider, leaseId, noReceipt());
        uint128 penalty = COLLATERAL * 500 / 10_000;
        assertState(leaseId, LeaseState.Failed);
        assertEq(stakedBy(provider), STAKE - penalty);
        assertEq(lockedBy(provider), 0);
        assertEq(escrow.claimable(insurance), penalty);
        assertEq(escrow.claimable(watcher), EPOCH_FEE);
        assertEq(freeOf(jobId), DEPOSIT - EPOCH_FEE);
        assertConserved();
    }

    function test_answerWindowEdges() public {
        (, bytes32 leaseId) = openAndSuspend(100);
        uint64 answerBy = START + 100 + WINDOW;
        LeaseReceipt memory receipt = aReceipt(leaseId, 100, 100);
        bytes memory signature = signed(receipt);
        vm.warp(answerBy + 1);
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.AnswerWindowClosed.selector, answerBy));
        escrow.answer(leases[leaseId], receipt, signature);
        vm.prank(provider);
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.AnswerWindowClosed.selector, answerBy));
        escrow.answer(leases[leaseId], noReceipt(), "");
        vm.warp(answerBy);
        escrow.answer(leases[leaseId], receipt, signature);
        assertState(leaseId, LeaseState.Cleared);
    }

    function test_aRevokedNodeStillAnswersForItsLease() public {
        (, bytes32 leaseId) = openAndSuspend(100);
        vm.prank(provider);
        staking.revokeNode(node);
        answerAs(node, leaseId, noReceipt());
        assertState(leaseId, LeaseState.Failed);
    }

    function test_payAfterASuspensionEndsAtTheSuspension() public {
        (, bytes32 leaseId) = openAndSuspend(100);
        vm.warp(START + 150);
        collect(leaseId, 150, 150);
        assertEq(escrow.lease(leaseId).earned, 100);
        assertEq(escrow.claimable(provider), net(100));
        assertEq(reserveOf(leaseId), 0);
    }

    // --- fail ---

    function test_failSlashesAllAndSplitsIt() public {
        (bytes32 jobId, bytes32 leaseId) = openAndSuspend(100);
        vm.warp(START + 110);
        collect(leaseId, 50, 50);
        vm.warp(START + 100 + WINDOW + 1);
        vm.prank(keeper);
        escrow.fail(leases[leaseId]);
        assertState(leaseId, LeaseState.Failed);
        assertEq(stakedBy(provider), STAKE - COLLATERAL);
        assertEq(lockedBy(provider), 0);
        assertEq(escrow.claimable(provider), net(50));
        assertEq(escrow.claimable(keeper), COLLATERAL * 5 / 100);
        assertEq(escrow.claimable(insurance), COLLATERAL * 65 / 100);
        assertEq(freeOf(jobId), DEPOSIT - EPOCH_FEE - 50 * PER_SECOND + COLLATERAL * 30 / 100);
        assertConserved();
    }

    function test_failIsPossibleStrictlyAfterTheWindow() public {
        (, bytes32 leaseId) = openAndSuspend(100);
        uint64 answerBy = START + 100 + WINDOW;
        for (uint64 t = answerBy - 1; t <= answerBy; t++) {
            vm.warp(t);
            vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.AnswerWindowOpen.selector, answerBy));
            escrow.fail(leases[leaseId]);
        }
        vm.warp(answerBy + 1);
        escrow.fail(leases[leaseId]);
    }

    function test_aDisputeDoesNotTouchTheNextEpoch() public {
        (bytes32 jobId, bytes32 first) = openAndSuspend(100);
        bytes32 second = openBid(jobId, aBid(jobId, 2));
        vm.warp(START + 100 + WINDOW + 1);
        vm.prank(keeper);
        escrow.fail(leases[first]);
        assertTrue(escrow.job(jobId).active);
        assertState(second, LeaseState.Active);
        assertEq(reserveOf(second), (1 days - 100) * PER_SECOND);
        assertEq(lockedBy(provider), COLLATERAL);
        assertConserved();
    }

    function test_unbondingStakeIsSlashedWithTheRest() public {
        (, bytes32 leaseId) = openAndSuspend(100);
        vm.prank(provider);
        staking.requestUnstake(STAKE);
        vm.warp(START + 100 + WINDOW + 1);
        escrow.fail(leases[leaseId]);
        assertEq(staking.stakeOf(provider).unbonding, STAKE - COLLATERAL);
    }
}
