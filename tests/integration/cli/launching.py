"""A tenant at a command line, with an image in a Docker engine, a served marketplace and contracts on Anvil."""

import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from everlease.chain.keys import save_keystore
from tests.integration.cli.conftest import CHECKOUT
from tests.support.deployed import Market
from tests.support.docker_engine import REFERENCE, Engine
from tests.support.marketplace import Service

JOB: dict[str, Any] = {"name": "train", "image": REFERENCE, "max_price_per_hour": "0.50", "deposit": "2.00"}


@dataclass
class Tenant:
    """``folder`` is its home; commands run there as processes of their own."""

    market: Market
    service: Service
    engine: Engine
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        save_keystore(self.folder / "wallet.json", self.market.tenant, "secret", rounds=2**12)
        (self.folder / "wallet.password").write_text("secret\n")
        self.market.deployment.save(self.folder / "deployments.json")
        self.write()

    def write(self, name: str = "job.yaml", **changes: Any) -> None:
        """Write a job file."""
        lines = (f"{key}: {value}\n" for key, value in {**JOB, **changes}.items() if value is not None)
        (self.folder / name).write_text("".join(lines))

    def start(self, *words: str) -> "subprocess.Popen[str]":
        """Start a command."""
        argv = [
            # What a shell starts in the background ignores Ctrl-C, and so would its children.
            "env", "--default-signal=INT", sys.executable, "-m", "everlease.cli.main",
            "--market", self.service.url, "--rpc", self.market.anvil.url,
            "--key", "wallet.json", "--password-file", "wallet.password", "--deployments", "deployments.json",
            "--docker-socket", str(self.engine.path), *words,
        ]  # fmt: skip
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(self.folder), "COLUMNS": "400", **self.environment}
        environment["PYTHONPATH"] = str(CHECKOUT)
        return subprocess.Popen(
            argv, cwd=self.folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, *words: str, answer: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        process = self.start(*words)
        out, err = process.communicate(answer, timeout=120)
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def client(self) -> httpx.Client:
        """The marketplace as the tenant."""
        return self.service.client(self.market.tenant)

    def jobs(self) -> list[str]:
        """Ids of the tenant's jobs, newest first."""
        with closing(self.client()) as client:
            return [item["id"] for item in client.get("/v1/jobs", params={"limit": 200}).json()["items"]]

    def funded(self) -> list[str]:
        """Those whose deposit is in the escrow."""
        return [job for job in self.jobs() if self.market.views.job(job).funded]

    def held(self) -> int:
        """Base units in the wallet."""
        return self.market.views.asset_balance(self.market.tenant.address)
