"""Fails a path and reinstates it, as often as is asked: `dm_messages.py NAME PATH TIMES [PAUSE]`.

By ioctl(2) as dmsetup does, but not a process for each. Prints when each failure was asked for, in
seconds of time.monotonic().
"""

import fcntl
import os
import struct
import sys
import time

HEAD = struct.Struct("=3I I I I i I I I Q 128s 129s 7x")
DM_TARGET_MSG = 3 << 30 | HEAD.size << 16 | 0xFD << 8 | 14


def message(control: int, name: str, text: str) -> None:
    buffer = bytearray(1024)
    HEAD.pack_into(buffer, 0, 4, 0, 0, len(buffer), HEAD.size, 0, 0, 0, 0, 0, 0, name.encode(), b"")
    struct.pack_into(f"=Q{len(text)}s", buffer, HEAD.size, 0, text.encode())
    fcntl.ioctl(control, DM_TARGET_MSG, buffer)


def main() -> None:
    name, path, times = sys.argv[1], sys.argv[2], int(sys.argv[3])
    pause = float(sys.argv[4]) if len(sys.argv) > 4 else 0.0
    control = os.open("/dev/mapper/control", os.O_RDWR)
    for _ in range(times):
        begun = time.monotonic()
        message(control, name, f"fail_path {path}")
        print(begun, flush=bool(pause))
        time.sleep(pause)
        message(control, name, f"reinstate_path {path}")
        time.sleep(pause)


main()
