// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ILeaseEscrow} from "../../contracts/interfaces/ILeaseEscrow.sol";
import {IProviderStaking, Stake} from "../../contracts/interfaces/IProviderStaking.sol";
import {Bid, Order} from "../../contracts/interfaces/LeaseTypes.sol";
import {Base} from "./Base.sol";

/// @notice What a provider's leases lock, what slashes take of it, and what can leave.
contract LocksTest is Base {
    uint64 private now_ = START;

    /// @dev A lease of a job of its own, which ends well after the test.
    function lease(uint256 nonce, uint128 collateral) private returns (bytes32) {
        Order memory order = anOrder();
        (order.nonce, order.deadline, order.deposit, order.minCollateral) = (nonce, START + 300 days, 5e6, 0);
        bytes32 jobId = fund(order);
        Bid memory bid = aBid(jobId, 1);
        (bid.collateral, bid.slot, bid.deadline) = (collateral, nonce, order.deadline);
        return openBid(jobId, bid);
    }

    function suspend(bytes32 leaseId) private {
        now_ += SILENCE + 1;
        vm.warp(now_);
        vm.prank(watcher);
        escrow.suspend(leases[leaseId], noReceipt(), "");
    }

    function failed(bytes32 leaseId) private {
        suspend(leaseId);
        now_ += WINDOW + 1;
        vm.warp(now_);
        vm.prank(keeper);
        escrow.fail(leases[leaseId]);
    }

    function dropped(bytes32 leaseId) private {
        suspend(leaseId);
        vm.prank(provider);
        escrow.answer(leases[leaseId], noReceipt(), "");
    }

    function unbonded() private {
        now_ += UNBONDING;
        vm.warp(now_);
    }

    function assertStake(uint128 deposited, uint128 slashed, uint128 unbonding, uint128 living) private view {
        Stake memory held = staking.stakeOf(provider);
        assertEq(held.deposited, deposited, "deposited");
        assertEq(held.slashed, slashed, "slashed");
        assertEq(held.unbonding, unbonding, "unbonding");
        assertEq(escrow.lockedOf(provider), living + slashed, "locked");
        assertEq(staking.lockable(provider), deposited - slashed - living, "lockable");
        (address owner, uint128 backing) = staking.backingOf(node);
        assertEq(owner, provider);
        assertEq(backing, deposited);
        assertConserved();
    }

    function test_eachLeaseLocksItsCollateralAndEachWellEndedOneFreesIt() public {
        bytes32 first = lease(1, 30e6);
        assertStake(STAKE, 0, 0, 30e6);
        lease(2, 20e6);
        assertStake(STAKE, 0, 0, 50e6);
        vm.prank(tenant);
        escrow.close(leases[first], noReceipt(), "");
        assertStake(STAKE, 0, 0, 20e6);
    }

    function test_aBidMayLockAllThatIsLockableAndNotAUnitMore() public {
        failed(lease(1, 10e6));
        lease(2, 15e6);
        assertStake(STAKE, 10e6, 0, 15e6);
        Order memory order = anOrder();
        order.nonce = 3;
        bytes32 jobId = fund(order);
        Bid memory bid = aBid(jobId, 1);
        (bid.collateral, bid.slot) = (25e6 + 1, 3);
        bytes memory signature = sign(NODE_KEY, escrow.hashBid(bid));
        vm.prank(watcher);
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.InsufficientStake.selector, provider, 25e6 + 1, 25e6));
        escrow.open(order, bid, signature, RATE);
        bid.collateral = 25e6;
        openBid(jobId, bid);
        assertEq(staking.lockable(provider), 0);
    }

    function test_aFailKeepsTheWholeCollateralLockedForGood() public {
        failed(lease(1, 10e6));
        assertStake(STAKE, 10e6, 0, 0);
    }

    function test_anAdmittedDropKeepsThePenaltyLockedAndFreesTheRest() public {
        bytes32 leaseId = lease(1, 10e6);
        suspend(leaseId);
        vm.expectEmit(address(staking));
        emit IProviderStaking.StakeSlashed(provider, 500_000, STAKE - 500_000);
        vm.prank(provider);
        escrow.answer(leases[leaseId], noReceipt(), "");
        assertStake(STAKE, 500_000, 0, 0);
    }

    function test_aPenaltyThatRoundsToNothingSlashesNothing() public {
        vm.expectCall(address(staking), abi.encodeWithSelector(IProviderStaking.slash.selector), 0);
        dropped(lease(1, 19));
        assertStake(STAKE, 0, 0, 0);
        failed(lease(2, 0));
        assertStake(STAKE, 0, 0, 0);
    }

    function test_unbondingFallsWithTheStakeAndDoesNotComeBackWithNewStake() public {
        bytes32 leaseId = lease(1, 10e6);
        vm.prank(provider);
        staking.requestUnstake(45e6);
        failed(leaseId);
        assertStake(STAKE, 10e6, 40e6, 0);
        vm.startPrank(provider);
        vm.expectEmit(address(staking));
        emit IProviderStaking.ProviderStaked(provider, 7e6, 47e6);
        staking.stake(7e6, noPermit());
        assertStake(STAKE + 7e6, 10e6, 40e6, 0);
        vm.expectRevert(abi.encodeWithSelector(IProviderStaking.InsufficientStake.selector, provider, 7e6 + 1, 7e6));
        staking.requestUnstake(7e6 + 1);
        unbonded();
        vm.expectEmit(address(staking));
        emit IProviderStaking.StakeWithdrawn(provider, provider, 40e6, 7e6, 0);
        staking.withdraw(provider);
        vm.stopPrank();
        assertStake(17e6, 10e6, 0, 0);
    }

    function test_aSlashLeavesUnbondingAloneWhereStakeRemains() public {
        bytes32 leaseId = lease(1, 10e6);
        vm.prank(provider);
        staking.requestUnstake(40e6);
        failed(leaseId);
        assertStake(STAKE, 10e6, 40e6, 0);
    }

    function test_aRequestAfterASlashCountsWhatIsLeft() public {
        failed(lease(1, 10e6));
        vm.startPrank(provider);
        vm.expectRevert(abi.encodeWithSelector(IProviderStaking.InsufficientStake.selector, provider, 40e6 + 1, 40e6));
        staking.requestUnstake(40e6 + 1);
        staking.requestUnstake(40e6);
        vm.stopPrank();
        assertStake(STAKE, 10e6, 40e6, 0);
    }

    function test_afterASlashWhatIsUnlockedLeavesAndWhatBacksALeaseStays() public {
        bytes32 living = lease(1, 15e6);
        bytes32 lost = lease(2, 10e6);
        vm.prank(provider);
        staking.requestUnstake(STAKE);
        failed(lost);
        assertStake(STAKE, 10e6, 40e6, 15e6);
        unbonded();
        vm.startPrank(provider);
        assertEq(staking.withdraw(provider), 25e6);
        assertStake(25e6, 10e6, 15e6, 15e6);
        vm.expectRevert(abi.encodeWithSelector(IProviderStaking.NothingToWithdraw.selector, provider));
        staking.withdraw(provider);
        vm.stopPrank();
        vm.prank(tenant);
        escrow.close(leases[living], noReceipt(), "");
        vm.prank(provider);
        assertEq(staking.withdraw(provider), 15e6);
        assertStake(10e6, 10e6, 0, 0);
        assertEq(dollar.balanceOf(address(staking)), 0);
    }

    function test_aProviderThatLostAllStartsAnew() public {
        failed(lease(1, STAKE));
        assertStake(STAKE, STAKE, 0, 0);
        vm.startPrank(provider);
        vm.expectRevert(abi.encodeWithSelector(IProviderStaking.InsufficientStake.selector, provider, 1, 0));
        staking.requestUnstake(1);
        vm.expectRevert(abi.encodeWithSelector(IProviderStaking.NothingToWithdraw.selector, provider));
        staking.withdraw(provider);
        staking.stake(10e6, noPermit());
        vm.stopPrank();
        lease(2, 10e6);
        assertStake(STAKE + 10e6, STAKE, 0, 10e6);
    }

    /// @dev Slash after slash, some of all, some of the penalty, new stake between: what is left leaves to the unit.
    function testFuzz_manySlashes(uint128[8] memory collaterals, uint8 drops, uint8 restakes) public {
        uint128 deposited = STAKE;
        uint128 slashed = 0;
        vm.prank(provider);
        staking.requestUnstake(STAKE / 2);
        for (uint256 i = 0; i < collaterals.length; i++) {
            uint128 collateral = uint128(bound(collaterals[i], 0, staking.lockable(provider)));
            bytes32 leaseId = lease(i + 1, collateral);
            if (drops >> i & 1 == 1) {
                dropped(leaseId);
                slashed += collateral * 500 / 10_000;
            } else {
                failed(leaseId);
                slashed += collateral;
            }
            if (restakes >> i & 1 == 1) {
                vm.prank(provider);
                staking.stake(1e6, noPermit());
                deposited += 1e6;
            }
            assertStake(deposited, slashed, staking.stakeOf(provider).unbonding, 0);
        }
        uint128 unbonding = staking.stakeOf(provider).unbonding;
        uint128 rest = deposited - slashed - unbonding;
        vm.startPrank(provider);
        if (rest > 0) staking.requestUnstake(rest);
        unbonded();
        if (deposited > slashed) assertEq(staking.withdraw(provider), deposited - slashed);
        vm.stopPrank();
        assertStake(slashed, slashed, 0, 0);
        assertEq(dollar.balanceOf(address(staking)), 0);
    }
}
