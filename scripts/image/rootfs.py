"""Write the trainer's image as a `docker save` archive: this interpreter, its standard library, numpy, shared
libraries, a few tools.

The archive is the format of `docker save` (manifest.json, one config, one layer). Times and owners are fixed and
names sorted, so
the same machine gives the same image id. Only the paths listed here go in: nothing of a home directory, no
credentials, no caches.
"""

import argparse
import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy

PRUNED = {
    "test",
    "tests",
    "idlelib",
    "tkinter",
    "turtledemo",
    "ensurepip",
    "lib2to3",
    "site-packages",
    "dist-packages",
    "__pycache__",
}
PRUNED_NUMPY = {"tests", "testing", "f2py", "__pycache__", "include", "distutils", "_pyinstaller"}
TOOLS = ["sh", "cat", "ls", "sleep", "env", "tail", "head", "echo", "rm", "mkdir", "ps", "kill"]
SITE = "opt/site"
PYTHON_VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"
ENV = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "HOME": "/root",
    "PYTHONPATH": f"/{SITE}",
    "PYTHONUNBUFFERED": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    # One thread: BLAS then adds up in one order, so the same seed gives the same bits in every container.
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}
TEXTS = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
}


def shared_libraries(binary: Path) -> Iterator[Path]:
    """Absolute paths that the dynamic linker names for an ELF file, the linker itself among them."""
    out = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, check=False).stdout
    for path in re.findall(r"(/\S+) \(0x", out):
        yield Path(path)


def tree(source: Path, target: str, pruned: set[str]) -> Iterator[tuple[str, Path]]:
    """(name in the image, file here) for each file below source, without the pruned directories."""
    for path in sorted(source.rglob("*")):
        relative = path.relative_to(source)
        if path.is_file() and not pruned.intersection(relative.parts[:-1]) and path.suffix not in {".pyc", ".a"}:
            yield f"{target}/{relative}", path


def collect(train: Path) -> dict[str, Path]:
    """The image's regular files by name."""
    paths = sysconfig.get_paths()
    files = {f"usr/local/bin/{PYTHON_VERSION}": Path(sys.executable).resolve()}
    files.update(tree(Path(paths["stdlib"]), f"usr/local/lib/{PYTHON_VERSION}", PRUNED))
    files.update(
        tree(Path(sysconfig.get_config_var("DESTSHARED")), f"usr/local/lib/{PYTHON_VERSION}/lib-dynload", PRUNED)
    )
    site = Path(numpy.__file__).parents[1]
    files.update(tree(site / "numpy", f"{SITE}/numpy", PRUNED_NUMPY))
    if (site / "numpy.libs").is_dir():
        files.update(tree(site / "numpy.libs", f"{SITE}/numpy.libs", set()))
    for tool in TOOLS:
        if found := shutil.which(tool, path="/usr/bin:/bin"):
            files[f"usr/bin/{tool}"] = Path(found).resolve()
    binaries = [path for name, path in files.items() if ".so" in path.name or "/bin/" in f"/{name}"]
    inside = {path.resolve() for path in files.values()}
    for binary in binaries:
        for library in shared_libraries(binary):
            if library.resolve() not in inside:
                files[merged_usr(str(library).lstrip("/"))] = library.resolve()
    files["work/train.py"] = train
    return files


def merged_usr(name: str) -> str:
    """The image has a merged /usr (lib -> usr/lib), as Debian 12 does."""
    return f"usr/{name}" if name.split("/", 1)[0] in {"lib", "lib64", "bin"} else name


def add(archive: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))


def write_layer(files: dict[str, Path], output: Path) -> str:
    """Write the only layer; returns its sha256 in hex, which is its diff id."""
    with tarfile.open(output, "w", format=tarfile.PAX_FORMAT) as archive:
        folders = {str(parent) for name in (*files, *TEXTS) for parent in Path(name).parents if str(parent) != "."}
        for folder in sorted(folders | {"tmp", "proc", "sys", "dev", "run", "root", "checkpoint", "usr/lib64"}):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            archive.addfile(entry)
        links = {"bin": "usr/bin", "lib": "usr/lib", "lib64": "usr/lib64"}
        links |= {f"usr/local/bin/{alias}": PYTHON_VERSION for alias in ("python", "python3")}
        for name, destination in links.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, destination, 0o777
            archive.addfile(entry)
        for name, text in TEXTS.items():
            add(archive, name, text.encode(), 0o644)
        for name in sorted(files):
            source = files[name]
            add(archive, name, source.read_bytes(), 0o755 if source.stat().st_mode & 0o100 else 0o644)
    with output.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_archive(layer: Path, diff_id: str, output: Path, tag: str) -> str:
    """Write the `docker save` archive around the layer; returns the image id (sha256 of the config)."""
    config = {
        "architecture": "amd64",
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {
            "Env": [f"{key}={value}" for key, value in ENV.items()],
            "Cmd": ["python", "train.py"],
            "WorkingDir": "/work",
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff_id}"]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "scripts/make_image.sh"}],
    }
    raw = json.dumps(config, sort_keys=True).encode()
    image_id = hashlib.sha256(raw).hexdigest()
    manifest = [{"Config": f"{image_id}.json", "RepoTags": [tag], "Layers": [f"{diff_id}/layer.tar"]}]
    with tarfile.open(output, "w") as archive:
        archive.add(layer, f"{diff_id}/layer.tar", filter=anonymous)
        add(archive, f"{image_id}.json", raw, 0o644)
        add(archive, "manifest.json", json.dumps(manifest).encode(), 0o644)
    return image_id


def anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime, entry.mode = 0, 0o644
    return entry


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--tag", default="everlease/trainer:local")
    args = parser.parse_args()
    layer = args.output.with_suffix(".layer")
    try:
        diff_id = write_layer(collect(args.train), layer)
        print(f"sha256:{write_archive(layer, diff_id, args.output, args.tag)}")
    finally:
        layer.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
