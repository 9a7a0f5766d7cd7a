// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ILeaseEscrow} from "../../contracts/interfaces/ILeaseEscrow.sol";
import {IProviderStaking, NodeAuth} from "../../contracts/interfaces/IProviderStaking.sol";
import {CreditReason, Order, Receipt as LeaseReceipt} from "../../contracts/interfaces/LeaseTypes.sol";
import {Base} from "./Base.sol";

/// @notice What each call tells the indexer, to the last field. Callers are never the transaction's origin, since a
/// wallet isn't either.
contract EventsTest is Base {
    uint256 private constant OTHER_KEY = 0xE0E0;

    function test_ofANodesConsent() public {
        address other = vm.addr(OTHER_KEY);
        NodeAuth memory auth = NodeAuth(provider, other, START, 5);
        bytes memory consent = sign(OTHER_KEY, staking.hashNodeAuth(auth));
        vm.startPrank(provider);
        vm.expectEmit(address(staking));
        emit IProviderStaking.NodeAuthorised(provider, other, 5);
        staking.authoriseNode(auth, consent);
        vm.expectEmit(address(staking));
        emit IProviderStaking.NodeRevoked(provider, other);
        staking.revokeNode(other);
        vm.expectEmit(address(staking));
        emit IProviderStaking.MetadataSet(provider, "bafy");
        staking.setMetadata("bafy");
        vm.stopPrank();
    }

    function test_ofAStake() public {
        vm.startPrank(provider);
        vm.expectEmit(address(staking));
        emit IProviderStaking.ProviderStaked(provider, 1e6, STAKE + 1e6);
        staking.stake(1e6, noPermit());
        vm.expectEmit(address(staking));
        emit IProviderStaking.UnstakeRequested(provider, 20e6, 20e6, START + UNBONDING);
        staking.requestUnstake(20e6);
        vm.warp(START + 1);
        vm.expectEmit(address(staking));
        emit IProviderStaking.UnstakeRequested(provider, 2e6, 22e6, START + 1 + UNBONDING);
        staking.requestUnstake(2e6);
        vm.warp(START + 1 + UNBONDING);
        vm.expectEmit(address(staking));
        emit IProviderStaking.StakeWithdrawn(provider, keeper, 22e6, STAKE - 21e6, 0);
        staking.withdraw(keeper);
        vm.stopPrank();
    }

    function test_ofALeaseFromOpenToClose() public {
        bytes32 jobId = fund(anOrder());
        bytes32 leaseId = keep(paramsOf(anOrder(), aBid(jobId, 1), RATE));
        bytes memory signature = sign(NODE_KEY, escrow.hashBid(aBid(jobId, 1)));
        vm.expectEmit(address(escrow));
        emit ILeaseEscrow.LeaseOpened(
            jobId,
            leaseId,
            provider,
            node,
            1,
            RATE,
            COLLATERAL,
            PER_SECOND * 1 days,
            BOND,
            EPOCH_FEE,
            START,
            DEADLINE,
            DEADLINE + WINDOW,
            1
        );
        vm.expectEmit(address(escrow));
        emit ILeaseEscrow.Credited(watcher, EPOCH_FEE, CreditReason.EpochFee);
        vm.prank(watcher);
        escrow.open(anOrder(), aBid(jobId, 1), signature, RATE);

        vm.warp(START + 100);
        LeaseReceipt memory receipt = aReceipt(leaseId, 90, 80);
        bytes memory seen = signed(receipt);
        vm.expectEmit(address(escrow));
        emit ILeaseEscrow.LeaseCollected(
            jobId, leaseId, 80, START + 90, 90, 80_000, 800, PER_SECOND * (1 days - 80), keccak256("root")
        );
        vm.prank(keeper);
        escrow.collect(leases[leaseId], receipt, seen);

        vm.expectEmit(address(escrow));
        emit ILeaseEscrow.LeaseCollected(
            jobId, leaseId, 90, START + 100, 0, 10_000, 100, PER_SECOND * (1 days - 90), bytes32(0)
        );
        vm.expectEmit(address(escrow));
        emit ILeaseEscrow.LeaseClosed(jobId, leaseId, tenant);
        vm.prank(tenant);
        escrow.close(leases[leaseId], noReceipt(), "");
    }

    /// @dev All that was set aside is paid, so that nothing of it is left to be told.
    function test_ofAShortfall() public {
        Order memory order = anOrder();
        order.deposit = RESERVE + BOND + EPOCH_FEE;
        bytes32 jobId = fund(order);
        bytes32 leaseId = openBid(jobId, aBid(jobId, 1));
        vm.warp(START + 700);
        LeaseReceipt memory receipt = aReceipt(leaseId, 700, 700);
        bytes memory signature = signed(receipt);
        vm.expectEmit(address(escrow));
        emit ILeaseEscrow.LeaseCollected(
            jobId, leaseId, 700, START + 700, 700, RESERVE, RESERVE / 100, 0, keccak256("root")
        );
        escrow.collect(leases[leaseId], receipt, signature);
    }

    function test_ofASuspensionThatIsCleared() public {
        (bytes32 jobId, bytes32 leaseId) = openLease();
        vm.warp(START + 100);
        vm.expectEmit(address(escrow));
        emit ILeaseEscrow.LeaseSuspended(jobId, leaseId, watcher, START + 100, START + 100 + WINDOW, 100_000);
        vm.prank(watcher);
        escrow.suspend(leases[leaseId], noReceipt(), "");
        LeaseReceipt memory receipt = aReceipt(leaseId, 99, 99);
        bytes memory signature = signed(receipt);
        vm.expectEmit(address(escrow));
        emit ILeaseEscrow.LeaseCollected(jobId, leaseId, 99, START + 99, 99, 99_000, 990, 1000, keccak256("root"));
        vm.expectEmit(address(escrow));
        emit ILeaseEscrow.LeaseCleared(jobId, leaseId, keeper);
        vm.prank(keeper);
        escrow.answer(leases[leaseId], receipt, signature);
    }

    function test_ofADropThatIsAdmitted() public {
        (bytes32 jobId, bytes32 leaseId) = openAndSuspend(100);
        vm.expectEmit(address(staking));
        emit IProviderStaking.StakeSlashed(provider, 500_000, STAKE - 500_000);
        vm.expectEmit(address(escrow));
        emit ILeaseEscrow.LeaseFailed(jobId, leaseId, node, true, 0, 0, 500_000);
        vm.expectEmit(address(escrow));
        emit ILeaseEscrow.Credited(insurance, 500_000, CreditReason.Insurance);
        vm.prank(node);
        escrow.answer(leases[leaseId], noReceipt(), "");
    }

    function test_ofAFailureAndTheRefundAfterIt() public {
        (bytes32 jobId, bytes32 leaseId) = openAndSuspend(100);
        vm.warp(START + 101 + WINDOW);
        vm.expectEmit(address(staking));
        emit IProviderStaking.StakeSlashed(provider, COLLATERAL, STAKE - COLLATERAL);
        vm.expectEmit(address(escrow));
        emit ILeaseEscrow.LeaseFailed(jobId, leaseId, keeper, false, 3e6, 500_000, 6_500_000);
        vm.expectEmit(address(escrow));
        emit ILeaseEscrow.Credited(insurance, 6_500_000, CreditReason.Insurance);
        vm.prank(keeper);
        escrow.fail(leases[leaseId]);

        vm.warp(DEADLINE + 1);
        uint128 free = DEPOSIT - EPOCH_FEE + 3e6;
        vm.expectEmit(address(escrow));
        emit ILeaseEscrow.Refunded(jobId, tenant, free, keeper);
        vm.expectEmit(address(escrow));
        emit ILeaseEscrow.Credited(tenant, free, CreditReason.Refund);
        vm.prank(keeper);
        escrow.refund(orders[jobId]);
    }
}
