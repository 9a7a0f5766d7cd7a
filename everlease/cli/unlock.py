"""Opening keystores: each with a password of its own, never with another key's."""

import sys
from dataclasses import dataclass, field
from pathlib import Path

import typer

from everlease.chain.errors import WrongPassword
from everlease.chain.keys import Key, load_keystore
from everlease.cli.errors import CliError, ExitCode


@dataclass(frozen=True, slots=True)
class Unlocked:
    """A key, its password, and the file that holds it, where one does."""

    key: Key
    password: str = field(repr=False)
    file: Path | None


def unlock(keystore: Path, password: str | None = None, file: Path | None = None) -> Unlocked:
    """Open a keystore with what is given for it; else with NAME.password beside NAME.json, with the folder's file
    ``password`` where that opens it, or by asking. Raises KeyRefused, CliError where nobody can be asked."""
    if password is not None:
        return Unlocked(load_keystore(keystore, password), password, None)
    own = keystore.with_suffix(".password")
    if file is not None or own.is_file():
        return _with_file(keystore, file or own)
    shared = keystore.parent / "password"
    if shared.is_file():
        try:
            return _with_file(keystore, shared)
        except WrongPassword:
            pass  # it is for another key of this folder
    asked = ask_password(f"Password for {keystore.name}")
    return Unlocked(load_keystore(keystore, asked), asked, None)


def ask_password(text: str, *, confirm: bool = False) -> str:
    """Ask at the terminal. Raises CliError where there is none."""
    try:
        return str(typer.prompt(text, hide_input=True, confirmation_prompt=confirm, err=True))
    except typer.Abort:
        if sys.stdin is not None and sys.stdin.isatty():
            raise
        raise CliError(
            ExitCode.REFUSED, f"{text}: there is no terminal to ask at: name the file that holds it, --password-file"
        ) from None


def _with_file(keystore: Path, file: Path) -> Unlocked:
    password = file.read_text(encoding="utf-8").rstrip("\n")
    return Unlocked(load_keystore(keystore, password), password, file)
