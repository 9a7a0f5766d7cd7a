// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

import {LeaseEscrow} from "../../contracts/LeaseEscrow.sol";
import {ProviderStaking} from "../../contracts/ProviderStaking.sol";
import {NodeAuth} from "../../contracts/interfaces/IProviderStaking.sol";
import {LeaseState, Order} from "../../contracts/interfaces/LeaseTypes.sol";
import {Deposits} from "../../contracts/libraries/Deposits.sol";
import {MockDollar} from "../../contracts/mocks/MockDollar.sol";
import {Base} from "./Base.sol";
import {
    BlockingToken,
    BonusToken,
    CallbackToken,
    FalseToken,
    FeeToken,
    FreeToken,
    IMintable,
    LyingToken,
    NoReturnToken,
    RebaseToken
} from "./world/Tokens.sol";

/// @notice I-25: tokens that misbehave are refused, or harm nobody but those whom they mean to harm.
contract HostileTokensTest is Base {
    IMintable private token;

    /// @dev A deployment around another token, with the usual tenant, provider and stake.
    function settle(address asset) private {
        token = IMintable(asset);
        dollar = MockDollar(asset);
        escrow = new LeaseEscrow(IERC20(asset), terms());
        staking = ProviderStaking(escrow.staking());
        token.mint(tenant, 1000e6);
        token.mint(provider, 1000e6);
        vm.prank(tenant);
        token.approve(address(escrow), type(uint256).max);
        vm.startPrank(provider);
        token.approve(address(staking), type(uint256).max);
        staking.stake(STAKE, noPermit());
        NodeAuth memory auth = NodeAuth(provider, node, START + 1 hours, 1);
        staking.authoriseNode(auth, sign(NODE_KEY, staking.hashNodeAuth(auth)));
        vm.stopPrank();
    }

    /// @dev A whole life with a slash in it; at the end both contracts are empty.
    function live(address asset) private {
        vm.warp(START);
        settle(asset);
        (bytes32 jobId, bytes32 leaseId) = openAndSuspend(100);
        collect(leaseId, 50, 50);
        vm.warp(START + 100 + WINDOW + 1);
        vm.prank(keeper);
        escrow.fail(leases[leaseId]);
        vm.prank(tenant);
        escrow.refund(orders[jobId]);
        escrow.sweepFees(jobId);
        assertConserved();
        address[6] memory payees = [tenant, watcher, provider, keeper, treasury, insurance];
        for (uint256 i = 0; i < payees.length; i++) {
            uint256 before = token.balanceOf(payees[i]);
            vm.prank(payees[i]);
            uint256 amount = escrow.withdraw(payees[i]);
            assertEq(token.balanceOf(payees[i]), before + amount);
        }
        vm.startPrank(provider);
        staking.requestUnstake(STAKE - COLLATERAL);
        vm.warp(START + 2 days);
        staking.withdraw(provider);
        vm.stopPrank();
        assertEq(token.balanceOf(address(escrow)) + token.balanceOf(address(staking)), 0);
    }

    function test_anyNumberOfDecimals() public {
        for (uint8 decimals = 2; decimals <= 30; decimals++) {
            live(address(new FreeToken(decimals)));
        }
    }

    function test_noReturnValue() public {
        live(address(new NoReturnToken(6)));
    }

    function test_falseIsARefusal() public {
        FalseToken asset = new FalseToken();
        settle(address(asset));
        (, bytes32 leaseId) = openAndSuspend(100);
        collect(leaseId, 50, 50);
        uint256 credit = escrow.claimable(provider);
        asset.refuse(true);
        bytes memory failed = abi.encodeWithSelector(SafeERC20.SafeERC20FailedOperation.selector, address(asset));
        vm.expectRevert(failed);
        vm.prank(provider);
        escrow.withdraw(provider);
        assertEq(escrow.claimable(provider), credit);
        Order memory order = anOrder();
        order.nonce = 8;
        bytes memory signature = sign(TENANT_KEY, escrow.hashOrder(order));
        vm.expectRevert(failed);
        escrow.fund(order, signature, noPermit());
        vm.warp(START + 100 + WINDOW + 1);
        vm.expectRevert(failed);
        escrow.fail(leases[leaseId]);
        assertState(leaseId, LeaseState.Suspended);
        asset.refuse(false);
        escrow.fail(leases[leaseId]);
        assertState(leaseId, LeaseState.Failed);
    }

    function test_aTokenThatMovesNothingIsRefused() public {
        LyingToken asset = new LyingToken();
        settle(address(asset));
        asset.lie(true);
        Order memory order = anOrder();
        bytes memory signature = sign(TENANT_KEY, escrow.hashOrder(order));
        vm.expectRevert(abi.encodeWithSelector(Deposits.UnsupportedAsset.selector, asset, DEPOSIT, 0));
        escrow.fund(order, signature, noPermit());
        vm.expectRevert(abi.encodeWithSelector(Deposits.UnsupportedAsset.selector, asset, 5, 0));
        vm.prank(provider);
        staking.stake(5, noPermit());
    }

    function test_aTokenThatMovesMoreThanAskedIsRefused() public {
        BonusToken asset = new BonusToken();
        escrow = new LeaseEscrow(asset, terms());
        staking = ProviderStaking(escrow.staking());
        asset.mint(provider, 5);
        vm.startPrank(provider);
        asset.approve(address(staking), 5);
        vm.expectRevert(abi.encodeWithSelector(Deposits.UnsupportedAsset.selector, asset, 5, 6));
        staking.stake(5, noPermit());
    }

    function test_aFeeThatComesLaterIsBorneByTheSlashAlone() public {
        FeeToken asset = new FeeToken();
        settle(address(asset));
        (bytes32 jobId, bytes32 leaseId) = openAndSuspend(100);
        asset.setFee(200);
        vm.expectRevert(abi.encodeWithSelector(Deposits.UnsupportedAsset.selector, asset, 100, 98));
        vm.prank(tenant);
        escrow.topUp(jobId, 100, noPermit());
        vm.warp(START + 100 + WINDOW + 1);
        vm.prank(keeper);
        escrow.fail(leases[leaseId]);
        // 98 % of the collateral arrived, so 98 % is credited.
        assertEq(escrow.claimable(keeper), uint256(COLLATERAL) * 98 / 100 * 5 / 100);
        assertConserved();
    }

    function test_aFeeOfEverythingJamsNothing() public {
        FeeToken asset = new FeeToken();
        settle(address(asset));
        (, bytes32 leaseId) = openAndSuspend(100);
        asset.setFee(10_000);
        vm.warp(START + 100 + WINDOW + 1);
        escrow.fail(leases[leaseId]);
        assertEq(escrow.claimable(insurance), 0);
        assertConserved();
    }

    function testFuzz_aRebaseUpIsNobodysAndADownOneNeverGrows(uint8 up, uint8 down) public {
        RebaseToken asset = new RebaseToken();
        settle(address(asset));
        (bytes32 jobId, bytes32 leaseId) = openLease();
        vm.warp(START + 100);
        collect(leaseId, 100, 100);
        asset.rebase(uint256(up) + 1, uint256(down) + 1);
        uint256 holds = token.balanceOf(address(escrow));
        uint256 credit = escrow.claimable(provider);
        assertEq(credit, net(100));
        vm.prank(provider);
        (bool worked,) = address(escrow).call(abi.encodeCall(escrow.withdraw, (provider)));
        // Either the whole credit leaves, or nothing does; rounding in such a token is a unit or so of its shares.
        uint256 left = holds - token.balanceOf(address(escrow));
        if (worked) assertApproxEqAbs(left, credit, 256);
        else assertEq(left, 0);
        assertEq(escrow.claimable(provider), worked ? 0 : credit);
        assertEq(freeOf(jobId) + reserveOf(leaseId) + BOND, DEPOSIT - EPOCH_FEE - 100 * PER_SECOND);
    }

    function test_aBlockedPartyStopsOnlyItself() public {
        BlockingToken asset = new BlockingToken();
        settle(address(asset));
        (bytes32 jobId, bytes32 leaseId) = openAndSuspend(100);
        collect(leaseId, 50, 50);
        asset.setBlocked(provider, true);
        asset.setBlocked(tenant, true);
        vm.expectRevert(abi.encodeWithSelector(BlockingToken.Blocked.selector, provider));
        vm.prank(provider);
        escrow.withdraw(provider);
        vm.warp(START + 100 + WINDOW + 1);
        vm.prank(keeper);
        escrow.fail(leases[leaseId]);
        vm.prank(keeper);
        escrow.withdraw(keeper);
        vm.prank(tenant);
        escrow.refund(orders[jobId]);
        assertConserved();
        vm.prank(provider);
        escrow.withdraw(makeAddr("elsewhere"));
    }

    function test_aBlockedEscrowMakesSlashesWait() public {
        BlockingToken asset = new BlockingToken();
        settle(address(asset));
        (, bytes32 leaseId) = openAndSuspend(100);
        asset.setBlocked(address(escrow), true);
        vm.warp(START + 100 + WINDOW + 1);
        vm.expectRevert(abi.encodeWithSelector(BlockingToken.Blocked.selector, address(escrow)));
        escrow.fail(leases[leaseId]);
        assertState(leaseId, LeaseState.Suspended);
        asset.setBlocked(address(escrow), false);
        vm.prank(keeper);
        escrow.fail(leases[leaseId]);
        assertConserved();
    }

    /// @dev Every call that changes state, entered from inside a deposit, a withdrawal and a slash.
    function test_callbacksAreRefusedEverywhere() public {
        CallbackToken asset = new CallbackToken();
        settle(address(asset));
        (bytes32 jobId, bytes32 leaseId) = openAndSuspend(100);
        collect(leaseId, 50, 50);
        bytes[] memory entries = escrowEntries(jobId, leaseId);
        for (uint256 i = 0; i < entries.length; i++) {
            asset.onTransfer(address(escrow), entries[i]);
            vm.prank(tenant);
            escrow.topUp(jobId, 1, noPermit());
            assertRefused(asset);
        }
        entries = stakingEntries();
        for (uint256 i = 0; i < entries.length; i++) {
            asset.onTransfer(address(staking), entries[i]);
            vm.prank(provider);
            staking.stake(1, noPermit());
            assertRefused(asset);
        }
        asset.onTransfer(
            address(escrow), abi.encodeCall(escrow.collect, (leases[leaseId], aReceipt(leaseId, 60, 60), ""))
        );
        vm.prank(provider);
        escrow.withdraw(provider);
        assertRefused(asset);
        asset.onTransfer(address(escrow), abi.encodeCall(escrow.fail, (leases[leaseId])));
        vm.warp(START + 100 + WINDOW + 1);
        escrow.fail(leases[leaseId]);
        assertRefused(asset);
        assertConserved();
    }

    /// @dev From inside a call of one contract the other is open: money is conserved all the same.
    function test_aCallbackIntoTheOtherContractConserves() public {
        CallbackToken asset = new CallbackToken();
        settle(address(asset));
        (, bytes32 leaseId) = openAndSuspend(100);
        vm.warp(START + 100 + WINDOW + 1);
        asset.onTransfer(address(escrow), abi.encodeCall(escrow.fail, (leases[leaseId])));
        vm.prank(provider);
        staking.stake(10, noPermit());
        assertState(leaseId, LeaseState.Suspended);
        escrow.fail(leases[leaseId]);
        assertConserved();
    }

    function assertRefused(CallbackToken asset) private view {
        assertGt(asset.calls(), 0);
        assertFalse(asset.worked());
        assertEq(bytes4(asset.answer()), ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector);
    }

    function parties() internal view override returns (address[] memory accounts) {
        address[] memory usual = super.parties();
        accounts = new address[](usual.length + 1);
        for (uint256 i = 0; i < usual.length; i++) {
            accounts[i] = usual[i];
        }
        accounts[usual.length] = address(token);
    }

    function escrowEntries(bytes32 jobId, bytes32 leaseId) private view returns (bytes[] memory entries) {
        entries = new bytes[](14);
        entries[0] = abi.encodeCall(escrow.withdraw, (address(token)));
        entries[1] = abi.encodeCall(escrow.fund, (anOrder(), "", noPermit()));
        entries[2] = abi.encodeCall(escrow.topUp, (jobId, 1, noPermit()));
        entries[3] = abi.encodeCall(escrow.cancel, (orders[jobId]));
        entries[4] = abi.encodeCall(escrow.extend, (orders[jobId], DEADLINE, 10, RATE));
        entries[5] = abi.encodeCall(escrow.refund, (orders[jobId]));
        entries[6] = abi.encodeCall(escrow.open, (orders[jobId], aBid(jobId, 2), "", RATE));
        entries[7] = abi.encodeCall(escrow.collect, (leases[leaseId], noReceipt(), ""));
        entries[8] = abi.encodeCall(escrow.close, (leases[leaseId], noReceipt(), ""));
        entries[9] = abi.encodeCall(escrow.notice, (leases[leaseId]));
        entries[10] = abi.encodeCall(escrow.suspend, (leases[leaseId], noReceipt(), ""));
        entries[11] = abi.encodeCall(escrow.answer, (leases[leaseId], noReceipt(), ""));
        entries[12] = abi.encodeCall(escrow.fail, (leases[leaseId]));
        entries[13] = abi.encodeCall(escrow.sweepFees, (jobId));
    }

    function stakingEntries() private view returns (bytes[] memory entries) {
        entries = new bytes[](5);
        entries[0] = abi.encodeCall(staking.stake, (1, noPermit()));
        entries[1] = abi.encodeCall(staking.requestUnstake, (1));
        entries[2] = abi.encodeCall(staking.withdraw, (address(token)));
        entries[3] = abi.encodeCall(staking.revokeNode, (node));
        NodeAuth memory auth;
        entries[4] = abi.encodeCall(staking.authoriseNode, (auth, ""));
    }
}
