// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

import {LeaseEscrow} from "../../contracts/LeaseEscrow.sol";
import {ILeaseEscrow} from "../../contracts/interfaces/ILeaseEscrow.sol";
import {IProviderStaking, NodeAuth} from "../../contracts/interfaces/IProviderStaking.sol";
import {Bid, LeaseState, Order, Receipt as LeaseReceipt} from "../../contracts/interfaces/LeaseTypes.sol";
import {Base} from "./Base.sol";

/// @notice A 2-of-2 wallet.
contract Quorum is IERC1271 {
    address private immutable FIRST;
    address private immutable SECOND;

    constructor(address first, address second) {
        FIRST = first;
        SECOND = second;
    }

    function isValidSignature(bytes32 hash, bytes calldata signature) external view returns (bytes4) {
        bool valid = signature.length == 130 && ECDSA.recover(hash, signature[:65]) == FIRST
            && ECDSA.recover(hash, signature[65:]) == SECOND;
        return valid ? IERC1271.isValidSignature.selector : bytes4(0);
    }
}

/// @notice What a key looks like that got code by EIP-7702 and refuses everything.
contract Refusing is IERC1271 {
    function isValidSignature(bytes32, bytes calldata) external pure returns (bytes4) {
        return 0xffffffff;
    }
}

