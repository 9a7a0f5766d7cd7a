"""Run a seccomp filter on paper: a checkpoint brings its own filters, so a restore checks that they deny what ours
denies.

Classic BPF as in linux/bpf_common.h and the kernel's Documentation/userspace-api/seccomp_filter.rst; x86-64 numbers.
"""

import struct
from collections.abc import Sequence

ARCH_X86_64 = 0xC000003E
ALLOW, LOG = 0x7FFF0000, 0x7FFC0000
CLONE_NEWUSER = 0x10000000
# Denied to every job by Docker's default profile without extra capabilities, io_uring by ours.
DENIED = {
    "io_uring_setup": (425,), "io_uring_enter": (426,), "io_uring_register": (427,), "mount": (165,), "umount2": (166,),
    "pivot_root": (155,), "swapon": (167,), "swapoff": (168,), "reboot": (169,), "init_module": (175,),
    "finit_module": (313,),
    "delete_module": (176,), "kexec_load": (246,), "kexec_file_load": (320,), "bpf": (321,), "perf_event_open": (298,),
    "add_key": (248,), "request_key": (249,), "keyctl": (250,), "open_by_handle_at": (304,), "setns": (308,),
    "unshare": (272, CLONE_NEWUSER), "userfaultfd": (323,), "open_tree": (428,), "move_mount": (429,), "fsopen": (430,),
    "fsconfig": (431,), "fsmount": (432,), "iopl": (172,), "ioperm": (173,), "acct": (163,), "settimeofday": (164,),
    "clock_settime": (227,), "quotactl": (179,), "clone": (56, CLONE_NEWUSER),
}  # fmt: skip


def allowed(chain: Sequence[bytes]) -> list[str]:
    """The names in DENIED that a chain of filters lets pass. Raises ValueError for a program that is no valid
    filter.
    """
    passed = []
    for name, (number, *arguments) in DENIED.items():
        data = struct.pack("<IIQ6Q", number, ARCH_X86_64, 0, *(*arguments, 0, 0, 0, 0, 0, 0)[:6])
        # The kernel takes the strictest answer: actions are ordered as signed numbers, allow being the largest.
        verdicts = [run_filter(program, data) & 0xFFFF0000 for program in chain]
        if not verdicts or all(verdict in {ALLOW, LOG} for verdict in verdicts):
            passed.append(name)
    return passed


def run_filter(program: bytes, data: bytes) -> int:
    """The value that a classic BPF program returns for one `struct seccomp_data`. Raises ValueError."""
    if len(program) % 8 or not 0 < len(program) <= 8 * 4096:
        raise ValueError("a seccomp filter has a bad length")
    code = list(struct.iter_unpack("<HBBI", program))
    a = x = at = 0
    memory = [0] * 16
    while at < len(code):
        op, jump_true, jump_false, k = code[at]
        at += 1
        kind = op & 0x07
        if kind == 0x06:  # RET
            return a if op & 0x18 == 0x10 else k
        if kind == 0x05:  # JMP; jumps only lead forward, so every program ends
            operand = x if op & 0x08 else k
            at += k if op & 0xF0 == 0 else (jump_true if _holds(op & 0xF0, a, operand) else jump_false)
        elif kind == 0x04:  # ALU
            a = _alu(op & 0xF0, a, x if op & 0x08 else k)
        elif kind in {0x00, 0x01}:  # LD, LDX
            value = _load(op & 0xE0, k, data, memory)
            a, x = (value, x) if kind == 0 else (a, value)
        elif kind in {0x02, 0x03}:  # ST, STX
            memory[k & 15] = a if kind == 2 else x
        else:  # MISC: TAX, TXA
            a, x = (a, a) if op & 0xF8 == 0 else (x, x)
    raise ValueError("a seccomp filter runs off its end")


def _load(mode: int, k: int, data: bytes, memory: list[int]) -> int:
    if mode == 0x00:
        return k
    if mode == 0x20 and k + 4 <= len(data):
        return int.from_bytes(data[k : k + 4], "little")
    if mode == 0x60:
        return memory[k & 15]
    if mode == 0x80:
        return len(data)
    raise ValueError("a seccomp filter loads from outside its data")


def _holds(op: int, a: int, operand: int) -> bool:
    if op == 0x10:
        return a == operand
    if op == 0x20:
        return a > operand
    if op == 0x30:
        return a >= operand
    if op == 0x40:
        return bool(a & operand)
    raise ValueError("a seccomp filter has an unknown jump")


def _alu(op: int, a: int, operand: int) -> int:
    if op in {0x30, 0x90} and operand == 0:
        raise ValueError("a seccomp filter divides by zero")
    results = {
        0x00: lambda: a + operand, 0x10: lambda: a - operand, 0x20: lambda: a * operand, 0x30: lambda: a // operand,
        0x40: lambda: a | operand, 0x50: lambda: a & operand, 0x60: lambda: a << (operand & 31),
        0x70: lambda: a >> (operand & 31), 0x80: lambda: -a, 0xA0: lambda: a ^ operand,
    }  # fmt: skip
    if op not in results:
        raise ValueError("a seccomp filter has an unknown operation")
    return results[op]() & 0xFFFFFFFF
