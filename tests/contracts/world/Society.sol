// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {LeaseEscrow} from "../../../contracts/LeaseEscrow.sol";
import {Stake} from "../../../contracts/interfaces/IProviderStaking.sol";
import {LeaseState} from "../../../contracts/interfaces/LeaseTypes.sol";
import {Attackers} from "./Attackers.sol";
import {Audit} from "./Audit.sol";
import {IMintable, World} from "./World.sol";

/// @notice Everybody acts, in whatever order the seeds say; after each act comes the audit.
contract Society is Attackers, Audit {
    uint256 public constant HANDLERS = 24;

    /// @notice What a handler did: asked to act, acted.
    struct Tally {
        uint64 asked;
        uint64 acted;
    }

    Tally[HANDLERS] public tallies;

    constructor(LeaseEscrow escrow, IMintable token, uint128 unit) World(escrow, token, unit) {
        for (uint256 i = 0; i < PROVIDERS; i++) {
            _authorise(i);
        }
    }

    /// @dev One act and its audit. The seed is hashed, as the fuzzer prefers small ones; its highest bits then choose the
    /// handler. Time passes first, mostly little.
    function act(uint256 seed) external {
        seed = uint256(keccak256(abi.encode(seed)));
        _pass(seed % 97 == 0 ? seed % 3000 : seed % 30);
        uint256 handler = (seed >> 240) % HANDLERS;
        Tally storage tally = tallies[handler];
        tally.asked++;
        bool acted = handler < 8
            ? _tenantActs(handler, seed)
            : handler < 16 ? _hostActs(handler, seed) : _anyoneActs(handler, seed);
        if (acted) tally.acted++;
        _audit();
        if (_attacksThatWorked != 0) revert Broken("I-22 an attack worked");
        if (_oddRefusals != 0) revert Broken("I-23 refused without a named error");
    }

    /// @dev Everything is wound up: nobody needs anybody's consent, and nothing is left behind.
    function windUp() external {
        while (_leases.length > 0) {
            bytes32 id = _leases[_leases.length - 1];
            if (_leaseBooks[id].word.state == LeaseState.Active) {
                _closeLate(id);
            } else {
                _leap(_leaseBooks[id].word.exitAt + 1);
                _fail(id, _keeper);
            }
        }
        for (uint256 i = 0; i < _jobs.length; i++) {
            _leap(_jobBooks[_jobs[i]].limits.deadline + 1);
            _refund(_jobs[i], _keeper);
            _sweep(_jobs[i], _keeper);
        }
        for (uint256 i = 0; i < _accounts.length; i++) {
            if (_due[_accounts[i]] > 0) _withdraw(_accounts[i]);
        }
        for (uint256 i = 0; i < PROVIDERS; i++) {
            _leave(_providers[i]);
        }
        if (TOKEN.balanceOf(address(ESCROW)) != 0) revert Broken("I-24 stuck in the escrow");
        if (TOKEN.balanceOf(address(STAKING)) != 0) revert Broken("I-24 stuck in the stake");
    }

    function nameOf(uint256 handler) external pure returns (string memory) {
        string[HANDLERS] memory names = [
            "fund",
            "revoke",
            "topUp",
            "extend",
            "cancel",
            "refund",
            "closeEarly",
            "open",
            "suspend",
            "stake",
            "requestUnstake",
            "unstake",
            "swapNode",
            "notice",
            "answer",
            "fail",
            "collect",
            "closeFinal",
            "closeLate",
            "refundLate",
            "sweepFees",
            "withdraw",
            "attack",
            "forge"
        ];
        return names[handler];
    }

    function _tenantActs(uint256 handler, uint256 seed) private returns (bool) {
        if (handler == 0) return _fund(seed);
        if (handler == 1) return _revoke(seed);
        if (handler == 2) return _topUp(seed);
        if (handler == 3) return _extend(seed);
        if (handler == 4) return _cancel(seed);
        if (handler == 5) return _refundEarly(seed);
        if (handler == 7) return _open(seed);
        bytes32 id = _active(seed);
        if (id == bytes32(0)) return false;
        _closeEarly(id, seed >> 9 & 1 == 1);
        return true;
    }

    function _hostActs(uint256 handler, uint256 seed) private returns (bool) {
        if (handler == 8) return _suspend(seed, seed >> 9 & 1 == 1) != bytes32(0);
        if (handler == 9) return _stake(seed);
        if (handler == 10) return _requestUnstake(seed);
        if (handler == 11) return _unstake(seed);
        if (handler == 12) return _swapNode(seed);
        if (handler == 13) return _notice(seed);
        if (handler == 14) return _answer(seed);
        return _failLate(seed);
    }

    function _anyoneActs(uint256 handler, uint256 seed) private returns (bool) {
        if (handler == 16) return _collect(seed);
        if (handler == 17) return _closeFinal(seed);
        if (handler == 19) return _refundLate(seed);
        if (handler == 20) return _sweepFees(seed);
        if (handler == 21) return _withdrawSome(seed);
        if (handler == 22) return _attack(seed);
        if (handler == 23) return _forge(seed);
        bytes32 id = _active(seed);
        if (id == bytes32(0)) return false;
        _closeLate(id);
        return true;
    }

    function _leave(address provider) private {
        Stake memory held = STAKING.stakeOf(provider);
        uint128 left = held.deposited - held.slashed;
        if (left == 0) return;
        vm.startPrank(provider);
        if (left > held.unbonding) STAKING.requestUnstake(left - held.unbonding);
        _leap(STAKING.stakeOf(provider).unbondsAt);
        if (STAKING.withdraw(provider) != left) revert Broken("I-24 stake left behind");
        vm.stopPrank();
    }
}
