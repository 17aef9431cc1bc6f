# SPDX-License-Identifier: Apache-2.0
"""Drives a headless Chromium over its DevTools protocol (JSON over a WebSocket)."""
import base64
import json
import os
import pathlib
import shutil
import socket
import struct
import subprocess
import tempfile
import urllib.request

from postfix import DEFAULT_TIMEOUT, wait_until


class Browser:
    """One page. `run` evaluates JavaScript in it, `press` and `type` are the keyboard."""

    KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowDown": 40}

    def __init__(self):
        self.calls = 0
        self.buffer = b""

    def __enter__(self):
        self.profile = pathlib.Path(tempfile.mkdtemp(prefix="weir-test-"))
        self.process = subprocess.Popen(
            ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={self.profile}", "--remote-debugging-port=0",
             "--remote-allow-origins=*", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            self.connect()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if hasattr(self, "socket"):
            self.socket.close()
        self.process.kill()
        self.process.wait(DEFAULT_TIMEOUT)
        shutil.rmtree(self.profile, ignore_errors=True)

    def connect(self):
        port_file = self.profile / "DevToolsActivePort"
        wait_until(lambda: port_file.exists() and port_file.read_text().count("\n") >= 1, "Chromium listens")
        port = int(port_file.read_text().splitlines()[0])
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=DEFAULT_TIMEOUT) as reply:
            path = next(page["webSocketDebuggerUrl"] for page in json.load(reply) if page["type"] == "page").split(str(port), 1)[1]
        self.socket = socket.create_connection(("127.0.0.1", port), DEFAULT_TIMEOUT)
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
        while b"\r\n\r\n" not in self.buffer:
            self.receive()
        self.buffer = self.buffer.split(b"\r\n\r\n", 1)[1]
        self.call("Page.enable")
        self.resize(1280, 900)

    def resize(self, width, height, dark=False):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def receive(self):
        data = self.socket.recv(1 << 20)
        if not data:
            raise AssertionError("Chromium has closed the connection")
        self.buffer += data

    def take(self, count):
        while len(self.buffer) < count:
            self.receive()
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def send(self, text):
        """A masked frame, as clients must send it (RFC 6455 5.2)."""
        data, mask = text.encode(), os.urandom(4)
        size = struct.pack(">BH", 0x80 | 126, len(data)) if 126 <= len(data) < 65536 else (
            struct.pack(">BQ", 0x80 | 127, len(data)) if len(data) >= 65536 else bytes([0x80 | len(data)]))
        self.socket.sendall(b"\x81" + size + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(data)))

    def message(self):
        text = b""
        while True:
            first, size = self.take(2)
            if size == 126:
                size = struct.unpack(">H", self.take(2))[0]
            elif size == 127:
                size = struct.unpack(">Q", self.take(8))[0]
            text += self.take(size)
            if first & 0x80:
                return json.loads(text)

    def call(self, method, **parameters):
        self.calls += 1
        self.send(json.dumps({"id": self.calls, "method": method, "params": parameters}))
        while (reply := self.message()).get("id") != self.calls:
            pass
        if "error" in reply:
            raise AssertionError(f"{method}: {reply['error']}")
        return reply["result"]

    def open(self, address):
        self.call("Page.navigate", url=address)
        self.wait('document.readyState === "complete"')

    def run(self, script):
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise AssertionError(f"{script}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def wait(self, script):
        wait_until(lambda: self.run(script), script)

    def press(self, key):
        more = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=self.KEYS[key], **(more if kind == "keyDown" else {}))

    def type(self, text):
        self.call("Input.insertText", text=text)

    def press_until(self, key, script):
        """Presses a key until a condition holds, as a user does who watches the focus."""
        for _ in range(200):
            if self.run(script):
                return
            self.press(key)
        raise AssertionError(f"never: {script}")

    def screenshot(self):
        return base64.b64decode(self.call("Page.captureScreenshot")["data"])
