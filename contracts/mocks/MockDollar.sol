// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";

/// @title A dollar for development chains
/// @notice Six decimals, EIP-2612, and anyone may mint.
contract MockDollar is ERC20Permit {
    constructor() ERC20("Mock Dollar", "mUSD") ERC20Permit("Mock Dollar") {}

    /// @notice Creates `amount` base units for `account`.
    function mint(address account, uint256 amount) external {
        _mint(account, amount);
    }

    /// @inheritdoc ERC20
    function decimals() public pure override returns (uint8) {
        return 6;
    }
}
