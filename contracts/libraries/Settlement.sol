// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title Money and time of a lease, without state
/// @notice Amounts are base units, rates base units per hour, times unix seconds.
library Settlement {
    uint256 internal constant HOUR = 3600;
    uint256 internal constant BPS = 10_000;

    /// @notice Pay for `earned` seconds in all: floor(rate * earned / 3600).
    function payFor(uint128 rate, uint64 earned) internal pure returns (uint256) {
        return uint256(rate) * earned / HOUR;
    }

    /// @notice Money that covers any `duration` seconds: rounded up.
    function reserveFor(uint128 rate, uint64 duration) internal pure returns (uint256) {
        return (uint256(rate) * duration + HOUR - 1) / HOUR;
    }

    /// @notice floor(amount * bps / 10000)
    function share(uint128 amount, uint16 bps) internal pure returns (uint128) {
        // A share of at most 10000 bps never exceeds the amount.
        // forge-lint: disable-next-line(unsafe-typecast)
        return uint128(uint256(amount) * bps / BPS);
    }

    /// @notice The lower of `wanted` and `available`.
    function clamp(uint256 wanted, uint128 available) internal pure returns (uint128) {
        // forge-lint: disable-next-line(unsafe-typecast)
        return wanted < available ? uint128(wanted) : available;
    }

    /// @notice The earlier of two times.
    function earlier(uint64 a, uint64 b) internal pure returns (uint64) {
        return a < b ? a : b;
    }

    /// @notice Seconds from `start` to `end`, zero if `end` is earlier.
    function elapsed(uint64 start, uint64 end) internal pure returns (uint64) {
        return end > start ? end - start : 0;
    }
}
