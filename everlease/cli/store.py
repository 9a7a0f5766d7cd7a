"""`everlease store …`: serve, list, verify, export and clean a local block store."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from everlease.cli.errors import CliError, ExitCode
from everlease.cli.options import Json
from everlease.cli.output import console, emit_json, facts, size
from everlease.store.block_service import BlockService
from everlease.store.car import write_car
from everlease.store.cid import parse_cid
from everlease.store.local import LocalBlockStore
from everlease.store.scrub import scrub_store
from everlease.store.sessions import SessionLedger

app = typer.Typer(no_args_is_help=True, help="Serve, list, verify, export and clean a block store on this machine.")
Root = Annotated[Path, typer.Option("--root", help="The store's folder.")]


@contextmanager
def _opened(root: Path) -> Iterator[LocalBlockStore]:
    if not root.is_dir():
        raise CliError(ExitCode.NOT_FOUND, f"there is no block store in {root}")
    store = LocalBlockStore(root, read_only=True)
    try:
        yield store
    finally:
        store.close()


@app.command(epilog="Example: everlease store serve --root blocks --secret-file store.secret --port 9000")
def serve(
    root: Root,
    secret_file: Annotated[
        Path, typer.Option("--secret-file", help="The token secret shared with the marketplace, 32 bytes or more.")
    ],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 9000,
) -> None:
    """Serve blocks over HTTP until it is stopped."""
    from everlease.store.serve import serve as serve_store

    if not secret_file.is_file():
        raise CliError(
            ExitCode.NOT_FOUND, f"there is no secret file {secret_file}: write 32 random bytes or more into it"
        )
    secret = secret_file.read_bytes().strip()
    if len(secret) < 32:
        raise CliError(ExitCode.INVALID, f"the secret in {secret_file} is shorter than 32 bytes")
    console.print(f"serving {root} on http://{host}:{port}")
    serve_store(root, secret, host=host, port=port)


@app.command("ls", epilog="Example: everlease store ls --root .everlease/store --json")
def list_blocks(root: Root, as_json: Json = False) -> None:
    """The names and sizes of all blocks."""
    with _opened(root) as store:
        found = [(cid, store.size(cid)) for cid in store.cids()]
    if as_json:
        emit_json({"items": [{"cid": cid, "bytes": length} for cid, length in found]})
        return
    for cid, length in found:
        console.print(f"{cid}  {length}", soft_wrap=True)
    console.print(f"{len(found)} blocks, {size(sum(length for _, length in found))}")


@app.command(epilog="Example: everlease store verify --root .everlease/store")
def verify(root: Root, as_json: Json = False) -> None:
    """Read every block and check it against its name; fails where one is damaged."""
    with _opened(root) as store:
        report = scrub_store(store)
    document = {
        "good": report.good,
        "bytes": report.bytes,
        "corrupt": list(report.corrupt),
        "missing": list(report.missing),
    }
    if as_json:
        emit_json(document)
    else:
        facts(
            [
                ("good", f"{report.good} blocks, {size(report.bytes)}"),
                ("corrupt", len(report.corrupt)),
                ("missing", len(report.missing)),
            ]
        )
    if not report.ok:
        raise CliError(ExitCode.REFUSED, f"{len(report.corrupt) + len(report.missing)} blocks are damaged or missing")


@app.command(epilog="Example: everlease store export bafkrei… --root .everlease/store --to block.car")
def export(
    cids: Annotated[list[str], typer.Argument(help="CIDs of the blocks.", metavar="CID…")],
    root: Root,
    to: Annotated[Path, typer.Option("--to", help="The CAR file to write.")],
    as_json: Json = False,
) -> None:
    """Write blocks to a CAR file, sealed as they are."""
    wanted = [parse_cid(cid) for cid in cids]
    part = to.with_name(f".{to.name}.part")
    with _opened(root) as store:
        try:
            with part.open("wb") as file:
                for chunk in write_car(store.get_many(wanted), wanted[:1]):
                    file.write(chunk)
            os.replace(part, to)
        finally:
            part.unlink(missing_ok=True)
    written = to.stat().st_size
    emit_json({"file": str(to), "bytes": written}) if as_json else console.print(f"{size(written)} are in {to}")


@app.command(epilog="Example: everlease store gc --root .everlease/store --keep live.txt")
def gc(
    root: Root,
    keep: Annotated[Path, typer.Option("--keep", help="A file with the CIDs to keep, one a line, all of them.")],
    as_json: Json = False,
) -> None:
    """Condemn what no list names, delete what has been condemned long enough. Stop the store's service first."""
    if not keep.is_file():
        raise CliError(ExitCode.NOT_FOUND, f"there is no file {keep}")
    live = [parse_cid(line.strip()) for line in keep.read_text(encoding="ascii").splitlines() if line.strip()]
    if not root.is_dir():
        raise CliError(ExitCode.NOT_FOUND, f"there is no block store in {root}")
    store, ledger = LocalBlockStore(root), SessionLedger(root / "sessions.db")
    try:
        import time

        report = BlockService(store, ledger, time.time).collect(live)
    finally:
        store.close()
        ledger.close()
    if as_json:
        emit_json({name: getattr(report, name) for name in report.__slots__})
        return
    facts([(name, getattr(report, name)) for name in report.__slots__])
