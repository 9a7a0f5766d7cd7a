// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

import {LeaseEscrow} from "../../contracts/LeaseEscrow.sol";
import {ProviderStaking} from "../../contracts/ProviderStaking.sol";
import {ILeaseEscrow} from "../../contracts/interfaces/ILeaseEscrow.sol";
import {IProviderStaking, NodeAuth, Stake} from "../../contracts/interfaces/IProviderStaking.sol";
import {Bid, Config, Lease, Order, Receipt as LeaseReceipt} from "../../contracts/interfaces/LeaseTypes.sol";
import {Base} from "./Base.sol";

/// @notice Amounts beyond 64 bits, as tokens of many decimals have them, times beyond 2106, and leases of days: no number
/// is cut short anywhere.
contract WidthsTest is Base {
    /// @dev Base units a second, exact in hours and in hundredths.
    uint128 private constant BIG = 2 ** 70;
    uint128 private constant BIG_STAKE = 2 ** 90;
    /// @dev Exact in basis points.
    uint128 private constant BIG_COLLATERAL = 10_000 * 2 ** 66;
    uint128 private constant BIG_DEPOSIT = 2 ** 94;
    uint128 private constant BIG_FEE = 2 ** 66;
    uint64 private constant AFTER_2106 = 2 ** 32 + 1_000_000;
    uint128 private constant MOST = type(uint96).max >> 1;

    function bigOrder() private returns (Order memory order) {
        dollar.mint(tenant, BIG_DEPOSIT);
        dollar.mint(provider, BIG_STAKE);
        vm.prank(provider);
        staking.stake(BIG_STAKE, noPermit());
        order = anOrder(3600 * BIG);
        (order.deposit, order.minCollateral, order.epochFee) = (BIG_DEPOSIT, BIG_COLLATERAL, BIG_FEE);
    }

    function openBig(bytes32 jobId, uint32 epoch) private returns (bytes32) {
        Bid memory bid = aBid(jobId, epoch);
        bid.collateral = BIG_COLLATERAL;
        return openBid(jobId, bid, 3600 * BIG);
    }

    function test_bigAmountsAreSetAsideAndPaid() public {
        bytes32 jobId = fund(bigOrder());
        bytes32 leaseId = openBig(jobId, 1);
        assertEq(freeOf(jobId), BIG_DEPOSIT - 1 days * BIG - BOND - BIG_FEE);
        assertEq(escrow.claimable(watcher), BIG_FEE);
        assertEq(escrow.lockedOf(provider), BIG_COLLATERAL);
        vm.warp(START + 100);
        LeaseReceipt memory receipt = aReceipt(leaseId, 100, 100);
        bytes memory signature = signed(receipt);
        vm.expectEmit(address(escrow));
        emit ILeaseEscrow.LeaseCollected(
            jobId, leaseId, 100, START + 100, 100, 100 * BIG, BIG, (1 days - 100) * BIG, keccak256("root")
        );
        escrow.collect(leases[leaseId], receipt, signature);
        assertEq(escrow.claimable(provider), 99 * BIG);
        vm.prank(tenant);
        escrow.close(leases[leaseId], noReceipt(), "");
        assertConserved();

        assertEq(escrow.sweepFees(jobId), BIG);
        assertEq(escrow.claimable(treasury), BIG);
        uint128 rest = BIG_DEPOSIT - 100 * BIG - BIG_FEE;
        vm.startPrank(tenant);
        assertEq(escrow.refund(orders[jobId]), rest);
        assertEq(escrow.withdraw(keeper), rest);
        vm.stopPrank();
        assertEq(dollar.balanceOf(keeper), rest);
        assertConserved();
    }

    function test_bigAmountsAreSlashedAndShared() public {
        bytes32 jobId = fund(bigOrder());
        bytes32 leaseId = openBig(jobId, 1);
        vm.warp(START + 200);
        vm.prank(watcher);
        escrow.suspend(leases[leaseId], noReceipt(), "");
        assertEq(reserveOf(leaseId), 200 * BIG);
        assertEq(freeOf(jobId), BIG_DEPOSIT - 200 * BIG - BOND - BIG_FEE);
        vm.warp(START + 201 + WINDOW);
        vm.expectEmit(address(escrow));
        emit ILeaseEscrow.LeaseFailed(
            jobId, leaseId, keeper, false, BIG_COLLATERAL * 3 / 10, BIG_COLLATERAL / 20, BIG_COLLATERAL * 13 / 20
        );
        vm.prank(keeper);
        escrow.fail(leases[leaseId]);
        assertEq(escrow.claimable(keeper), BIG_COLLATERAL / 20);
        assertEq(escrow.claimable(insurance), BIG_COLLATERAL * 13 / 20);
        assertEq(freeOf(jobId), BIG_DEPOSIT - BIG_FEE + BIG_COLLATERAL * 3 / 10);
        assertConserved();

        leaseId = openBig(jobId, 2);
        vm.warp(START + 500);
        vm.prank(watcher);
        escrow.suspend(leases[leaseId], noReceipt(), "");
        vm.prank(provider);
        escrow.answer(leases[leaseId], noReceipt(), "");
        assertEq(escrow.claimable(insurance), BIG_COLLATERAL * 7 / 10);
        assertEq(stakedBy(provider), STAKE + BIG_STAKE - BIG_COLLATERAL * 21 / 20);
        assertConserved();
    }

    function test_bigStakesUnbond() public {
        bytes32 jobId = fund(bigOrder());
        bytes32 leaseId = openBig(jobId, 1);
        vm.startPrank(provider);
        staking.requestUnstake(BIG_STAKE);
        uint256 more = uint256(STAKE) + 1;
        vm.expectRevert(
            abi.encodeWithSelector(IProviderStaking.InsufficientStake.selector, provider, more, uint256(STAKE))
        );
        staking.requestUnstake(STAKE + 1);
        staking.requestUnstake(STAKE);
        vm.warp(START + UNBONDING);
        assertEq(staking.withdraw(provider), STAKE + BIG_STAKE - BIG_COLLATERAL);
        assertEq(staking.stakeOf(provider).unbonding, BIG_COLLATERAL);
        vm.stopPrank();
        vm.prank(tenant);
        escrow.close(leases[leaseId], noReceipt(), "");
        vm.prank(provider);
        assertEq(staking.withdraw(provider), BIG_COLLATERAL);
        assertConserved();
    }

    function test_aStakeMayLieOnItsBound() public {
        dollar.mint(provider, MOST);
        vm.startPrank(provider);
        staking.stake(MOST - STAKE, noPermit());
        vm.expectRevert(
            abi.encodeWithSelector(IProviderStaking.StakeTooLarge.selector, uint256(MOST) + 1, uint256(MOST))
        );
        staking.stake(1, noPermit());
        vm.stopPrank();
        assertEq(staking.lockable(provider), MOST);
    }

    function test_amountsBeyondAllMoneyAreRefusedByName() public {
        uint128 max = type(uint128).max;
        bytes32 jobId = fund(anOrder());
        vm.startPrank(provider);
        vm.expectRevert(
            abi.encodeWithSelector(IProviderStaking.StakeTooLarge.selector, uint256(max) + STAKE, uint256(MOST))
        );
        staking.stake(max, noPermit());
        vm.expectRevert(
            abi.encodeWithSelector(ILeaseEscrow.DepositTooLarge.selector, uint256(max) + DEPOSIT, uint256(MOST))
        );
        escrow.topUp(jobId, max, noPermit());
        vm.stopPrank();

        Order memory order = anOrder();
        (order.nonce, order.epochFee) = (8, max);
        jobId = fund(order);
        bytes memory signature = sign(NODE_KEY, escrow.hashBid(aBid(jobId, 1)));
        vm.prank(watcher);
        vm.expectRevert(
            abi.encodeWithSelector(
                ILeaseEscrow.InsufficientEscrow.selector, uint256(DEPOSIT), uint256(max) + BOND + RESERVE
            )
        );
        escrow.open(order, aBid(jobId, 1), signature, RATE);
    }

    /// @dev Without a minimum runtime a rate may be beyond all money; its product with a time has more than 128 bits.
    function test_aRateBeyondAllMoneyCoversNothing() public {
        Config memory c = terms();
        c.minRuntime = 0;
        escrow = new LeaseEscrow(IERC20(address(dollar)), c);
        staking = ProviderStaking(escrow.staking());
        vm.prank(tenant);
        dollar.approve(address(escrow), type(uint256).max);
        NodeAuth memory auth = NodeAuth(provider, node, START, 1);
        bytes memory consent = sign(NODE_KEY, staking.hashNodeAuth(auth));
        vm.startPrank(provider);
        dollar.approve(address(staking), type(uint256).max);
        staking.stake(STAKE, noPermit());
        staking.authoriseNode(auth, consent);
        vm.stopPrank();
        bytes32 jobId = fund(anOrder(2 ** 127));
        bytes32 leaseId = openBid(jobId, aBid(jobId, 1), 2 ** 127);
        assertEq(escrow.lease(leaseId).covered, 0);
        assertEq(freeOf(jobId), DEPOSIT - BOND - EPOCH_FEE);
    }

    function test_leasesOfTimesAfter2106() public {
        vm.warp(AFTER_2106);
        Order memory order = anOrder();
        order.deadline = AFTER_2106 + 1 days;
        bytes32 jobId = fund(order);
        Bid memory bid = aBid(jobId, 1);
        bid.deadline = order.deadline;
        bytes memory signature = sign(NODE_KEY, escrow.hashBid(bid));
        bytes32 leaseId = keep(paramsOf(order, bid, RATE));
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
            AFTER_2106,
            AFTER_2106 + 1 days,
            AFTER_2106 + 1 days + WINDOW,
            1
        );
        vm.prank(watcher);
        escrow.open(order, bid, signature, RATE);
        vm.warp(AFTER_2106 + 100);
        vm.prank(watcher);
        escrow.suspend(leases[leaseId], noReceipt(), "");
        Lease memory lease = escrow.lease(leaseId);
        assertEq(lease.endsAt, AFTER_2106 + 100);
        assertEq(lease.exitAt, AFTER_2106 + 100 + WINDOW);
        assertEq(lease.covered, 100);
        vm.prank(provider);
        staking.requestUnstake(STAKE);
        assertEq(staking.stakeOf(provider).unbondsAt, AFTER_2106 + 100 + UNBONDING);
        vm.prank(tenant);
        escrow.extend(order, AFTER_2106 + 2 days, 10, RATE);
        vm.prank(keeper);
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.RefundTooEarly.selector, AFTER_2106 + 2 days));
        escrow.refund(order);
    }

    /// @dev Where a clock starts anew, a lease may run for longer than there were seconds before it.
    function test_leasesLongerThanTheClockHasRun() public {
        uint64 young = 100;
        vm.warp(young);
        Order memory order = anOrder();
        order.deadline = young + 1 days;
        bytes32 jobId = fund(order);
        bytes32 leaseId = openBid(jobId, aBid(jobId, 1));
        assertEq(escrow.lease(leaseId).covered, 1 days);
        vm.warp(young + 1000);
        LeaseReceipt memory receipt = LeaseReceipt(leaseId, 1, young + 250, 240, false, "root");
        escrow.collect(leases[leaseId], receipt, signed(receipt));
        assertEq(escrow.lease(leaseId).seen, 250);
        assertEq(escrow.lease(leaseId).paid, 240);
        vm.prank(watcher);
        escrow.suspend(leases[leaseId], noReceipt(), "");
        assertEq(escrow.lease(leaseId).covered, 990);
        vm.prank(provider);
        escrow.answer(leases[leaseId], noReceipt(), "");

        leaseId = openBid(jobId, aBid(jobId, 2));
        uint128 aside = (escrow.lease(leaseId).covered - 9000) * PER_SECOND;
        vm.warp(young + 10_000);
        vm.expectEmit(address(escrow));
        emit ILeaseEscrow.LeaseCollected(
            jobId, leaseId, 9000, young + 10_000, 0, 9000 * PER_SECOND, 90 * PER_SECOND, aside, bytes32(0)
        );
        vm.prank(tenant);
        escrow.close(leases[leaseId], noReceipt(), "");
        assertEq(escrow.claimable(provider), net(240) + net(9000));
        assertConserved();
    }

    /// @dev More seconds than 16 bits hold.
    function test_leasesOfManySeconds() public {
        (bytes32 jobId, bytes32 leaseId) = openLease();
        assertEq(escrow.lease(leaseId).covered, 1 days);
        vm.warp(START + 70_000);
        collect(leaseId, 70_000, 70_000);
        Lease memory lease = escrow.lease(leaseId);
        assertEq(lease.seen, 70_000);
        assertEq(lease.earned, 70_000);
        assertEq(lease.paid, 70_000);
        vm.warp(START + 70_100);
        vm.prank(tenant);
        escrow.close(leases[leaseId], noReceipt(), "");
        assertEq(escrow.claimable(provider), net(70_100));
        assertEq(feesOf(jobId), 70_100 * PER_SECOND / 100);
        assertConserved();
    }

    function test_silencesOfManySeconds() public {
        (, bytes32 leaseId) = openAndSuspend(70_000);
        assertEq(escrow.lease(leaseId).covered, 70_000);
        assertConserved();
    }

    function test_aClosePaysManySecondsWithoutAReceipt() public {
        (bytes32 jobId, bytes32 leaseId) = openLease();
        vm.warp(START + 70_000);
        uint128 pay = 70_000 * PER_SECOND;
        vm.expectEmit(address(escrow));
        emit ILeaseEscrow.LeaseCollected(
            jobId, leaseId, 70_000, START + 70_000, 0, pay, pay / 100, PER_SECOND * 1 days - pay, bytes32(0)
        );
        vm.prank(tenant);
        escrow.close(leases[leaseId], noReceipt(), "");
        assertEq(escrow.claimable(provider), net(70_000));
    }

    function test_moneyForManySecondsIsSetAside() public {
        Order memory order = anOrder();
        order.deposit = 70_000 * PER_SECOND + BOND + EPOCH_FEE;
        bytes32 jobId = fund(order);
        bytes32 leaseId = openBid(jobId, aBid(jobId, 1));
        assertEq(escrow.lease(leaseId).covered, 70_000);
        assertEq(freeOf(jobId), 0);
    }

    /// @dev Nothing is left of what unbonds, however long it would still take.
    function test_whatASlashTookOfTheUnbondingStakeIsNotAwaited() public {
        bytes32 jobId = fund(anOrder());
        Bid memory bid = aBid(jobId, 1);
        bid.collateral = STAKE;
        bytes32 leaseId = openBid(jobId, bid);
        vm.prank(provider);
        staking.requestUnstake(STAKE);
        vm.warp(START + 100);
        vm.prank(watcher);
        escrow.suspend(leases[leaseId], noReceipt(), "");
        vm.warp(START + 101 + WINDOW);
        escrow.fail(leases[leaseId]);
        Stake memory held = staking.stakeOf(provider);
        assertEq(held.unbonding, 0);
        assertGt(held.unbondsAt, block.timestamp);
        vm.prank(provider);
        vm.expectRevert(abi.encodeWithSelector(IProviderStaking.NothingToWithdraw.selector, provider));
        staking.withdraw(provider);
    }
}
