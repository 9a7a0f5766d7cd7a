// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {Address} from "@openzeppelin/contracts/utils/Address.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

/// @notice A wallet of three owners of whom two decide. Owners sign `messageHash` of what is to be signed, so that a
/// signature counts for one wallet on one chain.
contract TwoOfThree is IERC1271 {
    error NotTwoOwners();

    mapping(address account => bool) public isOwner;
    uint256 public nonce;

    constructor(address[3] memory owners) {
        for (uint256 i = 0; i < owners.length; i++) {
            isOwner[owners[i]] = true;
        }
    }

    /// @notice Calls `target`; a call that fails takes this one with it.
    /// @param signatures Two owners' over `messageHash(callHash(target, data, nonce))`.
    function execute(address target, bytes calldata data, bytes calldata signatures) external returns (bytes memory) {
        if (!_twoOwners(callHash(target, data, nonce++), signatures)) revert NotTwoOwners();
        return Address.functionCall(target, data);
    }

    /// @inheritdoc IERC1271
    function isValidSignature(bytes32 hash, bytes calldata signatures) external view returns (bytes4) {
        return _twoOwners(hash, signatures) ? IERC1271.isValidSignature.selector : bytes4(0xffffffff);
    }

    function messageHash(bytes32 hash) public view returns (bytes32) {
        return keccak256(abi.encode("TwoOfThree", block.chainid, address(this), hash));
    }

    function callHash(address target, bytes calldata data, uint256 nonce_) public pure returns (bytes32) {
        return keccak256(abi.encode(target, keccak256(data), nonce_));
    }

    function _twoOwners(bytes32 hash, bytes calldata signatures) private view returns (bool) {
        if (signatures.length != 130) return false;
        bytes32 message = messageHash(hash);
        (address first, ECDSA.RecoverError problem,) = ECDSA.tryRecoverCalldata(message, signatures[:65]);
        if (problem != ECDSA.RecoverError.NoError) return false;
        (address second, ECDSA.RecoverError other,) = ECDSA.tryRecoverCalldata(message, signatures[65:]);
        return other == ECDSA.RecoverError.NoError && first != second && isOwner[first] && isOwner[second];
    }
}
