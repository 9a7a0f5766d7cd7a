// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {Test} from "forge-std/Test.sol";

import {ProviderStaking} from "../../../contracts/ProviderStaking.sol";
import {Stake} from "../../../contracts/interfaces/IProviderStaking.sol";
import {Permit} from "../../../contracts/libraries/Deposits.sol";
import {NoReturnToken} from "../world/Tokens.sol";

/// @notice Proofs by Halmos for every amount (2^128 values each) and every time; one provider, the proof is the escrow and
/// says what is locked.
contract StakingProofs is Test {
    address private constant PROVIDER = address(0xCA5);
    uint64 private constant PERIOD = 1 days;

    NoReturnToken private token;
    ProviderStaking private staking;
    /// @dev What the staking contract asks its escrow.
    mapping(address provider => uint128) public lockedOf;

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
        assert(token.balanceOf(address(staking)) == amount && held().deposited == amount && held().slashed == 0);
    }

    function check_lockableIsDepositedLessLocked(uint128 amount, uint128 locked) public {
        stake(amount);
        lockedOf[PROVIDER] = locked;
        assert(staking.lockable(PROVIDER) == amount - locked && locked <= amount);
    }

    function check_slashTakesTheAmountAndNoMore(uint128 amount, uint128 slashed) public {
        stake(amount);
        vm.assume(slashed <= amount);
        staking.slash(PROVIDER, slashed);
        assert(held().deposited == amount && held().slashed == slashed);
        assert(token.balanceOf(address(staking)) == amount - slashed && token.balanceOf(address(this)) == slashed);
    }

    function check_slashNeverBeyondTheStake(uint128 amount, uint128 slashed) public {
        stake(amount);
        staking.slash(PROVIDER, slashed);
        assert(slashed <= amount);
    }

    function check_unbondingIsAPartOfWhatIsLeft(uint128 amount, uint128 asked, uint128 slashed) public {
        stake(amount);
        request(asked);
        vm.assume(slashed <= amount);
        staking.slash(PROVIDER, slashed);
        assert(held().unbonding <= amount - slashed && held().unbonding <= asked);
    }

    function check_newStakeDoesntUnbondForTheSlashed(
        uint128 amount,
        uint128 asked,
        uint128 slashed,
        uint64 more
    )
        public
    {
        stake(amount);
        request(asked);
        vm.assume(slashed <= amount);
        staking.slash(PROVIDER, slashed);
        uint128 before = held().unbonding;
        stake(more);
        assert(held().unbonding == before);
    }

    function check_withdrawLeavesWhatIsLocked(uint128 amount, uint128 asked, uint128 locked) public {
        stake(amount);
        request(asked);
        vm.assume(locked <= amount);
        lockedOf[PROVIDER] = locked;
        vm.warp(1_800_000_000 + PERIOD);
        vm.prank(PROVIDER);
        uint128 sent = staking.withdraw(PROVIDER);
        assert(held().deposited >= locked);
        assert(sent <= asked && held().deposited == amount - sent);
        assert(token.balanceOf(address(staking)) == held().deposited);
    }

    function check_withdrawAfterASlashLeavesTheRest(uint128 amount, uint128 slashed) public {
        stake(amount);
        request(amount);
        vm.assume(slashed <= amount);
        staking.slash(PROVIDER, slashed);
        lockedOf[PROVIDER] = slashed;
        vm.warp(1_800_000_000 + PERIOD);
        vm.prank(PROVIDER);
        assert(staking.withdraw(PROVIDER) == amount - slashed);
        assert(token.balanceOf(address(staking)) == 0);
    }

    function check_withdrawWaitsForThePeriod(uint128 amount, uint128 asked, uint64 time) public {
        stake(amount);
        request(asked);
        vm.warp(time);
        vm.prank(PROVIDER);
        staking.withdraw(PROVIDER);
        assert(time >= 1_800_000_000 + PERIOD);
    }

    function check_theEscrowAloneSlashes(address caller, uint128 amount) public {
        vm.assume(caller != address(this));
        stake(5e6);
        vm.prank(caller);
        (bool worked,) = address(staking).call(abi.encodeCall(staking.slash, (PROVIDER, amount)));
        assert(!worked && held().slashed == 0);
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
