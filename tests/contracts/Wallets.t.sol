// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ILeaseEscrow} from "../../contracts/interfaces/ILeaseEscrow.sol";
import {Bid, LeaseState, Order, Receipt as LeaseReceipt} from "../../contracts/interfaces/LeaseTypes.sol";
import {Base} from "./Base.sol";
import {TwoOfThree} from "./wallets/TwoOfThree.sol";

/// @notice A 2-of-3 wallet is the watcher through a job's whole life: it opens, signs receipts, suspends and is paid.
contract WalletsTest is Base {
    uint256 private constant ANN = 0xA1;
    uint256 private constant BEN = 0xB2;
    uint256 private constant CIS = 0xC3;
    uint256 private constant OUTSIDER = 0xD4;

    TwoOfThree private wallet;
    bytes32 private jobId;

    function setUp() public override {
        super.setUp();
        wallet = new TwoOfThree([vm.addr(ANN), vm.addr(BEN), vm.addr(CIS)]);
        watcher = address(wallet);
        jobId = fund(anOrder());
    }

    function by(uint256 first, uint256 second, bytes32 digest) private view returns (bytes memory) {
        bytes32 message = wallet.messageHash(digest);
        return bytes.concat(sign(first, message), sign(second, message));
    }

    function execute(bytes memory call_) private returns (bytes memory) {
        bytes memory signatures = by(ANN, CIS, wallet.callHash(address(escrow), call_, wallet.nonce()));
        vm.prank(keeper);
        return wallet.execute(address(escrow), call_, signatures);
    }

    function openCall(uint32 epoch) private returns (bytes memory) {
        Bid memory bid = aBid(jobId, epoch);
        keep(paramsOf(orders[jobId], bid, RATE));
        return abi.encodeCall(escrow.open, (orders[jobId], bid, sign(NODE_KEY, escrow.hashBid(bid)), RATE));
    }

    function openFirst() private returns (bytes32) {
        return abi.decode(execute(openCall(1)), (bytes32));
    }

    function test_theWholeLife() public {
        bytes32 first = openFirst();
        vm.warp(START + 100);
        LeaseReceipt memory receipt = aReceipt(first, 100, 90);
        escrow.collect(leases[first], receipt, by(BEN, ANN, escrow.hashReceipt(receipt)));
        assertEq(escrow.claimable(provider), net(90));

        vm.warp(START + 120);
        receipt = aReceipt(first, 110, 100);
        bytes[] memory calls = new bytes[](2);
        calls[0] = abi.encodeCall(escrow.suspend, (leases[first], receipt, by(ANN, BEN, escrow.hashReceipt(receipt))));
        calls[1] = openCall(2);
        bytes[] memory results = abi.decode(execute(abi.encodeCall(escrow.multicall, (calls))), (bytes[]));
        bytes32 second = abi.decode(results[1], (bytes32));
        assertState(first, LeaseState.Suspended);
        assertState(second, LeaseState.Active);
        assertEq(escrow.claimable(provider), net(100));

        receipt = aReceipt(first, 118, 108);
        bytes memory signature = by(CIS, BEN, escrow.hashReceipt(receipt));
        vm.prank(node);
        escrow.answer(leases[first], receipt, signature);
        assertState(first, LeaseState.Cleared);
        assertEq(escrow.claimable(provider), net(108) + BOND);

        vm.warp(START + 200);
        receipt = aFinal(second, 200, 75);
        escrow.close(leases[second], receipt, by(CIS, ANN, escrow.hashReceipt(receipt)));
        assertState(second, LeaseState.Closed);
        assertEq(escrow.claimable(provider), net(108) + BOND + net(75));
        assertEq(escrow.claimable(watcher), 2 * EPOCH_FEE);
        execute(abi.encodeCall(escrow.withdraw, (watcher)));
        assertEq(dollar.balanceOf(watcher), 2 * EPOCH_FEE);
        assertConserved();
    }

    function test_itClosesAndPaysUpToNow() public {
        bytes32 leaseId = openFirst();
        vm.warp(START + 100);
        execute(abi.encodeCall(escrow.close, (leases[leaseId], noReceipt(), "")));
        assertState(leaseId, LeaseState.Closed);
        assertEq(escrow.claimable(provider), net(100));
    }

    function test_twoOfThreeAndNothingLessSignAReceipt() public {
        bytes32 leaseId = openFirst();
        vm.warp(START + 100);
        LeaseReceipt memory receipt = aFinal(leaseId, 100, 90);
        bytes32 digest = escrow.hashReceipt(receipt);
        expectRefused(leaseId, receipt, "");
        expectRefused(leaseId, receipt, sign(ANN, digest));
        expectRefused(leaseId, receipt, sign(ANN, wallet.messageHash(digest)));
        expectRefused(leaseId, receipt, by(ANN, ANN, digest));
        expectRefused(leaseId, receipt, by(ANN, OUTSIDER, digest));
        expectRefused(leaseId, receipt, by(OUTSIDER, BEN, digest));
        expectRefused(leaseId, receipt, bytes.concat(by(ANN, BEN, digest), sign(CIS, digest)));
        // Two owners, but of the receipt itself and not of this wallet's message.
        expectRefused(leaseId, receipt, bytes.concat(sign(ANN, digest), sign(BEN, digest)));
        // Two owners, but of another receipt.
        expectRefused(leaseId, receipt, by(ANN, BEN, escrow.hashReceipt(aFinal(leaseId, 100, 91))));
        escrow.close(leases[leaseId], receipt, by(ANN, BEN, digest));
        assertState(leaseId, LeaseState.Closed);
    }

    function expectRefused(bytes32 leaseId, LeaseReceipt memory receipt, bytes memory signature) private {
        bytes32 digest = escrow.hashReceipt(receipt);
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.InvalidWatcherSignature.selector, watcher, digest));
        escrow.close(leases[leaseId], receipt, signature);
    }

    function test_ownersAreNotTheWallet() public {
        bytes32 leaseId = openFirst();
        vm.warp(START + 100);
        vm.prank(vm.addr(ANN));
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.NotTenantOrWatcher.selector, vm.addr(ANN)));
        escrow.suspend(leases[leaseId], noReceipt(), "");
    }

    function test_oneOwnerOpensNothing() public {
        bytes memory call_ = openCall(1);
        bytes memory signatures = by(ANN, ANN, wallet.callHash(address(escrow), call_, 0));
        vm.expectRevert(TwoOfThree.NotTwoOwners.selector);
        wallet.execute(address(escrow), call_, signatures);
    }

    function test_itIsTheTenantToo() public {
        Order memory order = anOrder();
        (order.tenant, order.nonce) = (address(wallet), 8);
        dollar.mint(order.tenant, DEPOSIT);
        vm.prank(order.tenant);
        dollar.approve(address(escrow), DEPOSIT);
        bytes32 id = keep(order);
        bytes memory one = by(ANN, ANN, id);
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.InvalidTenantSignature.selector, order.tenant, id));
        escrow.fund(order, one, noPermit());
        escrow.fund(order, by(ANN, BEN, id), noPermit());
        assertEq(freeOf(id), DEPOSIT);
        execute(abi.encodeCall(escrow.refund, (order)));
        assertEq(escrow.claimable(address(wallet)), DEPOSIT);
        assertConserved();
    }
}
