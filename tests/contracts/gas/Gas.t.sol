// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Bid, LeaseParams, Order, Receipt as LeaseReceipt} from "../../../contracts/interfaces/LeaseTypes.sol";
import {Permit} from "../../../contracts/libraries/Deposits.sol";
import {Base} from "../Base.sol";

/// @notice Gas of whole transactions, 21,000 and call data included: each call is a transaction of its own (isolate). The
/// accounts have been used before, as those of a running market are; slots of bids are random. Figures are in
/// snapshots/Gas.json, which `forge test` compares.
/// forge-config: default.isolate = true
contract GasTest is Base {
    function setUp() public override {
        super.setUp();
        // One job has gone the whole way, so that every account has a history.
        vm.prank(tenant);
        dollar.approve(address(escrow), 0);
        (Order memory order, bytes memory consent, Permit memory permit) = signedOrder(1);
        escrow.fund(order, consent, permit);
        bytes32 first = opened(order, 1);
        vm.warp(START + 100);
        suspend(first, 90, 90);
        vm.warp(START + 100 + WINDOW + 1);
        vm.prank(keeper);
        escrow.fail(leases[first]);
        bytes32 second = opened(order, 2);
        LeaseReceipt memory receipt = LeaseReceipt(second, 5, START + 165, 3, true, keccak256("root"));
        escrow.close(leases[second], receipt, signed(receipt));
        vm.prank(provider);
        escrow.withdraw(provider);
        vm.warp(START);
    }

    function test_gas_fundWithPermit() public {
        (Order memory order,, Permit memory permit) = signedOrder(2);
        vm.prank(tenant);
        escrow.fund(order, "", permit);
        measured("fund with permit", 90_000);
    }

    function test_gas_fundRelayed() public {
        (Order memory order, bytes memory consent, Permit memory permit) = signedOrder(2);
        escrow.fund(order, consent, permit);
        measured("fund with permit, relayed", 0);
    }

    function test_gas_open() public {
        started(2);
        measured("open", 150_000);
    }

    function test_gas_collect() public {
        bytes32 leaseId = started(2);
        vm.warp(START + 1000);
        LeaseReceipt memory receipt = aReceipt(leaseId, 1000, 1000);
        bytes memory signature = signed(receipt);
        escrow.collect(leases[leaseId], receipt, signature);
        measured("collect", 52_000);
    }

    function test_gas_close() public {
        bytes32 leaseId = started(2);
        vm.warp(START + 1000);
        LeaseReceipt memory receipt = aFinal(leaseId, 1000, 1000);
        bytes memory signature = signed(receipt);
        vm.prank(watcher);
        escrow.close(leases[leaseId], receipt, signature);
        measured("close", 62_000);
    }

    function test_gas_suspendAndOpen() public {
        bytes32 leaseId = started(2);
        vm.warp(START + 1000);
        Order memory order = orders[leases[leaseId].jobId];
        LeaseReceipt memory receipt = aReceipt(leaseId, 990, 990);
        Bid memory bid = bidFor(leases[leaseId].jobId, 2, 77);
        bytes[] memory calls = new bytes[](2);
        calls[0] = abi.encodeCall(escrow.suspend, (leases[leaseId], receipt, signed(receipt)));
        calls[1] = abi.encodeCall(escrow.open, (order, bid, sign(NODE_KEY, escrow.hashBid(bid)), RATE));
        vm.prank(watcher);
        escrow.multicall(calls);
        measured("suspend + open", 195_000);
    }

    function test_gas_answerWithReceipt() public {
        bytes32 leaseId = started(2);
        vm.warp(START + 1000);
        suspend(leaseId, 900, 900);
        LeaseReceipt memory receipt = aReceipt(leaseId, 999, 999);
        bytes memory signature = signed(receipt);
        vm.prank(node);
        escrow.answer(leases[leaseId], receipt, signature);
        measured("answer with a receipt", 56_000);
    }

    function test_gas_answerWithout() public {
        bytes32 leaseId = started(2);
        vm.warp(START + 1000);
        suspend(leaseId, 900, 900);
        vm.prank(node);
        escrow.answer(leases[leaseId], noReceipt(), "");
        measured("answer without a receipt", 0);
    }

    function test_gas_fail() public {
        bytes32 leaseId = started(2);
        vm.warp(START + 1000);
        suspend(leaseId, 900, 900);
        vm.warp(START + 1000 + WINDOW + 1);
        vm.prank(keeper);
        escrow.fail(leases[leaseId]);
        measured("fail", 78_000);
    }

    function test_gas_withdraw() public {
        bytes32 leaseId = started(2);
        vm.warp(START + 1000);
        collect(leaseId, 1000, 1000);
        vm.prank(provider);
        escrow.withdraw(provider);
        measured("withdraw", 45_000);
    }

    /// @dev fund, open, close and withdraw, whatever the job's length.
    function test_gas_wholeLife() public {
        (Order memory order,, Permit memory permit) = signedOrder(2);
        vm.prank(tenant);
        escrow.fund(order, "", permit);
        uint256 total = vm.lastCallGas().gasTotalUsed;
        bytes32 leaseId = opened(order, 1);
        total += vm.lastCallGas().gasTotalUsed;
        vm.warp(START + 80_000);
        LeaseReceipt memory receipt = aFinal(leaseId, 80_000, 80_000);
        bytes memory signature = signed(receipt);
        vm.prank(watcher);
        escrow.close(leases[leaseId], receipt, signature);
        total += vm.lastCallGas().gasTotalUsed;
        vm.prank(provider);
        escrow.withdraw(provider);
        total += vm.lastCallGas().gasTotalUsed;
        vm.snapshotValue("Gas", "whole life", total);
        assertLe(total, 340_000, "whole life");
    }

    function measured(string memory name, uint256 limit) internal {
        uint256 used = vm.snapshotGasLastCall("Gas", name);
        if (limit != 0) assertLe(used, limit, name);
    }

    function signedOrder(uint256 nonce)
        internal
        returns (Order memory order, bytes memory consent, Permit memory permit)
    {
        order = anOrder();
        order.nonce = uint256(keccak256(abi.encode("order", nonce)));
        bytes32 jobId = escrow.hashOrder(order);
        orders[jobId] = order;
        consent = sign(TENANT_KEY, jobId);
        bytes32 struct_ = keccak256(
            abi.encode(
                keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)"),
                tenant,
                address(escrow),
                order.deposit,
                dollar.nonces(tenant),
                DEADLINE
            )
        );
        bytes32 digest = keccak256(abi.encodePacked("\x19\x01", dollar.DOMAIN_SEPARATOR(), struct_));
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(TENANT_KEY, digest);
        permit = Permit(order.deposit, DEADLINE, v, r, s);
    }

    function started(uint256 nonce) internal returns (bytes32) {
        (Order memory order, bytes memory consent, Permit memory permit) = signedOrder(nonce);
        escrow.fund(order, consent, permit);
        return opened(order, 1);
    }

    function bidFor(bytes32 jobId, uint32 epoch, uint256 salt) internal view returns (Bid memory bid) {
        bid = aBid(jobId, epoch);
        bid.slot = uint64(uint256(keccak256(abi.encode("slot", salt, epoch))));
    }

    function opened(Order memory order, uint32 epoch) internal returns (bytes32) {
        bytes32 jobId = escrow.hashOrder(order);
        return openBid(jobId, bidFor(jobId, epoch, order.nonce));
    }

    function suspend(bytes32 leaseId, uint64 seen, uint64 earned) internal {
        LeaseReceipt memory receipt = aReceipt(leaseId, seen, earned);
        bytes memory signature = signed(receipt);
        vm.prank(watcher);
        escrow.suspend(leases[leaseId], receipt, signature);
    }
}
