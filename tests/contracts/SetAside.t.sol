// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ILeaseEscrow} from "../../contracts/interfaces/ILeaseEscrow.sol";
import {Order} from "../../contracts/interfaces/LeaseTypes.sol";
import {Base} from "./Base.sol";

/// @notice What a lease sets aside, in whole seconds, and what it draws on when that falls short.
contract SetAsideTest is Base {
    uint256 private constant HIGHEST = type(uint96).max >> 1;

    uint128 private rate;
    bytes32 private jobId;
    bytes32 private leaseId;

    function setUp() public override {
        super.setUp();
        dollar.mint(tenant, 1 << 97);
    }

    function pay(uint256 secondsEarned) private view returns (uint256) {
        return uint256(rate) * secondsEarned / 3600;
    }

    /// @dev Opens at START with `money` base units besides bond and fee.
    function openWith(uint256 money) private {
        Order memory order = anOrder(rate);
        order.deposit = uint128(money + BOND + EPOCH_FEE);
        jobId = fund(order);
        leaseId = openBid(jobId, aBid(jobId, 1, 0), rate);
    }

    /// @dev Any rate up to 2^96, and money for at least the minimum runtime.
    function anyMoney(uint128 anyRate, uint128 money) private returns (uint256) {
        rate = uint128(bound(anyRate, 1, 1 << 96));
        uint256 least = pay(MIN_RUNTIME);
        uint256 most = least + pay(2 days);
        uint256 fits = HIGHEST - BOND - EPOCH_FEE;
        return bound(money, least, most < fits ? most : fits);
    }

    /// @dev `covered` is the most seconds up to `wanted` whose pay is within `money`.
    function assertMost(uint256 covered, uint256 wanted, uint256 money) private view {
        assertLe(covered, wanted);
        assertLe(pay(covered), money);
        if (covered < wanted) assertGt(pay(covered + 1), money);
    }

    function testFuzz_openSetsAsideAsMuchOfTheLeaseAsThereIsMoney(uint128 anyRate, uint128 anyAmount) public {
        uint256 money = anyMoney(anyRate, anyAmount);
        openWith(money);
        uint32 covered = escrow.lease(leaseId).covered;
        assertMost(covered, 1 days, money);
        assertEq(reserveOf(leaseId), pay(covered));
        assertEq(freeOf(jobId), money - pay(covered));
        assertConserved();
    }

    function testFuzz_aShortfallIsCutToSecondsAndPaidLater(uint128 anyRate, uint128 anyAmount, uint32 time) public {
        uint256 money = anyMoney(anyRate, anyAmount);
        uint256 longest = HIGHEST * 3600 / rate;
        time = uint32(bound(time, MIN_RUNTIME, longest < 1 days ? longest : 1 days));
        openWith(money);
        vm.warp(START + time);
        collect(leaseId, time, time);
        assertPaid(time, money);
        if (pay(time) <= money) return;

        uint256 short = pay(time) - money;
        vm.startPrank(tenant);
        if (short > 1) escrow.topUp(jobId, uint128(short - 1), noPermit());
        vm.stopPrank();
        collect(leaseId, time, time);
        assertPaid(time, pay(time) - 1);
        assertLt(escrow.lease(leaseId).paid, time);
        vm.prank(tenant);
        escrow.topUp(jobId, 1, noPermit());
        collect(leaseId, time, time);
        assertPaid(time, pay(time));
        assertEq(escrow.lease(leaseId).paid, time);
        assertEq(freeOf(jobId), 0);
    }

    /// @dev All that whole seconds of `money` can pay is paid, and the rest is free or set aside.
    function assertPaid(uint256 time, uint256 money) private view {
        uint256 paid = escrow.lease(leaseId).paid;
        assertMost(paid, time, money);
        assertEq(escrow.claimable(provider), pay(paid) - pay(paid) / 100);
        assertEq(freeOf(jobId) + reserveOf(leaseId), money - pay(paid));
        assertConserved();
    }

    function testFuzz_suspendKeepsTheSilentTimeAndFreesTheRest(
        uint128 anyRate,
        uint128 anyAmount,
        uint32 seen,
        uint32 silent
    )
        public
    {
        uint256 money = anyMoney(anyRate, anyAmount);
        silent = uint32(bound(silent, SILENCE + 1, 30_000));
        seen = uint32(bound(seen, 0, 50_000));
        openWith(money);
        vm.warp(START + seen);
        collect(leaseId, seen, seen / 2);
        uint256 paid = escrow.lease(leaseId).paid;
        vm.warp(START + seen + silent);
        vm.prank(tenant);
        escrow.suspend(leases[leaseId], noReceipt(), "");
        uint256 covered = escrow.lease(leaseId).covered;
        assertMost(covered, seen / 2 + silent, money);
        assertEq(reserveOf(leaseId), pay(covered) - pay(paid));
        assertEq(freeOf(jobId), money - pay(covered));
        assertConserved();
        // What is free is the tenant's at once; what is kept pays what is shown later.
        vm.prank(tenant);
        escrow.refund(orders[jobId]);
        collect(leaseId, seen + silent, seen / 2 + silent);
        assertEq(escrow.lease(leaseId).paid, covered);
        assertEq(reserveOf(leaseId), 0);
        assertConserved();
    }

    function testFuzz_closeReturnsWhatIsNotEarned(uint128 anyRate, uint128 anyAmount, uint32 time) public {
        uint256 money = anyMoney(anyRate, anyAmount);
        time = uint32(bound(time, 0, 1 days));
        openWith(money);
        vm.warp(START + time);
        vm.prank(tenant);
        escrow.close(leases[leaseId], noReceipt(), "");
        uint256 kept = money - (freeOf(jobId) - BOND);
        assertEq(escrow.claimable(provider) + feesOf(jobId), kept);
        assertLe(kept, pay(time));
        if (pay(time) <= money) assertEq(kept, pay(time));
        assertConserved();
    }

    function test_anActiveLeaseDrawsOnATopUpBeyondWhatItSetAside() public {
        rate = RATE;
        openWith(RESERVE);
        vm.prank(tenant);
        escrow.topUp(jobId, 5 * PER_SECOND, noPermit());
        vm.warp(START + 1000);
        collect(leaseId, 1000, 603);
        assertEq(escrow.lease(leaseId).paid, 603);
        assertEq(escrow.lease(leaseId).covered, MIN_RUNTIME);
        assertEq(freeOf(jobId), 2 * PER_SECOND);
        // Paid beyond what it covered, it has nothing set aside; a suspension sets aside what is free.
        assertEq(reserveOf(leaseId), 0);
        vm.prank(watcher);
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.NotSilent.selector, START + 1000, SILENCE));
        escrow.suspend(leases[leaseId], noReceipt(), "");
        vm.warp(START + 1010);
        vm.prank(watcher);
        escrow.suspend(leases[leaseId], noReceipt(), "");
        assertEq(escrow.lease(leaseId).covered, 605);
        assertEq(freeOf(jobId), 0);
        assertConserved();
    }

    function test_theNextEpochOpensFromWhatASuspensionFrees() public {
        rate = RATE;
        openWith(1 days * PER_SECOND + BOND + EPOCH_FEE);
        vm.warp(START + 1000);
        vm.prank(watcher);
        escrow.suspend(leases[leaseId], noReceipt(), "");
        bytes32 second = openBid(jobId, aBid(jobId, 2));
        assertEq(reserveOf(leaseId), 1000 * PER_SECOND);
        assertEq(reserveOf(second), (1 days - 1000) * PER_SECOND);
        assertEq(freeOf(jobId), 0);
        assertConserved();
    }
}
