from __future__ import annotations

import struct

import pytest

from rootfsbuild.formats.rpm.capability import NAMES, encode_capabilities

RAW, CHOWN, ALL = 1 << 13, 1, (1 << 41) - 1


def decoded(text):
    magic, *words = struct.unpack("<5I", encode_capabilities(text))
    assert magic & ~1 == 0x02000000
    return bool(magic & 1), words[0] | words[2] << 32, words[1] | words[3] << 32


@pytest.mark.parametrize(
    ("text", "effective", "permitted", "inheritable"),
    [
        ("cap_net_raw=ep", True, RAW, 0),
        ("cap_net_raw+ep", True, RAW, 0),
        ("= cap_net_raw+ep", True, RAW, 0),
        ("cap_net_raw=p", False, RAW, 0),
        ("cap_chown,cap_net_raw=eip", True, RAW | CHOWN, RAW | CHOWN),
        ("cap_net_raw+p cap_net_raw+e", True, RAW, 0),
        ("cap_net_raw=ep cap_net_raw=i", False, 0, RAW),
        ("cap_net_raw+eip-e", False, RAW, RAW),
        ("CAP_NET_RAW=ep", True, RAW, 0),
        ("13=p", False, RAW, 0),
        ("=ep", True, ALL, 0),
        ("all=p", False, ALL, 0),
        ("=p cap_chown-p", False, ALL & ~CHOWN, 0),
        ("cap_checkpoint_restore=ep", True, 1 << 40, 0),
        ("=", False, 0, 0),
    ],
)
def test_texts(text, effective, permitted, inheritable):
    assert decoded(text) == (effective, permitted, inheritable)


@pytest.mark.parametrize(
    "text",
    [
        "cap_x=ep",
        "cap_chown",
        "+ep",
        "cap_chown+",
        "cap_chown,=e",
        "cap_chown==e",
        "cap_chown+e=p",
        "cap_chown = ep",
        "41=p",
    ],
)
def test_texts_that_describe_nothing(text):
    with pytest.raises(ValueError, match="capabilit"):
        encode_capabilities(text)


def test_effective_means_all_of_them():
    with pytest.raises(ValueError, match="all are effective"):
        encode_capabilities("cap_chown=ep cap_kill=p")


def test_numbers_are_those_of_linux():
    assert [NAMES[number] for number in (0, 7, 21, 31, 40)] == [
        "cap_chown",
        "cap_setuid",
        "cap_sys_admin",
        "cap_setfcap",
        "cap_checkpoint_restore",
    ]