contract SignaturesTest is Base {
    uint256 private constant SECOND_KEY = 0x5EC0;

    function both(bytes32 digest) private pure returns (bytes memory) {
        return bytes.concat(sign(WATCHER_KEY, digest), sign(SECOND_KEY, digest));
    }

    function test_aContractWalletWatches() public {
        Order memory order = anOrder();
        order.watcher = address(new Quorum(watcher, vm.addr(SECOND_KEY)));
        bytes32 jobId = fund(order);
        bytes32 leaseId = openBid(jobId, aBid(jobId, 1));
        vm.warp(START + 100);
        LeaseReceipt memory receipt = aReceipt(leaseId, 100, 90);
        bytes32 digest = escrow.hashReceipt(receipt);
        bytes memory one = sign(WATCHER_KEY, digest);
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.InvalidWatcherSignature.selector, order.watcher, digest));
        escrow.collect(leases[leaseId], receipt, one);
        escrow.collect(leases[leaseId], receipt, both(digest));
        assertEq(escrow.claimable(provider), net(90));
    }

    function test_aContractWalletIsTheTenant() public {
        Order memory order = anOrder();
        order.tenant = address(new Quorum(watcher, vm.addr(SECOND_KEY)));
        dollar.mint(order.tenant, DEPOSIT);
        vm.prank(order.tenant);
        dollar.approve(address(escrow), DEPOSIT);
        bytes32 jobId = keep(order);
        escrow.fund(order, both(jobId), noPermit());
        assertEq(freeOf(jobId), DEPOSIT);
        assertEq(dollar.balanceOf(order.tenant), 0);
        assertConserved();
    }

    function test_aKeyThatGetsCodeLaterKeepsItsWord() public {
        (, bytes32 leaseId) = openLease();
        vm.warp(START + 100);
        LeaseReceipt memory receipt = aReceipt(leaseId, 100, 90);
        bytes memory signature = signed(receipt);
        vm.etch(watcher, type(Refusing).runtimeCode);
        escrow.collect(leases[leaseId], receipt, signature);
        assertEq(escrow.claimable(provider), net(90));
    }

    function test_aHighSTwinOfASignatureIsRefused() public {
        (, bytes32 leaseId) = openLease();
        LeaseReceipt memory receipt = aFinal(leaseId, 0, 0);
        bytes32 digest = escrow.hashReceipt(receipt);
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(WATCHER_KEY, digest);
        uint256 order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141;
        bytes memory twin = abi.encodePacked(r, bytes32(order - uint256(s)), v == 27 ? uint8(28) : uint8(27));
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.InvalidWatcherSignature.selector, watcher, digest));
        escrow.close(leases[leaseId], receipt, twin);
    }

    function test_anOrderIsOfOneContract() public {
        LeaseEscrow twin = new LeaseEscrow(IERC20(address(dollar)), terms());
        bytes memory signature = sign(TENANT_KEY, escrow.hashOrder(anOrder()));
        bytes32 there = twin.hashOrder(anOrder());
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.InvalidTenantSignature.selector, tenant, there));
        twin.fund(anOrder(), signature, noPermit());
    }

    function test_anOrderIsOfOneChain() public {
        bytes32 here = escrow.hashOrder(anOrder());
        bytes memory signature = sign(TENANT_KEY, here);
        vm.chainId(1);
        bytes32 there = escrow.hashOrder(anOrder());
        assertNotEq(here, there);
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.InvalidTenantSignature.selector, tenant, there));
        escrow.fund(anOrder(), signature, noPermit());
    }

    function test_aReceiptIsOfOneLease() public {
        (bytes32 jobId, bytes32 first) = openAndSuspend(100);
        bytes32 second = openBid(jobId, aBid(jobId, 2));
        LeaseReceipt memory receipt = aReceipt(first, 100, 100);
        bytes memory signature = signed(receipt);
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.WrongLease.selector, first, second));
        escrow.collect(leases[second], receipt, signature);
        receipt.leaseId = second;
        bytes32 digest = escrow.hashReceipt(receipt);
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.InvalidWatcherSignature.selector, watcher, digest));
        escrow.collect(leases[second], receipt, signature);
    }

    function test_aNodesConsentIsOfOneStakingContract() public {
        LeaseEscrow twin = new LeaseEscrow(IERC20(address(dollar)), terms());
        NodeAuth memory auth = NodeAuth(provider, node, START + 1 hours, 9);
        bytes memory signature = sign(NODE_KEY, staking.hashNodeAuth(auth));
        IProviderStaking there = IProviderStaking(twin.staking());
        vm.prank(provider);
        vm.expectRevert(abi.encodeWithSelector(IProviderStaking.InvalidNodeSignature.selector, node));
        there.authoriseNode(auth, signature);
    }

    /// @dev The type strings as they are published, hashed apart from the contracts' own constants.
    function typed(address verifier, string memory type_, bytes memory words) private view returns (bytes32) {
        bytes32 domain = keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256("Everlease"),
                keccak256("1"),
                block.chainid,
                verifier
            )
        );
        bytes32 content = keccak256(abi.encodePacked(keccak256(bytes(type_)), words));
        return keccak256(abi.encodePacked("\x19\x01", domain, content));
    }

    function test_digestsFollowEip712() public view {
        LeaseReceipt memory receipt = LeaseReceipt("lease", 1, 2, 3, true, "root");
        string memory type_ =
            "Receipt(bytes32 leaseId,uint64 seq,uint64 seenAt,uint64 earned,bool final,bytes32 checkpointRoot)";
        assertEq(escrow.hashReceipt(receipt), typed(address(escrow), type_, abi.encode(receipt)));
        type_ = "Order(address tenant,address watcher,bytes32 jobSpec,uint128 maxRatePerHour,uint128 deposit,"
            "uint128 minCollateral,uint32 maxSilence,uint32 maxEpochs,uint128 epochFee,uint64 deadline,uint256 nonce)";
        assertEq(escrow.hashOrder(anOrder()), typed(address(escrow), type_, abi.encode(anOrder())));
        Bid memory bid = aBid("job", 3);
        type_ = "Bid(address provider,address node,bytes32 orderHash,uint32 epoch,uint128 minRatePerHour,"
            "uint128 collateral,uint64 deadline,uint256 slot)";
        assertEq(escrow.hashBid(bid), typed(address(escrow), type_, abi.encode(bid)));
        NodeAuth memory auth = NodeAuth(provider, node, START, 4);
        type_ = "NodeAuth(address provider,address node,uint64 deadline,uint256 nonce)";
        assertEq(staking.hashNodeAuth(auth), typed(address(staking), type_, abi.encode(auth)));
    }
}
