# SPDX-License-Identifier: Apache-2.0
"""The binary is hardened: position-independent, with read-only relocations and no executable stack or writable code."""
import mmap
import struct
import unittest

from weir import BINARY

PT_LOAD, PT_DYNAMIC, PT_GNU_STACK, PT_GNU_RELRO = 1, 2, 0x6474E551, 0x6474E552
PF_X, PF_W = 1, 2
ET_DYN = 3
DT_FLAGS, DT_FLAGS_1 = 30, 0x6FFFFFFB
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


class KillPoints(unittest.TestCase):
    def test_only_a_debug_build_has_them(self):
        is_debug_build = "debug" in BINARY.resolve().parts
        with open(BINARY, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            for name in (b"WEIR_KILL_AT", b"batch-committed", b"next-hop-answered"):
                self.assertEqual(content.find(name) >= 0, is_debug_build, name)
