"""Print every edit that slither-mutate's operators would make to our contracts, as JSON. Run in .venv-assure.

.venv-assure/bin/python scripts/slither_mutants.py > mutants.json      [{file, start, end, old, new, operator, line}, …]
"""

import json
import sys
from pathlib import Path

from slither import Slither
from slither.tools.mutator.mutators import all_mutators
from slither.tools.mutator.mutators.abstract_mutator import AbstractMutator

ROOT = Path(__file__).resolve().parents[1]
OURS = ("LeaseEscrow", "LeaseLedger", "JobLedger", "Terms", "ProviderStaking", "Settlement", "Signatures", "TypedData")
OURS += ("Deposits",)


def main() -> None:
    """All edits of all operators, in the order of the files; the same text edit once.

    But FHR: a function that is public instead of external, or view instead of pure, is the same program.
    """
    slither = Slither(str(ROOT))
    operators = [
        kind
        for kind in vars(all_mutators).values()
        if isinstance(kind, type) and issubclass(kind, AbstractMutator) and kind.NAME not in ("", "FHR")
    ]
    found: dict[tuple[str, int, int, str], dict[str, object]] = {}
    for unit in slither.compilation_units:
        for contract in unit.contracts:
            if contract.name not in OURS:
                continue
            for kind in operators:
                mutator = kind(unit, 0, "", str(ROOT), contract, None, False, ROOT, [])
                try:
                    patches = mutator._mutate().get("patches", {})
                except Exception as error:  # an operator that can't read a construct makes no edit of it
                    print(f"{kind.NAME} on {contract.name}: {error}", file=sys.stderr)
                    continue
                for file, edits in patches.items():
                    name = str(Path(file).relative_to(ROOT))
                    for edit in edits:
                        old, new = edit["old_string"], edit["new_string"]
                        key = (name, edit["start"], edit["end"], new)
                        found[key] = dict(zip(("file", "start", "end", "new"), key, strict=True)) | {
                            "old": old,
                            "operator": kind.NAME,
                            "line": edit["line_number"],
                        }
    json.dump([found[key] for key in sorted(found)], sys.stdout, indent=1)


if __name__ == "__main__":
    main()
