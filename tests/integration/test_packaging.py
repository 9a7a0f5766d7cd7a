"""What a host and a client install: a wheel of this tree with the extra [agent], and nothing of the servers."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UV = ROOT / ".tools" / "uv" / "bin" / "uv"
SERVERS = (
    "sqlalchemy",
    "celery",
    "fastapi",
    "psycopg",
    "redis",
    "web3",
    "siwe",
    "matplotlib",
    "uvicorn",
    "alembic",
    "jwt",
)
Run = Callable[..., subprocess.CompletedProcess[str]]


def _uv(*words: str) -> subprocess.CompletedProcess[str]:
    """From uv's cache, which the set-up has filled; else from the index."""
    env = os.environ | {"UV_PYTHON_DOWNLOADS": "never"}
    done = subprocess.run([str(UV), *words, "--offline"], capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        done = subprocess.run([str(UV), *words], capture_output=True, text=True, check=False, env=env)
    return done


@pytest.fixture(scope="module")
def agent_only(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs a program of an environment that holds the wheel and [agent] alone."""
    if not UV.exists():
        pytest.skip("the set-up's uv isn't here")
    folder = tmp_path_factory.mktemp("packaging")
    source = folder / "source"
    source.mkdir()
    shutil.copy(ROOT / "pyproject.toml", source)
    shutil.copy(ROOT / "README.md", source)
    for package in ("everlease", "provider_agent", "marketplace", "recovery", "indexer"):
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    built = _uv("build", "-q", "--wheel", "-o", str(folder), str(source))
    assert built.returncode == 0, built.stderr
    wheel = next(folder.glob("everlease-*.whl"))
    pins = folder / "pins.txt"
    pins.write_text(
        "\n".join(re.findall(r"^[\w.-]+==[^\s;\\]+", (ROOT / "requirements" / "services.txt").read_text(), re.M))
    )
    environment = folder / "env"
    assert _uv("venv", "-q", "--python", sys.executable, str(environment)).returncode == 0
    python = str(environment / "bin" / "python")
    words = ["pip", "install", "-q", "--only-binary", ":all:", "-c", str(pins), "--python", python, f"{wheel}[agent]"]
    done = _uv(*words)
    assert done.returncode == 0, done.stderr

    def run(program: str, *words: str) -> subprocess.CompletedProcess[str]:
        env = {"PATH": os.defpath, "HOME": str(folder), "PYTHONWARNINGS": "error"}
        argv = [str(environment / "bin" / program), *words]
        return subprocess.run(argv, capture_output=True, text=True, check=False, env=env, cwd=folder, timeout=120)

    return run


def test_no_server_can_be_imported_there(agent_only: Run) -> None:
    probe = f"import importlib.util as u; print([name for name in {SERVERS!r} if u.find_spec(name)])"
    assert agent_only("python", "-c", probe).stdout.strip() == "[]"


@pytest.mark.parametrize(
    "words", [[], ["provider"], ["provider", "doctor"], ["provider", "install"], ["job"], ["store"]]
)
def test_the_command_line_helps(agent_only: Run, words: list[str]) -> None:
    done = agent_only("everlease", *words, "--help")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_agent_starts_as_far_as_its_settings(agent_only: Run) -> None:
    done = agent_only("python", "-m", "provider_agent")
    assert done.returncode == 2
    assert done.stderr.startswith("the agent's settings are incomplete: EVERLEASE_AGENT_DATA_DIR")


def test_every_module_of_the_agent_can_be_imported(agent_only: Run) -> None:
    walk = (
        "import importlib, pkgutil, provider_agent as p\n"
        "for m in pkgutil.walk_packages(p.__path__, 'provider_agent.'):\n"
        "    m.name.endswith('__main__') or importlib.import_module(m.name)"
    )
    done = agent_only("python", "-c", walk)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_runs_a_market_says_which_packages_it_takes(agent_only: Run) -> None:
    done = agent_only("everlease", "up")
    assert done.returncode == 4
    assert "'everlease[server]'" in done.stderr
