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
    LeaseParams,
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

/// @notice Proofs by Halmos about one lease: one job, rate and deposit fixed (non-linear arithmetic is beyond the solver);
/// every time, receipt and caller. A second of service is 1000 base units, and the deposit covers 1,899 s of the day.
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
    Order private order;
    LeaseParams private params;

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
        order = Order(tenant, watcher, bytes32(0), RATE, DEPOSIT, COLLATERAL, SILENCE, 10, 1000, DEADLINE, 1);
        jobId = escrow.fund(order, "", unpermitted);
        Bid memory bid = Bid(provider, node, jobId, 1, RATE, COLLATERAL, DEADLINE, 1);
        vm.prank(watcher);
        leaseId = escrow.open(order, bid, "", RATE);
        params = LeaseParams(jobId, tenant, watcher, provider, node, 1, SILENCE, RATE, COLLATERAL, 1);
    }

    function check_earnedIsWithinTheLeasesTime(uint64 time, uint64 seen, uint64 earned) public {
        at(time);
        escrow.collect(params, receiptOf(seen, earned, false), "");
        Lease memory lease = escrow.lease(leaseId);
        assert(lease.earned <= lease.seen && lease.seen <= time - START && lease.seen <= DEADLINE - START);
    }

    /// @dev 256 values: beyond that the divisions take the solver too long.
    function check_paidIsWithinEarnedAndDeposit(uint8 late) public {
        at(START + 1 hours);
        escrow.collect(params, receiptOf(START + 1 hours, 1700 + uint64(late), false), "");
        Lease memory lease = escrow.lease(leaseId);
        assert(lease.paid <= lease.earned && uint256(lease.paid) * 1000 <= DEPOSIT);
    }

    /// @dev 256 values, as above.
    function check_collectConserves(uint8 late) public {
        at(START + 1 hours);
        escrow.collect(params, receiptOf(START + 1 hours, 1700 + uint64(late), false), "");
        conserved();
    }

    /// @dev 256 values, as above, on both sides of what the deposit covers.
    function check_collectPaysWhatIsEarnedAndCovered(uint8 late) public {
        at(START + 1 hours);
        uint256 earned = 1700 + uint256(late);
        escrow.collect(params, receiptOf(START + 1 hours, uint64(earned), false), "");
        uint256 most = (DEPOSIT - 100_000 - 1000) / 1000;
        assert(escrow.lease(leaseId).paid == (earned < most ? earned : most));
    }

    function check_anOlderReceiptPaysNothing(uint64 second) public {
        at(START + 1 hours);
        escrow.collect(params, receiptOf(START + 1000, 1000, false), "");
        uint256 credit = escrow.claimable(provider);
        vm.assume(second <= 1000);
        escrow.collect(params, receiptOf(START + 1000, second, false), "");
        assert(escrow.claimable(provider) == credit);
    }

    function check_anEarlierHeartbeatChangesNothing(uint64 seen, uint64 earned) public {
        at(START + 1 hours);
        escrow.collect(params, receiptOf(START + 1000, 1000, false), "");
        uint256 credit = escrow.claimable(provider);
        vm.assume(seen <= START + 1000);
        escrow.collect(params, receiptOf(seen, earned, false), "");
        assert(escrow.claimable(provider) == credit && escrow.lease(leaseId).seen == 1000);
    }

    function check_strangersCloseAfterTheEndAlone(address caller, uint64 time) public {
        vm.assume(caller != tenant && caller != watcher);
        at(time);
        vm.prank(caller);
        escrow.close(params, none(), "");
        assert(time > DEADLINE + WINDOW);
    }

    function check_strangersDontCloseWithAnUnfinalReceipt(address caller, uint64 seen, uint64 earned) public {
        vm.assume(caller != tenant && caller != watcher);
        at(DEADLINE + WINDOW);
        vm.prank(caller);
        (bool worked,) =
            address(escrow).call(abi.encodeCall(escrow.close, (params, receiptOf(seen, earned, false), "")));
        assert(!worked);
    }

    function check_closeByTheTenantReleasesAll(uint64 time) public {
        at(time);
        vm.prank(tenant);
        escrow.close(params, none(), "");
        ended();
    }

    function check_closeWithAFinalReceiptReleasesAll(uint64 seen) public {
        at(START + 1000);
        escrow.close(params, receiptOf(seen, 500, true), "");
        ended();
    }

    function check_closePaysUpToNow(uint64 time) public {
        at(time);
        vm.assume(time <= START + 1000);
        vm.prank(tenant);
        escrow.close(params, none(), "");
        assert(escrow.claimable(provider) == (time - START) * 990);
        conserved();
    }

    function check_aClosedLeaseIsFinal(uint8 way, uint64 time) public {
        vm.prank(tenant);
        escrow.close(params, none(), "");
        assert(!settles(way, time));
    }

    function check_aFailedLeaseIsFinal(uint8 way, uint64 time) public {
        suspendAt(START + 100);
        vm.warp(START + 100 + WINDOW + 1);
        escrow.fail(params);
        assert(!settles(way, time));
    }

    function check_aClearedLeaseIsFinal(uint8 way, uint64 time) public {
        suspendAt(START + 100);
        escrow.answer(params, receiptOf(START, 0, true), "");
        assert(!settles(way, time));
    }

    function check_aDroppedLeaseIsFinal(uint8 way, uint64 time) public {
        suspendAt(START + 100);
        vm.prank(provider);
        escrow.answer(params, none(), "");
        assert(!settles(way, time));
    }

    function check_noOtherParamsAreALease(LeaseParams memory others, uint64 time) public {
        vm.assume(keccak256(abi.encode(others)) != leaseId);
        at(time);
        vm.prank(others.tenant);
        (bool worked,) = address(escrow).call(abi.encodeCall(escrow.close, (others, none(), "")));
        assert(!worked);
    }

    function check_suspendNeedsSilence(uint64 time) public {
        at(time);
        vm.prank(watcher);
        escrow.suspend(params, none(), "");
        Lease memory lease = escrow.lease(leaseId);
        assert(time > START + SILENCE && lease.state == LeaseState.Suspended);
        assert(lease.endsAt <= DEADLINE && lease.endsAt <= time && lease.exitAt == time + WINDOW);
    }

    function check_suspendSetsAsideTheSilentTimeAlone(uint64 time) public {
        at(time);
        vm.prank(watcher);
        escrow.suspend(params, none(), "");
        assert(escrow.lease(leaseId).covered <= time - START && !escrow.job(jobId).active);
        conserved();
    }

    function check_suspendByTenantOrWatcherAlone(address caller, uint64 time) public {
        at(time);
        vm.prank(caller);
        escrow.suspend(params, none(), "");
        assert(caller == tenant || caller == watcher);
    }

    function check_answerIsWithinTheWindow(uint64 time) public {
        suspendAt(START + 100);
        vm.assume(time >= START + 100);
        at(time);
        vm.prank(provider);
        escrow.answer(params, none(), "");
        assert(time <= START + 100 + WINDOW);
    }

    function check_aSufficientReceiptClears(uint64 seen) public {
        suspendAt(START + 100);
        vm.assume(seen >= START + 100 - SILENCE && seen <= START + 3650 days);
        escrow.answer(params, receiptOf(seen, 0, false), "");
        assert(staked() == COLLATERAL && escrow.claimable(provider) == 100_000);
        ended();
    }

    function check_anInsufficientReceiptIsADrop(uint64 seen) public {
        suspendAt(START + 100);
        vm.assume(seen < START + 100 - SILENCE);
        vm.prank(provider);
        escrow.answer(params, receiptOf(seen, 0, false), "");
        assert(staked() == COLLATERAL - COLLATERAL / 20);
        ended();
    }

    function check_answerWithoutAReceiptByProviderOrNodeAlone(address caller) public {
        suspendAt(START + 100);
        vm.prank(caller);
        escrow.answer(params, none(), "");
        assert(caller == provider || caller == node);
        assert(staked() == COLLATERAL - COLLATERAL / 20 && escrow.claimable(INSURANCE) == COLLATERAL / 20);
        ended();
    }

    function check_failIsAfterTheWindowAndTakesTheCollateral(uint64 time) public {
        suspendAt(START + 100);
        vm.assume(time >= START + 100);
        at(time);
        escrow.fail(params);
        assert(time > START + 100 + WINDOW);
        assert(staked() == 0 && escrow.claimable(INSURANCE) >= COLLATERAL / 10);
        ended();
    }

    function check_noticeByTheProviderAlone(address caller, uint64 time) public {
        at(time);
        vm.prank(caller);
        escrow.notice(params);
        Lease memory lease = escrow.lease(leaseId);
        assert(caller == provider && lease.exitAt == time + WINDOW && lease.exitAt < DEADLINE + WINDOW);
        assert(lease.endsAt <= DEADLINE && lease.endsAt <= lease.exitAt && lease.state == LeaseState.Active);
    }

    function check_refundLeavesWhatIsSetAside(address caller, uint64 time) public {
        suspendAt(START + 100);
        vm.assume(time >= START + 100 && caller != address(escrow));
        at(time);
        vm.prank(caller);
        escrow.refund(order);
        assert(caller == tenant || time > DEADLINE);
        assert(escrow.job(jobId).free == 0 && escrow.lease(leaseId).covered == 100);
        conserved();
    }

    function check_noRefundWhileActive(address caller, uint64 time) public {
        at(time);
        vm.prank(caller);
        (bool worked,) = address(escrow).call(abi.encodeCall(escrow.refund, (order)));
        assert(!worked);
    }

    function check_feesGoToTheTreasuryOnce(address caller) public {
        at(START + 1000);
        escrow.close(params, receiptOf(START + 1000, 1000, true), "");
        vm.prank(caller);
        assert(escrow.sweepFees(jobId) == 10_000);
        assert(escrow.claimable(TREASURY) == 10_000 && escrow.sweepFees(jobId) == 0);
        conserved();
    }

    function suspendAt(uint64 time) private {
        vm.warp(time);
        vm.prank(watcher);
        escrow.suspend(params, none(), "");
    }

    /// @dev Whether any call on the lease works, by whoever has the most rights, with a final receipt over its whole time.
    function settles(uint8 way, uint64 time) private returns (bool worked) {
        vm.assume(time >= START + 200);
        at(time);
        LeaseReceipt memory receipt = receiptOf(time, time - START, true);
        vm.prank(way < 3 ? watcher : provider);
        if (way == 0) (worked,) = address(escrow).call(abi.encodeCall(escrow.close, (params, receipt, "")));
        else if (way == 1) (worked,) = address(escrow).call(abi.encodeCall(escrow.suspend, (params, receipt, "")));
        else if (way == 2) (worked,) = address(escrow).call(abi.encodeCall(escrow.collect, (params, receipt, "")));
        else if (way == 3) (worked,) = address(escrow).call(abi.encodeCall(escrow.answer, (params, receipt, "")));
        else if (way == 4) (worked,) = address(escrow).call(abi.encodeCall(escrow.notice, (params)));
        else (worked,) = address(escrow).call(abi.encodeCall(escrow.fail, (params)));
    }

    function at(uint64 time) private {
        vm.assume(time >= START && time <= START + 3650 days);
        vm.warp(time);
    }

    /// @dev The lease is gone, its collateral unlocked but for what was slashed, and no unit is lost.
    function ended() private view {
        Lease memory lease = escrow.lease(leaseId);
        assert(lease.state == LeaseState.None && lease.paid == 0 && lease.covered == 0);
        assert(escrow.lockedOf(provider) == staking.stakeOf(provider).slashed);
        assert(!escrow.job(jobId).active);
        conserved();
    }

    function receiptOf(uint64 seen, uint64 earned, bool isFinal) private view returns (LeaseReceipt memory) {
        return LeaseReceipt(leaseId, 1, seen, earned, isFinal, bytes32(0));
    }

    function none() private pure returns (LeaseReceipt memory receipt) {}

    function staked() private view returns (uint128) {
        return staking.stakeOf(provider).deposited - staking.stakeOf(provider).slashed;
    }

    function conserved() private view {
        Job memory job = escrow.job(jobId);
        uint256 owed = uint256(job.free) + job.fees + escrow.claimable(provider) + escrow.claimable(watcher)
            + escrow.claimable(tenant) + escrow.claimable(TREASURY) + escrow.claimable(INSURANCE)
            + escrow.claimable(address(this));
        Lease memory lease = escrow.lease(leaseId);
        if (lease.state != LeaseState.None) {
            // 1000 base units a second, of which a hundredth is the fee.
            uint256 aside = lease.covered > lease.paid ? lease.covered - lease.paid : 0;
            owed += aside * 1000 + uint256(lease.paid) * 10 + 100_000;
        }
        assert(token.balanceOf(address(escrow)) == owed);
        assert(token.balanceOf(address(staking)) == staked());
    }
}
