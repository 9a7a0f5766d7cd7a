// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Vm} from "forge-std/Vm.sol";

import {ILeaseEscrow} from "../../contracts/interfaces/ILeaseEscrow.sol";
import {Bid, Job, Lease, LeaseState, Order, Receipt as LeaseReceipt} from "../../contracts/interfaces/LeaseTypes.sol";
import {Base} from "./Base.sol";

/// @notice collect, close and notice.
contract ServiceTest is Base {
    bytes32 private jobId;
    bytes32 private leaseId;

    function setUp() public override {
        super.setUp();
        (jobId, leaseId) = openLease();
    }

    function closeWith(address caller, LeaseReceipt memory receipt) private {
        bytes memory signature = receipt.leaseId == bytes32(0) ? bytes("") : signed(receipt);
        vm.prank(caller);
        escrow.close(leases[leaseId], receipt, signature);
    }

    function expectNotClosable(address caller, LeaseReceipt memory receipt, uint64 closableAt) private {
        bytes memory signature = receipt.leaseId == bytes32(0) ? bytes("") : signed(receipt);
        vm.prank(caller);
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.NotClosable.selector, closableAt));
        escrow.close(leases[leaseId], receipt, signature);
    }

    function assertClosed(uint128 secondsPaid) private {
        assertState(leaseId, LeaseState.Closed);
        Job memory job = escrow.job(jobId);
        assertEq(escrow.claimable(provider), net(secondsPaid));
        assertEq(job.free, DEPOSIT - EPOCH_FEE - secondsPaid * PER_SECOND);
        assertEq(job.fees, secondsPaid * PER_SECOND / 100);
        assertFalse(job.active);
        assertEq(lockedBy(provider), 0);
        assertConserved();
    }

    // --- collect ---

    function test_collectPaysWhatIsEarnedLessTheFee() public {
        vm.warp(START + 100);
        collect(leaseId, 100, 90);
        assertEq(escrow.claimable(provider), net(90));
        assertEq(withheldOf(leaseId), 900);
        assertEq(reserveOf(leaseId), (1 days - 90) * PER_SECOND);
        assertConserved();
    }

    function test_aReceiptPaysOnceAndAnOlderOneNothing() public {
        vm.warp(START + 100);
        collect(leaseId, 100, 90);
        collect(leaseId, 100, 90);
        collect(leaseId, 50, 40);
        assertEq(escrow.claimable(provider), net(90));
        assertEq(escrow.lease(leaseId).seen, 100);
        assertEq(escrow.lease(leaseId).earned, 90);
    }

    function test_earnedIsBoundedByTimeAndTheLeasesEnd() public {
        vm.warp(START + 100);
        collect(leaseId, 1000, 1000);
        assertEq(escrow.lease(leaseId).earned, 100);
        assertEq(escrow.lease(leaseId).seen, 100);
        vm.warp(DEADLINE + 50);
        collect(leaseId, 1 days + 50, 1 days + 50);
        assertEq(escrow.lease(leaseId).earned, 1 days);
    }

    function test_aShortfallClampsAndIsPaidAfterATopUp() public {
        Order memory order = anOrder();
        order.nonce = 99;
        order.deposit = RESERVE + BOND + EPOCH_FEE;
        bytes32 poor = fund(order);
        Bid memory bid = aBid(poor, 1);
        bid.slot = 77;
        bytes32 lease = openBid(poor, bid);
        vm.warp(START + 1000);
        LeaseReceipt memory receipt = aReceipt(lease, 1000, 1000);
        escrow.collect(leases[lease], receipt, signed(receipt));
        assertEq(escrow.claimable(provider), net(uint128(MIN_RUNTIME)));
        assertEq(freeOf(poor), 0);
        vm.prank(tenant);
        escrow.topUp(poor, 1_000_000, noPermit());
        escrow.collect(leases[lease], receipt, signed(receipt));
        assertEq(escrow.claimable(provider), net(1000));
        assertEq(freeOf(poor), 1_000_000 - 400 * PER_SECOND);
        assertConserved();
    }

    function test_collectRefusals() public {
        LeaseReceipt memory receipt = aReceipt(leaseId, 1, 1);
        bytes32 digest = escrow.hashReceipt(receipt);
        bytes memory forged = sign(NODE_KEY, digest);
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.InvalidWatcherSignature.selector, watcher, digest));
        escrow.collect(leases[leaseId], receipt, forged);
        receipt.leaseId = bytes32("other");
        bytes memory signature = signed(receipt);
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.WrongLease.selector, bytes32("other"), leaseId));
        escrow.collect(leases[leaseId], receipt, signature);
        receipt.leaseId = bytes32(0);
        signature = signed(receipt);
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.WrongLease.selector, bytes32(0), leaseId));
        escrow.collect(leases[leaseId], receipt, signature);
    }

    // --- close ---

    function test_closeByAnyoneWithAFinalReceipt() public {
        vm.warp(START + 500);
        closeWith(keeper, aFinal(leaseId, 100, 90));
        assertClosed(90);
    }

    function test_closeByTheTenantOrWatcherPaysAllSinceTheLastHeartbeat() public {
        uint256 snapshot = vm.snapshotState();
        vm.warp(START + 150);
        closeWith(tenant, aReceipt(leaseId, 100, 90));
        assertClosed(140);
        vm.revertToState(snapshot);
        vm.warp(START + 150);
        closeWith(watcher, noReceipt());
        assertClosed(150);
    }

    function test_closeByAnyoneElseBeforeTimeIsRefused() public {
        vm.warp(START + 150);
        expectNotClosable(provider, noReceipt(), DEADLINE + WINDOW);
        expectNotClosable(keeper, aReceipt(leaseId, 100, 90), DEADLINE + WINDOW);
    }

    function test_closeByAnyoneStrictlyAfterDeadlineAndWindow() public {
        vm.warp(DEADLINE + WINDOW - 1);
        expectNotClosable(keeper, noReceipt(), DEADLINE + WINDOW);
        vm.warp(DEADLINE + WINDOW);
        expectNotClosable(keeper, noReceipt(), DEADLINE + WINDOW);
        vm.warp(DEADLINE + WINDOW + 1);
        closeWith(keeper, noReceipt());
        assertClosed(0);
    }

    function test_afterTheWindowReceiptsAloneDecideWhoeverCloses() public {
        vm.warp(DEADLINE + WINDOW + 1);
        closeWith(tenant, aReceipt(leaseId, 100, 90));
        assertClosed(90);
    }

    function test_closeByTheTenantAfterTheEndPaysUpToTheEnd() public {
        vm.prank(provider);
        escrow.notice(leases[leaseId]);
        vm.warp(START + WINDOW);
        closeWith(tenant, noReceipt());
        assertClosed(uint128(WINDOW));
    }

    // --- notice ---

    function test_noticeEndsServiceAfterTheWindow() public {
        vm.warp(START + 100);
        vm.prank(provider);
        escrow.notice(leases[leaseId]);
        Lease memory lease = escrow.lease(leaseId);
        assertEq(lease.endsAt, START + 100 + WINDOW);
        assertEq(lease.exitAt, START + 100 + WINDOW);
        vm.warp(START + 100 + WINDOW);
        expectNotClosable(provider, noReceipt(), START + 100 + WINDOW);
        vm.warp(START + 100 + WINDOW + 1);
        closeWith(provider, aReceipt(leaseId, 161, 161));
        assertClosed(160);
    }

    function test_noticeNeverMovesTheEndBack() public {
        vm.warp(DEADLINE - 10);
        vm.prank(provider);
        escrow.notice(leases[leaseId]);
        assertEq(escrow.lease(leaseId).endsAt, DEADLINE);
        assertEq(escrow.lease(leaseId).exitAt, DEADLINE - 10 + WINDOW);
    }

    function test_noticeRefusals() public {
        vm.prank(node);
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.NotProvider.selector, node, provider));
        escrow.notice(leases[leaseId]);
        vm.startPrank(provider);
        escrow.notice(leases[leaseId]);
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.NoticeChangesNothing.selector, leaseId, START + WINDOW));
        escrow.notice(leases[leaseId]);
        vm.stopPrank();
    }

    /// @dev Around the lease's end: t - 1, t, t + 1, for the end of service and for the exit of all.
    function test_noticeEdges() public {
        uint256 snapshot = vm.snapshotState();
        expectNotice(DEADLINE - WINDOW - 1, DEADLINE - 1, DEADLINE - 1);
        vm.revertToState(snapshot);
        expectNotice(DEADLINE - WINDOW, DEADLINE, DEADLINE);
        vm.revertToState(snapshot);
        expectNotice(DEADLINE - WINDOW + 1, DEADLINE, DEADLINE + 1);
        vm.revertToState(snapshot);
        expectNotice(DEADLINE - 1, DEADLINE, DEADLINE + WINDOW - 1);
        vm.revertToState(snapshot);
        for (uint64 t = DEADLINE; t <= DEADLINE + WINDOW + 1; t += WINDOW) {
            vm.warp(t);
            expectNothingChanged(DEADLINE + WINDOW);
        }
    }

    function expectNotice(uint64 at, uint64 endsAt, uint64 closableAt) private {
        vm.warp(at);
        vm.expectEmit(address(escrow));
        emit ILeaseEscrow.LeaseNotice(jobId, leaseId, endsAt, closableAt);
        vm.prank(provider);
        escrow.notice(leases[leaseId]);
        assertEq(escrow.lease(leaseId).endsAt, endsAt);
        assertEq(escrow.lease(leaseId).exitAt, closableAt);
        expectNothingChanged(closableAt);
        vm.warp(at + 1);
        expectNothingChanged(closableAt);
    }

    function expectNothingChanged(uint64 closableAt) private {
        vm.prank(provider);
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.NoticeChangesNothing.selector, leaseId, closableAt));
        escrow.notice(leases[leaseId]);
    }

    function test_serviceCountsToTheLastSecondOfANotice() public {
        vm.prank(provider);
        escrow.notice(leases[leaseId]);
        for (uint64 t = WINDOW - 1; t <= WINDOW + 1; t++) {
            vm.warp(START + t);
            collect(leaseId, t, t);
            uint64 served = t < WINDOW ? t : WINDOW;
            assertEq(escrow.lease(leaseId).earned, served);
            assertEq(escrow.lease(leaseId).seen, served);
        }
        assertEq(escrow.claimable(provider), net(uint128(WINDOW)));
        assertConserved();
    }

    // --- what nobody signed ---

    /// @dev A receipt without a lease is none: nothing of it counts, and nothing of it is told.
    function unsigned() private pure returns (LeaseReceipt memory) {
        return LeaseReceipt(bytes32(0), 9, START + 150, 150, true, keccak256("forged root"));
    }

    function expectUntold(uint64 earned, uint64 seen, uint128 amount, uint128 reserve) private {
        vm.expectEmit(address(escrow));
        emit ILeaseEscrow.LeaseCollected(
            jobId, leaseId, earned, START + seen, 0, amount, amount / 100, reserve, bytes32(0)
        );
    }

    function test_anUnsignedReceiptTellsNothingAtAClose() public {
        vm.warp(START + 150);
        expectNotClosable(keeper, unsigned(), DEADLINE + WINDOW);
        expectUntold(150, 150, 150 * PER_SECOND, (1 days - 150) * PER_SECOND);
        vm.prank(tenant);
        escrow.close(leases[leaseId], unsigned(), "");
        assertClosed(150);
    }

    function test_anUnsignedReceiptPaysNothingAfterTheWindow() public {
        vm.warp(DEADLINE + WINDOW + 1);
        expectUntold(0, 0, 0, 1 days * PER_SECOND);
        vm.prank(keeper);
        escrow.close(leases[leaseId], unsigned(), "");
        assertClosed(0);
    }

    function test_anUnsignedReceiptNeitherBreaksSilenceNorAnswers() public {
        vm.warp(START + 150);
        vm.recordLogs();
        vm.prank(watcher);
        escrow.suspend(leases[leaseId], unsigned(), "");
        vm.prank(keeper);
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.NotProviderOrNode.selector, keeper));
        escrow.answer(leases[leaseId], unsigned(), "");
        vm.prank(node);
        escrow.answer(leases[leaseId], unsigned(), "");
        Vm.Log[] memory logs = vm.getRecordedLogs();
        for (uint256 i = 0; i < logs.length; i++) {
            assertNotEq(logs[i].topics[0], ILeaseEscrow.LeaseCollected.selector);
        }
        assertEq(logs[logs.length - 2].topics[0], ILeaseEscrow.LeaseFailed.selector);
        assertEq(escrow.claimable(provider), 0);
        assertConserved();
    }

    function test_aReceiptsSeqAndRootAreTold() public {
        vm.warp(START + 100);
        LeaseReceipt memory receipt = aReceipt(leaseId, 100, 90);
        bytes memory signature = signed(receipt);
        vm.expectEmit(address(escrow));
        emit ILeaseEscrow.LeaseCollected(
            jobId, leaseId, 90, START + 100, 100, 90 * PER_SECOND, 900, (1 days - 90) * PER_SECOND, keccak256("root")
        );
        escrow.collect(leases[leaseId], receipt, signature);
    }

    // --- after the end ---

    function test_anEndedLeaseIsGoneAndIsNotOpenedAgain() public {
        vm.warp(START + 100);
        closeWith(tenant, noReceipt());
        assertEq(keccak256(abi.encode(escrow.lease(leaseId))), keccak256(new bytes(256)));
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.WrongLeaseState.selector, leaseId, LeaseState.None));
        vm.prank(tenant);
        escrow.close(leases[leaseId], noReceipt(), "");
        Bid memory bid = aBid(jobId, 1);
        bytes memory signature = sign(NODE_KEY, escrow.hashBid(bid));
        vm.prank(watcher);
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.WrongEpoch.selector, 1, 2));
        escrow.open(orders[jobId], bid, signature, RATE);
    }

    function test_closeAndOpenInOneTransaction() public {
        vm.warp(START + 100);
        LeaseReceipt memory receipt = aFinal(leaseId, 100, 100);
        bytes[] memory calls = new bytes[](2);
        calls[0] = abi.encodeCall(ILeaseEscrow.close, (leases[leaseId], receipt, signed(receipt)));
        Bid memory bid = aBid(jobId, 2);
        calls[1] = abi.encodeCall(ILeaseEscrow.open, (orders[jobId], bid, sign(NODE_KEY, escrow.hashBid(bid)), RATE));
        keep(paramsOf(orders[jobId], bid, RATE));
        vm.prank(watcher);
        bytes[] memory results = escrow.multicall(calls);
        assertState(leaseId, LeaseState.Closed);
        assertState(abi.decode(results[1], (bytes32)), LeaseState.Active);
        assertConserved();
    }
}
