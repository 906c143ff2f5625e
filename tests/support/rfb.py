# SPDX-License-Identifier: Apache-2.0
"""A small RFB 3.8 viewer (RFC 6143) for tests: raw pixels, keys and the mouse."""
import os
import select
import shutil
import socket
import struct
import subprocess
import time

RAW, NEW_SIZE, EXTENDED_KEYS = 0, -223, -258
KEYSYMS = {"\n": 0xff0d, "\t": 0xff09, "\x1b": 0xff1b}


def vnc_des(password, challenge):
    """RFC 6143 7.2.2: DES with every byte of the key mirrored. None without openssl."""
    key = bytes(int(f"{b:08b}"[::-1], 2) for b in password.encode().ljust(8, b"\0"))
    if not shutil.which("openssl"):
        return None
    r = subprocess.run(["openssl", "enc", "-des-ecb", "-provider", "legacy", "-provider", "default",
                        "-nopad", "-K", key.hex()], input=challenge, stdout=subprocess.PIPE,
                       stderr=subprocess.DEVNULL, check=False)
    return r.stdout if r.returncode == 0 else None


class Viewer:
    def __init__(self, port, password=None, host="127.0.0.1", late=None):
        """late: what to do before the server hears which encodings are understood"""
        self.sock = socket.create_connection((host, port), 30)
        self.width = self.height = 0
        self.pixels = bytearray()
        self.extended = False
        self.updates = 0
        self.accepted = self.handshake(password)
        if self.accepted:
            if late:
                late()
            self.begin()

    def take(self, size):
        data = b""
        while len(data) < size:
            part = self.sock.recv(size - len(data))
            if not part:
                raise EOFError("the server hung up")
            data += part
        return data

    def handshake(self, password):
        assert self.take(12) == b"RFB 003.008\n"
        self.sock.sendall(b"RFB 003.008\n")
        kinds = self.take(self.take(1)[0])
        kind = 1 if password is None else 2
        assert kind in kinds, kinds
        self.sock.sendall(bytes([kind]))
        if kind == 2:
            self.sock.sendall(vnc_des(password, self.take(16)))
        if struct.unpack(">I", self.take(4))[0] != 0:
            return False
        self.sock.sendall(b"\1")  # shared
        self.width, self.height = struct.unpack(">HH", self.take(4))
        self.take(16)
        self.take(struct.unpack(">I", self.take(4))[0])
        self.pixels = bytearray(4 * self.width * self.height)
        return True

    def begin(self):
        self.sock.sendall(struct.pack(">BxxxBBBBHHHBBBxxx", 0, 32, 24, 0, 1, 255, 255, 255, 16, 8, 0))
        self.sock.sendall(struct.pack(">BxH3i", 2, 3, RAW, NEW_SIZE, EXTENDED_KEYS))
        self.ask(0)

    def ask(self, incremental):
        self.sock.sendall(struct.pack(">BBHHHH", 3, incremental, 0, 0, self.width, self.height))

    def rectangle(self):
        x, y, w, h, kind = struct.unpack(">HHHHi", self.take(12))
        if kind == NEW_SIZE:
            self.width, self.height = w, h
            self.pixels = bytearray(4 * w * h)
        elif kind == EXTENDED_KEYS:
            self.extended = True
        else:
            assert kind == RAW, kind
            data = self.take(4 * w * h)
            for row in range(h):
                at = 4 * ((y + row) * self.width + x)
                self.pixels[at:at + 4 * w] = data[4 * w * row:4 * w * (row + 1)]
        return kind

    def poll(self, seconds):
        """Take one message of the server; False when none came."""
        if not select.select([self.sock], [], [], seconds)[0]:
            return False
        kind = self.take(1)[0]
        assert kind in (0, 2), kind  # an update, or a bell
        if kind == 0:
            count = struct.unpack(">xH", self.take(3))[0]
            kinds = [self.rectangle() for _ in range(count)]
            self.updates += 1
            if EXTENDED_KEYS not in kinds:  # which is no answer to what was asked
                self.ask(NEW_SIZE not in kinds)
        return True

    def wait(self, good, seconds):
        until = time.monotonic() + seconds
        while not good():
            left = until - time.monotonic()
            if left <= 0:
                return False
            self.poll(min(left, 0.5))
        return True

    def key(self, keysym, down):
        self.sock.sendall(struct.pack(">BBxxI", 4, down, keysym))

    def extended_key(self, code, keysym=0):
        for down in (1, 0):
            self.sock.sendall(struct.pack(">BBHII", 255, 0, down, keysym, code))

    def type(self, text):
        for c in text:
            sym = KEYSYMS.get(c, ord(c))
            self.key(sym, 1)
            self.key(sym, 0)

    def pointer(self, x, y, buttons):
        self.sock.sendall(struct.pack(">BBHH", 5, buttons, x, y))

    def close(self):
        self.sock.close()


def save_ppm(viewer, path):
    """What was seen, for a person who looks into a failure."""
    p = viewer.pixels
    rgb = bytes(b for i in range(0, len(p), 4) for b in (p[i + 2], p[i + 1], p[i]))
    with open(path, "wb") as f:
        f.write(b"P6 %d %d 255\n" % (viewer.width, viewer.height) + rgb)
    return os.path.abspath(path)
