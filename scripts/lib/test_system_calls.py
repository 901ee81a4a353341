"""Tests that scripts/lib/system_calls.py finds the faults, in the form in which objdump shows machine code."""

import struct
import unittest

from system_calls import faults_of

# A wrapper like the C library's, at 1000.
SYSCALL = """
0000000000001000 <syscall>:
    1000:	mov	x8, x0
    1004:	mov	x0, x1
    1008:	svc	#0x0
    100c:	ret
"""


def function(name, *lines, at=0x2000):
    body = "".join(f"    {at + 4 * number:x}:\t{line}\n" for number, line in enumerate(lines))
    return f"\n{at:016x} <{name}>:\n{body}"


class Promises(unittest.TestCase):
    def judge(self, listing, kept=()):
        faults, numbers = faults_of("p", listing, set(kept))
        return faults, numbers

    def assert_fault(self, words, listing, **more):
        faults, _ = self.judge(listing, **more)
        self.assertTrue(any(words in fault for fault in faults), faults)

    def test_a_call_that_the_kernel_has_is_no_fault(self):
        listing = function("old", "mov\tx8, #0x122\t// #290", "svc\t#0x0", "ret")
        self.assertEqual(self.judge(listing), ([], {290}))

    def test_a_newer_call_is_a_fault_with_its_function(self):
        self.assert_fault("new makes system call 291", function("new", "mov\tw8, #0x123\t// #291", "svc\t#0x0", "ret"))

    def test_a_number_that_is_set_on_one_of_two_ways_is_seen(self):
        lines = ["mov\tx8, #0x38", "cbz\tx1, 200c <f+0xc>", "mov\tx8, #0x1b5", "svc\t#0x0", "ret"]
        self.assertEqual(self.judge(function("f", *lines))[1], {56, 437})

    def test_a_number_that_comes_through_a_wrapper_is_the_callers(self):
        caller = function("caller", "mov\tx19, #0x1b3", "mov\tx0, x19", "bl\t1000 <syscall>", "ret")
        self.assert_fault("caller makes system call 435", SYSCALL + caller)
        tail = function("tail", "mov\tw0, #0x1b4", "b\t1000 <syscall>")
        self.assert_fault("tail makes system call 436", SYSCALL + tail)
        outer = function("outer", "b\t1000 <syscall>") + function("caller", "mov\tx0, #0x1b7", "bl\t2000 <outer>", "ret", at=0x3000)
        self.assert_fault("caller makes system call 439", SYSCALL + outer)

    def test_what_cannot_be_followed_is_a_fault(self):
        for lines in [
            ["ldr\tx8, [x1]", "svc\t#0x0"],
            ["ldp\tx7, x8, [x1]", "svc\t#0x0"],
            ["mov\tx8, #0x1", "bl\t9000 <other>", "svc\t#0x0"],
            ["mov\tx8, #0x1", "add\tx8, x8, #0x200", "svc\t#0x0"],
            ["mov\tx8, #0x1", "movk\tx8, #0x200", "svc\t#0x0"],
            ["mov\tx8, #0x1", "ldr\tx0, [x8], #8", "svc\t#0x0"],
            ["svc\t#0x0"],  # x8 is not an argument
            ["mov\tx8, #0x1", "br\tx2", "svc\t#0x0"],  # through a jump table
        ]:
            with self.subTest(lines):
                self.assert_fault("cannot be followed", function("f", *lines, "ret"))

    def test_what_another_function_falls_or_jumps_into_is_seen(self):
        falls = function("falls", "mov\tx0, #0x1b3", at=0xFFC)
        self.assert_fault("falls makes system call 435", falls + SYSCALL)
        jumps = function("jumps", "mov\tx8, #0x1b3", "b\t1004 <syscall+0x4>")
        self.assert_fault("cannot be followed", SYSCALL + jumps)

    def test_a_wrapper_whose_address_is_kept_is_a_fault(self):
        kept = struct.unpack("<Q", struct.pack("<Q", 0x1000))
        self.assert_fault("the address of syscall", SYSCALL, kept=kept)
        code = function("f", "adrp\tx1, 1000 <syscall>", "add\tx1, x1, #0x0", "blr\tx1", "ret")
        self.assert_fault("the address of syscall", SYSCALL + code)
        self.assertEqual(self.judge(SYSCALL)[0], [])

    def test_what_is_known_is_let_pass(self):
        self.assertEqual(self.judge(function("do_setxid", "ldr\tx8, [x0]", "svc\t#0x0", "ret"))[0], [])


if __name__ == "__main__":
    unittest.main()
