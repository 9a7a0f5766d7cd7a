"""Whose processes a host can checkpoint, and which hosts a checkpoint can go on living on, by the host's facts.

docs/checkpoint-format.md, "Where a checkpoint can live", has these rules as a table.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from everlease.domain.jobspec import JobSpec, Resources

# arch/x86/include/asm/cpufeatures.h: the Linux-defined words, and what only a kernel can use
_WORDS = """
acc_power amd_lbr_pmc_freeze amd_lbr_v2 aperfmperf arat arch_capabilities arch_lbr arch_perfmon art avic bts
cat_l2 cat_l3 cdp_l2 cdp_l3 constant_tsc cpb cpuid cpuid_fault cqm cqm_llc cqm_mbm_local cqm_mbm_total
cqm_occup_llc cr8_legacy decodeassists dtherm dts entry_ibpb epb ept ept_ad extapic extd_apicid flexpriority
flush_l1d flushbyasid hfi hw_pstate hwp hwp_act_window hwp_epp hwp_notify hwp_pkg_req hypervisor ibpb
ibpb_exit_to_user ibrs ibrs_enhanced ibs ida intel_ppin intel_pt invpcid_single irperf kernel_ibrs l1d_flush
lbrv mba mba_total mce md_clear mds_no monitor mtrr nonstop_tsc nonstop_tsc_s3 nopl npt nrip_save ospke osvw
pat pausefilter pcid pconfig pdcm pdpe1gb pebs perfctr_core perfctr_llc perfctr_nb perfmon_v2 pfthreshold pge
pln proc_feedback pse pse36 pti pts ptsc pvunlock rapl rep_good ring3mwait rrsba rsb_ctxsw sdtrt sev sev_es
smap sme smep split_lock_detect ssbd ssbd_no stibp succor svm svm_lock tce tdx_guest tm tm2 topoext tpr_shadow
tsc_adjust tsc_deadline_timer tsc_known_freq tsc_reliable tsc_scale umip up v_vmsave_vmload vgif virt_ssbd
vmcall vmcb_clean vme vmmcall vmw_vmmcall vmx vnmi vpid x2apic x2avic xenpv xtopology xtpr
"""
KERNELS_OWN = frozenset(_WORDS.split())
"""Flags of /proc/cpuinfo that name what a kernel found, mitigates or measures: kernels differ in them on one CPU, and
no instruction of a program depends on them."""


@dataclass(frozen=True, slots=True)
class HostTraits:
    """What a process image depends on. ``cpu_flags`` are those of /proc/cpuinfo, ``xsave_size`` bytes of CPUID 0xD,
    ``apparmor`` whether Docker confines containers by it.
    """

    cpu_vendor: str
    cpu_flags: frozenset[str]
    xsave_size: int
    kernel: str
    criu: str
    runc: str
    cgroup: str
    apparmor: bool
    gpu_model: str = ""
    gpu_driver: str = ""


def release(version: str) -> tuple[int, ...]:
    """The leading numbers of a version ("6.18.44-fc" → (6, 18, 44)); empty where there are none."""
    numbers: list[int] = []
    for part in version.replace("-", ".").split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


def mismatch(needs: HostTraits, has: HostTraits) -> str | None:
    """Why an image dumped on ``needs`` can't be restored on ``has``, in one clause; None if it can."""
    if needs.cpu_vendor != has.cpu_vendor:
        return f"the checkpoint needs a {needs.cpu_vendor} CPU, the host has {has.cpu_vendor}"
    missing = needs.cpu_flags - has.cpu_flags - KERNELS_OWN
    if missing:
        return f"the host's CPU lacks {', '.join(sorted(missing)[:5])}"
    if needs.xsave_size != has.xsave_size:
        return f"the CPU state takes {needs.xsave_size} bytes in the checkpoint, {has.xsave_size} on the host"
    if release(has.kernel)[:2] < release(needs.kernel)[:2]:
        return f"the host's kernel {has.kernel} is older than the checkpoint's {needs.kernel}"
    if release(has.criu)[:2] < release(needs.criu)[:2]:
        return f"the host's CRIU {has.criu} is older than the checkpoint's {needs.criu}"
    if needs.cgroup != has.cgroup:
        return f"the checkpoint needs cgroup {needs.cgroup}, the host has {has.cgroup}"
    if needs.apparmor != has.apparmor:
        here, there = ("with", "without") if needs.apparmor else ("without", "with")
        return f"the checkpoint was taken {here} AppArmor, the host runs containers {there} it"
    if needs.gpu_model and (needs.gpu_model, needs.gpu_driver) != (has.gpu_model, has.gpu_driver):
        return f"the checkpoint needs {needs.gpu_model} with driver {needs.gpu_driver}"
    return None


