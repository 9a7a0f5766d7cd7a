// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Vm} from "forge-std/Vm.sol";

import {ILeaseEscrow} from "../../contracts/interfaces/ILeaseEscrow.sol";
import {CreditReason, LeaseState, Receipt as LeaseReceipt} from "../../contracts/interfaces/LeaseTypes.sol";
import {Base} from "./Base.sol";

/// @notice The service fee: withheld while a lease lives, the job's at its end, the treasury's when it is swept.
contract FeesTest is Base {
    function expectSwept(bytes32 jobId, uint128 amount) private {
        vm.expectEmit(address(escrow));
        emit ILeaseEscrow.FeesSwept(jobId, amount);
        if (amount > 0) {
            vm.expectEmit(address(escrow));
            emit ILeaseEscrow.Credited(treasury, amount, CreditReason.ServiceFee);
        }
        uint256 before = escrow.claimable(treasury);
        vm.prank(keeper);
        assertEq(escrow.sweepFees(jobId), amount);
        assertEq(escrow.claimable(treasury), before + amount);
        assertEq(feesOf(jobId), 0);
        assertConserved();
    }

    function test_sweepOfAnUnknownJob() public {
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.UnknownJob.selector, bytes32("none")));
        escrow.sweepFees(bytes32("none"));
    }

    function test_aSweepBeforeALeasesEndFindsNothingAndTakesNothing() public {
        (bytes32 jobId, bytes32 leaseId) = openLease();
        vm.warp(START + 100);
        collect(leaseId, 100, 100);
        vm.recordLogs();
        expectSwept(jobId, 0);
        Vm.Log[] memory logs = vm.getRecordedLogs();
        for (uint256 i = 0; i < logs.length; i++) {
            assertNotEq(logs[i].topics[0], ILeaseEscrow.Credited.selector);
        }
        assertEq(withheldOf(leaseId), 1000);
        vm.prank(tenant);
        escrow.close(leases[leaseId], noReceipt(), "");
        expectSwept(jobId, 1000);
    }

    function test_aSecondSweepFindsNothing() public {
        (bytes32 jobId, bytes32 leaseId) = openLease();
        vm.warp(START + 100);
        vm.prank(tenant);
        escrow.close(leases[leaseId], noReceipt(), "");
        expectSwept(jobId, 1000);
        expectSwept(jobId, 0);
        vm.prank(treasury);
        assertEq(escrow.withdraw(treasury), 1000);
    }

    function test_feesOfSeveralLeasesAddUpAndAreNotRefunded() public {
        (bytes32 jobId, bytes32 first) = openAndSuspend(100);
        bytes32 second = openBid(jobId, aBid(jobId, 2));
        collect(first, 50, 50);
        vm.warp(START + 100 + WINDOW + 1);
        escrow.fail(leases[first]);
        assertEq(feesOf(jobId), 500);
        vm.startPrank(tenant);
        escrow.close(leases[second], noReceipt(), "");
        assertEq(feesOf(jobId), 500 + 610);
        escrow.refund(orders[jobId]);
        vm.stopPrank();
        assertEq(feesOf(jobId), 1110);
        expectSwept(jobId, 1110);
    }

    /// @dev Whichever way a lease ends and into however many calls its pay is cut, the fee is the floor on the whole pay.
    function testFuzz_theFeeIsTheFloorOnTheWholePay(uint128 rate, uint32[4] memory cuts, uint8 way) public {
        rate = uint128(bound(rate, 1, 4_000_000));
        bytes32 jobId = fund(anOrder(rate));
        bytes32 leaseId = openBid(jobId, aBid(jobId, 1, 0), rate);
        uint64 last = 0;
        for (uint256 i = 0; i < cuts.length; i++) {
            last += uint64(bound(cuts[i], 0, 4000));
            vm.warp(START + last);
            collect(leaseId, last, last);
            expectSwept(jobId, 0);
        }
        last += end(leaseId, last, way % 4);
        uint128 due = uint128(uint256(rate) * last / 3600);
        uint128 bond = way % 4 == 1 ? BOND : 0;
        assertEq(escrow.claimable(provider), due - due / 100 + bond);
        expectSwept(jobId, due / 100);
        expectSwept(jobId, 0);
    }

    /// @return more Seconds that the end itself paid.
    function end(bytes32 leaseId, uint64 last, uint8 way) private returns (uint64 more) {
        LeaseReceipt memory receipt = aFinal(leaseId, last, last);
        bytes memory signature = signed(receipt);
        if (way == 0) {
            vm.warp(START + last + 77);
            vm.prank(tenant);
            escrow.close(leases[leaseId], noReceipt(), "");
            assertState(leaseId, LeaseState.Closed);
            return 77;
        }
        vm.warp(START + last + SILENCE + 1);
        vm.prank(watcher);
        escrow.suspend(leases[leaseId], noReceipt(), "");
        if (way == 1) {
            escrow.answer(leases[leaseId], receipt, signature);
            assertState(leaseId, LeaseState.Cleared);
        } else if (way == 2) {
            vm.prank(node);
            escrow.answer(leases[leaseId], noReceipt(), "");
            assertState(leaseId, LeaseState.Failed);
        } else {
            vm.warp(START + last + SILENCE + 1 + WINDOW + 1);
            escrow.fail(leases[leaseId]);
            assertState(leaseId, LeaseState.Failed);
        }
        return 0;
    }
}
