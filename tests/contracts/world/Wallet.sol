// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @notice An account with code (ERC-1271): it has signed a digest if the signature is the one below.
contract Wallet {
    function isValidSignature(bytes32 digest, bytes calldata signature) external view returns (bytes4) {
        bool valid = keccak256(signature) == keccak256(signatureOf(digest, address(this)));
        return valid ? bytes4(0x1626ba7e) : bytes4(0xffffffff);
    }

    function signatureOf(bytes32 digest, address wallet) public pure returns (bytes memory) {
        return abi.encode(digest, wallet, "wallet");
    }
}
