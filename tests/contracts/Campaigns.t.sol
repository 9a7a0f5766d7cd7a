// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {MockDollar} from "../../contracts/mocks/MockDollar.sol";
import {Campaign} from "./world/Campaign.sol";
import {NoReturnToken} from "./world/Tokens.sol";
import {IMintable} from "./world/World.sol";

/// @notice The world with a dollar of six decimals.
contract DollarCampaignTest is Campaign {
    function setUp() public override {
        prepare(IMintable(address(new MockDollar())), 1e6);
    }
}

/// @notice The world with a token of 24 decimals that returns no values.
contract OddCampaignTest is Campaign {
    function setUp() public override {
        prepare(IMintable(address(new NoReturnToken(24))), 1e24);
    }
}
