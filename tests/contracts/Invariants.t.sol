// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Stake} from "../../contracts/interfaces/IProviderStaking.sol";
import {Job, Lease, LeaseState} from "../../contracts/interfaces/LeaseTypes.sol";
import {Base} from "./Base.sol";
import {Handler} from "./Handler.sol";

/// @notice
/// 1. The escrow holds exactly the jobs' balances and the accounts' credits.
/// 2. The staking contract holds exactly the stakes.
/// 3. A job's reserved part is the sum of its leases' reserves and bonds, and never more than its balance.
/// 4. A provider's locked stake is the collateral of their open and disputed leases, and never more than the stake.
/// 5. A job has one active lease, the one it names, or none.
/// 6. Nobody is paid beyond the lease's rate and time.
contract InvariantsTest is Base {
    Handler private handler;

    function setUp() public override {
        super.setUp();
        vm.prank(provider);
        staking.requestUnstake(STAKE);
        vm.warp(START + UNBONDING);
        vm.prank(provider);
        staking.withdraw(provider);
        address[] memory others = new address[](3);
        (others[0], others[1], others[2]) = (keeper, treasury, insurance);
        handler = new Handler(escrow, dollar, others);
        targetContract(address(handler));
    }

    function invariant_moneyIsConserved() public view {
        (uint256 jobs,, uint256 accounts) = handler.counts();
        uint256 owed;
        for (uint256 i = 0; i < jobs; i++) {
            owed += escrow.job(handler.jobs(i)).balance;
        }
        for (uint256 i = 0; i < accounts; i++) {
            owed += escrow.claimable(handler.accounts(i));
        }
        assertEq(dollar.balanceOf(address(escrow)), owed);
        uint256 staked;
        for (uint256 i = 0; i < 3; i++) {
            staked += staking.stakeOf(handler.providerAt(i)).staked;
        }
        assertEq(dollar.balanceOf(address(staking)), staked);
    }

    function invariant_reservesAndLocksAddUp() public view {
        (uint256 jobs, uint256 leases,) = handler.counts();
        for (uint256 i = 0; i < jobs; i++) {
            bytes32 jobId = handler.jobs(i);
            Job memory job = escrow.job(jobId);
            uint256 reserved;
            uint256 active;
            for (uint256 k = 0; k < leases; k++) {
                Lease memory lease = escrow.lease(handler.leases(k));
                if (lease.jobId != jobId) continue;
                reserved += lease.reserve + lease.bond;
                if (lease.state == LeaseState.Active) {
                    active++;
                    assertEq(job.activeLease, handler.leases(k));
                }
            }
            assertEq(job.reserved, reserved);
            assertLe(job.reserved, job.balance);
            assertEq(active, job.activeLease == bytes32(0) ? 0 : 1);
        }
        for (uint256 i = 0; i < 3; i++) {
            uint256 locked;
            for (uint256 k = 0; k < leases; k++) {
                Lease memory lease = escrow.lease(handler.leases(k));
                bool holds = lease.state == LeaseState.Active || lease.state == LeaseState.Suspended;
                if (holds && lease.provider == handler.providerAt(i)) locked += lease.collateral;
            }
            Stake memory held = staking.stakeOf(handler.providerAt(i));
            assertEq(held.locked, locked);
            assertLe(held.locked, held.staked);
            assertLe(held.unbonding, held.staked);
        }
    }

    function invariant_nobodyIsPaidBeyondRateAndTime() public view {
        (, uint256 leases,) = handler.counts();
        for (uint256 k = 0; k < leases; k++) {
            Lease memory lease = escrow.lease(handler.leases(k));
            uint64 end = lease.suspendedAt != 0 ? lease.suspendedAt : lease.closableAt;
            assertLe(lease.earned, end - lease.startedAt);
            assertLe(lease.paid, uint256(lease.rate) * lease.earned / 3600);
            bool ended = lease.state != LeaseState.Active && lease.state != LeaseState.Suspended;
            if (ended) assertEq(lease.reserve + lease.bond, 0);
        }
    }
}
