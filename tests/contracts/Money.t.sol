// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Bid, LeaseState, Order, Receipt as LeaseReceipt} from "../../contracts/interfaces/LeaseTypes.sol";
import {Base} from "./Base.sol";

/// @notice Whatever the numbers, money is conserved and every way out stays open.
contract MoneyTest is Base {
    function openAt(uint128 rate, uint128 deposit) private returns (bytes32 jobId, bytes32 leaseId) {
        Order memory order = anOrder(rate);
        order.deposit = deposit;
        jobId = fund(order);
        leaseId = openBid(jobId, aBid(jobId, 1, 0), rate);
    }

    function testFuzz_payIsTheFloorHoweverItIsCutUp(uint128 rate, uint32[5] memory cuts) public {
        rate = uint128(bound(rate, 1, 4_000_000));
        (bytes32 jobId, bytes32 leaseId) = openAt(rate, DEPOSIT);
        uint64 last = 0;
        for (uint256 i = 0; i < cuts.length; i++) {
            last += uint64(bound(cuts[i], 0, 4000));
            vm.warp(START + last);
            collect(leaseId, last, last);
        }
        uint256 due = uint256(rate) * last / 3600;
        assertEq(escrow.lease(leaseId).paid, last);
        assertEq(escrow.claimable(provider), due - due / 100);
        assertEq(withheldOf(leaseId), due / 100);
        assertConserved();
    }

    function testFuzz_aLeaseAlwaysEnds(uint128 rate, uint128 deposit, uint64 seen, uint64 earned, uint8 way) public {
        rate = uint128(bound(rate, 1, 500_000_000));
        uint256 least = uint256(rate) * MIN_RUNTIME / 3600 + BOND + EPOCH_FEE;
        deposit = uint128(bound(deposit, least, least + 100e6));
        (bytes32 jobId, bytes32 leaseId) = openAt(rate, deposit);
        LeaseReceipt memory receipt = LeaseReceipt(leaseId, 1, seen, earned, way % 2 == 0, bytes32(0));
        bytes memory signature = signed(receipt);
        vm.warp(START + 1000);
        if (way % 4 < 2) {
            vm.warp(DEADLINE + WINDOW + 1);
            escrow.close(leases[leaseId], receipt, signature);
            assertState(leaseId, LeaseState.Closed);
        } else {
            vm.prank(watcher);
            escrow.suspend(leases[leaseId], noReceipt(), "");
            escrow.collect(leases[leaseId], receipt, signature);
            vm.warp(DEADLINE + 1);
            vm.prank(keeper);
            escrow.fail(leases[leaseId]);
            assertState(leaseId, LeaseState.Failed);
        }
        assertConserved();
        escrow.refund(orders[jobId]);
        escrow.sweepFees(jobId);
        assertEq(freeOf(jobId) + feesOf(jobId), 0);
        assertConserved();
    }

    function testFuzz_theReserveCoversEveryReceiptBeforeTheSuspension(
        uint128 rate,
        uint64 first,
        uint64 silent,
        uint64 later
    )
        public
    {
        rate = uint128(bound(rate, 1, 3_000_000));
        first = uint64(bound(first, 0, 30_000));
        silent = uint64(bound(silent, SILENCE + 1, 30_000));
        later = uint64(bound(later, first, first + silent));
        (bytes32 jobId, bytes32 leaseId) = openAt(rate, DEPOSIT);
        vm.warp(START + first);
        collect(leaseId, first, first);
        vm.warp(START + first + silent);
        vm.prank(tenant);
        escrow.suspend(leases[leaseId], noReceipt(), "");
        vm.prank(tenant);
        escrow.refund(orders[jobId]);
        collect(leaseId, later, later);
        uint256 due = uint256(rate) * later / 3600;
        assertEq(escrow.lease(leaseId).paid, later);
        assertEq(escrow.claimable(provider), due - due / 100);
        assertConserved();
    }

    function testFuzz_splitsAddUpAndSlashingOneselfLosesMoney(uint128 collateral) public {
        collateral = uint128(bound(collateral, COLLATERAL, STAKE));
        bytes32 jobId = fund(anOrder());
        Bid memory bid = aBid(jobId, 1);
        bid.collateral = collateral;
        bytes32 leaseId = openBid(jobId, bid);
        vm.warp(START + 100);
        vm.prank(watcher);
        escrow.suspend(leases[leaseId], noReceipt(), "");
        vm.warp(START + 100 + WINDOW + 1);
        vm.prank(keeper);
        escrow.fail(leases[leaseId]);
        uint256 back = freeOf(jobId) + escrow.claimable(keeper) + EPOCH_FEE - DEPOSIT;
        assertLe(back, uint256(collateral) * 9 / 10);
        assertEq(back + escrow.claimable(insurance), collateral);
        assertConserved();
    }
}
