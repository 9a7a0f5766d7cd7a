// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ILeaseEscrow} from "../../contracts/interfaces/ILeaseEscrow.sol";
import {LeaseState, Receipt as LeaseReceipt} from "../../contracts/interfaces/LeaseTypes.sol";
import {Base} from "./Base.sol";

/// @notice Every lease state x action: an action is possible in its states and refused with WrongLeaseState in all
/// others.
contract StatesTest is Base {
    enum Action {
        Collect,
        Close,
        Notice,
        Suspend,
        Answer,
        Fail
    }

    uint64 private constant SUSPENDED = 100;

    /// @dev A lease in `state` at a time at which the state's own exits are open.
    function leaseIn(LeaseState state) private returns (bytes32 leaseId) {
        if (state == LeaseState.None) return keep(paramsOf(anOrder(), aBid(escrow.hashOrder(anOrder()), 1), RATE));
        if (state == LeaseState.Active || state == LeaseState.Closed) {
            (, leaseId) = openLease();
            vm.warp(START + SUSPENDED);
        } else {
            (, leaseId) = openAndSuspend(SUSPENDED);
        }
        if (state == LeaseState.Closed) act(Action.Close, leaseId);
        if (state == LeaseState.Cleared) act(Action.Answer, leaseId);
        if (state == LeaseState.Failed) {
            vm.warp(START + SUSPENDED + WINDOW + 1);
            act(Action.Fail, leaseId);
        }
    }

    function act(Action action, bytes32 leaseId) private {
        LeaseReceipt memory receipt = aFinal(leaseId, SUSPENDED, SUSPENDED);
        bytes memory signature = signed(receipt);
        vm.prank(action == Action.Notice ? provider : watcher);
        if (action == Action.Collect) escrow.collect(leases[leaseId], receipt, signature);
        else if (action == Action.Close) escrow.close(leases[leaseId], receipt, signature);
        else if (action == Action.Notice) escrow.notice(leases[leaseId]);
        else if (action == Action.Suspend) escrow.suspend(leases[leaseId], noReceipt(), "");
        else if (action == Action.Answer) escrow.answer(leases[leaseId], receipt, signature);
        else escrow.fail(leases[leaseId]);
    }

    function possible(LeaseState state, Action action) private pure returns (bool) {
        if (state == LeaseState.Active) {
            return
                action == Action.Collect || action == Action.Close || action == Action.Notice
                    || action == Action.Suspend;
        }
        if (state == LeaseState.Suspended) {
            return action == Action.Collect || action == Action.Answer || action == Action.Fail;
        }
        return false;
    }

    function reached(LeaseState state, Action action) private pure returns (LeaseState) {
        if (action == Action.Close) return LeaseState.Closed;
        if (action == Action.Suspend) return LeaseState.Suspended;
        if (action == Action.Answer) return LeaseState.Cleared;
        if (action == Action.Fail) return LeaseState.Failed;
        return state;
    }

    function test_everyStateTimesEveryAction() public {
        uint256 start = vm.snapshotState();
        for (uint8 s = 0; s <= uint8(type(LeaseState).max); s++) {
            for (uint8 a = 0; a <= uint8(type(Action).max); a++) {
                LeaseState state = LeaseState(s);
                Action action = Action(a);
                bytes32 leaseId = leaseIn(state);
                assertState(leaseId, state);
                if (state == LeaseState.Suspended && action == Action.Fail) vm.warp(START + SUSPENDED + WINDOW + 1);
                if (possible(state, action)) {
                    act(action, leaseId);
                    assertState(leaseId, reached(state, action));
                } else {
                    this.expectWrongState(state, action, leaseId);
                }
                vm.revertToState(start);
            }
        }
    }

    /// @dev A call of its own, so that the expected revert is the action's and not a view's.
    function expectWrongState(LeaseState state, Action action, bytes32 leaseId) external {
        // Of an ended lease nothing is left.
        LeaseState stored = state == LeaseState.Active || state == LeaseState.Suspended ? state : LeaseState.None;
        bytes memory expected = abi.encodeWithSelector(ILeaseEscrow.WrongLeaseState.selector, leaseId, stored);
        try this.attempt(action, leaseId) {
            assertTrue(false, "an action was possible that must not be");
        } catch (bytes memory reason) {
            assertEq(reason, expected);
        }
    }

    function attempt(Action action, bytes32 leaseId) external {
        act(action, leaseId);
    }
}
