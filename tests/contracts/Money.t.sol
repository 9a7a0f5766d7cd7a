// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Bid, LeaseState, Order, Receipt as LeaseReceipt} from "../../contracts/interfaces/LeaseTypes.sol";
import {Settlement} from "../../contracts/libraries/Settlement.sol";
import {Base} from "./Base.sol";

/// @notice Whatever the numbers, money is conserved and every way out stays open.
contract MoneyTest is Base {
    function openAt(uint128 rate, uint128 deposit) private returns (bytes32 jobId, bytes32 leaseId) {
        Order memory order = anOrder();
        order.deposit = deposit;
        order.maxRatePerHour = rate;
        jobId = fund(order);
        bytes memory signature;
        Bid memory bid = aBid(jobId, 1);
        bid.minRatePerHour = 0;
        signature = sign(NODE_KEY, escrow.hashBid(bid));
        vm.prank(watcher);
        leaseId = escrow.open(jobId, bid, signature, rate);
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
        assertEq(escrow.lease(leaseId).paid, due);
        assertEq(escrow.claimable(provider) + escrow.claimable(treasury), due);
        assertConserved(jobId);
    }

    function testFuzz_aLeaseAlwaysEnds(uint128 rate, uint128 deposit, uint64 seen, uint64 earned, uint8 way) public {
        rate = uint128(bound(rate, 1, 500_000_000));
        uint256 least = Settlement.reserveFor(rate, MIN_RUNTIME) + BOND + EPOCH_FEE;
        deposit = uint128(bound(deposit, least, least + 100e6));
        (bytes32 jobId, bytes32 leaseId) = openAt(rate, deposit);
        LeaseReceipt memory receipt = LeaseReceipt(leaseId, 1, seen, earned, way % 2 == 0, bytes32(0));
        bytes memory signature = signed(receipt);
        vm.warp(START + 1000);
        if (way % 4 < 2) {
            vm.warp(DEADLINE + WINDOW + 1);
            escrow.close(leaseId, receipt, signature);
            assertState(leaseId, LeaseState.Closed);
        } else {
            vm.prank(watcher);
            escrow.suspend(leaseId, noReceipt(), "");
            escrow.collect(leaseId, receipt, signature);
            vm.warp(DEADLINE + 1);
            vm.prank(keeper);
            escrow.fail(leaseId);
            assertState(leaseId, LeaseState.Failed);
        }
        assertConserved(jobId);
        escrow.refund(jobId);
        assertEq(escrow.job(jobId).balance, 0);
        assertConserved(jobId);
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
        escrow.suspend(leaseId, noReceipt(), "");
        vm.prank(tenant);
        escrow.refund(jobId);
        collect(leaseId, later, later);
        assertEq(escrow.lease(leaseId).paid, uint256(rate) * later / 3600);
        assertConserved(jobId);
    }

    function testFuzz_splitsAddUpAndSlashingOneselfLosesMoney(uint128 collateral) public {
        collateral = uint128(bound(collateral, COLLATERAL, STAKE));
        bytes32 jobId = fund(anOrder());
        Bid memory bid = aBid(jobId, 1);
        bid.collateral = collateral;
        bytes32 leaseId = openBid(jobId, bid);
        vm.warp(START + 100);
        vm.prank(watcher);
        escrow.suspend(leaseId, noReceipt(), "");
        vm.warp(START + 100 + WINDOW + 1);
        vm.prank(keeper);
        escrow.fail(leaseId);
        uint256 back = escrow.job(jobId).balance + escrow.claimable(keeper) + EPOCH_FEE - DEPOSIT;
        assertLe(back, uint256(collateral) * 9 / 10);
        assertEq(back + escrow.claimable(insurance), collateral);
        assertConserved(jobId);
    }
}
