// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";

/// @notice Code that an account delegates to (EIP-7702) and that accepts no signature.
contract Refusing is IERC1271 {
    function isValidSignature(bytes32, bytes calldata) external pure returns (bytes4) {
        return 0xffffffff;
    }
}

/// @notice Code that accepts one word as the account's signature of anything.
contract Password is IERC1271 {
    bytes32 private immutable WORD;

    constructor(bytes32 word) {
        WORD = word;
    }

    function isValidSignature(bytes32, bytes calldata signature) external view returns (bytes4) {
        return bytes32(signature) == WORD ? IERC1271.isValidSignature.selector : bytes4(0xffffffff);
    }
}

/// @notice Code without ERC-1271 that fails whatever is called.
contract Deaf {
    error CannotHear();

    fallback() external {
        revert CannotHear();
    }
}
