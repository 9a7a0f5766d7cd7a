// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {Test} from "forge-std/Test.sol";

import {LeaseEscrow} from "../../../contracts/LeaseEscrow.sol";
import {ProviderStaking} from "../../../contracts/ProviderStaking.sol";
import {NodeAuth} from "../../../contracts/interfaces/IProviderStaking.sol";
import {
    Bid,
    Config,
    Job,
    Lease,
    LeaseState,
    Order,
    Receipt as LeaseReceipt
} from "../../../contracts/interfaces/LeaseTypes.sol";
import {Permit} from "../../../contracts/libraries/Deposits.sol";
import {NoReturnToken} from "../world/Tokens.sol";

/// @notice Signs everything: what is proved holds whatever the watcher, tenant and node have signed.
contract Willing {
    function isValidSignature(bytes32, bytes calldata) external pure returns (bytes4) {
        return 0x1626ba7e;
    }
}

/// @notice Proofs by Halmos about one lease: one job, rate and deposit fixed; every time, receipt and caller.
contract EscrowProofs is Test {
    uint64 private constant START = 1_800_000_000;
    uint64 private constant DEADLINE = START + 1 days;
    uint64 private constant WINDOW = 60;
    uint32 private constant SILENCE = 5;
    uint128 private constant RATE = 3_600_000;
    uint128 private constant DEPOSIT = 2_000_000;
    uint128 private constant COLLATERAL = 10e6;

    address private constant TREASURY = address(0x7777);
    address private constant INSURANCE = address(0x1111);
    address private tenant;
    address private watcher;
    address private provider;
    address private node;
    NoReturnToken private token;
    LeaseEscrow private escrow;
    ProviderStaking private staking;
    bytes32 private jobId;
    bytes32 private leaseId;

    function setUp() public {
        vm.warp(START);
        token = new NoReturnToken(6);
        escrow = new LeaseEscrow(
            IERC20(address(token)),
            Config(WINDOW, 600, 1 days, 365 days, 2, 300, 100, 500, 3000, 500, 100_000, TREASURY, INSURANCE)
        );
        staking = ProviderStaking(escrow.staking());
        tenant = address(new Willing());
        watcher = address(new Willing());
        provider = address(new Willing());
        node = address(new Willing());
        token.mint(tenant, DEPOSIT);
        token.mint(provider, COLLATERAL);
        Permit memory unpermitted;
        vm.prank(tenant);
        token.approve(address(escrow), type(uint256).max);
        vm.startPrank(provider);
        token.approve(address(staking), type(uint256).max);
        staking.stake(COLLATERAL, unpermitted);
        staking.authoriseNode(NodeAuth(provider, node, START, 1), "");
        vm.stopPrank();
        Order memory order =
            Order(tenant, watcher, bytes32(0), RATE, DEPOSIT, COLLATERAL, SILENCE, 10, 1000, DEADLINE, 1);
        jobId = escrow.fund(order, "", unpermitted);
        Bid memory bid = Bid(provider, node, jobId, 1, RATE, COLLATERAL, DEADLINE, 1);
        vm.prank(watcher);
        leaseId = escrow.open(jobId, bid, "", RATE);
    }

    function check_accrualIsWithinTimeAndDeposit(uint64 time, uint64 seen, uint64 earned) public {
        at(time);
        escrow.collect(leaseId, receiptOf(seen, earned, false), "");
        Lease memory lease = escrow.lease(leaseId);
        assert(lease.earned <= time - START && lease.earned <= DEADLINE - START);
        assert(lease.paid <= DEPOSIT && lease.paid <= uint256(RATE) * lease.earned / 3600);
        conserved();
    }

    function check_anOlderReceiptPaysNothing(uint64 first, uint64 second) public {
        vm.assume(second <= first);
        at(START + 1 hours);
        escrow.collect(leaseId, receiptOf(START + 1 hours, first, false), "");
        uint128 paid = escrow.lease(leaseId).paid;
        escrow.collect(leaseId, receiptOf(START + 1 hours, second, false), "");
        assert(escrow.lease(leaseId).paid == paid);
    }

    function check_closePaysReleasesAndUnlocks(uint64 time, uint64 seen, uint64 earned, bool isFinal) public {
        at(time);
        vm.prank(tenant);
        escrow.close(leaseId, receiptOf(seen, earned, isFinal), "");
        Lease memory lease = escrow.lease(leaseId);
        assert(lease.state == LeaseState.Closed && lease.reserve == 0 && lease.bond == 0);
        assert(escrow.job(jobId).reserved == 0 && staking.stakeOf(provider).locked == 0);
        conserved();
    }

    function check_strangersCloseAfterTheEndAlone(address caller, uint64 time, uint64 seen, uint64 earned) public {
        vm.assume(caller != tenant && caller != watcher);
        at(time);
        vm.prank(caller);
        escrow.close(leaseId, receiptOf(seen, earned, false), "");
        assert(time > DEADLINE + WINDOW);
    }

    function check_aClosedLeaseIsFinal(uint8 way, uint64 time, uint64 seen, uint64 earned, bool isFinal) public {
        vm.prank(tenant);
        escrow.close(leaseId, none(), "");
        assert(!settles(way, time, receiptOf(seen, earned, isFinal)));
    }

    function check_aFailedLeaseIsFinal(uint8 way, uint64 time, uint64 seen, uint64 earned, bool isFinal) public {
        suspendAt(START + 100);
        vm.warp(START + 100 + WINDOW + 1);
        escrow.fail(leaseId);
        assert(!settles(way, time, receiptOf(seen, earned, isFinal)));
    }

    function check_aClearedLeaseIsFinal(uint8 way, uint64 time, uint64 seen, uint64 earned, bool isFinal) public {
        suspendAt(START + 100);
        escrow.answer(leaseId, receiptOf(START, 0, true), "");
        assert(escrow.lease(leaseId).state == LeaseState.Cleared);
        assert(!settles(way, time, receiptOf(seen, earned, isFinal)));
    }

    function check_suspendNeedsSilence(uint64 time) public {
        at(time);
        vm.prank(watcher);
        escrow.suspend(leaseId, none(), "");
        Lease memory lease = escrow.lease(leaseId);
        assert(time > START + SILENCE && lease.state == LeaseState.Suspended && lease.suspendedAt <= DEADLINE);
        conserved();
    }

    function check_suspendByTenantOrWatcherAlone(address caller, uint64 time) public {
        at(time);
        vm.prank(caller);
        escrow.suspend(leaseId, none(), "");
        assert(caller == tenant || caller == watcher);
    }

    function check_answerIsWithinTheWindow(uint64 time, uint64 seen, uint64 earned, bool isFinal) public {
        suspendAt(START + 100);
        vm.assume(time >= START + 100);
        at(time);
        vm.prank(provider);
        escrow.answer(leaseId, receiptOf(seen, earned, isFinal), "");
        assert(time <= START + 100 + WINDOW);
        LeaseState state = escrow.lease(leaseId).state;
        bool sufficient = isFinal || uint256(seen) + SILENCE >= START + 100;
        assert(state == (sufficient ? LeaseState.Cleared : LeaseState.Failed));
        assert(staking.stakeOf(provider).locked == 0);
        assert(staking.stakeOf(provider).staked == (sufficient ? COLLATERAL : COLLATERAL - COLLATERAL / 20));
        conserved();
    }

    function check_failIsAfterTheWindowAndTakesTheCollateral(uint64 time) public {
        suspendAt(START + 100);
        vm.assume(time >= START + 100);
        at(time);
        escrow.fail(leaseId);
        assert(time > START + 100 + WINDOW);
        assert(staking.stakeOf(provider).staked == 0 && staking.stakeOf(provider).locked == 0);
        assert(escrow.claimable(INSURANCE) >= COLLATERAL / 10);
        conserved();
    }

    function check_refundLeavesWhatIsReserved(address caller, uint64 time) public {
        suspendAt(START + 100);
        vm.assume(time >= START + 100);
        at(time);
        vm.prank(caller);
        escrow.refund(jobId);
        assert(caller == tenant || time > DEADLINE);
        assert(escrow.job(jobId).balance == escrow.job(jobId).reserved);
        assert(escrow.job(jobId).reserved == escrow.lease(leaseId).reserve + escrow.lease(leaseId).bond);
        conserved();
    }

    function check_noRefundWhileActive(address caller, uint64 time) public {
        at(time);
        vm.prank(caller);
        (bool worked,) = address(escrow).call(abi.encodeCall(escrow.refund, (jobId)));
        assert(!worked);
    }

    function suspendAt(uint64 time) private {
        vm.warp(time);
        vm.prank(watcher);
        escrow.suspend(leaseId, none(), "");
    }

    /// @dev Whether any call on the lease works, by whoever has the most rights.
    function settles(uint8 way, uint64 time, LeaseReceipt memory receipt) private returns (bool worked) {
        vm.assume(time >= START + 200);
        at(time);
        vm.prank(way < 3 ? watcher : provider);
        if (way == 0) (worked,) = address(escrow).call(abi.encodeCall(escrow.close, (leaseId, receipt, "")));
        else if (way == 1) (worked,) = address(escrow).call(abi.encodeCall(escrow.suspend, (leaseId, receipt, "")));
        else if (way == 2) (worked,) = address(escrow).call(abi.encodeCall(escrow.collect, (leaseId, receipt, "")));
        else if (way == 3) (worked,) = address(escrow).call(abi.encodeCall(escrow.answer, (leaseId, receipt, "")));
        else if (way == 4) (worked,) = address(escrow).call(abi.encodeCall(escrow.notice, (leaseId)));
        else (worked,) = address(escrow).call(abi.encodeCall(escrow.fail, (leaseId)));
    }

    function at(uint64 time) private {
        vm.assume(time >= START && time <= START + 3650 days);
        vm.warp(time);
    }

    function receiptOf(uint64 seen, uint64 earned, bool isFinal) private view returns (LeaseReceipt memory) {
        return LeaseReceipt(leaseId, 1, seen, earned, isFinal, bytes32(0));
    }

    function none() private pure returns (LeaseReceipt memory receipt) {}

    function conserved() private view {
        Job memory job = escrow.job(jobId);
        uint256 owed = job.balance + escrow.claimable(provider) + escrow.claimable(watcher) + escrow.claimable(tenant)
            + escrow.claimable(TREASURY) + escrow.claimable(INSURANCE) + escrow.claimable(address(this));
        assert(job.reserved <= job.balance);
        assert(token.balanceOf(address(escrow)) == owed);
        assert(token.balanceOf(address(staking)) == staking.stakeOf(provider).staked);
    }
}
