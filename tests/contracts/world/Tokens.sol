// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";

/// @notice What tests need of any token, whatever else it returns.
interface IMintable {
    function mint(address account, uint256 amount) external;
    function approve(address spender, uint256 amount) external;
    function balanceOf(address account) external view returns (uint256);
}

/// @notice A token as they are, with any number of decimals; anyone may mint.
contract FreeToken is ERC20 {
    uint8 private immutable DECIMALS;

    constructor(uint8 decimals_) ERC20("Free", "FREE") {
        DECIMALS = decimals_;
    }

    function mint(address account, uint256 amount) external {
        _mint(account, amount);
    }

    function decimals() public view override returns (uint8) {
        return DECIMALS;
    }
}

/// @notice Returns no value from transfer, transferFrom and approve, as the oldest dollars do.
contract NoReturnToken {
    error Short();

    uint8 public immutable decimals;
    mapping(address account => uint256) public balanceOf;
    mapping(address account => mapping(address spender => uint256)) public allowance;

    constructor(uint8 decimals_) {
        decimals = decimals_;
    }

    function mint(address account, uint256 amount) external {
        balanceOf[account] += amount;
    }

    function approve(address spender, uint256 amount) external {
        allowance[msg.sender][spender] = amount;
    }

    function transfer(address to, uint256 amount) external {
        _move(msg.sender, to, amount);
    }

    function transferFrom(address from, address to, uint256 amount) external {
        if (allowance[from][msg.sender] < amount) revert Short();
        if (allowance[from][msg.sender] != type(uint256).max) allowance[from][msg.sender] -= amount;
        _move(from, to, amount);
    }

    function _move(address from, address to, uint256 amount) private {
        if (balanceOf[from] < amount) revert Short();
        balanceOf[from] -= amount;
        balanceOf[to] += amount;
    }
}

/// @notice Says false instead of reverting, and moves nothing, once it is told to.
contract FalseToken is FreeToken(18) {
    bool public refuses;

    function refuse(bool on) external {
        refuses = on;
    }

    function transfer(address to, uint256 amount) public override returns (bool) {
        return !refuses && super.transfer(to, amount);
    }

    function transferFrom(address from, address to, uint256 amount) public override returns (bool) {
        return !refuses && super.transferFrom(from, to, amount);
    }
}

/// @notice Says true and moves nothing, once it is told to.
contract LyingToken is FreeToken(18) {
    bool public lies;

    function lie(bool on) external {
        lies = on;
    }

    function transferFrom(address from, address to, uint256 amount) public override returns (bool) {
        return lies || super.transferFrom(from, to, amount);
    }
}

/// @notice Gives whoever pulls a unit more than was asked for.
contract BonusToken is FreeToken(6) {
    function transferFrom(address from, address to, uint256 amount) public override returns (bool) {
        _mint(to, 1);
        return super.transferFrom(from, to, amount);
    }
}

/// @notice Takes a fee of every transfer, from some day on.
contract FeeToken is FreeToken(6) {
    uint256 public feeBps;

    function setFee(uint256 bps) external {
        feeBps = bps;
    }

    function _update(address from, address to, uint256 value) internal override {
        super._update(from, to, value);
        uint256 fee = value * feeBps / 10_000;
        if (fee > 0 && from != address(0) && to != address(0)) super._update(to, address(0xdead), fee);
    }
}

/// @notice Everyone's balance grows or shrinks at once.
contract RebaseToken is FreeToken(18) {
    uint256 public numerator = 1;
    uint256 public denominator = 1;

    function rebase(uint256 up, uint256 down) external {
        (numerator, denominator) = (up, down);
    }

    function balanceOf(address account) public view override returns (uint256) {
        return super.balanceOf(account) * numerator / denominator;
    }

    function _update(address from, address to, uint256 value) internal override {
        super._update(from, to, value * denominator / numerator);
    }
}

/// @notice Refuses every transfer from or to a blocked account.
contract BlockingToken is FreeToken(6) {
    error Blocked(address account);

    mapping(address account => bool) public blocked;

    function setBlocked(address account, bool on) external {
        blocked[account] = on;
    }

    function _update(address from, address to, uint256 value) internal override {
        if (blocked[from]) revert Blocked(from);
        if (blocked[to]) revert Blocked(to);
        super._update(from, to, value);
    }
}

/// @notice Calls whom it was told to, before every transfer, and keeps what came back.
contract CallbackToken is FreeToken(18) {
    address public target;
    bytes public data;
    bool public worked;
    bytes public answer;
    uint256 public calls;

    function onTransfer(address target_, bytes calldata data_) external {
        (target, data, calls, worked) = (target_, data_, 0, false);
    }

    function _update(address from, address to, uint256 value) internal override {
        if (target != address(0)) {
            calls++;
            (worked, answer) = target.call(data);
        }
        super._update(from, to, value);
    }
}
