// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

import {LeaseEscrow} from "../../../contracts/LeaseEscrow.sol";
import {ProviderStaking} from "../../../contracts/ProviderStaking.sol";
import {Stake} from "../../../contracts/interfaces/IProviderStaking.sol";
import {Config, Job, Lease, LeaseState} from "../../../contracts/interfaces/LeaseTypes.sol";
import {Base} from "../Base.sol";
import {Society} from "./Society.sol";
import {IMintable} from "./World.sol";

/// @notice The invariants of docs/protocol.md, all checked after every call of the campaign. Jobs and leases that are
/// over are forgotten (a job only once its balance is zero), so that a check costs the same however long a run is.
abstract contract Campaign is Base {
    Society internal society;
    LeaseEscrow private _escrow;
    ProviderStaking private _staking;
    Config private _terms;
    uint64 private _clock;

    function prepare(IMintable token, uint128 unit) internal {
        vm.warp(START);
        _terms = terms();
        _escrow = new LeaseEscrow(IERC20(address(token)), _terms);
        _staking = ProviderStaking(_escrow.staking());
        society = new Society(_escrow, token, unit);
        targetContract(address(society));
        bytes4[] memory left = new bytes4[](1);
        left[0] = Society.windUp.selector;
        excludeSelector(FuzzSelector(address(society), left));
    }

    /// @dev I-24, and the share of calls that acted, for the report.
    function afterInvariant() external {
        (,,,, uint256 count) = society.counts();
        string memory report = vm.envOr("EVERLEASE_CAMPAIGN_REPORT", string(""));
        for (uint256 i = 0; i < count; i++) {
            string memory name = society.names(i);
            (uint64 calls, uint64 done) = society.tallies(name);
            if (calls >= 50) assertGe(uint256(done) * 2, calls, string.concat("idle handler: ", name));
            if (bytes(report).length == 0) continue;
            vm.writeLine(report, string.concat(name, " ", vm.toString(calls), " ", vm.toString(done)));
        }
        society.windUp();
    }

    function invariant_all() external {
        _clock = uint64(vm.getBlockTimestamp());
        uint256 balances = _checkJobs();
        _checkMoney(balances);
        uint256[3] memory locked;
        uint256[5] memory reserved;
        _checkLeases(locked, reserved);
        _checkReserved(reserved);
        _checkEnded();
        _checkStake(locked);
        assertEq(society.attacksThatWorked(), 0, "I-22 an attack worked");
        assertEq(society.oddRefusals(), 0, "I-23 refused without a named error");
    }

    function _checkMoney(uint256 balances) private view {
        (,,, uint256 count,) = society.counts();
        uint256 credits;
        for (uint256 i = 0; i < count; i++) {
            address account = society.accounts(i);
            uint256 claimable = _escrow.claimable(account);
            assertEq(claimable, society.due(account), "I-04 an account's credit is what the rules gave it");
            credits += claimable;
        }
        IMintable token = society.TOKEN();
        uint256 held = token.balanceOf(address(_escrow));
        assertEq(held, balances + credits, "I-01 the escrow holds what it owes");
        uint256 stake = token.balanceOf(address(_staking));
        assertEq(held + stake, society.deposited() - society.withdrawn(), "I-03 what came in and hasn't left is there");
    }

    function _checkJobs() private view returns (uint256 balances) {
        (uint256 count,,,,) = society.counts();
        for (uint256 i = 0; i < count; i++) {
            bytes32 jobId = society.jobs(i);
            Job memory job = _escrow.job(jobId);
            assertEq(keccak256(abi.encode(job)), society.jobHash(jobId), "I-06 only a call about a job changes it");
            assertEq(job.balance, society.jobIn(jobId) - society.jobOut(jobId), "I-05 a job's balance is in less out");
            assertLe(job.reserved, job.balance, "I-07 nothing is reserved that isn't there");
            assertEq(job.epochs, society.opens(jobId), "I-09 epochs count the leases");
            assertLe(job.epochs, job.maxEpochs, "I-09 epochs are bounded");
            balances += job.balance;
        }
    }

    function _checkReserved(uint256[5] memory reserved) private view {
        (uint256 count,,,,) = society.counts();
        for (uint256 i = 0; i < count; i++) {
            assertEq(
                _escrow.job(society.jobs(i)).reserved, reserved[i], "I-08 reserved is the leases' reserve and bond"
            );
        }
    }

    function _checkLeases(uint256[3] memory locked, uint256[5] memory reserved) private view {
        (uint256 jobCount, uint256 count,,,) = society.counts();
        uint256[5] memory active;
        for (uint256 i = 0; i < count; i++) {
            bytes32 id = society.leases(i);
            Lease memory lease = _escrow.lease(id);
            assertEq(keccak256(abi.encode(lease)), society.leaseHash(id), "I-11 only a call about a lease changes it");
            _checkLease(id, lease);
            for (uint256 k = 0; k < 3; k++) {
                if (society.providers(k) == lease.provider) locked[k] += lease.collateral;
            }
            for (uint256 k = 0; k < jobCount; k++) {
                if (society.jobs(k) != lease.jobId) continue;
                reserved[k] += lease.reserve + lease.bond;
                if (lease.state != LeaseState.Active) continue;
                active[k]++;
                assertEq(_escrow.job(lease.jobId).activeLease, id, "I-10 the job names its active lease");
            }
        }
        for (uint256 k = 0; k < jobCount; k++) {
            bool named = _escrow.job(society.jobs(k)).activeLease != bytes32(0);
            assertEq(active[k], named ? 1 : 0, "I-10 a job has one active lease or none");
        }
    }

    function _checkLease(bytes32 id, Lease memory lease) private view {
        (uint128 bidRate, uint128 orderRate, uint128 cap, bool wasSuspended) = society.openings(id);
        bool suspended = lease.state == LeaseState.Suspended;
        assertTrue(suspended || lease.state == LeaseState.Active, "I-12 a lease that runs is active or suspended");
        assertEq(suspended, wasSuspended, "I-12 suspended by suspend alone");
        assertTrue(bidRate <= lease.rate && lease.rate <= orderRate, "I-13 the rate is within bid and order");
        uint64 end = suspended ? lease.suspendedAt : lease.endsAt;
        uint64 length = end > lease.startedAt ? end - lease.startedAt : 0;
        assertLe(lease.earned, length, "I-14 service is within the lease's time");
        assertLe(lease.earned, _clock - lease.startedAt, "I-14 service is in the past");
        assertLe(lease.paid, uint256(lease.rate) * lease.earned / 3600, "I-15 pay is within rate and service");
        assertLe(lease.seenAt, _clock, "I-16 heartbeats are in the past");
        assertGe(lease.seenAt, lease.startedAt, "I-16 heartbeats are after the start");
        assertLe(lease.reserve, cap, "I-17 a reserve is never more than documented");
        assertEq(lease.bond, BOND, "I-17 the bond waits");
        assertEq(suspended, lease.suspendedAt != 0 && lease.answerBy != 0, "I-18 a dispute has its times");
        assertLe(lease.suspendedAt, lease.endsAt, "I-18 no dispute after the end");
        assertEq(
            lease.closableAt, lease.endsAt + (lease.noticed ? lease.closableAt - lease.endsAt : WINDOW), "I-18 exit"
        );
        assertLe(lease.closableAt - lease.endsAt, WINDOW, "I-18 the exit opens within the window");
    }

    function _checkEnded() private view {
        (,, uint256 count,,) = society.counts();
        for (uint256 i = 0; i < count; i++) {
            bytes32 id = society.ended(i);
            Lease memory lease = _escrow.lease(id);
            assertEq(keccak256(abi.encode(lease)), society.leaseHash(id), "I-19 what has ended never changes");
            assertEq(lease.reserve + lease.bond, 0, "I-19 what has ended holds nothing");
        }
    }

    function _checkStake(uint256[3] memory locked) private view {
        uint256 total;
        for (uint256 i = 0; i < 3; i++) {
            address account = society.providers(i);
            Stake memory held = _staking.stakeOf(account);
            assertEq(keccak256(abi.encode(held)), society.stakeHash(account), "I-06 only its own calls change a stake");
            assertEq(held.staked, society.staked(account), "I-20 stake is in less out less slashes by the rules");
            assertEq(held.unbonding, society.unbonding(account), "I-20 unbonding is asked less taken");
            assertLe(held.unbonding, held.staked, "I-20 unbonding is a part of the stake");
            assertEq(held.locked, locked[i], "I-21 locked is the collateral of what runs");
            assertLe(held.locked, held.staked, "I-21 collateral is covered");
            total += held.staked;
        }
        assertEq(society.TOKEN().balanceOf(address(_staking)), total, "I-02 the staking contract holds the stakes");
    }
}
