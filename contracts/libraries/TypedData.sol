// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {NodeAuth} from "../interfaces/IProviderStaking.sol";
import {Bid, LeaseParams, Order, Receipt} from "../interfaces/LeaseTypes.sol";

/// @title EIP-712 struct hashes
/// @notice All members are static and of one word, so a struct's ABI encoding is its EIP-712 encoding.
library TypedData {
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
        return keccak256(abi.encode(ORDER_TYPEHASH, order));
    }

    function structHash(Bid calldata bid) internal pure returns (bytes32) {
        return keccak256(abi.encode(BID_TYPEHASH, bid));
    }

    function structHash(Receipt calldata receipt) internal pure returns (bytes32) {
        return keccak256(abi.encode(RECEIPT_TYPEHASH, receipt));
    }

    function structHash(NodeAuth calldata auth) internal pure returns (bytes32) {
        return keccak256(abi.encode(NODE_AUTH_TYPEHASH, auth));
    }
}
