"""Creation code of the escrow with one edit, from a compiler that stays loaded.

The escrow carries the staking contract's creation code at its end and deploys it, so the two compile apart: an edit of
the escrow's own files compiles it around a stub, one of ProviderStaking.sol compiles that alone, and the bytes are put
together. What both use, as the libraries, compiles both. That the parts make the whole is checked at the start.
"""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ESCROW, STAKING = "contracts/LeaseEscrow.sol", "contracts/ProviderStaking.sol"
ESCROW_ALONE = (ESCROW, "contracts/escrow/")
STUB = f"""
pragma solidity 0.8.37;
import {{IERC20}} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
contract ProviderStaking {{
    constructor(IERC20, uint64) {{}}
    function slash(address, uint128) external {{}}
    function backingOf(address node) external view returns (address, uint128) {{ return (node, uint128(gasleft())); }}
    function size() external pure returns (bytes memory) {{ return hex"{bytes(range(1, 256)).hex() * 25}"; }}
}}
"""
"""Longer than the escrow's constructor, so that no jump in it pushes the same number as the stub's length."""
_PUSH2 = 0x61
_COMPILES = 300
"""WebAssembly memory only grows, so a compiler is replaced after so many."""


class DoesNotCompile(Exception):
    """The compiler's first error."""


@dataclass(frozen=True)
class Code:
    """A contract's bytes: what deploys it, and the part of that which stays."""

    creation: bytes
    runtime: bytes


class Compiler:
    """One process of scripts/solc.mjs, for one thread. ``settings`` are forge's of the profile `mutate`."""

    def __init__(self, root: Path, settings: dict[str, Any]) -> None:
        self._root, self._settings = root, settings
        self._process: subprocess.Popen[str] | None = None
        self._left = 0
        self._escrow = self._compile(ESCROW, {})
        self._staking = self._compile(STAKING, {})
        self._stub = self._compile(STAKING, {STAKING: STUB})
        self.original = self._escrow.creation
        around = self._compile(ESCROW, {STAKING: STUB})
        apart = spliced(around, self._stub, self._staking), spliced(self._escrow, self._staking, self._stub)
        if apart != (self.original, around.creation):
            raise RuntimeError("the staking contract's code isn't a part of the escrow's that can be taken out")

    def escrow(self, path: str, text: str) -> bytes:
        """Creation code of LeaseEscrow with ``text`` in place of the file at ``path``; raises DoesNotCompile."""
        if path == STAKING:
            parts = self._escrow, self._staking, self._compile(STAKING, {path: text})
        elif path.startswith(ESCROW_ALONE):
            parts = self._compile(ESCROW, {path: text, STAKING: STUB}), self._stub, self._staking
        else:
            return self._compile(ESCROW, {path: text}).creation
        return spliced(*parts) or self._compile(ESCROW, {path: text}).creation

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _compile(self, path: str, texts: dict[str, str]) -> Code:
        name = Path(path).stem
        sources = {path: (self._root / path).read_text(encoding="utf-8")} | texts
        settings = self._settings | {
            "debug": {"debugInfo": []},
            "outputSelection": {path: {name: ["evm.bytecode.object", "evm.deployedBytecode.object"]}},
        }
        output = self._ask(
            {"language": "Solidity", "sources": {k: {"content": v} for k, v in sources.items()}}
            | {"settings": settings}
        )
        errors = [error["message"] for error in output.get("errors", ()) if error["severity"] == "error"]
        if errors:
            raise DoesNotCompile(errors[0])
        evm = output["contracts"][path][name]["evm"]
        return Code(*(bytes.fromhex(evm[part]["object"]) for part in ("bytecode", "deployedBytecode")))

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        if self._left == 0:
            self.close()
            argv = ["node", "scripts/solc.mjs", "--serve", "--base-path", ".", "--include-path", "node_modules"]
            self._process = subprocess.Popen(
                argv,
                cwd=self._root,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            self._left = _COMPILES
        self._left -= 1
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            answer: dict[str, Any] = json.loads(process.stdout.readline())
        except (OSError, ValueError):
            # It died on this input, as solc does of an assertion of its own.
            self._left = 0
            raise DoesNotCompile("the compiler failed") from None
        return answer


def spliced(whole: Code, old: Code, new: Code) -> bytes:
    """``whole`` with ``new`` in place of ``old`` at its end; empty if that can't be told for sure.

    The constructor pushes two lengths that change: that of the part, to copy it, and its own, behind which its
    arguments lie. Code that doesn't carry the part at all stays as it is.
    """
    if not whole.creation.endswith(old.creation):
        return b"" if old.creation in whole.creation else whole.creation
    start = whole.creation.find(whole.runtime)
    constructor, rest = whole.creation[:start], whole.creation[start:].removesuffix(old.creation)
    grown = len(new.creation) - len(old.creation)
    for length in (len(old.creation), len(whole.creation)):
        if start < 0 or length <= start or _push(length) not in constructor:
            return b""
        constructor = constructor.replace(_push(length), _push(length + grown))
    return constructor + rest + new.creation


def _push(number: int) -> bytes:
    if not 0x100 <= number < 0x1_0000:
        raise ValueError(f"{number} isn't pushed by PUSH2")
    return bytes([_PUSH2]) + number.to_bytes(2, "big")
