from __future__ import annotations

import hashlib
import os

from making.extracting import needs_root

from rootfsbuild.inspection.dump import dump_tree


def _sample(folder):
    (folder / "etc").mkdir()
    (folder / "etc/passwd").write_bytes(b"root")
    (folder / "etc/passwd").chmod(0o644)
    (folder / "etc").chmod(0o755)
    folder.chmod(0o755)
    (folder / "l").symlink_to("etc/passwd")
    os.link(folder / "etc/passwd", folder / "z")
    os.mkfifo(folder / "p", 0o600)


def test_every_path_has_a_line(tmp_path):
    _sample(tmp_path)
    owner = f"{os.getuid()}:{os.getgid()}"
    assert dump_tree(str(tmp_path)) == {
        "/": f"directory 0755 {owner}",
        "/etc": f"directory 0755 {owner}",
        "/etc/passwd": f"file 0644 {owner} {hashlib.sha256(b'root').hexdigest()[:8]}",
        "/l": f"symlink 0777 {owner} -> etc/passwd",
        "/p": f"fifo 0600 {owner}",
        "/z": "hardlink /etc/passwd",
    }


def test_times_are_shown_when_asked_for(tmp_path):
    _sample(tmp_path)
    os.utime(tmp_path / "p", (7, 7))
    os.utime(tmp_path / "etc", ns=(7, 7_000_000_001))
    dump = dump_tree(str(tmp_path), times=True)
    assert dump["/p"].endswith("@7")
    assert dump["/etc"].endswith("@7.000000001")


def test_a_change_of_anything_changes_the_dump(tmp_path):
    _sample(tmp_path)
    before = dump_tree(str(tmp_path))
    changes = [
        lambda: (tmp_path / "etc/passwd").write_bytes(b"toor"),
        lambda: (tmp_path / "etc/passwd").chmod(0o600),
        lambda: ((tmp_path / "l").unlink(), (tmp_path / "l").symlink_to("elsewhere")),
        lambda: ((tmp_path / "z").unlink(), (tmp_path / "z").write_bytes(b"toor")),
        (tmp_path / "new\udcff").touch,
    ]
    for change in changes:
        change()
        after = dump_tree(str(tmp_path))
        assert after != before
        before = after
    assert "/new\udcff" in before


@needs_root
def test_owners_devices_and_capabilities_are_shown(tmp_path):
    os.mknod(tmp_path / "null", 0o020666, os.makedev(1, 3))
    os.chmod(tmp_path / "null", 0o666)
    (tmp_path / "f").write_bytes(b"")
    os.chown(tmp_path / "f", 3, 4)
    os.setxattr(tmp_path / "f", "security.capability", b"\x01\0\0\x02" + bytes(16))
    dump = dump_tree(str(tmp_path))
    assert dump["/null"] == "character 0666 0:0 1:3"
    assert dump["/f"] == f"file 0644 3:4 e3b0c442 security.capability=01000002{'00' * 16}"
