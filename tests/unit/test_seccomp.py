from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import re
import struct

import pytest

from rootfsbuild.rootfs import namespaces, seccomp

ALLOW, ZERO, EPERM = 0x7FFF0000, 0x00050000, 0x00050001
SYNC = ("fsync", "fdatasync", "sync", "syncfs", "msync", "sync_file_range")
CASES = [(machine, abi) for machine, abis in seccomp.MACHINES.items() for abi in abis]


def verdict(program, audit, number, argument=0, byteorder="little"):
    """Interpret classic BPF over struct seccomp_data, as Linux's net/core/filter.c would."""
    order = "<" if byteorder == "little" else ">"
    data = struct.pack(f"{order}IIQ6Q", number, audit, 0, 0, argument, 0, 0, 0, 0)
    code = list(struct.iter_unpack(f"{order}HBBI", program))
    position, register = 0, 0
    while True:
        operation, if_true, if_false, constant = code[position]
        position += 1
        if operation == 0x20:
            register = struct.unpack_from(f"{order}I", data, constant)[0]
        elif operation == 0x54:
            register &= constant
        elif operation == 0x15:
            position += if_true if register == constant else if_false
        elif operation == 0x06:
            return constant
        else:
            pytest.fail(f"unknown instruction {operation:#x}")


def order_of(machine):
    return "big" if machine == "s390x" else "little"


@pytest.mark.parametrize(("machine", "abi"), CASES)
def test_synchronisation_does_nothing_on_every_machine_and_abi(machine, abi):
    order = order_of(machine)
    program = seccomp.program(machine, nosync=True, byteorder=order)
    for name in SYNC:
        number = seccomp.ABIS[abi].numbers[name]
        assert verdict(program, seccomp.ABIS[abi].audit, number, byteorder=order) == ZERO, name
    assert verdict(program, seccomp.ABIS[abi].audit, 0, byteorder=order) == ALLOW
    assert verdict(program, seccomp.ABIS[abi].audit, 400, byteorder=order) == ALLOW


@pytest.mark.parametrize(("machine", "abi"), CASES)
def test_without_nosync_synchronisation_is_real_but_keys_stay_refused(machine, abi):
    order = order_of(machine)
    program = seccomp.program(machine, nosync=False, byteorder=order)
    numbers, audit = seccomp.ABIS[abi].numbers, seccomp.ABIS[abi].audit
    assert {verdict(program, audit, numbers[name], byteorder=order) for name in SYNC} == {ALLOW}
    keys = ("add_key", "request_key", "keyctl")
    assert {verdict(program, audit, numbers[name], byteorder=order) for name in keys} == {EPERM}


@pytest.mark.parametrize(("machine", "abi"), CASES)
def test_only_the_ioctls_that_type_for_the_user_are_refused(machine, abi):
    order = order_of(machine)
    program = seccomp.program(machine, nosync=True, byteorder=order)
    audit, ioctl = seccomp.ABIS[abi].audit, seccomp.ABIS[abi].numbers["ioctl"]
    assert verdict(program, audit, ioctl, 0x5412, order) == EPERM
    assert verdict(program, audit, ioctl, 0x541C, order) == EPERM
    assert verdict(program, audit, ioctl, 0x5413, order) == ALLOW
    # The kernel reads 32 bits of the request: what is above them must not be a way around.
    assert verdict(program, audit, ioctl, 0xFFFFFFFF00005412, order) == EPERM


def test_an_abi_without_numbers_is_left_alone_and_x32_is_not_a_way_around():
    program = seccomp.program("x86_64", nosync=True)
    assert verdict(program, 0x12345678, 74) == ALLOW
    assert verdict(program, seccomp.ABIS["x86_64"].audit, 0x40000000 | 74) == ZERO
    assert verdict(program, seccomp.ABIS["x86_64"].audit, 0x40000000 | 250) == EPERM


def test_an_unknown_machine_installs_nothing():
    assert not seccomp.known("vax")
    assert seccomp.install("vax", nosync=True) is False


@pytest.mark.parametrize(
    ("abi", "header"),
    [
        ("x86_64", "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
        ("i386", "/usr/include/x86_64-linux-gnu/asm/unistd_32.h"),
        ("aarch64", "/usr/include/asm-generic/unistd.h"),
        ("riscv64", "/usr/include/asm-generic/unistd.h"),
    ],
)
def test_numbers_are_those_of_the_kernel_headers(abi, header):
    if not os.path.exists(header):
        pytest.skip(f"{header} is not installed (apt install linux-libc-dev)")
    with open(header, encoding="utf-8") as file:
        found = {name: int(value) for name, value in re.findall(r"#define __NR_(\w+) (\d+)\n", file.read())}
    assert {name: found[name] for name in seccomp.ABIS[abi].numbers} == dict(seccomp.ABIS[abi].numbers)


def in_filtered_child(action):
    """Return what `action` returns (at most 255) in a child with the filter, which is there for good."""
    if os.geteuid() != 0 or not namespaces.effective_capabilities() >> 21 & 1:
        pytest.skip("needs CAP_SYS_ADMIN to install a filter")
    child = os.fork()
    if child == 0:
        status = 255
        try:
            if seccomp.install(os.uname().machine, nosync=True):
                status = action()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def error_of(call):
    try:
        call()
    except OSError as error:
        return error.errno
    return 0


def test_the_kernel_takes_the_filter_and_skips_even_a_senseless_fsync():
    assert error_of(lambda: os.fsync(9999)) == errno.EBADF
    assert in_filtered_child(lambda: error_of(lambda: os.fsync(9999))) == 0
    assert in_filtered_child(lambda: error_of(lambda: os.fdatasync(9999))) == 0


def test_typing_into_the_terminal_is_refused():
    main, other = os.openpty()
    try:
        refused = in_filtered_child(lambda: error_of(lambda: fcntl.ioctl(other, 0x5412, b"x")))
        assert refused == errno.EPERM
        assert in_filtered_child(lambda: 0 if os.isatty(other) else 1) == 0
    finally:
        os.close(main)
        os.close(other)


def test_key_rings_are_refused():
    libc = ctypes.CDLL(None, use_errno=True)
    number = seccomp.ABIS[seccomp.MACHINES[os.uname().machine][0]].numbers["keyctl"]

    def ask():
        return ctypes.get_errno() if libc.syscall(number, 0, -3, 0) < 0 else 0

    assert in_filtered_child(ask) == errno.EPERM


def test_the_32_bit_entry_of_a_64_bit_kernel_is_filtered_too():
    if os.uname().machine != "x86_64":
        pytest.skip("int 0x80 is x86's")
    # push rbx; mov eax, 118 (fsync); mov ebx, 9999; int 0x80; pop rbx; ret
    code = b"\x53\xb8\x76\x00\x00\x00\xbb\x0f\x27\x00\x00\xcd\x80\x5b\xc3"
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    call = ctypes.CFUNCTYPE(ctypes.c_int)(address)
    plain = os.fork()
    if plain == 0:
        os._exit(-call())
    if os.waitstatus_to_exitcode(os.waitpid(plain, 0)[1]) != errno.EBADF:
        pytest.skip("this kernel runs no 32-bit programs")
    assert in_filtered_child(lambda: -call()) == 0
