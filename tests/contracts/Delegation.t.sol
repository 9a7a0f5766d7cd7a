// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ILeaseEscrow} from "../../contracts/interfaces/ILeaseEscrow.sol";
import {NodeAuth} from "../../contracts/interfaces/IProviderStaking.sol";
import {Bid, LeaseState, Order, Receipt as LeaseReceipt} from "../../contracts/interfaces/LeaseTypes.sol";
import {Base} from "./Base.sol";
import {Deaf, Password, Refusing} from "./wallets/Delegates.sol";

/// @notice Keys that get code by EIP-7702. The rule is one: ECDSA counts always, ERC-1271 besides; nowhere does it matter
/// whether an address has code.
/// forge-config: default.evm_version = "prague"
contract DelegationTest is Base {
    bytes32 private constant WORD = "open sesame";

    function delegate(address account, uint256 key, address code) private {
        vm.signAndAttachDelegation(code, key);
        // A transaction of some kind carries the authorisation.
        (bool worked,) = makeAddr("anyone").call("");
        assertTrue(worked);
        assertEq(account.code, abi.encodePacked(hex"ef0100", code));
    }

    function delegateAll(address code) private {
        delegate(tenant, TENANT_KEY, code);
        delegate(watcher, WATCHER_KEY, code);
        delegate(provider, PROVIDER_KEY, code);
        delegate(node, NODE_KEY, code);
    }

    function live(bytes memory consent, bytes memory bidSignature, bytes memory receiptSignature) private {
        Order memory order = anOrder();
        bytes32 jobId = keep(order);
        vm.prank(keeper);
        escrow.fund(order, consent, noPermit());
        Bid memory bid = aBid(jobId, 1);
        bytes32 leaseId = keep(paramsOf(order, bid, RATE));
        vm.prank(watcher);
        escrow.open(order, bid, bidSignature, RATE);
        vm.warp(START + 100);
        vm.prank(keeper);
        escrow.collect(leases[leaseId], aReceipt(leaseId, 100, 90), receiptSignature);
        assertEq(escrow.claimable(provider), net(90));
        vm.prank(tenant);
        escrow.close(leases[leaseId], noReceipt(), "");
        assertState(leaseId, LeaseState.Closed);
        assertConserved();
    }

    function signAll(uint256 bidder) private view returns (bytes memory, bytes memory, bytes memory) {
        bytes32 jobId = escrow.hashOrder(anOrder());
        Bid memory bid = aBid(jobId, 1);
        LeaseReceipt memory receipt = aReceipt(escrow.leaseIdOf(paramsOf(anOrder(), bid, RATE)), 100, 90);
        return (sign(TENANT_KEY, jobId), sign(bidder, escrow.hashBid(bid)), signed(receipt));
    }

    function test_whatKeysSignedHoldsWhenTheirCodeRefusesIt() public {
        (bytes memory consent, bytes memory bid, bytes memory receipt) = signAll(NODE_KEY);
        delegateAll(address(new Refusing()));
        live(consent, bid, receipt);
    }

    function test_whatKeysSignedHoldsWhenTheirCodeFails() public {
        (bytes memory consent, bytes memory bid, bytes memory receipt) = signAll(PROVIDER_KEY);
        delegateAll(address(new Deaf()));
        live(consent, bid, receipt);
    }

    function test_whatKeysSignAfterwardsCountsTheSame() public {
        delegateAll(address(new Refusing()));
        (bytes memory consent, bytes memory bid, bytes memory receipt) = signAll(NODE_KEY);
        live(consent, bid, receipt);
    }

    function test_whatTheCodeAcceptsCountsToo() public {
        delegateAll(address(new Password(WORD)));
        bytes memory word = abi.encode(WORD);
        live(word, word, word);
    }

    function test_aDelegatedNodeConsents() public {
        vm.prank(provider);
        staking.revokeNode(node);
        NodeAuth memory auth = NodeAuth(provider, node, START + 1 hours, 2);
        bytes memory byKey = sign(NODE_KEY, staking.hashNodeAuth(auth));
        delegate(node, NODE_KEY, address(new Password(WORD)));
        vm.startPrank(provider);
        staking.authoriseNode(auth, byKey);
        staking.revokeNode(node);
        auth.nonce = 3;
        staking.authoriseNode(auth, abi.encode(WORD));
        vm.stopPrank();
        assertEq(staking.providerOf(node), provider);
    }

    function test_aWordCountsForTheDelegatedAccountAlone() public {
        delegate(tenant, TENANT_KEY, address(new Password(WORD)));
        delegate(watcher, WATCHER_KEY, address(new Password("another word")));
        bytes32 jobId = keep(anOrder());
        vm.prank(keeper);
        escrow.fund(anOrder(), abi.encode(WORD), noPermit());
        // The node is a plain key, and its provider too.
        Bid memory bid = aBid(jobId, 1);
        bytes32 bidHash = escrow.hashBid(bid);
        vm.prank(watcher);
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.InvalidBidSignature.selector, node, provider, bidHash));
        escrow.open(anOrder(), bid, abi.encode(WORD), RATE);
        bytes32 leaseId = openBid(jobId, bid);
        LeaseReceipt memory receipt = aFinal(leaseId, 0, 0);
        bytes32 digest = escrow.hashReceipt(receipt);
        bytes memory refused = abi.encodeWithSelector(ILeaseEscrow.InvalidWatcherSignature.selector, watcher, digest);
        vm.expectRevert(refused);
        escrow.close(leases[leaseId], receipt, abi.encode(WORD));
        bytes memory byOther = sign(TENANT_KEY, digest);
        vm.expectRevert(refused);
        escrow.close(leases[leaseId], receipt, byOther);
    }

    function test_aWordCountsAsLongAsTheCodeIsThere() public {
        delegate(tenant, TENANT_KEY, address(new Password(WORD)));
        vm.signAndAttachDelegation(address(0), TENANT_KEY);
        (bool worked,) = makeAddr("anyone").call("");
        assertTrue(worked);
        assertEq(tenant.code.length, 0);
        bytes32 jobId = escrow.hashOrder(anOrder());
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.InvalidTenantSignature.selector, tenant, jobId));
        escrow.fund(anOrder(), abi.encode(WORD), noPermit());
        fund(anOrder());
    }

    function test_codeMakesNobodyAContractOnlyAccount() public {
        delegateAll(address(new Refusing()));
        // Each acts by its key: as payer, provider, node and payee.
        vm.startPrank(provider);
        staking.stake(1e6, noPermit());
        staking.requestUnstake(1e6);
        vm.stopPrank();
        (bytes32 jobId, bytes32 leaseId) = openAndSuspend(100);
        vm.prank(node);
        escrow.answer(leases[leaseId], noReceipt(), "");
        assertState(leaseId, LeaseState.Failed);
        vm.startPrank(tenant);
        uint256 amount = escrow.refund(orders[jobId]);
        assertEq(escrow.withdraw(tenant), amount);
        vm.stopPrank();
    }
}
