"""The command line as a user meets it: help with examples, --json everywhere, one sentence per mistake."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer
from typer.testing import CliRunner

from everlease.chain.keys import load_keystore
from everlease.cli import job
from everlease.cli.config import Config
from everlease.cli.context import Context
from everlease.cli.errors import CliError
from everlease.cli.main import app
from everlease.cli.market import parse_events
from everlease.cli.provider_host import _further
from everlease.wire.http import JobList


class Empty:
    """A marketplace without jobs, and what it was asked."""

    def get(self, path: str, model: type, params: dict[str, object]) -> JobList:
        self.asked = params
        return JobList(items=[], next_cursor=None)


def test_a_list_of_jobs_in_one_state() -> None:
    context, market = Context(Config()), Empty()
    context.__dict__.update(market=market)
    done = CliRunner().invoke(job.app, ["list", "--state", "parked", "--json"], obj=context)
    assert (done.exit_code, market.asked) == (0, {"limit": 50, "state": "PARKED"}), done.output
    wrong = CliRunner().invoke(job.app, ["list", "--state", "stopped"], obj=context)
    assert wrong.exit_code == 2


STREAMS = {"everlease store serve", "everlease provider run"}
"""Commands that run until they are stopped print nothing that a program would read."""


def commands() -> Iterator[tuple[str, click.Command]]:
    def walk(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
        if hasattr(command, "commands"):
            for child, inner in command.commands.items():
                yield from walk(f"{name} {child}", inner)
        else:
            yield name, command

    yield from walk("everlease", typer.main.get_command(app))


@pytest.mark.parametrize(("name", "command"), list(commands()))
def test_every_command_has_help_with_an_example_and_json(name: str, command: click.Command) -> None:
    assert command.help
    assert f"Example: {name.split()[0]} " in (command.epilog or "")
    assert name in STREAMS or any("--json" in option.opts for option in command.params)


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    checkout = str(Path(__file__).parents[3])
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "COLUMNS": "400", "PYTHONPATH": checkout}
    argv = [sys.executable, "-m", "everlease.cli.main", *words]
    return subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("job", "launch", "none.yaml"), 3, "none.yaml: there is no such file"),
        (("job", "launch", "bad.yaml"), 3, "bad.yaml: deposit: it is required"),
        (("job", "launch", "good.yaml", "--wait"), 6, "no Docker daemon at"),
        (("provider", "run", "--provider", "0xab", "--data-dir", "d"), 2, "--key (the node's keystore), --rpc, --dep"),
        (("--key", "none.json", "--password-file", "none", "provider", "status"), 3, "none: No such file"),
        (("job", "list"), 5, "name its keystore with --key"),
        (("provider", "nodes", "revoke", "0xabc"), 3, "'0xabc' is no address: give 0x and 40 hexadecimal digits"),
        (("job", "extend", "train", "--max-leases", "5000000000"), 2, "--max-leases': Input should be less"),
        (("--market", "http://127.0.0.1:9", "explorer", "leases"), 6, "can't be reached"),
        (("--key", "none.json", "job", "list"), 5, "there is no key file none.json"),
        (("store", "ls", "--root", "none"), 4, "there is no block store in none"),
        (("provider", "drain", "--data-dir", "none"), 6, "none: is it running on this host?"),
        (("job", "frobnicate"), 2, "frobnicate"),
    ],
)
def test_a_mistake_gets_one_sentence_and_its_code(tmp_path: Path, words: tuple[str, ...], code: int, says: str) -> None:
    (tmp_path / "bad.yaml").write_text("name: a\nimage: b\nmax_price_per_hour: 1\n")
    (tmp_path / "good.yaml").write_text("name: a\nimage: b\nmax_price_per_hour: 1\ndeposit: 1\n")
    (tmp_path / "password").write_text("x")
    words = (*words[:0], "--docker-socket", "none.sock", *words)
    done = run(tmp_path, *words)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("MAX_JOBS", "give NAME=VALUE"),
        ("max-jobs=2", "do you mean MAX_JOBS?"),
        ("EVERLEASE_AGENT_MAX_JOBS=2", "do you mean MAX_JOBS?"),
        ("CRIU=/x", "the installation sets CRIU itself"),
    ],
)
def test_a_setting_that_an_installation_does_not_take_is_told_with_what_it_takes(given: str, says: str) -> None:
    assert _further(["base_rate=7"]) == {"BASE_RATE": "7"}
    with pytest.raises(CliError, match=says.replace("?", r"\?")):
        _further([given])


def test_a_new_key_opens_with_its_password_and_replaces_none(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("correct horse\n")
    words = ("--password-file", "secret", "provider", "new-key", "node.json", "--json")
    made = run(tmp_path, *words)
    address = json.loads(made.stdout)["address"]
    assert load_keystore(tmp_path / "node.json", "correct horse").address == address
    again = run(tmp_path, *words)
    assert (again.returncode, load_keystore(tmp_path / "node.json", "correct horse").address) == (5, address)


def test_a_stack_that_is_not_up_is_said_as_such(tmp_path: Path) -> None:
    done = run(tmp_path, "status", "--json")
    assert json.loads(done.stdout) == {"up": False, "processes": []}
    assert run(tmp_path, "down").returncode == 0


def test_server_sent_events_are_parsed_across_comments_and_lines() -> None:
    lines = [": hello", "", "id: 7", "event: log", 'data: {"a":', "data: 1}", "", "data: 2", ""]
    assert [(e.id, e.event, e.data) for e in parse_events(iter(lines))] == [(7, "log", {"a": 1}), (7, "message", 2)]
