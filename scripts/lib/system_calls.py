#!/usr/bin/env python3
"""Lists the system calls of a static aarch64 program from its machine code. Fails on calls that Linux 4.9 does not have.

    system_calls.py PROGRAM TWIN    TWIN is the same program with its symbols

A call is an `svc` instruction; register x8 has its number. The value is traced backwards on every path: to a constant, through
moves to another register, or to an argument of the function, as in the C library's `syscall`. An argument is traced further in
each caller. A value that cannot be traced is a fault; nothing is guessed. Another fault is a function that takes a number and
whose address is stored somewhere, because its callers are then unknown.
"""

import bisect
import re
import struct
import subprocess
import sys
from collections import defaultdict, namedtuple
from pathlib import Path

FIRST_NEWER = 291  # arm64 in Linux 4.9 ends at 290 (pkey_free)

# (function, number, or None if it cannot be traced): why it is not a fault.
KNOWN = {
    ("_ZN9getrandom9getrandom", None): "the crate getrandom makes one call, 278, whose number may stay in a register over another call",
    ("do_setxid", None): "musl's setresuid and its like give their numbers, 143 to 149, to every thread in a structure",
}

ARGUMENTS = 8  # x0 to x7 carry a function's arguments
CALLS = {"bl", "blr"}
ENDS = {"ret", "br", "udf", "brk"}
CONDITIONAL = {"cbz", "cbnz", "tbz", "tbnz"}

Instruction = namedtuple("Instruction", "address name operands target")
Unknown = namedtuple("Unknown", "why")
Argument = namedtuple("Argument", "register")


def read_instructions(listing):
    """Parses the output of objdump: {function's address: (name, [Instruction])}."""
    functions, body = {}, []
    for line in listing.splitlines():
        if head := re.match(r"([0-9a-f]+) <(.*)>:$", line):
            body = []
            functions[int(head[1], 16)] = (head[2], body)
        elif parts := re.match(r" *([0-9a-f]+):\t(\S+)(?:\t([^/\n]*))?", line):
            operands = (parts[3] or "").split("<")[0].strip()
            last = operands.rsplit(",", 1)[-1].strip()
            target = int(last, 16) if re.fullmatch(r"[0-9a-f]+", last) and is_jump(parts[2]) else None
            body.append(Instruction(int(parts[1], 16), parts[2], operands, target))
    return functions


def is_jump(name):
    return name in {"b", "bl"} | CONDITIONAL or name.startswith("b.")


def register(name):
    """The number of a register such as `w8` or `x8`; None for anything else."""
    found = re.fullmatch(r"[wx](\d+)", name)
    return int(found[1]) if found else None


class Function:
    """The instructions of one function, and the possible predecessors of each."""

    def __init__(self, name, body):
        self.name, self.body = name, body
        self.at = {each.address: index for index, each in enumerate(body)}
        self.before = defaultdict(list)  # falling off the end leads to the index after the last
        self.entered = set()  # indexes that other functions jump to
        for index, each in enumerate(body):
            if each.name not in ENDS and each.name != "b":
                self.before[index + 1].append(index)
            if is_jump(each.name) and each.name != "bl" and each.target in self.at:
                self.before[self.at[each.target]].append(index)

    def values(self, index, wanted):
        """The possible values of register `wanted` before instruction `index`: numbers, Arguments, Unknowns."""
        found, seen, left = set(), set(), [(index, wanted)]
        while left:
            here, wanted = left.pop()
            if (here, wanted) in seen:
                continue
            seen.add((here, wanted))
            if here == 0:
                found.add(Argument(wanted) if wanted < ARGUMENTS else Unknown(f"x{wanted} at the beginning of {self.name}"))
            elif here in self.entered or not self.before[here]:
                found.add(Unknown(f"a jump to {self.body[here].address:x} that cannot be seen"))
            for earlier in self.before[here]:
                value = effect(self.body[earlier], wanted)
                if value is None:
                    left.append((earlier, wanted))
                elif isinstance(value, Argument):
                    left.append((earlier, value.register))
                else:
                    found.add(value)
        return found


