"""What this host is: its processors, memory, disk and GPUs, and all that a checkpoint's restore depends on."""

import ctypes
import mmap
import os
import platform
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from provider_agent.runtime.capability import RuntimeCapabilities

# push rbx; mov eax,edi; mov ecx,esi; cpuid; mov eax,ebx; pop rbx; ret (System V AMD64 calling convention)
CPUID_EBX = bytes.fromhex("5389f889f10fa289d85bc3")
XSAVE_LEAF = 0xD


@dataclass(frozen=True)
class Gpu:
    """One GPU as NVML reports it; `memory_bytes` in total."""

    index: int
    uuid: str
    model: str
    memory_bytes: int


@dataclass(frozen=True)
class HardwareFacts:
    """All facts of a host. `gpu_note` says why there is no GPU; `xsave_size` is CPUID 0xD's, 0 off x86-64."""

    cpu_vendor: str
    cpu_model: str
    cpu_flags: tuple[str, ...]
    xsave_size: int
    cores: int
    memory_bytes: int
    disk_free_bytes: int
    kernel: str
    gpus: tuple[Gpu, ...]
    gpu_driver: str
    gpu_note: str
    runtime: RuntimeCapabilities

    def to_dict(self) -> dict[str, Any]:
        """The facts as plain JSON types."""
        return asdict(self) | {"cpu_flags": list(self.cpu_flags), "gpus": [asdict(gpu) for gpu in self.gpus]}


def measure(runtime: RuntimeCapabilities, data: Path) -> HardwareFacts:
    """Read all facts now; `data` is a folder on the disk that jobs will use."""
    vendor, model, flags = read_cpu()
    gpus, driver, note = read_gpus()
    return HardwareFacts(
        cpu_vendor=vendor,
        cpu_model=model,
        cpu_flags=flags,
        xsave_size=xsave_size(),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=int(psutil.virtual_memory().total),
        disk_free_bytes=shutil.disk_usage(data).free,
        kernel=platform.release(),
        gpus=gpus,
        gpu_driver=driver,
        gpu_note=note,
        runtime=runtime,
    )


def read_cpu(cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[str, str, tuple[str, ...]]:
    """(vendor, model, sorted flags) of the first processor; the architecture's name where the kernel tells no
    vendor.
    """
    found: dict[str, str] = {}
    for line in cpuinfo.read_text(encoding="utf-8").split("\n\n", 1)[0].splitlines():
        key, _, value = line.partition(":")
        found[key.strip()] = value.strip()
    flags = tuple(sorted(found.get("flags", found.get("Features", "")).split()))
    return found.get("vendor_id", platform.machine()), found.get("model name", platform.machine()), flags


def xsave_size() -> int:
    """Bytes of the XSAVE area for the features in use (CPUID leaf 0xD, EBX); a restore needs the same. 0 off x86-64."""
    if platform.machine() != "x86_64":
        return 0
    with mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as code:
        code.write(CPUID_EBX)
        entry = ctypes.c_char.from_buffer(code)
        call = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_uint32, ctypes.c_uint32)(ctypes.addressof(entry))
        size = int(call(XSAVE_LEAF, 0))
        del entry
    return size


def read_gpus() -> tuple[tuple[Gpu, ...], str, str]:
    """(GPUs, driver version, note); without a GPU or its driver the first two are empty and the note is a sentence."""
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return (), "", "no GPU: NVIDIA's driver library is not installed"
    import pynvml  # a large module, of no use to a host without the library

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return (), "", f"no GPU: {error}"
    try:
        driver = str(pynvml.nvmlSystemGetDriverVersion())
        found = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            device = pynvml.nvmlDeviceGetHandleByIndex(index)
            memory = int(pynvml.nvmlDeviceGetMemoryInfo(device).total)
            uuid, model = str(pynvml.nvmlDeviceGetUUID(device)), str(pynvml.nvmlDeviceGetName(device))
            found.append(Gpu(index, uuid, model, memory))
        return tuple(found), driver, "" if found else "no GPU: the driver sees no device"
    except pynvml.NVMLError as error:
        return (), "", f"no GPU: {error}"
    finally:
        pynvml.nvmlShutdown()
