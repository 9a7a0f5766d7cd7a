// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IProviderStaking, NodeAuth, Stake} from "../../contracts/interfaces/IProviderStaking.sol";
import {Bid, Order} from "../../contracts/interfaces/LeaseTypes.sol";
import {Base} from "./Base.sol";

contract StakingTest is Base {
    uint256 private constant OTHER_KEY = 0xE0E0;

    address private other = vm.addr(OTHER_KEY);

    function authorise(address caller, NodeAuth memory auth, uint256 key) private {
        bytes memory signature = sign(key, staking.hashNodeAuth(auth));
        vm.prank(caller);
        staking.authoriseNode(auth, signature);
    }

    function expectRefused(address caller, NodeAuth memory auth, uint256 key, bytes memory reason) private {
        bytes memory signature = sign(key, staking.hashNodeAuth(auth));
        vm.prank(caller);
        vm.expectRevert(reason);
        staking.authoriseNode(auth, signature);
    }

    /// @dev A lease of a job of its own.
    function lease(uint256 nonce, uint128 collateral) private returns (bytes32 leaseId) {
        Order memory order = anOrder();
        order.nonce = nonce;
        bytes32 jobId = fund(order);
        Bid memory bid = aBid(jobId, 1);
        (bid.collateral, bid.slot) = (collateral, nonce);
        return openBid(jobId, bid);
    }

    function test_stake() public {
        vm.startPrank(provider);
        vm.expectRevert(IProviderStaking.ZeroAmount.selector);
        staking.stake(0, noPermit());
        uint128 huge = type(uint96).max >> 1;
        vm.expectRevert(
            abi.encodeWithSelector(IProviderStaking.StakeTooLarge.selector, uint256(huge) + STAKE, uint256(huge))
        );
        staking.stake(huge, noPermit());
        vm.expectEmit(address(staking));
        emit IProviderStaking.ProviderStaked(provider, 1, STAKE + 1);
        staking.stake(1, noPermit());
        vm.stopPrank();
        assertEq(staking.lockable(provider), STAKE + 1);
        assertEq(dollar.balanceOf(address(staking)), STAKE + 1);
    }

    function test_unbondingEdges() public {
        vm.startPrank(provider);
        vm.expectRevert(abi.encodeWithSelector(IProviderStaking.NothingToWithdraw.selector, provider));
        staking.withdraw(provider);
        staking.requestUnstake(20e6);
        vm.warp(START + UNBONDING - 1);
        vm.expectRevert(abi.encodeWithSelector(IProviderStaking.StillUnbonding.selector, START + UNBONDING));
        staking.withdraw(provider);
        vm.warp(START + UNBONDING);
        vm.expectRevert(IProviderStaking.ZeroAddress.selector);
        staking.withdraw(address(0));
        assertEq(staking.withdraw(keeper), 20e6);
        vm.stopPrank();
        assertEq(dollar.balanceOf(keeper), 20e6);
        assertEq(stakedBy(provider), STAKE - 20e6);
    }

    function test_aSecondRequestStartsThePeriodAnew() public {
        vm.startPrank(provider);
        staking.requestUnstake(20e6);
        vm.warp(START + 100);
        staking.requestUnstake(20e6);
        Stake memory held = staking.stakeOf(provider);
        assertEq(held.unbonding, 40e6);
        assertEq(held.unbondsAt, START + 100 + UNBONDING);
        vm.expectRevert(abi.encodeWithSelector(IProviderStaking.InsufficientStake.selector, provider, 11e6, 10e6));
        staking.requestUnstake(11e6);
        vm.expectRevert(IProviderStaking.ZeroAmount.selector);
        staking.requestUnstake(0);
        vm.stopPrank();
    }

    function test_lockedStakeStaysAndLeavesOnceItIsUnlocked() public {
        bytes32 leaseId = lease(7, 20e6);
        lease(8, 30e6);
        vm.startPrank(provider);
        staking.requestUnstake(STAKE);
        vm.warp(START + UNBONDING);
        vm.expectRevert(abi.encodeWithSelector(IProviderStaking.NothingToWithdraw.selector, provider));
        staking.withdraw(provider);
        vm.stopPrank();
        vm.prank(tenant);
        escrow.close(leases[leaseId], noReceipt(), "");
        vm.prank(provider);
        assertEq(staking.withdraw(provider), 20e6);
        assertEq(staking.stakeOf(provider).unbonding, 30e6);
        assertConserved();
    }

    function test_onlyTheEscrowSlashes() public {
        vm.expectRevert(abi.encodeWithSelector(IProviderStaking.NotEscrow.selector, address(this)));
        staking.slash(provider, 1);
    }

    function test_authoriseNodeNeedsBothSides() public {
        NodeAuth memory auth = NodeAuth(provider, other, START + 10, 1);
        expectRefused(
            keeper, auth, OTHER_KEY, abi.encodeWithSelector(IProviderStaking.NotAuthProvider.selector, keeper, provider)
        );
        expectRefused(
            provider, auth, PROVIDER_KEY, abi.encodeWithSelector(IProviderStaking.InvalidNodeSignature.selector, other)
        );
        vm.warp(START + 11);
        expectRefused(
            provider, auth, OTHER_KEY, abi.encodeWithSelector(IProviderStaking.NodeAuthExpired.selector, START + 10)
        );
        vm.warp(START + 10);
        authorise(provider, auth, OTHER_KEY);
        assertEq(staking.providerOf(other), provider);
        assertTrue(staking.nonceUsed(other, 1));
    }

    function test_aNodeHasOneProviderAndAConsentIsUsedOnce() public {
        NodeAuth memory auth = NodeAuth(provider, other, START + 10, 1);
        authorise(provider, auth, OTHER_KEY);
        expectRefused(
            keeper,
            NodeAuth(keeper, other, START + 10, 2),
            OTHER_KEY,
            abi.encodeWithSelector(IProviderStaking.NodeTaken.selector, other, provider)
        );
        vm.prank(other);
        staking.revokeNode(other);
        expectRefused(
            provider, auth, OTHER_KEY, abi.encodeWithSelector(IProviderStaking.NodeAuthUsed.selector, other, 1)
        );
        authorise(keeper, NodeAuth(keeper, other, START + 10, 2), OTHER_KEY);
        assertEq(staking.providerOf(other), keeper);
    }

    function test_revokeByTheProviderOrTheNodeOnly() public {
        vm.prank(keeper);
        vm.expectRevert(abi.encodeWithSelector(IProviderStaking.NotNodeOwner.selector, keeper, node));
        staking.revokeNode(node);
        vm.prank(provider);
        staking.revokeNode(node);
        assertEq(staking.providerOf(node), address(0));
        vm.prank(node);
        vm.expectRevert(abi.encodeWithSelector(IProviderStaking.NotNodeOwner.selector, node, node));
        staking.revokeNode(node);
    }

    function test_metadataIsBounded() public {
        vm.expectEmit(address(staking));
        emit IProviderStaking.MetadataSet(address(this), "bafy");
        staking.setMetadata("bafy");
        staking.setMetadata(string(new bytes(128)));
        vm.expectRevert(abi.encodeWithSelector(IProviderStaking.MetadataTooLong.selector, 129, 128));
        staking.setMetadata(string(new bytes(129)));
    }

    function test_views() public view {
        assertEq(staking.escrow(), address(escrow));
        assertEq(staking.asset(), address(dollar));
        assertEq(staking.unbondingPeriod(), UNBONDING);
    }
}