def traits_from(requirements: Mapping[str, object]) -> HostTraits:
    """Read traits from a manifest's or a node's mapping; raises KeyError or TypeError where a field is missing."""
    flags = requirements["cpu_flags"]
    if isinstance(flags, str):
        flags = flags.split()
    if not isinstance(flags, list | tuple | frozenset):
        raise TypeError("cpu_flags is a list")
    apparmor = str(requirements["apparmor"]).lower()
    if apparmor not in {"true", "false"}:
        raise TypeError("apparmor is true or false")
    return HostTraits(
        cpu_vendor=str(requirements["cpu_vendor"]),
        cpu_flags=frozenset(str(flag) for flag in flags),
        xsave_size=int(str(requirements["xsave_size"])),
        kernel=str(requirements["kernel"]),
        criu=str(requirements["criu"]),
        runc=str(requirements["runc"]),
        cgroup=str(requirements["cgroup"]),
        apparmor=apparmor == "true",
        gpu_model=str(requirements.get("gpu_model", "")),
        gpu_driver=str(requirements.get("gpu_driver", "")),
    )


def host_traits(facts: Mapping[str, Any]) -> HostTraits:
    """What a process image depends on there, by a node's facts; a job's own part of ``facts["gpus"]`` is for the caller
    to choose: a job without a GPU depends on none. Raises KeyError, TypeError or ValueError where the facts lack it.
    """
    gpus = facts.get("gpus") or []
    return traits_from(
        {
            **{name: facts[name] for name in ("cpu_vendor", "cpu_flags", "xsave_size", "kernel")},
            **{name: facts["runtime"][name] for name in ("criu", "runc", "cgroup", "apparmor")},
            "gpu_model": gpus[0].get("model", "") if gpus else "",
            "gpu_driver": facts.get("gpu_driver", "") if gpus else "",
        }
    )


def needs_of(facts: Mapping[str, Any], gpus: int) -> dict[str, str]:
    """What a checkpoint of a job with that many GPUs needs of the next host if it is taken on this one, as a manifest
    holds it: words apart by spaces. Raises as ``host_traits`` does.
    """
    traits = asdict(host_traits({**facts, "gpus": list(facts.get("gpus") or [])[:gpus]}))
    words = {"cpu_flags": " ".join(sorted(traits["cpu_flags"])), "apparmor": str(traits["apparmor"]).lower()}
    return {name: str(value) for name, value in traits.items()} | words


def why_not(requirements: Mapping[str, Any] | None, facts: Mapping[str, Any]) -> str | None:
    """Why a host with these facts can't restore a process checkpoint that needs this, in one clause, or None."""
    if not requirements:
        return None
    try:
        return mismatch(traits_from(requirements), host_traits(facts))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return f"the host's facts or the checkpoint's requirements are incomplete ({error})"


def lacks(facts: Mapping[str, Any], resources: Resources) -> str | None:
    """What a host with these facts has too little of, in one clause, or None. Raises KeyError, TypeError or ValueError
    where the facts are incomplete."""
    if len(facts["gpus"]) < resources.gpus:
        return f"the job wants {resources.gpus} GPUs, the host has {len(facts['gpus'])}"
    if int(facts["cores"]) * 1000 < resources.cpu_millis:
        return f"the job wants {resources.cpu_millis / 1000:g} CPUs, the host has {facts['cores']}"
    if int(facts["memory_bytes"]) < resources.memory_bytes:
        return f"the job wants {resources.memory_bytes} bytes of memory, the host has {facts['memory_bytes']}"
    if int(facts["disk_free_bytes"]) < resources.disk_bytes:
        return f"the job wants {resources.disk_bytes} bytes of disk, the host has {facts['disk_free_bytes']} free"
    return None


def unproved(facts: Mapping[str, Any], spec: JobSpec) -> str | None:
    """Why a host with these facts can't checkpoint this job's processes, in one clause, or None.

    A user that only the image names may be root; a job that insists on process checkpoints doesn't try its luck.
    Raises KeyError or TypeError where the facts lack it.
    """
    runtime = facts["runtime"]
    if not runtime["process_mode"]:
        return str(runtime["reason"] or "the host can't checkpoint processes")
    if _is_root(spec.user) or (not spec.user and not spec.checkpoint.strict) or runtime["other_users"]:
        return None
    reason = str(runtime["reason"] or "the host can checkpoint processes of root alone")
    return reason if spec.user else f"the order names no user, and the image's may be another than root: {reason}"


def _is_root(user: str) -> bool:
    """Whether it is root with root's group, as the trial's: to a host without all rights a group matters as a user."""
    name, _, group = user.partition(":")
    return name in {"root", "0"} and group in {"", "root", "0"}
