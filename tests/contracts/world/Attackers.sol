// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Stake} from "../../../contracts/interfaces/IProviderStaking.sol";
import {LeaseParams, LeaseState, Order, Receipt as LeaseReceipt} from "../../../contracts/interfaces/LeaseTypes.sol";
import {Keepers} from "./Keepers.sol";

/// @notice What nobody may do. Each way in must be refused with a named error; the audit then shows that nothing moved.
abstract contract Attackers is Keepers {
    uint256 internal _attacksThatWorked;
    uint256 internal _oddRefusals;

    function _attack(uint256 seed) internal returns (bool) {
        uint256 way = seed >> 200;
        uint256 refusals = _attackAnyone(seed, way % 8);
        bytes32 id = _active(seed);
        if (id != bytes32(0)) refusals += _attackActive(id, way % 12);
        id = _find(seed, LeaseState.Suspended);
        if (id != bytes32(0)) refusals += _attackSuspended(id, way % 4);
        if (_ended.length > 0) refusals += _settleTwice(_ended[seed % _ended.length], way % 6);
        return refusals > 0;
    }

    /// @dev Calls with an order or a lease's params of which one field was changed: the digest is no job's or lease's.
    function _forge(uint256 seed) internal returns (bool) {
        bytes32 id = seed % 3 == 0 ? _suspended(seed) : _active(seed);
        if (id == bytes32(0)) return false;
        _forgeParams(id, seed >> 200);
        _forgeOrder(_leaseBooks[id].params.jobId, seed >> 210);
        return true;
    }

    function _forgeParams(bytes32 id, uint256 way) private {
        LeaseParams memory params = _leaseBooks[id].params;
        uint256 field = way % 10;
        if (field == 0) params.jobId = _jobs[0] == params.jobId ? bytes32("another") : _jobs[0];
        else if (field == 1) params.tenant = _attacker;
        else if (field == 2) params.watcher = _attacker;
        else if (field == 3) params.provider = _attacker;
        else if (field == 4) params.node = _attacker;
        else if (field == 5) params.epoch += 1;
        else if (field == 6) params.maxSilence = 0;
        else if (field == 7) params.rate = params.rate * 2 + 1;
        else if (field == 8) params.collateral = params.collateral == 0 ? 1 : 0;
        else params.slot += 1;
        LeaseReceipt memory receipt = _fullReceipt(field < 5 ? id : ESCROW.leaseIdOf(params), id);
        bytes memory signature = _signed(receipt, field == 2 ? _attacker : params.watcher);
        bytes[6] memory calls = [
            abi.encodeCall(ESCROW.collect, (params, receipt, signature)),
            abi.encodeCall(ESCROW.close, (params, receipt, signature)),
            abi.encodeCall(ESCROW.suspend, (params, receipt, signature)),
            abi.encodeCall(ESCROW.answer, (params, receipt, signature)),
            abi.encodeCall(ESCROW.notice, (params)),
            abi.encodeCall(ESCROW.fail, (params))
        ];
        address[4] memory callers = [params.tenant, params.watcher, params.provider, params.node];
        _try(callers[way / 10 % 4], address(ESCROW), calls[way / 40 % 6]);
    }

    /// @dev A known job's tenant, deposit and so on are those that its id commits to.
    function _forgeOrder(bytes32 jobId, uint256 way) private {
        Order memory order = _orders[jobId];
        uint256 field = way % 6;
        if (field == 0) order.tenant = _attacker;
        else if (field == 1) order.watcher = _attacker;
        else if (field == 2) order.maxRatePerHour = type(uint128).max;
        else if (field == 3) order.minCollateral += 1;
        else if (field == 4) order.deadline = _now + 1 days;
        else order.epochFee += 1;
        address caller = field == 1 ? order.watcher : order.tenant;
        uint256 call_ = way / 6 % 4;
        if (call_ == 0) {
            _try(caller, address(ESCROW), abi.encodeCall(ESCROW.refund, (order)));
        } else if (call_ == 1) {
            _try(caller, address(ESCROW), abi.encodeCall(ESCROW.extend, (order, _now, 99, 99)));
        } else if (call_ == 2) {
            _try(_attacker, address(ESCROW), abi.encodeCall(ESCROW.fund, (order, "", _noPermit())));
        } else {
            _try(caller, address(ESCROW), abi.encodeCall(ESCROW.open, (order, _lastBid, _lastBidSignature, _lastRate)));
        }
    }

    function _attackAnyone(uint256 seed, uint256 way) private returns (uint256) {
        address provider = _providers[seed % PROVIDERS];
        if (way == 0) return _try(_attacker, address(STAKING), abi.encodeCall(STAKING.withdraw, (_attacker)));
        if (way == 1) return _try(_attacker, address(STAKING), abi.encodeCall(STAKING.slash, (provider, 1)));
        if (way == 2) return _try(_attacker, address(STAKING), abi.encodeCall(STAKING.revokeNode, (_nodes[0])));
        if (way == 3) {
            Stake memory held = _stakes[provider];
            uint128 free = held.deposited - held.slashed - held.unbonding;
            return _try(provider, address(STAKING), abi.encodeCall(STAKING.requestUnstake, (free + 1)));
        }
        if (way == 4) {
            Stake memory held = _stakes[provider];
            if (held.unbonding != 0 && held.unbondsAt <= _now) return 0;
            return _try(provider, address(STAKING), abi.encodeCall(STAKING.withdraw, (provider)));
        }
        if (way == 5 && _due[_attacker] == 0) {
            return _try(_attacker, address(ESCROW), abi.encodeCall(ESCROW.withdraw, (_attacker)));
        }
        if (_lastOrder.tenant == address(0)) return 0;
        bytes memory again = abi.encodeCall(ESCROW.fund, (_lastOrder, _lastOrderSignature, _noPermit()));
        return _try(_attacker, address(ESCROW), again);
    }

    function _attackActive(bytes32 id, uint256 way) private returns (uint256) {
        LeaseBook storage book = _leaseBooks[id];
        LeaseParams memory params = book.params;
        LeaseReceipt memory none = _noReceipt();
        LeaseReceipt memory receipt = _fullReceipt(id, id);
        address target = address(ESCROW);
        if (way < 2) {
            bytes memory forged = _sign(_attacker, ESCROW.hashReceipt(receipt));
            if (way == 0) return _try(_attacker, target, abi.encodeCall(ESCROW.collect, (params, receipt, forged)));
            return _try(_attacker, target, abi.encodeCall(ESCROW.close, (params, receipt, forged)));
        }
        if (way == 2) {
            bytes memory twin = _spoilt(_signed(receipt, params.watcher));
            return _try(_attacker, target, abi.encodeCall(ESCROW.collect, (params, receipt, twin)));
        }
        if (way == 3) {
            receipt.leaseId = keccak256("another");
            bytes memory signature = _signed(receipt, params.watcher);
            return _try(_attacker, target, abi.encodeCall(ESCROW.collect, (params, receipt, signature)));
        }
        if (way == 4) return _try(_attacker, target, abi.encodeCall(ESCROW.suspend, (params, none, "")));
        if (way == 5) {
            if (_least(_now, book.word.endsAt) > book.word.startedAt + book.word.seen + params.maxSilence) return 0;
            return _try(params.watcher, target, abi.encodeCall(ESCROW.suspend, (params, none, "")));
        }
        if (way == 6) {
            if (_now > book.word.exitAt) return 0;
            return _try(params.provider, target, abi.encodeCall(ESCROW.close, (params, none, "")));
        }
        Order memory order = _orders[params.jobId];
        if (way == 7) return _try(params.tenant, target, abi.encodeCall(ESCROW.refund, (order)));
        if (way == 8) return _try(_attacker, target, abi.encodeCall(ESCROW.cancel, (order)));
        if (way == 9) {
            return _try(_attacker, target, abi.encodeCall(ESCROW.extend, (order, _now + 300 days, 99, order.deposit)));
        }
        if (way == 10) {
            if (_noticeHelps(id)) return _try(params.node, target, abi.encodeCall(ESCROW.notice, (params)));
            return _try(params.provider, target, abi.encodeCall(ESCROW.notice, (params)));
        }
        order = _orders[_lastBidJob];
        return _try(order.watcher, target, abi.encodeCall(ESCROW.open, (order, _lastBid, _lastBidSignature, _lastRate)));
    }

    function _attackSuspended(bytes32 id, uint256 way) private returns (uint256) {
        LeaseParams memory params = _leaseBooks[id].params;
        LeaseReceipt memory none = _noReceipt();
        bool open_ = _now <= _leaseBooks[id].word.exitAt;
        if (way == 0 && open_) return _try(_attacker, address(ESCROW), abi.encodeCall(ESCROW.fail, (params)));
        if (way == 1) return _try(_attacker, address(ESCROW), abi.encodeCall(ESCROW.answer, (params, none, "")));
        if (way == 2) return _try(params.watcher, address(ESCROW), abi.encodeCall(ESCROW.close, (params, none, "")));
        if (open_) return _try(params.watcher, address(ESCROW), abi.encodeCall(ESCROW.suspend, (params, none, "")));
        return _try(params.provider, address(ESCROW), abi.encodeCall(ESCROW.answer, (params, none, "")));
    }

    function _settleTwice(bytes32 id, uint256 way) private returns (uint256) {
        LeaseParams memory params = _leaseBooks[id].params;
        LeaseReceipt memory receipt = LeaseReceipt(id, 9, _now, 1 hours, true, "");
        bytes memory signature = _signed(receipt, params.watcher);
        address target = address(ESCROW);
        if (way == 0) return _try(_attacker, target, abi.encodeCall(ESCROW.collect, (params, receipt, signature)));
        if (way == 1) return _try(params.tenant, target, abi.encodeCall(ESCROW.close, (params, receipt, signature)));
        if (way == 2) {
            return _try(params.provider, target, abi.encodeCall(ESCROW.answer, (params, receipt, signature)));
        }
        if (way == 3) return _try(_attacker, target, abi.encodeCall(ESCROW.fail, (params)));
        if (way == 4) return _try(params.provider, target, abi.encodeCall(ESCROW.notice, (params)));
        return _try(params.watcher, target, abi.encodeCall(ESCROW.suspend, (params, receipt, signature)));
    }

    function _try(address caller, address target, bytes memory data) private returns (uint256) {
        vm.prank(caller);
        (bool worked, bytes memory reason) = target.call(data);
        if (worked) _attacksThatWorked++;
        // An error of the contracts has a name; a panic or an empty revert means that no check was there.
        else if (reason.length < 4 || bytes4(reason) == 0x4e487b71) _oddRefusals++;
        return 1;
    }

    /// @dev A final receipt over all the time of a lease.
    function _fullReceipt(bytes32 named, bytes32 id) private view returns (LeaseReceipt memory) {
        return LeaseReceipt(named, 9, _now, _now - _leaseBooks[id].word.startedAt, true, "");
    }

    /// @dev The twin with a high s, which names the same signer; of a wallet's signature, one that it never gave.
    function _spoilt(bytes memory signature) private pure returns (bytes memory) {
        if (signature.length != 65) return abi.encodePacked(signature, uint8(0));
        bytes32 r;
        uint256 s;
        assembly ("memory-safe") {
            r := mload(add(signature, 32))
            s := mload(add(signature, 64))
        }
        s = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141 - s;
        return abi.encodePacked(r, s, uint8(signature[64]) == 27 ? uint8(28) : uint8(27));
    }
}
