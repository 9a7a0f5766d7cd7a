// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {NodeAuth} from "../interfaces/IProviderStaking.sol";
import {Bid, LeaseParams, Order, Receipt} from "../interfaces/LeaseTypes.sol";

/// @title EIP-712 struct hashes
/// @notice All members are static and of one word, so a struct's words, as they lie in the call data, are its EIP-712
/// encoding. A word with dirty upper bits makes another hash, which nobody has signed; reading that member reverts.
library TypedData {
    // solhint-disable no-inline-assembly

    string internal constant NAME = "Everlease";
    string internal constant VERSION = "1";

    bytes32 internal constant ORDER_TYPEHASH = keccak256(
        "Order(address tenant,address watcher,bytes32 jobSpec,uint128 maxRatePerHour,uint128 deposit,"
        "uint128 minCollateral,uint32 maxSilence,uint32 maxEpochs,uint128 epochFee,uint64 deadline,uint256 nonce)"
    );
    bytes32 internal constant BID_TYPEHASH = keccak256(
        "Bid(address provider,address node,bytes32 orderHash,uint32 epoch,uint128 minRatePerHour,"
        "uint128 collateral,uint64 deadline,uint256 slot)"
    );
    bytes32 internal constant RECEIPT_TYPEHASH =
        keccak256("Receipt(bytes32 leaseId,uint64 seq,uint64 seenAt,uint64 earned,bool final,bytes32 checkpointRoot)");
    bytes32 internal constant NODE_AUTH_TYPEHASH =
        keccak256("NodeAuth(address provider,address node,uint64 deadline,uint256 nonce)");

    function structHash(Order calldata order) internal pure returns (bytes32) {
        uint256 start;
        assembly ("memory-safe") {
            start := order
        }
        return _hash(ORDER_TYPEHASH, start, 11);
    }

    function structHash(Bid calldata bid) internal pure returns (bytes32) {
        uint256 start;
        assembly ("memory-safe") {
            start := bid
        }
        return _hash(BID_TYPEHASH, start, 8);
    }

    function structHash(Receipt calldata receipt) internal pure returns (bytes32) {
        uint256 start;
        assembly ("memory-safe") {
            start := receipt
        }
        return _hash(RECEIPT_TYPEHASH, start, 6);
    }

    function structHash(NodeAuth calldata auth) internal pure returns (bytes32) {
        uint256 start;
        assembly ("memory-safe") {
            start := auth
        }
        return _hash(NODE_AUTH_TYPEHASH, start, 4);
    }

    /// @notice keccak256(abi.encode(params)): a lease's id.
    function leaseId(LeaseParams calldata params) internal pure returns (bytes32 hash) {
        assembly ("memory-safe") {
            let free := mload(0x40)
            calldatacopy(free, params, 320)
            hash := keccak256(free, 320)
        }
    }

    /// @dev keccak256 of a type hash and so many words of call data.
    function _hash(bytes32 typeHash, uint256 start, uint256 words) private pure returns (bytes32 hash) {
        assembly ("memory-safe") {
            let free := mload(0x40)
            mstore(free, typeHash)
            calldatacopy(add(free, 32), start, mul(words, 32))
            hash := keccak256(free, mul(add(words, 1), 32))
        }
    }
}
