# SPDX-License-Identifier: Apache-2.0
"""The binary is hardened: position-independent, with read-only relocations, no executable stack or writable code, and a
stack protector in the C parts."""
import mmap
import os
import re
import struct
import unittest

from weir import BINARY

PT_LOAD, PT_DYNAMIC, PT_GNU_STACK, PT_GNU_RELRO = 1, 2, 0x6474E551, 0x6474E552
PF_X, PF_W = 1, 2
ET_DYN = 3
DT_FLAGS, DT_FLAGS_1 = 30, 0x6FFFFFFB
SHT_SYMTAB = 2
# How a function loads the value that it compares before it returns: `mov %fs:0x28, register`, or from
# __stack_chk_guard by its address (adrp, ldr), which does not prove as much.
GUARD = {
    "x86_64": rb"\x64[\x48\x4c]\x8b.\x25\x28\0\0\0",
    "aarch64": rb"...[\x90\xb0\xd0\xf0](?:....)*?...\xf9"}[os.uname().machine]
DF_BIND_NOW, DF_1_NOW, DF_1_PIE = 8, 1, 0x08000000


class Hardening(unittest.TestCase):
    """Reads the ELF file itself (elf(5)), which needs no other tools."""

    @classmethod
    def setUpClass(cls):
        with open(BINARY, "rb") as file:
            header = file.read(64)
            (cls.kind,) = struct.unpack_from("<H", header, 16)
            (offset,) = struct.unpack_from("<Q", header, 32)
            size, count = struct.unpack_from("<HH", header, 54)
            file.seek(offset)
            table = file.read(size * count)
            cls.segments = []
            dynamic = b""
            for index in range(count):
                kind, flags, start, _, _, length = struct.unpack_from("<IIQQQQ", table, index * size)
                cls.segments.append((kind, flags))
                if kind == PT_DYNAMIC:
                    file.seek(start)
                    dynamic = file.read(length)
            cls.dynamic = dict(struct.iter_unpack("<QQ", dynamic))

    def test_position_independent(self):
        self.assertEqual(self.kind, ET_DYN)
        self.assertTrue(self.dynamic.get(DT_FLAGS_1, 0) & DF_1_PIE)

    def test_relocations_are_read_only(self):
        self.assertIn(PT_GNU_RELRO, [kind for kind, _ in self.segments])
        self.assertTrue(self.dynamic.get(DT_FLAGS, 0) & DF_BIND_NOW or self.dynamic.get(DT_FLAGS_1, 0) & DF_1_NOW)

    def test_nothing_is_writable_and_executable(self):
        for kind, flags in self.segments:
            if kind in (PT_LOAD, PT_GNU_STACK):
                self.assertFalse(flags & PF_W and flags & PF_X, (hex(kind), flags))
        self.assertIn(PT_GNU_STACK, [kind for kind, _ in self.segments])

    def function(self, name):
        """The code of a function, by the table of symbols, which a stripped binary lacks."""
        with open(BINARY, "rb") as file:
            header = file.read(64)
            (offset,) = struct.unpack_from("<Q", header, 40)
            size, count = struct.unpack_from("<HH", header, 58)
            file.seek(offset)
            table = file.read(size * count)
            sections = [struct.unpack_from("<IIQQQQIIQQ", table, index * size) for index in range(count)]

            def content(section):
                file.seek(section[4])
                return file.read(section[5])

            symbols = next(section for section in sections if section[1] == SHT_SYMTAB)
            names = content(sections[symbols[6]])
            at = names.index(b"\0" + name + b"\0") + 1
            for word, _, _, index, address, length in struct.iter_unpack("<IBBHQQ", content(symbols)):
                if word == at:
                    _, _, _, start, place, *_ = sections[index]
                    file.seek(address - start + place)
                    return file.read(length)
        raise AssertionError(f"no symbol {name}")

    def test_stack_protector(self):
        for name in (b"weir_starter_request", b"weir_starter_split"):
            self.assertIsNotNone(re.search(GUARD, self.function(name), re.DOTALL), name)


class KillPoints(unittest.TestCase):
    def test_only_a_debug_build_has_them(self):
        is_debug_build = "debug" in BINARY.resolve().parts
        with open(BINARY, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            for name in (b"WEIR_KILL_AT", b"batch-committed", b"next-hop-answered"):
                self.assertEqual(content.find(name) >= 0, is_debug_build, name)
