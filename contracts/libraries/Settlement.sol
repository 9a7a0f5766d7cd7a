// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title Money and time of a lease, without state
/// @notice Amounts are base units, rates base units per hour, times unix seconds.
library Settlement {
    uint256 internal constant HOUR = 3600;
    uint256 internal constant BPS = 10_000;

    /// @notice Pay for `earned` seconds in all: floor(rate * earned / 3600).
    function payFor(uint128 rate, uint64 earned) internal pure returns (uint256) {
        unchecked {
            // 128 and 64 bits make 192.
            return uint256(rate) * earned / HOUR;
        }
    }

    /// @notice The most seconds, `wanted` at most, whose pay is within `money`.
    function secondsFor(uint128 rate, uint256 money, uint32 wanted) internal pure returns (uint32) {
        if (payFor(rate, wanted) <= money) return wanted;
        // floor(rate * n / 3600) <= money exactly if rate * n < (money + 1) * 3600; it is below `wanted`.
        // forge-lint: disable-next-line(unsafe-typecast)
        return uint32(((money + 1) * HOUR - 1) / rate);
    }

    /// @notice floor(amount * bps / 10000)
    function share(uint256 amount, uint256 bps) internal pure returns (uint256) {
        return amount * bps / BPS;
    }

    /// @notice The lower of two numbers.
    function min(uint256 a, uint256 b) internal pure returns (uint256) {
        return a < b ? a : b;
    }
}
