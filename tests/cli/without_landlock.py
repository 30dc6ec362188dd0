"""Becomes the command on a system that has no Landlock: a seccomp filter answers its first call with ENOSYS."""
import ctypes, os, platform, struct, sys

AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}[platform.machine()]
LANDLOCK_CREATE_RULESET, ENOSYS, ALLOW, ERRNO = 444, 38, 0x7FFF0000, 0x00050000
program = [
    (0x20, 0, 0, 4), (0x15, 0, 3, AUDIT),  # another architecture: allow
    (0x20, 0, 0, 0), (0x15, 0, 1, LANDLOCK_CREATE_RULESET),
    (0x06, 0, 0, ERRNO | ENOSYS), (0x06, 0, 0, ALLOW),
]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]


libc = ctypes.CDLL(None, use_errno=True)
filter = Program(len(program), ctypes.addressof(code))
assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
assert libc.prctl(22, 2, ctypes.byref(filter)) == 0, os.strerror(ctypes.get_errno())  # PR_SET_SECCOMP
os.execvp(sys.argv[1], sys.argv[1:])
