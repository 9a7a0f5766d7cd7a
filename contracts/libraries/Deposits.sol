// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

/// @notice An EIP-2612 permit. A zero `deadline` means that there is none.
struct Permit {
    uint256 value;
    uint256 deadline;
    uint8 v;
    bytes32 r;
    bytes32 s;
}

/// @title Pulling an exact amount of an ERC-20 into this contract
library Deposits {
    using SafeERC20 for IERC20;

    /// @notice The asset moved another amount than asked for, as one with a transfer fee does.
    error UnsupportedAsset(address asset, uint256 expected, uint256 received);

    /// @notice Pulls exactly `amount` from `payer`. Anyone can use up a permit first, so a permit that fails is
    /// ignored and the allowance decides.
    function pull(IERC20 asset, address payer, uint256 amount, Permit calldata permit) internal {
        if (permit.deadline != 0) {
            // solhint-disable no-empty-blocks
            try IERC20Permit(address(asset))
                .permit(payer, address(this), permit.value, permit.deadline, permit.v, permit.r, permit.s) {}
                catch {}
            // solhint-enable no-empty-blocks
        }
        uint256 before = asset.balanceOf(address(this));
        asset.safeTransferFrom(payer, address(this), amount);
        uint256 received = asset.balanceOf(address(this)) - before;
        if (received != amount) revert UnsupportedAsset(address(asset), amount, received);
    }
}
