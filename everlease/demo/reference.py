"""The reference: the same image, seed and limits in a plain container, with no market, no failure and no sleep."""

import io
import tarfile
from pathlib import Path

import docker

from everlease.demo.errors import ReferenceFailed
from everlease.demo.params import ENVIRONMENT, DemoParams

LOSS_FILE = "/work/loss.csv"


def run_reference(socket: Path, image: str, params: DemoParams) -> bytes:
    """Train to the end on the daemon at ``socket``; the loss file's bytes. Raises ReferenceFailed."""
    client = docker.DockerClient(base_url=f"unix://{socket}", timeout=900)
    container = client.containers.create(
        image,
        params.command(pause=0),
        environment=ENVIRONMENT,
        network_mode="none",
        nano_cpus=10**9,
        mem_limit=str(params.job().resources.memory),
        name="everlease-reference",
    )
    try:
        container.start()
        code = container.wait()["StatusCode"]
        if code:
            raise ReferenceFailed(f"exit code {code}: {container.logs(tail=5).decode(errors='replace').strip()}")
        stream, _ = container.get_archive(LOSS_FILE)
        with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
            file = archive.extractfile(Path(LOSS_FILE).name)
            assert file is not None
            return file.read()
    finally:
        container.remove(force=True)
        client.close()
