// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

import {LeaseEscrow} from "../../contracts/LeaseEscrow.sol";
import {ILeaseEscrow} from "../../contracts/interfaces/ILeaseEscrow.sol";
import {Config, Order} from "../../contracts/interfaces/LeaseTypes.sol";
import {Deposits} from "../../contracts/libraries/Deposits.sol";
import {Base} from "./Base.sol";

/// @notice Takes one unit of every transfer.
contract TollToken is ERC20 {
    constructor() ERC20("Toll", "TOLL") {}

    function mint(address account, uint256 amount) external {
        _mint(account, amount);
    }

    function _update(address from, address to, uint256 value) internal override {
        super._update(from, to, value);
        if (from != address(0) && to != address(0)) super._update(to, address(0xdead), 1);
    }
}

/// @notice Refuses to pay one account, as a dollar with a blocklist does.
contract BlocklistToken is ERC20 {
    error Blocked(address account);

    mapping(address account => bool) private _blocked;

    constructor() ERC20("Blocklist", "BLK") {}

    function mint(address account, uint256 amount) external {
        _mint(account, amount);
    }

    function blockAccount(address account) external {
        _blocked[account] = true;
    }

    function _update(address from, address to, uint256 value) internal override {
        if (_blocked[to]) revert Blocked(to);
        super._update(from, to, value);
    }
}

/// @notice The constructor's bounds, and assets that misbehave.
contract DeploymentTest is Base {
    /// @dev A call of its own, so that a test goes on after it reverts, however the tests load the contract.
    function deploy(address asset, Config memory config) external returns (LeaseEscrow) {
        return new LeaseEscrow(IERC20(asset), config);
    }

    function expectRefused(Config memory config, bytes32 field) private {
        vm.expectRevert(abi.encodeWithSelector(ILeaseEscrow.InvalidConfig.selector, field));
        this.deploy(address(dollar), config);
    }

    function test_configIsReadBack() public view {
        assertEq(keccak256(abi.encode(escrow.config())), keccak256(abi.encode(terms())));
        assertEq(escrow.asset(), address(dollar));
    }

    function test_termsAreBounded() public {
        uint64 tooLong = 36_525 days + 1;
        Config memory c = terms();
        c.answerWindow = 0;
        expectRefused(c, "answerWindow");
        c.answerWindow = tooLong;
        expectRefused(c, "answerWindow");
        // A window of a century is in order, but no unbonding period can be longer.
        (c.answerWindow, c.unbondingPeriod) = (tooLong - 1, tooLong - 1);
        expectRefused(c, "unbondingPeriod");
        c = terms();
        c.unbondingPeriod = c.answerWindow;
        expectRefused(c, "unbondingPeriod");
        c.unbondingPeriod = c.answerWindow - 1;
        expectRefused(c, "unbondingPeriod");
        c.unbondingPeriod = tooLong;
        expectRefused(c, "unbondingPeriod");
        c = terms();
        c.minRuntime = tooLong;
        expectRefused(c, "minRuntime");
        c = terms();
        c.maxLifetime = 0;
        expectRefused(c, "maxLifetime");
        c.maxLifetime = tooLong;
        expectRefused(c, "maxLifetime");
        c = terms();
        c.minSilence = 0;
        expectRefused(c, "minSilence");
        c.minSilence = c.maxSilence + 1;
        expectRefused(c, "minSilence");
        c = terms();
        c.feeBps = 3001;
        expectRefused(c, "feeBps");
        c = terms();
        c.dropPenaltyBps = 10_001;
        expectRefused(c, "dropPenaltyBps");
        c = terms();
        c.slashToJobBps = 8501;
        expectRefused(c, "slashSplit");
        (c.slashToJobBps, c.slashToCallerBps) = (8500, 501);
        expectRefused(c, "slashSplit");
        (c.slashToJobBps, c.slashToCallerBps) = (type(uint16).max, type(uint16).max);
        expectRefused(c, "slashSplit");
    }

    function test_nobodyIsNoPayeeAndNoAsset() public {
        Config memory c = terms();
        c.treasury = address(0);
        vm.expectRevert(ILeaseEscrow.ZeroAddress.selector);
        this.deploy(address(dollar), c);
        c = terms();
        c.insurance = address(0);
        vm.expectRevert(ILeaseEscrow.ZeroAddress.selector);
        this.deploy(address(dollar), c);
        c = terms();
        vm.expectRevert(ILeaseEscrow.ZeroAddress.selector);
        this.deploy(address(0), c);
    }

    function test_termsMayLieOnTheirBounds() public {
        Config memory c = terms();
        (c.answerWindow, c.unbondingPeriod) = (36_525 days - 1, 36_525 days);
        (c.minRuntime, c.maxLifetime) = (36_525 days, 36_525 days);
        (c.feeBps, c.dropPenaltyBps) = (3000, 10_000);
        (c.slashToJobBps, c.slashToCallerBps) = (8500, 500);
        (c.minSilence, c.maxSilence) = (1, 1);
        LeaseEscrow lenient = new LeaseEscrow(IERC20(address(dollar)), c);
        assertEq(keccak256(abi.encode(lenient.config())), keccak256(abi.encode(c)));
    }

    function test_anAssetWithATollIsRefused() public {
        TollToken toll = new TollToken();
        escrow = new LeaseEscrow(IERC20(address(toll)), terms());
        toll.mint(tenant, 2 * DEPOSIT);
        vm.prank(tenant);
        toll.approve(address(escrow), DEPOSIT);
        Order memory order = anOrder();
        bytes memory signature = sign(TENANT_KEY, escrow.hashOrder(order));
        vm.expectRevert(abi.encodeWithSelector(Deposits.UnsupportedAsset.selector, address(toll), DEPOSIT, DEPOSIT - 1));
        escrow.fund(order, signature, noPermit());
    }

    function test_aBlocklistedTenantJamsNothing() public {
        BlocklistToken token = new BlocklistToken();
        escrow = new LeaseEscrow(IERC20(address(token)), terms());
        token.mint(tenant, DEPOSIT);
        vm.prank(tenant);
        token.approve(address(escrow), DEPOSIT);
        bytes32 jobId = fund(anOrder());
        token.blockAccount(tenant);
        vm.warp(DEADLINE + 1);
        escrow.refund(orders[jobId]);
        vm.startPrank(tenant);
        vm.expectRevert(abi.encodeWithSelector(BlocklistToken.Blocked.selector, tenant));
        escrow.withdraw(tenant);
        assertEq(escrow.withdraw(keeper), DEPOSIT);
        vm.stopPrank();
    }

    function test_aFundWithoutAllowanceIsTheTokensError() public {
        vm.prank(tenant);
        dollar.approve(address(escrow), 0);
        bytes memory signature = sign(TENANT_KEY, escrow.hashOrder(anOrder()));
        vm.expectRevert();
        escrow.fund(anOrder(), signature, noPermit());
    }
}
