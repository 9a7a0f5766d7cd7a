// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ILeaseEscrow} from "../../contracts/interfaces/ILeaseEscrow.sol";
import {
    Bid,
    Job,
    LeaseParams,
    LeaseState,
    Order,
    Receipt as LeaseReceipt
} from "../../contracts/interfaces/LeaseTypes.sol";
import {Base} from "./Base.sol";

/// @notice A lease is told by its params and a job by its order: whoever brings others, even by one dirty bit, reaches
/// nothing.
contract IdsTest is Base {
    uint256 private constant PARAMS_WORDS = 10;
    uint256 private constant ORDER_WORDS = 11;
    uint64 private constant SUSPENDED = 100;

    /// @dev Flips one bit of one word of a call's arguments; `call_` starts with a selector.
    function flipped(bytes memory call_, uint256 word, uint8 bit) private pure returns (bytes memory) {
        uint256 at = 4 + 32 * word + 31 - bit / 8;
        call_[at] = call_[at] ^ bytes1(uint8(1) << (bit % 8));
        return call_;
    }

    function wordsHash(bytes memory call_) private pure returns (bytes32) {
        bytes memory words = new bytes(32 * PARAMS_WORDS);
        for (uint256 i = 0; i < words.length; i++) {
            words[i] = call_[4 + i];
        }
        return keccak256(words);
    }

    /// @dev Every call about a lease, each of which works with the true params: three while Active, three while
    /// Suspended.
    function leaseCalls(bytes32 leaseId) private view returns (bytes[] memory calls) {
        LeaseParams memory params = leases[leaseId];
        LeaseReceipt memory receipt = aFinal(leaseId, SUSPENDED, SUSPENDED);
        bytes memory signature = signed(receipt);
        calls = new bytes[](6);
        calls[0] = abi.encodeCall(escrow.collect, (params, receipt, signature));
        calls[1] = abi.encodeCall(escrow.close, (params, receipt, signature));
        calls[2] = abi.encodeCall(escrow.suspend, (params, noReceipt(), ""));
        calls[3] = abi.encodeCall(escrow.notice, (params));
        calls[4] = abi.encodeCall(escrow.answer, (params, receipt, signature));
        calls[5] = abi.encodeCall(escrow.fail, (params));
    }

    function assertReachesNothing(bytes32 leaseId, bytes memory call_, address caller) private {
        bytes32 lease = keccak256(abi.encode(escrow.lease(leaseId)));
        bytes32 job = keccak256(abi.encode(escrow.job(leases[leaseId].jobId)));
        vm.prank(caller);
        (bool worked, bytes memory answer) = address(escrow).call(call_);
        assertFalse(worked);
        assertEq(
            answer, abi.encodeWithSelector(ILeaseEscrow.WrongLeaseState.selector, wordsHash(call_), LeaseState.None)
        );
        assertEq(keccak256(abi.encode(escrow.lease(leaseId))), lease);
        assertEq(keccak256(abi.encode(escrow.job(leases[leaseId].jobId))), job);
    }

    /// @dev One bit of any field, the unused upper ones of addresses and small numbers included.
    function testFuzz_anyOtherBitIsNoLease(uint256 word, uint8 bit) public {
        word = bound(word, 0, PARAMS_WORDS - 1);
        (, bytes32 leaseId) = openLease();
        vm.warp(START + SUSPENDED);
        bytes[] memory calls = leaseCalls(leaseId);
        for (uint256 i = 0; i < 4; i++) {
            assertReachesNothing(leaseId, flipped(calls[i], word, bit), i == 3 ? provider : watcher);
        }
        vm.prank(watcher);
        escrow.suspend(leases[leaseId], noReceipt(), "");
        assertReachesNothing(leaseId, flipped(calls[4], word, bit), node);
        vm.warp(START + SUSPENDED + WINDOW + 1);
        assertReachesNothing(leaseId, flipped(calls[5], word, bit), keeper);
        assertConserved();
    }

    /// @dev Two living leases whose params differ in the epoch and the slot alone: dirt in one's words settles neither.
    function test_dirtNeverSettlesTheNeighbour() public {
        (bytes32 jobId, bytes32 first) = openAndSuspend(SUSPENDED);
        bytes32 second = openBid(jobId, aBid(jobId, 2));
        bytes[] memory calls = leaseCalls(first);
        for (uint256 bit = 32; bit < 256; bit += 7) {
            assertReachesNothing(second, flipped(calls[0], 5, uint8(bit)), watcher);
            calls = leaseCalls(first);
        }
        assertState(first, LeaseState.Suspended);
        assertState(second, LeaseState.Active);
    }

    function testFuzz_leaseIdIsTheHashOfTheAbiEncoding(LeaseParams memory params) public view {
        assertEq(escrow.leaseIdOf(params), keccak256(abi.encode(params)));
    }

    function testFuzz_leaseIdOfDirtyWordsIsNoCleanParams(
        LeaseParams memory params,
        uint256 word,
        uint8 bit
    )
        public
        view
    {
        bytes memory call_ = flipped(abi.encodeCall(escrow.leaseIdOf, (params)), bound(word, 0, PARAMS_WORDS - 1), bit);
        (bool worked, bytes memory answer) = address(escrow).staticcall(call_);
        // Refused or hashed as it lies there: never the id of the clean params.
        if (worked) assertEq(abi.decode(answer, (bytes32)), wordsHash(call_));
        assertNotEq(wordsHash(call_), keccak256(abi.encode(params)));
    }

    /// @dev A call about a job with one other bit is about no job, or isn't decoded at all.
    function testFuzz_anyOtherBitOfAnOrderIsNoJob(uint256 word, uint8 bit) public {
        word = bound(word, 0, ORDER_WORDS - 1);
        bytes32 jobId = fund(anOrder());
        Bid memory bid = aBid(jobId, 1);
        bytes[] memory calls = new bytes[](3);
        calls[0] = abi.encodeCall(escrow.open, (anOrder(), bid, sign(NODE_KEY, escrow.hashBid(bid)), RATE));
        calls[1] = abi.encodeCall(escrow.extend, (anOrder(), DEADLINE + 1, 11, RATE + 1));
        calls[2] = abi.encodeCall(escrow.refund, (anOrder()));
        for (uint256 i = 0; i < calls.length; i++) {
            vm.prank(tenant);
            (bool worked, bytes memory answer) = address(escrow).call(flipped(calls[i], word, bit));
            assertFalse(worked);
            if (answer.length > 0) assertEq(bytes4(answer), ILeaseEscrow.UnknownJob.selector);
        }
        Job memory job = escrow.job(jobId);
        assertEq(job.free, DEPOSIT);
        assertEq(job.epochs, 0);
        assertEq(escrow.limits(anOrder()).deadline, DEADLINE);
        assertConserved();
    }

    function test_aBidOfAnotherJobsOrderIsRefused() public {
        bytes32 jobId = fund(anOrder());
        Order memory order = anOrder();
        order.nonce = 8;
        bytes32 other = fund(order);
        Bid memory bid = aBid(jobId, 1);
        bytes memory signature = sign(NODE_KEY, escrow.hashBid(bid));
        vm.prank(watcher);
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.WrongOrder.selector, jobId, other));
        escrow.open(order, bid, signature, RATE);
    }

    // --- slots ---

    function openSlot(uint256 nonce, uint256 slot) private returns (bytes32) {
        Order memory order = anOrder();
        (order.nonce, order.deposit, order.minCollateral) = (nonce, 5e6, 0);
        bytes32 jobId = fund(order);
        Bid memory bid = aBid(jobId, 1);
        (bid.slot, bid.collateral) = (slot, 1);
        return openBid(jobId, bid);
    }

    function testFuzz_aSlotIsUsedAloneAmongItsNeighbours(uint256 slot, uint256 other) public {
        openSlot(1, slot);
        assertTrue(escrow.slotUsed(provider, slot));
        uint256[8] memory neighbours;
        unchecked {
            (neighbours[0], neighbours[1], neighbours[2]) = (slot + 1, slot - 1, slot + 256);
            (neighbours[3], neighbours[4], neighbours[5]) = (slot - 256, slot ^ 1 << 255, slot << 8);
            (neighbours[6], neighbours[7]) = (slot >> 8, other);
        }
        for (uint256 i = 0; i < neighbours.length; i++) {
            assertEq(escrow.slotUsed(provider, neighbours[i]), neighbours[i] == slot);
        }
        assertFalse(escrow.slotUsed(keeper, slot));
    }

    function testFuzz_neighbouringSlotsCanBeUsed(uint256 slot) public {
        slot = bound(slot, 0, type(uint256).max - 256);
        openSlot(1, slot);
        openSlot(2, slot + 1);
        openSlot(3, slot + 256);
        assertTrue(escrow.slotUsed(provider, slot));
        assertTrue(escrow.slotUsed(provider, slot + 1));
        assertTrue(escrow.slotUsed(provider, slot + 256));
        Order memory order = anOrder();
        order.nonce = 4;
        bytes32 jobId = fund(order);
        Bid memory bid = aBid(jobId, 1);
        bid.slot = slot;
        bytes memory signature = sign(NODE_KEY, escrow.hashBid(bid));
        vm.prank(watcher);
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.SlotUsed.selector, provider, slot));
        escrow.open(order, bid, signature, RATE);
    }
}
