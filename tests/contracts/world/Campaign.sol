// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

import {LeaseEscrow} from "../../../contracts/LeaseEscrow.sol";
import {Base} from "../Base.sol";
import {Society} from "./Society.sol";
import {IMintable} from "./World.sol";

/// @notice A campaign of one world: `act` is called over and over, each time with another seed, and audits itself.
abstract contract Campaign is Base {
    Society internal society;

    function prepare(IMintable token, uint128 unit) internal {
        vm.warp(START);
        society = new Society(new LeaseEscrow(IERC20(address(token)), terms()), token, unit);
        targetContract(address(society));
        bytes4[] memory entry = new bytes4[](1);
        entry[0] = Society.act.selector;
        targetSelector(FuzzSelector(address(society), entry));
    }

    /// @dev I-24, and the share of calls that acted, for the report.
    function afterInvariant() external {
        string memory report = vm.envOr("EVERLEASE_CAMPAIGN_REPORT", string(""));
        uint256 count = society.HANDLERS();
        for (uint256 i = 0; i < count; i++) {
            string memory name = society.nameOf(i);
            (uint64 asked, uint64 acted) = society.tallies(i);
            if (asked >= 50) assertGe(uint256(acted) * 2, asked, string.concat("idle handler: ", name));
            if (bytes(report).length == 0) continue;
            vm.writeLine(report, string.concat(name, " ", vm.toString(asked), " ", vm.toString(acted)));
        }
        society.windUp();
    }

    /// @dev `act` reverts, which fails the run, where an invariant doesn't hold.
    function invariant_all() external pure {}
}
