# SPDX-License-Identifier: Apache-2.0
"""A client of the QEMU Machine Protocol that takes nothing but what the specification says."""
import json
import re
import socket
import time

import guest as g

TIMESTAMP = {"seconds": int, "microseconds": int}


class Error(Exception):
    def __init__(self, reply):
        super().__init__(reply["error"]["desc"])
        self.kind = reply["error"]["class"]
        self.desc = reply["error"]["desc"]


class Broken(Exception):
    """The server does not keep to the protocol."""


def need(good, message):
    if not good:
        raise Broken(f"against the protocol: {message!r}")


def connect(path, timeout=60):
    """A connected socket; the server may still be starting."""
    until = time.monotonic() + timeout * g.PATIENCE
    while True:
        s = socket.socket(socket.AF_UNIX)
        try:
            s.connect(path)
            s.settimeout(timeout * g.PATIENCE)
            return s
        except (FileNotFoundError, ConnectionRefusedError):
            s.close()
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


class Client:
    def __init__(self, path, negotiate=True, timeout=60):
        self.socket = connect(path, timeout)
        self.stream = self.socket.makefile("rb")
        self.events = []
        self.count = 0
        greeting = self.receive()
        need(set(greeting) == {"QMP"} and set(greeting["QMP"]) == {"version", "capabilities"} and
             isinstance(greeting["QMP"]["capabilities"], list), greeting)
        version = greeting["QMP"]["version"]
        need(set(version["qemu"]) == {"major", "minor", "micro"} and
             all(isinstance(n, int) for n in version["qemu"].values()) and
             isinstance(version["package"], str), greeting)
        if negotiate:
            need(self("qmp_capabilities") == {}, greeting)

    def receive(self):
        line = self.stream.readline()
        if not line:
            raise EOFError
        need(line.endswith(b"\r\n") and line.count(b"\n") == 1, line)
        message = json.loads(line)
        need(isinstance(message, dict), message)
        return message

    def event(self, message):
        need(set(message) in ({"event", "timestamp"}, {"event", "timestamp", "data"}) and
             re.fullmatch("[A-Z][A-Z0-9_]*", message["event"]) and
             {k: type(v) for k, v in message["timestamp"].items()} == TIMESTAMP and
             isinstance(message.get("data", {}), dict), message)
        self.events.append(message)

    def __call__(self, command, **arguments):
        """Execute; underscores in names of arguments stand for hyphens."""
        self.count += 1
        request = {"execute": command, "id": [self.count, "x"]}
        if arguments:
            request["arguments"] = {k.replace("_", "-"): v for k, v in arguments.items()}
        self.socket.sendall(json.dumps(request).encode())
        while True:
            message = self.receive()
            if "event" in message:
                self.event(message)
                continue
            need(message.get("id") == request["id"], message)
            if "error" in message:
                need(set(message) == {"error", "id"} and
                     set(message["error"]) == {"class", "desc"}, message)
                raise Error(message)
            need(set(message) == {"return", "id"}, message)
            return message["return"]

    def wait(self, name):
        """The first event of this name that was not waited for; what came before it is dropped."""
        while True:
            while self.events:
                event = self.events.pop(0)
                if event["event"] == name:
                    return event
            message = self.receive()
            need("event" in message, message)
            self.event(message)

    def refused(self, command, **arguments):
        """Class and text of the error."""
        try:
            return "", repr(self(command, **arguments))
        except Error as e:
            return e.kind, e.desc

    def close(self):
        self.stream.close()
        self.socket.close()
