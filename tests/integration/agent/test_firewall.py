"""An agent looks after its firewall for as long as it runs."""

import subprocess
import time

from tests.integration.agent.conftest import World


def test_an_agent_puts_back_what_a_reload_of_the_firewall_took(world: World) -> None:
    agent = world.agents["a"]

    def rules() -> list[str]:
        argv = ["nsenter", f"--net=/run/netns/{agent.netns}", "--", "iptables", "-S"]
        return [line for line in subprocess.check_output(argv, text=True).splitlines() if "EVERLEASE" in line]

    agent.start()
    give_up = time.monotonic() + 60
    while "serves provider" not in agent.log():
        assert time.monotonic() < give_up, agent.log()
        time.sleep(0.1)
    before = rules()
    assert before
    # Docker's own chains stay: other tests use the same daemon.
    for chain in ("INPUT", "EVERLEASE-OUT"):
        subprocess.run(["nsenter", f"--net=/run/netns/{agent.netns}", "--", "iptables", "-F", chain], check=True)
    assert len(rules()) < len(before)
    while sorted(rules()) != sorted(before):
        assert time.monotonic() < give_up, rules()
        time.sleep(0.1)
    time.sleep(6)
    assert agent.log().count("are set again") == 1, agent.log()
