"""A file system in memory that stops answering on demand, as a network's does. Speaks the kernel's FUSE protocol itself.

Arguments: the folder to mount it on. Prints a line once it is there. From a look for a file named `freeze` on it answers nothing
any more; when this process ends, whoever waits for it gets an error. The layouts are those of linux/fuse.h, protocol 7.31.
"""

import errno
import os
import signal
import stat
import struct
import subprocess
import sys
from dataclasses import dataclass, field

LOOKUP, FORGET, GETATTR, SETATTR, MKDIR, UNLINK, RMDIR = 1, 2, 3, 4, 9, 10, 11
OPEN, READ, WRITE, STATFS, RELEASE, INIT, OPENDIR, READDIR, RELEASEDIR = 14, 15, 16, 17, 18, 26, 27, 28, 29
CREATE, INTERRUPT, DESTROY, BATCH_FORGET = 35, 36, 38, 42
FSYNC = 20

SILENT = {FORGET, INTERRUPT, BATCH_FORGET}
"""Requests that have no answer."""

HEADER = struct.Struct("<IIQQIIII")
BUFFER_BYTES = 1 << 18
MOST_WRITTEN = 1 << 16
NO_FLUSH = 1 << 5
"""Closing a file then asks nobody, so that a process that has one open can end."""


@dataclass
class Node:
    """A folder or a file."""

    number: int
    is_folder: bool
    content: bytearray = field(default_factory=bytearray)
    children: dict[str, "Node"] = field(default_factory=dict)
    links: int = 1


class Folder:
    """The file system."""

    def __init__(self, device: int) -> None:
        self._device = device
        self._nodes = {1: Node(1, is_folder=True)}

    def serve(self) -> None:
        """Until someone looks for `freeze`."""
        while True:
            message = os.read(self._device, BUFFER_BYTES)
            _, operation, unique, number, *_ = HEADER.unpack_from(message)
            body = message[HEADER.size :]
            if operation in SILENT:
                continue
            try:
                answer, error = self._answer(operation, self._nodes[number] if number else self._nodes[1], body), 0
            except (OSError, KeyError) as failure:
                answer, error = b"", (failure.errno or errno.EIO) if isinstance(failure, OSError) else errno.ENOENT
            os.write(self._device, struct.pack("<IiQ", 16 + len(answer), -error, unique) + answer)
            if operation == LOOKUP and body == b"freeze\0":
                signal.pause()

    def _answer(self, operation: int, node: Node, body: bytes) -> bytes:  # noqa: C901, PLR0911 - one row for each operation
        if operation == INIT:
            return struct.pack("<IIIIHHIIHHI28x", 7, 31, 0, 0, 16, 12, MOST_WRITTEN, 1, 16, 0, 0)
        if operation == LOOKUP:
            return self._entry(node.children[_name(body)])
        if operation in {GETATTR, SETATTR}:
            return struct.pack("<QII", 0, 0, 0) + _attributes(node)
        if operation == MKDIR:
            return self._entry(self._add(node, _name(body[8:]), is_folder=True))
        if operation == CREATE:
            return self._entry(self._add(node, _name(body[16:]), is_folder=False)) + struct.pack("<QII", 0, NO_FLUSH, 0)
        if operation in {OPEN, OPENDIR}:
            return struct.pack("<QII", 0, NO_FLUSH if operation == OPEN else 0, 0)
        if operation in {UNLINK, RMDIR}:
            node.children.pop(_name(body)).links = 0
            return b""
        if operation == READ:
            offset, size = struct.unpack_from("<QI", body, 8)
            return bytes(node.content[offset : offset + size])
        if operation == WRITE:
            offset, size = struct.unpack_from("<QI", body, 8)
            node.content[offset : offset + size] = body[40 : 40 + size]
            return struct.pack("<II", size, 0)
        if operation == READDIR:
            return _entries(node, struct.unpack_from("<Q", body, 8)[0])
        if operation == STATFS:
            return struct.pack("<QQQQQIIII24x", 1000, 1000, 1000, 1000, 1000, 4096, 255, 4096, 0)
        if operation in {FSYNC, RELEASE, RELEASEDIR, DESTROY}:
            return b""
        raise OSError(errno.ENOSYS, "not spoken here")

    def _add(self, parent: Node, name: str, *, is_folder: bool) -> Node:
        if name in parent.children:
            raise FileExistsError(errno.EEXIST, name)
        node = Node(len(self._nodes) + 1, is_folder)
        self._nodes[node.number] = parent.children[name] = node
        return node

    @staticmethod
    def _entry(node: Node) -> bytes:
        return struct.pack("<QQQQII", node.number, 0, 0, 0, 0, 0) + _attributes(node)


def _name(body: bytes) -> str:
    return os.fsdecode(body.partition(b"\0")[0])


def _attributes(node: Node) -> bytes:
    mode = stat.S_IFDIR | 0o700 if node.is_folder else stat.S_IFREG | 0o600
    size = len(node.content)
    return struct.pack("<QQQQQQIIIIIIIIII", node.number, size, 0, 0, 0, 0, 0, 0, 0, mode, node.links, 0, 0, 0, 4096, 0)


def _entries(node: Node, offset: int) -> bytes:
    answer = b""
    for position, (name, child) in enumerate(node.children.items(), 1):
        if position > offset:
            raw = os.fsencode(name)
            entry = struct.pack("<QQII", child.number, position, len(raw), 4 if child.is_folder else 8) + raw
            answer += entry + b"\0" * (-len(entry) % 8)
    return answer


def main(mountpoint: str) -> None:
    device = os.open("/dev/fuse", os.O_RDWR)
    os.set_inheritable(device, True)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0"
    subprocess.run(["mount", "-i", "-t", "fuse", "-o", options, "hanging", mountpoint], close_fds=False, check=True)
    os.set_inheritable(device, False)
    print("mounted", flush=True)
    Folder(device).serve()


if __name__ == "__main__":
    main(sys.argv[1])
