# SPDX-License-Identifier: Apache-2.0
"""Counts the memory that a service has allocated and not released. Its resident memory also has what the C library
keeps for later."""
import contextlib
import pathlib
import struct
import subprocess
import tempfile

SOURCE = pathlib.Path(__file__).parent / "live_memory.c"


class LiveMemory(contextlib.ExitStack):
    """The counters of one process, which must be started with `environment`."""

    def __init__(self):
        super().__init__()
        folder = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory(prefix="weir-memory-")))
        folder.chmod(0o755)
        library, self.counters = folder / "live_memory.so", folder / "counters"
        subprocess.run(["clang", "-O2", "-shared", "-fPIC", SOURCE, "-o", library], check=True, timeout=60)
        self.counters.write_bytes(bytes(16))
        self.environment = {"LD_PRELOAD": str(library), "LIVE_MEMORY": str(self.counters)}

    @property
    def bytes(self):
        return struct.unpack("qq", self.counters.read_bytes())[0]

    @property
    def blocks(self):
        return struct.unpack("qq", self.counters.read_bytes())[1]
