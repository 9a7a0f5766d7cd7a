// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Stake} from "../../../contracts/interfaces/IProviderStaking.sol";
import {Job, Lease, LeaseParams, LeaseState, Limits} from "../../../contracts/interfaces/LeaseTypes.sol";
import {World} from "./World.sol";

/// @notice The invariants of docs/protocol.md over everything that isn't over, compared with the ledger. Jobs and leases
/// that are over are forgotten (a job only once it is emptied), so that an audit costs the same however long a run is.
abstract contract Audit is World {
    /// @dev All of them.
    function _audit() internal view {
        uint256[PROVIDERS] memory locked;
        uint256 active;
        uint256 owed;
        for (uint256 i = 0; i < _leases.length; i++) {
            (uint256 held, bool isActive) = _auditLease(_leases[i], locked);
            owed += held;
            if (isActive) active++;
        }
        owed += _auditJobs(active) + _auditCredits();
        uint256 tokens = TOKEN.balanceOf(address(ESCROW));
        if (tokens != owed) revert Broken("I-01 the escrow holds what it owes");
        uint256 stakes = _auditStakes(locked);
        uint256 staked = TOKEN.balanceOf(address(STAKING));
        if (staked != stakes) revert Broken("I-02 the staking contract holds the stakes");
        if (tokens + staked != _deposited - _withdrawn) revert Broken("I-03 what came in and hasn't left is there");
        _auditEnded();
    }

    /// @return held What the escrow holds for the lease: set aside, bond, fees withheld.
    function _auditLease(
        bytes32 id,
        uint256[PROVIDERS] memory locked
    )
        private
        view
        returns (uint256 held, bool isActive)
    {
        LeaseBook storage book = _leaseBooks[id];
        Lease memory lease = ESCROW.lease(id);
        _auditWord(lease, book.word);
        uint256 length = lease.endsAt - lease.startedAt;
        if (lease.seen > length || lease.earned > lease.seen) revert Broken("I-14 service is within the lease's time");
        if (lease.startedAt + lease.seen > _now) revert Broken("I-16 heartbeats and service are in the past");
        if (lease.paid > lease.earned) revert Broken("I-15 paid is at most what is earned");
        if (lease.covered > book.mostCovered) revert Broken("I-17 covered is at most the time that is left");
        if (lease.exitAt < lease.endsAt) revert Broken("I-18 the exit is after the end");
        isActive = lease.state == LeaseState.Active;
        if (isActive ? lease.exitAt > lease.endsAt + WINDOW : lease.exitAt > _now + WINDOW) {
            revert Broken("I-18 the exit opens within the window");
        }
        if (isActive && _jobBooks[book.params.jobId].opened != book.params.epoch) {
            revert Broken("I-10 active is a job's latest lease alone");
        }

        uint256 rate = book.params.rate;
        uint256 paid = rate * lease.paid / 3600;
        if (paid != book.paid) revert Broken("I-15 paid is what the rules gave it");
        uint256 covered = rate * lease.covered / 3600;
        uint256 aside = covered > paid ? covered - paid : 0;
        if (aside != book.aside) revert Broken("I-08 set aside is what the rules say");
        address provider = book.params.provider;
        for (uint256 i = 0; i < PROVIDERS; i++) {
            if (_providers[i] == provider) locked[i] += book.params.collateral;
        }
        held = aside + BOND + paid / 100;
    }

    function _auditWord(Lease memory lease, Lease memory expected) private pure {
        if (lease.state != expected.state) revert Broken("I-12 states move as documented");
        if (
            lease.startedAt != expected.startedAt || lease.endsAt != expected.endsAt || lease.exitAt != expected.exitAt
                || lease.seen != expected.seen || lease.earned != expected.earned || lease.paid != expected.paid
                || lease.covered != expected.covered
        ) revert Broken("I-11 a lease is what the calls about it made it");
    }

    function _auditJobs(uint256 activeLeases) private view returns (uint256 owed) {
        uint256 active;
        for (uint256 i = 0; i < _jobs.length; i++) {
            bytes32 jobId = _jobs[i];
            JobBook storage book = _jobBooks[jobId];
            Job memory job = ESCROW.job(jobId);
            if (job.free != book.free) revert Broken("I-05 free is what came in less what went");
            if (job.fees != book.fees) revert Broken("I-07 fees are those of the leases that ended");
            if (job.epochs != book.opened) revert Broken("I-09 epochs count the leases");
            if (!job.funded || job.cancelled != book.cancelled || job.active != book.active) {
                revert Broken("I-06 only a call about a job changes it");
            }
            Limits memory limits = ESCROW.limits(_orders[jobId]);
            Limits storage expected = book.limits;
            if (
                limits.deadline != expected.deadline || limits.maxEpochs != expected.maxEpochs
                    || limits.maxRatePerHour != expected.maxRatePerHour
            ) revert Broken("I-06 only extend changes a job's limits");
            if (job.epochs > limits.maxEpochs) revert Broken("I-09 epochs are bounded");
            if (job.active) active++;
            owed += uint256(job.free) + job.fees;
        }
        if (active != activeLeases) revert Broken("I-10 a job has one active lease or none, and says so");
    }

    function _auditCredits() private view returns (uint256 owed) {
        for (uint256 i = 0; i < _accounts.length; i++) {
            uint256 claimable = ESCROW.claimable(_accounts[i]);
            if (claimable != _due[_accounts[i]]) revert Broken("I-04 a credit is what the rules gave");
            owed += claimable;
        }
    }

    function _auditStakes(uint256[PROVIDERS] memory locked) private view returns (uint256 total) {
        for (uint256 i = 0; i < PROVIDERS; i++) {
            address provider = _providers[i];
            Stake memory held = STAKING.stakeOf(provider);
            Stake memory expected = _stakes[provider];
            if (held.deposited != expected.deposited || held.slashed != expected.slashed) {
                revert Broken("I-20 a stake is in less out, and slashed by the rules");
            }
            if (held.unbonding != expected.unbonding || held.unbondsAt != expected.unbondsAt) {
                revert Broken("I-20 unbonding is asked less taken");
            }
            if (held.slashed > held.deposited || held.unbonding > held.deposited - held.slashed) {
                revert Broken("I-20 unbonding is a part of what is left");
            }
            uint256 lockedNow = ESCROW.lockedOf(provider);
            if (lockedNow != locked[i] + held.slashed) revert Broken("I-21 locked is the collateral of what runs");
            if (lockedNow > held.deposited) revert Broken("I-21 collateral is covered");
            if (STAKING.providerOf(_nodes[i]) != _providerOf[_nodes[i]]) {
                revert Broken("I-06 only its provider and itself move a node");
            }
            total += held.deposited - held.slashed;
        }
    }

    function _auditEnded() private view {
        for (uint256 i = 0; i < _ended.length; i++) {
            Lease memory lease = ESCROW.lease(_ended[i]);
            bool empty = lease.state == LeaseState.None
                && lease.startedAt | lease.endsAt | lease.exitAt | lease.seen | lease.earned | lease.paid
                        | lease.covered == 0;
            if (!empty) revert Broken("I-19 what has ended is gone");
        }
    }
}
