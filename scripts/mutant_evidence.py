"""What a verdict on an edit rests on, as a digest: while that is the same, the verdict holds.

All rest on the contracts. That an edit doesn't compile, or changes no bytecode, rests on nothing else; that a test
caught it, on that test with what its suite shares with others, or imports; that none did, on all tests.
"""

import hashlib
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests/contracts"
OTHERS = ("gas", "halmos")
"""Folders whose tests an edit isn't shown to."""
_TEST = re.compile(r"^    function (test\w*)\(.*?^    }\n", re.MULTILINE | re.DOTALL)
_IMPORT = re.compile(r"^import\b[^;]*\"(\.[^\"]+)\";", re.MULTILINE)
_SETTINGS = ("foundry.toml", "package-lock.json")


def evidence(kind: str, suite: str, test: str) -> str:
    """Digest of what a verdict of that kind rests on; ``suite`` and ``test`` name what caught the edit."""
    if kind in ("invalid", "equivalent"):
        return _digest(_contracts())
    if kind == "caught" and suite:
        return _digest(_contracts(), _imported(ROOT / suite), *_part_of(ROOT / suite, test))
    return _digest(_contracts(), *(_text(path) for path in _asked()))


def _part_of(suite: Path, test: str) -> tuple[str, str]:
    """A suite without its tests, and one of these; all of the suite if it isn't there, as setUp."""
    text = _text(suite)
    found = {match.group(1): match.group(0) for match in _TEST.finditer(text)}
    return (_TEST.sub("", text), found[test]) if test in found else (text, "")


@cache
def _contracts() -> str:
    return _digest(
        *(_text(ROOT / name) for name in _SETTINGS),
        *(_text(path) for path in sorted((ROOT / "contracts").rglob("*.sol"))),
    )


def _asked() -> list[Path]:
    """All below the tests' folder that an edit is shown to."""
    return [path for path in sorted(TESTS.rglob("*.sol")) if not set(OTHERS) & set(path.parts)]


@cache
def _imported(suite: Path) -> str:
    """All below the tests' folder that a suite imports, at any remove."""
    found: set[Path] = set()
    ahead = [suite]
    while ahead:
        path = ahead.pop()
        near = {(path.parent / name).resolve() for name in _IMPORT.findall(_text(path))}
        ahead += (new := {name for name in near if TESTS in name.parents} - found)
        found |= new
    return _digest(*(_text(path) for path in sorted(found)))


@cache
def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _digest(*texts: str) -> str:
    whole = hashlib.sha256()
    for text in texts:
        whole.update(hashlib.sha256(text.encode()).digest())
    return whole.hexdigest()[:16]
