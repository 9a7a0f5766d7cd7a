// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {LeaseEscrow} from "../../../contracts/LeaseEscrow.sol";
import {Stake} from "../../../contracts/interfaces/IProviderStaking.sol";
import {Bid, Job, Lease, LeaseState, Receipt as LeaseReceipt} from "../../../contracts/interfaces/LeaseTypes.sol";
import {Keepers} from "./Keepers.sol";
import {IMintable, World} from "./World.sol";

/// @notice Everybody, and an attacker who tries what nobody may do.
contract Society is Keepers {
    constructor(LeaseEscrow escrow, IMintable token, uint128 unit) World(escrow, token, unit) {}

    /// @dev Each way in must be refused with a named error.
    function attack(uint256 seed, uint8 way) external asked("attack", seed) {
        uint256 refusals = _attackAnyone(seed, way % 8);
        (bytes32 id, Lease memory lease) = _active(seed);
        if (id != bytes32(0)) refusals += _attackActive(id, lease, way % 11);
        (id, lease) = _find(seed, LeaseState.Suspended);
        if (id != bytes32(0)) refusals += _attackSuspended(id, lease, way % 4);
        if (ended.length > 0) refusals += _settleTwice(ended[seed % ended.length], way % 6);
        if (refusals > 0) acted("attack");
    }

    /// @dev Everything is wound up: nobody needs anybody's consent, and nothing is left behind.
    function windUp() external {
        while (leases.length > 0) {
            bytes32 id = leases[leases.length - 1];
            Lease memory lease = ESCROW.lease(id);
            if (lease.state == LeaseState.Active) {
                Job memory job = ESCROW.job(lease.jobId);
                _leap(lease.closableAt + 1);
                ESCROW.close(id, _noReceipt(), "");
                _bookPay(id, lease, job, lease.earned);
                _touch(id, lease);
            } else {
                _leap(lease.answerBy + 1);
                _fail(id, lease, keepers[0], "fail");
            }
        }
        for (uint256 i = 0; i < jobs.length; i++) {
            _leap(ESCROW.job(jobs[i]).deadline + 1);
            _refund(jobs[i], keepers[0]);
        }
        for (uint256 i = 0; i < accounts.length; i++) {
            if (due[accounts[i]] > 0) _withdraw(accounts[i]);
        }
        for (uint256 i = 0; i < PROVIDERS; i++) {
            Stake memory held = STAKING.stakeOf(providers[i]);
            vm.startPrank(providers[i]);
            if (held.staked > held.unbonding) STAKING.requestUnstake(held.staked - held.unbonding);
            _leap(STAKING.stakeOf(providers[i]).unbondsAt);
            if (held.staked > 0) assertEq(STAKING.withdraw(providers[i]), held.staked);
            vm.stopPrank();
        }
        assertEq(TOKEN.balanceOf(address(ESCROW)), 0, "stuck in the escrow");
        assertEq(TOKEN.balanceOf(address(STAKING)), 0, "stuck in the stake");
    }

    function _attackAnyone(uint256 seed, uint256 way) private returns (uint256) {
        address provider = providers[seed % PROVIDERS];
        if (way == 0) return _try(attacker, address(ESCROW), abi.encodeCall(ESCROW.withdraw, (attacker)));
        if (way == 1) return _try(attacker, address(STAKING), abi.encodeCall(STAKING.withdraw, (attacker)));
        if (way == 2) return _try(attacker, address(STAKING), abi.encodeCall(STAKING.unlock, (provider, 0)));
        if (way == 3) return _try(attacker, address(STAKING), abi.encodeCall(STAKING.slash, (provider, 1)));
        if (way == 4) return _try(attacker, address(STAKING), abi.encodeCall(STAKING.lock, (provider, 0)));
        if (way == 5) {
            uint128 free = uint128(staked[provider] - unbonding[provider]);
            return _try(provider, address(STAKING), abi.encodeCall(STAKING.requestUnstake, (free + 1)));
        }
        if (way == 6) {
            if (_lastOrder.tenant == address(0)) return 0;
            bytes memory again = abi.encodeCall(ESCROW.fund, (_lastOrder, _lastOrderSignature, _noPermit()));
            return _try(attacker, address(ESCROW), again);
        }
        Stake memory held = STAKING.stakeOf(provider);
        if (held.unbonding == 0 || held.unbondsAt <= _now) return 0;
        return _try(provider, address(STAKING), abi.encodeCall(STAKING.withdraw, (provider)));
    }

    function _attackActive(bytes32 id, Lease memory lease, uint256 way) private returns (uint256) {
        Job memory job = ESCROW.job(lease.jobId);
        LeaseReceipt memory none = _noReceipt();
        LeaseReceipt memory receipt = LeaseReceipt(id, 9, _now, _now - lease.startedAt, true, "");
        address target = address(ESCROW);
        bytes memory forged = _sign(ATTACKER_KEY, ESCROW.hashReceipt(receipt));
        if (way == 0) return _try(attacker, target, abi.encodeCall(ESCROW.collect, (id, receipt, forged)));
        if (way == 1) return _try(attacker, target, abi.encodeCall(ESCROW.close, (id, receipt, forged)));
        if (way == 2) {
            bytes memory twin = _otherS(_signed(receipt, job.watcher));
            return _try(attacker, target, abi.encodeCall(ESCROW.collect, (id, receipt, twin)));
        }
        if (way == 3) {
            receipt.leaseId = keccak256("another");
            bytes memory signature = _signed(receipt, job.watcher);
            return _try(attacker, target, abi.encodeCall(ESCROW.collect, (id, receipt, signature)));
        }
        if (way == 4) return _try(attacker, target, abi.encodeCall(ESCROW.suspend, (id, none, "")));
        if (way == 5) {
            if (_least(_now, lease.endsAt) > lease.seenAt + job.maxSilence) return 0;
            return _try(job.watcher, target, abi.encodeCall(ESCROW.suspend, (id, none, "")));
        }
        if (way == 6) {
            if (_now > lease.closableAt) return 0;
            return _try(lease.provider, target, abi.encodeCall(ESCROW.close, (id, none, "")));
        }
        if (way == 7) return _try(job.tenant, target, abi.encodeCall(ESCROW.refund, (lease.jobId)));
        if (way == 8) return _try(attacker, target, abi.encodeCall(ESCROW.cancel, (lease.jobId)));
        if (way == 9) {
            return _try(attacker, target, abi.encodeCall(ESCROW.extend, (lease.jobId, _now + 1 days, 99, 99)));
        }
        Bid memory bid = _lastBid;
        bytes memory again = abi.encodeCall(ESCROW.open, (bid.orderHash, bid, _lastBidSignature, _lastRate));
        return _try(ESCROW.job(bid.orderHash).watcher, target, again);
    }

    function _attackSuspended(bytes32 id, Lease memory lease, uint256 way) private returns (uint256) {
        LeaseReceipt memory none = _noReceipt();
        bool open_ = _now <= lease.answerBy;
        if (way == 0 && open_) return _try(attacker, address(ESCROW), abi.encodeCall(ESCROW.fail, (id)));
        if (way == 1) return _try(attacker, address(ESCROW), abi.encodeCall(ESCROW.answer, (id, none, "")));
        if (way == 2) return _try(lease.provider, address(ESCROW), abi.encodeCall(ESCROW.close, (id, none, "")));
        if (open_) return 0;
        return _try(lease.provider, address(ESCROW), abi.encodeCall(ESCROW.answer, (id, none, "")));
    }

    function _settleTwice(bytes32 id, uint256 way) private returns (uint256) {
        Lease memory lease = ESCROW.lease(id);
        Job memory job = ESCROW.job(lease.jobId);
        LeaseReceipt memory receipt = LeaseReceipt(id, 9, _now, _now - lease.startedAt, true, "");
        bytes memory signature = _signed(receipt, job.watcher);
        address target = address(ESCROW);
        if (way == 0) return _try(attacker, target, abi.encodeCall(ESCROW.collect, (id, receipt, signature)));
        if (way == 1) return _try(job.tenant, target, abi.encodeCall(ESCROW.close, (id, receipt, signature)));
        if (way == 2) return _try(lease.provider, target, abi.encodeCall(ESCROW.answer, (id, receipt, signature)));
        if (way == 3) return _try(attacker, target, abi.encodeCall(ESCROW.fail, (id)));
        if (way == 4) return _try(lease.provider, target, abi.encodeCall(ESCROW.notice, (id)));
        return _try(job.watcher, target, abi.encodeCall(ESCROW.suspend, (id, receipt, signature)));
    }

    function _try(address caller, address target, bytes memory data) private returns (uint256) {
        vm.prank(caller);
        (bool worked, bytes memory reason) = target.call(data);
        if (worked) attacksThatWorked++;
        // An error of the contracts has a name; a panic or an empty revert means that no check was there.
        else if (reason.length < 4 || bytes4(reason) == 0x4e487b71) oddRefusals++;
        return 1;
    }

    function _otherS(bytes memory signature) private pure returns (bytes memory) {
        bytes32 r;
        uint256 s;
        assembly {
            r := mload(add(signature, 32))
            s := mload(add(signature, 64))
        }
        s = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141 - s;
        return abi.encodePacked(r, s, uint8(signature[64]) == 27 ? uint8(28) : uint8(27));
    }
}
