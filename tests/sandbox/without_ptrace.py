"""A program that starts another one, for which seccomp answers EPERM to ptrace(2)."""

import ctypes
import os
import struct
import sys

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LOAD, JUMP_EQUAL, RETURN = 0x20, 0x15, 0x06
SYS_PTRACE, ALLOW, EPERM = 101, 0x7FFF0000, 0x00050001


def instruction(code: int, yes: int, no: int, value: int) -> bytes:
    """Return one instruction of classic BPF."""
    return struct.pack("=HBBI", code, yes, no, value)


PROGRAM = b"".join(
    [
        instruction(LOAD, 0, 0, 0),
        instruction(JUMP_EQUAL, 0, 1, SYS_PTRACE),
        instruction(RETURN, 0, 0, EPERM),
        instruction(RETURN, 0, 0, ALLOW),
    ]
)

if __name__ == "__main__":
    libc = ctypes.CDLL(None, use_errno=True)
    code = ctypes.create_string_buffer(PROGRAM)
    program = struct.pack("@HP", len(PROGRAM) // 8, ctypes.addressof(code))
    assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    assert libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.c_char_p(program), 0, 0) == 0
    os.execvp(sys.argv[1], sys.argv[1:])
