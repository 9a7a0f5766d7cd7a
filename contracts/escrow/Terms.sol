// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ILeaseEscrow} from "../interfaces/ILeaseEscrow.sol";
import {Config} from "../interfaces/LeaseTypes.sol";
import {Settlement} from "../libraries/Settlement.sol";

/// @title The immutable terms of a deployment
abstract contract Terms is ILeaseEscrow {
    /// @dev Of a slash, at least this share leaves the parties, so that slashing oneself never pays.
    uint16 private constant LEAST_INSURANCE_BPS = 1000;
    uint16 private constant HIGHEST_FEE_BPS = 3000;

    uint64 internal immutable ANSWER_WINDOW;
    uint64 internal immutable MIN_RUNTIME;
    uint64 internal immutable UNBONDING_PERIOD;
    uint64 internal immutable MAX_LIFETIME;
    uint32 internal immutable MIN_SILENCE;
    uint32 internal immutable MAX_SILENCE;
    uint16 internal immutable FEE_BPS;
    uint16 internal immutable DROP_PENALTY_BPS;
    uint16 internal immutable SLASH_TO_JOB_BPS;
    uint16 internal immutable SLASH_TO_CALLER_BPS;
    uint128 internal immutable BOND;
    address internal immutable TREASURY;
    address internal immutable INSURANCE;

    constructor(Config memory terms) {
        _validate(terms);
        ANSWER_WINDOW = terms.answerWindow;
        MIN_RUNTIME = terms.minRuntime;
        UNBONDING_PERIOD = terms.unbondingPeriod;
        MAX_LIFETIME = terms.maxLifetime;
        MIN_SILENCE = terms.minSilence;
        MAX_SILENCE = terms.maxSilence;
        FEE_BPS = terms.feeBps;
        DROP_PENALTY_BPS = terms.dropPenaltyBps;
        SLASH_TO_JOB_BPS = terms.slashToJobBps;
        SLASH_TO_CALLER_BPS = terms.slashToCallerBps;
        BOND = terms.bond;
        TREASURY = terms.treasury;
        INSURANCE = terms.insurance;
    }

    /// @inheritdoc ILeaseEscrow
    function config() external view returns (Config memory) {
        return Config({
            answerWindow: ANSWER_WINDOW,
            minRuntime: MIN_RUNTIME,
            unbondingPeriod: UNBONDING_PERIOD,
            maxLifetime: MAX_LIFETIME,
            minSilence: MIN_SILENCE,
            maxSilence: MAX_SILENCE,
            feeBps: FEE_BPS,
            dropPenaltyBps: DROP_PENALTY_BPS,
            slashToJobBps: SLASH_TO_JOB_BPS,
            slashToCallerBps: SLASH_TO_CALLER_BPS,
            bond: BOND,
            treasury: TREASURY,
            insurance: INSURANCE
        });
    }

    function _validate(Config memory terms) private pure {
        // A century bounds every period, so that sums of times never overflow.
        uint64 century = 36_525 days;
        if (terms.answerWindow == 0 || terms.answerWindow > century) revert InvalidConfig("answerWindow");
        if (terms.minRuntime > century) revert InvalidConfig("minRuntime");
        if (terms.unbondingPeriod <= terms.answerWindow || terms.unbondingPeriod > century) {
            revert InvalidConfig("unbondingPeriod");
        }
        if (terms.maxLifetime == 0 || terms.maxLifetime > century) revert InvalidConfig("maxLifetime");
        if (terms.minSilence == 0 || terms.minSilence > terms.maxSilence) revert InvalidConfig("minSilence");
        if (terms.feeBps > HIGHEST_FEE_BPS) revert InvalidConfig("feeBps");
        if (terms.dropPenaltyBps > Settlement.BPS) revert InvalidConfig("dropPenaltyBps");
        if (uint256(terms.slashToJobBps) + terms.slashToCallerBps + LEAST_INSURANCE_BPS > Settlement.BPS) {
            revert InvalidConfig("slashSplit");
        }
        if (terms.treasury == address(0) || terms.insurance == address(0)) revert ZeroAddress();
    }
}
