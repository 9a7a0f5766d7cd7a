"""Outputs are unpacked on a tenant's machine, from archives that a stranger's host wrote."""

import io
import tarfile
from pathlib import Path

from everlease.cli.outputs import unpack


def member(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", content: bytes = b""
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(content)
    return info, content


def make(folder: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    folder.mkdir()
    with tarfile.open(folder / "upper.tar", "w") as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return folder


def test_files_folders_and_links_inside_arrive(tmp_path: Path) -> None:
    archives = make(
        tmp_path / "a",
        member("./work", tarfile.DIRTYPE),
        member("./work/result", content=b"42"),
        member("./work/latest", tarfile.SYMTYPE, "result"),
        member("./work/same", tarfile.LNKTYPE, "./work/result"),
        member("./dev-null", tarfile.CHRTYPE),
    )
    assert unpack(archives, tmp_path / "out") == (1, 2)
    folder = tmp_path / "out/upper"
    assert (folder / "work/latest").read_bytes() == (folder / "work/same").read_bytes() == b"42"
    assert not (folder / "dev-null").exists()


def test_nothing_leaves_the_target(tmp_path: Path) -> None:
    """Each of these wrote or linked outside when all members were judged before the first was unpacked."""
    outside = tmp_path / "outside"
    outside.write_text("untouched")
    archives = make(
        tmp_path / "a",
        member("here", tarfile.SYMTYPE, "."),
        member("up", tarfile.SYMTYPE, "here/.."),
        member("up/evil", content=b"x"),
        member("deep", tarfile.SYMTYPE, "here/../sibling"),
        member("deep", content=b"x"),
        member("hard", tarfile.LNKTYPE, "deep"),
        member("hard", content=b"x"),
        member("../evil", content=b"x"),
        member("/evil", content=b"x"),
        member("absolute", tarfile.SYMTYPE, "/etc"),
        member("absolute/evil", content=b"x"),
    )
    unpack(archives, tmp_path / "out")
    assert outside.read_text() == "untouched"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "out", "outside"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["upper"]
    assert (tmp_path / "out/upper/evil").read_bytes() == b"x", "a leading slash is cut off"
