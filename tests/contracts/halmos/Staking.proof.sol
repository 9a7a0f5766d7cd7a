// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {Test} from "forge-std/Test.sol";

import {ProviderStaking} from "../../../contracts/ProviderStaking.sol";
import {Stake} from "../../../contracts/interfaces/IProviderStaking.sol";
import {Permit} from "../../../contracts/libraries/Deposits.sol";
import {NoReturnToken} from "../world/Tokens.sol";

/// @notice Proofs by Halmos for every amount (2^128 values each) and every time; one provider, the proof is the escrow.
contract StakingProofs is Test {
    address private constant PROVIDER = address(0xCA5);
    uint64 private constant PERIOD = 1 days;

    NoReturnToken private token;
    ProviderStaking private staking;

    function setUp() public {
        vm.warp(1_800_000_000);
        token = new NoReturnToken(6);
        staking = new ProviderStaking(IERC20(address(token)), PERIOD);
        token.mint(PROVIDER, type(uint128).max);
        vm.prank(PROVIDER);
        token.approve(address(staking), type(uint256).max);
    }

    function check_stakeIsHeldToTheUnit(uint128 amount) public {
        stake(amount);
        assert(token.balanceOf(address(staking)) == amount && held().staked == amount);
    }

    function check_lockIsCovered(uint128 amount, uint128 first, uint128 second) public {
        stake(amount);
        staking.lock(PROVIDER, first);
        staking.lock(PROVIDER, second);
        assert(uint256(first) + second <= amount && held().locked == first + second);
    }

    function check_unlockNeverBeyondTheLock(uint128 amount, uint128 locked, uint128 unlocked) public {
        stake(amount);
        staking.lock(PROVIDER, locked);
        staking.unlock(PROVIDER, unlocked);
        assert(unlocked <= locked && held().locked == locked - unlocked && held().staked == amount);
    }

    function check_slashTakesLockedStakeAlone(uint128 amount, uint128 locked, uint128 slashed) public {
        stake(amount);
        staking.lock(PROVIDER, locked);
        staking.slash(PROVIDER, slashed);
        assert(slashed <= locked);
        assert(held().staked == amount - slashed && held().locked == locked - slashed);
        assert(token.balanceOf(address(staking)) == amount - slashed && token.balanceOf(address(this)) == slashed);
    }

    function check_unbondingIsAPartOfTheStake(uint128 amount, uint128 asked, uint128 locked, uint128 slashed) public {
        stake(amount);
        request(asked);
        staking.lock(PROVIDER, locked);
        staking.slash(PROVIDER, slashed);
        assert(held().unbonding <= held().staked && held().locked <= held().staked);
    }

    function check_withdrawLeavesTheCollateral(uint128 amount, uint128 asked, uint128 locked, uint64 time) public {
        stake(amount);
        request(asked);
        staking.lock(PROVIDER, locked);
        vm.warp(time);
        vm.prank(PROVIDER);
        uint128 sent = staking.withdraw(PROVIDER);
        assert(held().staked >= held().locked && held().locked == locked);
        assert(sent <= asked && held().staked == amount - sent);
        assert(token.balanceOf(address(staking)) == held().staked);
    }

    function check_withdrawWaitsForThePeriod(uint128 amount, uint128 asked, uint64 time) public {
        stake(amount);
        request(asked);
        vm.warp(time);
        vm.prank(PROVIDER);
        staking.withdraw(PROVIDER);
        assert(time >= 1_800_000_000 + PERIOD);
    }

    function check_theEscrowAloneLocksUnlocksAndSlashes(address caller, uint128 amount, uint8 way) public {
        vm.assume(caller != address(this));
        stake(5e6);
        staking.lock(PROVIDER, 4e6);
        bytes memory data = way == 0
            ? abi.encodeCall(staking.lock, (PROVIDER, amount))
            : way == 1
                ? abi.encodeCall(staking.unlock, (PROVIDER, amount))
                : abi.encodeCall(staking.slash, (PROVIDER, amount));
        vm.prank(caller);
        (bool worked,) = address(staking).call(data);
        assert(!worked && held().locked == 4e6 && held().staked == 5e6);
    }

    function stake(uint128 amount) private {
        Permit memory none;
        vm.prank(PROVIDER);
        staking.stake(amount, none);
    }

    function request(uint128 amount) private {
        vm.prank(PROVIDER);
        staking.requestUnstake(amount);
    }

    function held() private view returns (Stake memory) {
        return staking.stakeOf(PROVIDER);
    }
}