def effect(instruction, wanted):
    """The effect of an instruction on a register: None (unchanged), a number, an Argument (moved from there), or an Unknown."""
    name, operands = instruction.name, [each.strip() for each in instruction.operands.split(",")]
    unknown = Unknown(f"x{wanted} by `{name} {instruction.operands}` at {instruction.address:x}")
    if name in CALLS:
        return unknown if wanted <= 18 else None  # the callee preserves x19 and higher
    if name == "svc":
        return unknown if wanted == 0 else None
    if name.startswith(("st", "cmp", "cmn", "tst", "ccmp", "ccmn", "fcmp", "b", "cb", "tb", "ret", "nop", "prfm", "dmb", "msr")) and not (
        name.startswith(("stxr", "stlxr", "bfi", "bfxil", "bic", "bfc")) or "]!" in instruction.operands or "], #" in instruction.operands
    ):
        return None
    written = {register(operands[0])}
    if name.startswith(("ldp", "ldnp", "ldxp", "ldaxp")) and len(operands) > 1:
        written.add(register(operands[1]))
    if base := re.search(r"\[x(\d+)(?:, [^\]]*)?\](?:!|, #)", instruction.operands):
        written = (written if name.startswith("ld") else set()) | {int(base[1])}
    if wanted not in written:
        return None
    if name in {"mov", "movz"} and len(operands) == 2:
        if re.fullmatch(r"#(0x[0-9a-f]+|\d+)", operands[1]):
            return int(operands[1][1:], 0)
        if (source := register(operands[1])) is not None:
            return Argument(source)
        if operands[1] in {"wzr", "xzr"}:
            return 0
    return unknown


class Program:
    """The functions of a program, and their callers."""

    def __init__(self, listing):
        self.functions = {at: Function(name, body) for at, (name, body) in read_instructions(listing).items()}
        self.calls = defaultdict(list)
        starts = sorted(self.functions)
        for function in self.functions.values():
            for index, each in enumerate(function.body):
                if each.target in self.functions:
                    self.calls[each.target].append((function, index))
                elif each.target is not None and each.target not in function.at:
                    other = self.functions[starts[bisect.bisect(starts, each.target) - 1]]
                    other.entered.add(other.at.get(each.target))
            behind = len(function.body)
            if function.before[behind]:
                self.calls[function.body[-1].address + 4].append((function, behind))

    def system_calls(self):
        """{(function, number or Unknown)} of each call, and the addresses of the functions that take a number."""
        found, takers, left = set(), set(), []
        for function in self.functions.values():
            left += [(function, index, 8) for index, each in enumerate(function.body) if each.name == "svc"]
        seen = set()
        while left:
            function, index, wanted = left.pop()
            for value in function.values(index, wanted):
                if not isinstance(value, Argument):
                    found.add((function.name, value))
                    continue
                start = function.body[0].address
                takers.add(start)
                if (start, value.register) not in seen:
                    seen.add((start, value.register))
                    left += [(caller, at, value.register) for caller, at in self.calls[start]]
        return found, takers

    def addresses_taken(self, takers):
        """The functions of `takers` whose address the code computes."""
        taken, page = set(), {}
        for function in self.functions.values():
            for each in function.body:
                operands = [part.strip() for part in each.operands.split(",")]
                if each.name == "adrp":
                    page[operands[0]] = int(operands[1], 16)
                elif each.name == "add" and len(operands) == 3 and operands[1] in page and operands[2].startswith("#"):
                    taken.add(page[operands[1]] + int(operands[2][1:], 0))
        return taken & takers


def words(path):
    """Every aligned word of 8 bytes in the program's file: each could be an address."""
    with open(path, "rb") as file:
        content = file.read()
    return {value for (value,) in struct.iter_unpack("<Q", content[: len(content) // 8 * 8])}


def unhashed(name):
    """The name of a Rust function without its hash, which differs between compilers. Other names stay unchanged."""
    return re.sub(r"17h[0-9a-f]{16}E$", "", name)


def faults_of(path, listing, kept):
    """The faults of a program in words, and the numbers of the calls that it can make. `kept`: words that may be addresses."""
    program = Program(listing)
    found, takers = program.system_calls()
    faults = []
    for name, number in sorted(found, key=str):
        if (unhashed(name), None if isinstance(number, Unknown) else number) in KNOWN:
            continue
        if isinstance(number, Unknown):
            faults.append(f"{path}: {name} makes a system call whose number cannot be followed: {number.why}")
        elif number >= FIRST_NEWER:
            faults.append(f"{path}: {name} makes system call {number}, which Linux 4.9 does not have")
    for address in sorted(program.addresses_taken(takers) | takers & kept):
        faults.append(f"{path}: the address of {program.functions[address].name}, which takes a system call's number, is kept somewhere")
    return faults, {number for _, number in found if isinstance(number, int)}


def listed():
    """The numbers in docs/design.md's table."""
    text = (Path(__file__).parents[2] / "docs/design.md").read_text(encoding="utf-8")
    table = text.partition("| system calls of the box's programs |")[2].partition("\n\n")[0]
    return {int(number) for number in re.findall(r"\b(\d+) [a-z]", table)}


def main(path, twin):
    command = ["aarch64-linux-gnu-objdump", "-d", "--no-show-raw-insn", twin]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    faults, numbers = faults_of(path, listing, words(path))
    faults += [f"{path} makes system call {number}: name it, and since when Linux has it, in docs/design.md" for number in numbers - listed()]
    for fault in faults:
        print(fault, file=sys.stderr)
    print(f"{path}: {len(numbers)} system calls, the newest of them {max(numbers, default=0)}")
    return 1 if faults or not numbers else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
