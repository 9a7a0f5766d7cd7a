"""Which image a `docker save` archive holds, in the forms that Docker's two image stores write."""

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from everlease.image_archive import ArchiveRefused, ImageArchive, read_archive

LAYERS = [b"layer one" * 100, b"layer two" * 300]
CONFIG = json.dumps({"rootfs": {"diff_ids": [hashlib.sha256(raw).hexdigest() for raw in LAYERS]}}).encode()
DIGEST = hashlib.sha256(CONFIG).hexdigest()


def write(path: Path, members: dict[str, bytes | str]) -> Path:
    """Members by name; a string is a link's target."""
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            if isinstance(content, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, content
                archive.addfile(entry)
            else:
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return path


def manifest(**changes: Any) -> bytes:
    return json.dumps([{"Config": "c.json", "RepoTags": ["nginx:latest"], "Layers": ["a", "b"]} | changes]).encode()


def forms() -> dict[str, dict[str, bytes | str]]:
    blobs = [f"blobs/sha256/{hashlib.sha256(raw).hexdigest()}" for raw in LAYERS]
    config = f"blobs/sha256/{DIGEST}"
    return {
        "graph driver": {
            f"{DIGEST}.json": CONFIG,
            "a/layer.tar": LAYERS[0],
            "b/layer.tar": "../z/layer.tar",
            "z/layer.tar": LAYERS[1],
            "manifest.json": manifest(Config=f"{DIGEST}.json", Layers=["a/layer.tar", "b/layer.tar"]),
        },
        "containerd": {
            "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
            "index.json": b"{}",
            config: CONFIG,
            **dict(zip(blobs, LAYERS, strict=True)),
            "manifest.json": manifest(Config=config, Layers=blobs),
        },
    }


@pytest.mark.parametrize("form", ["graph driver", "containerd"])
def test_the_digest_is_that_of_the_config_whoever_saved_it(tmp_path: Path, form: str) -> None:
    found = read_archive(write(tmp_path / "image.tar", forms()[form]))
    assert found.digest == f"sha256:{DIGEST}"
    again = tmp_path / "again.tar"
    again.write_bytes(b"".join(found.retagged("ours:x")))
    with tarfile.open(again) as archive:
        listed = json.load(archive.extractfile("manifest.json"))  # type: ignore[arg-type]
        assert [entry["RepoTags"] for entry in listed] == [["ours:x"]]
        names = listed[0]["Layers"]
        assert sorted(archive.getnames()) == sorted([*names, listed[0]["Config"], "manifest.json"])
        assert [archive.extractfile(name).read() for name in names] == LAYERS  # type: ignore[union-attr]
    assert read_archive(again).digest == found.digest


@pytest.mark.parametrize(
    "spoilt",
    [
        {"manifest.json": b"[]"},
        {"manifest.json": manifest() + b" x"},
        {"manifest.json": json.dumps([*json.loads(manifest()), *json.loads(manifest())]).encode()},
        {"c.json": CONFIG, "a": LAYERS[0], "manifest.json": manifest(Layers=["a"])},
        {"c.json": CONFIG, "a": LAYERS[0], "manifest.json": manifest()},
        {"c.json": CONFIG, "a": "/etc/shadow", "b": LAYERS[1], "manifest.json": manifest()},
        {"c.json": b"[]", "a": LAYERS[0], "b": LAYERS[1], "manifest.json": manifest()},
    ],
)
def test_what_is_not_exactly_one_image_is_refused(tmp_path: Path, spoilt: dict[str, bytes | str]) -> None:
    with pytest.raises(ArchiveRefused):
        read_archive(write(tmp_path / "image.tar", spoilt))
    (tmp_path / "cut.tar").write_bytes((tmp_path / "image.tar").read_bytes()[:700])
    with pytest.raises(ArchiveRefused):
        read_archive(tmp_path / "cut.tar")


@pytest.mark.parametrize(("settings", "user"), [(None, "0"), ({"User": ""}, "0"), ({"User": "1000:100"}, "1000:100")])
def test_the_user_is_the_images_or_root(settings: dict[str, str] | None, user: str) -> None:
    assert ImageArchive(Path("image.tar"), "", json.dumps({"config": settings}).encode(), ()).user == user
