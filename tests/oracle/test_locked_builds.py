"""One lock, any host: the tar of the tree is the same bit for bit."""

from __future__ import annotations

import os
import shutil
import socketserver
import threading

import pytest
from making.builds import need_root, rootfsbuild, rootfsbuild_elsewhere, sha256

pytestmark = [pytest.mark.oracle, pytest.mark.slow]

RECIPES = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "recipes")
BIG = (
    'distro = "debian"\nrelease = "bookworm"\narch = "amd64"\n'
    '[packages]\ninclude = ["systemd", "openssh-server", "python3", "nginx"]\n'
)


@pytest.fixture
def recipe(tmp_path, request):
    need_root()
    path = tmp_path / f"{request.param}.toml"
    if request.param == "big":
        path.write_text(BIG)
    else:
        shutil.copy(os.path.join(RECIPES, path.name), path)
    return path


@pytest.mark.parametrize("recipe", ["debian11", "debian12", "debian13", "debian-sid", "big"], indirect=True)
def test_a_lock_gives_the_same_bytes_on_another_machine(recipe, store, tmp_path):
    # sid's Valid-Until can have lapsed on the mirror at hand; a locked build reads no Release at all.
    allow = ["--allow", "expired"] if recipe.stem == "debian-sid" else []
    locked = rootfsbuild("lock", recipe, "--cache-dir", store, *allow)
    assert locked.status == 0, locked.err
    here = rootfsbuild(recipe, "-o", tmp_path / "here.tar", "--cache-dir", store)
    assert here.status == 0, here.err
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in (recipe.name, f"{recipe.stem}.amd64.lock"):
        shutil.copy(tmp_path / name, elsewhere)
    words = ["--locked", elsewhere / recipe.name, "-o", tmp_path / "there.tar", "--cache-dir", tmp_path / "empty"]
    there = rootfsbuild_elsewhere(*words)
    assert there.status == 0, there.err
    assert sha256(tmp_path / "here.tar") == sha256(tmp_path / "there.tar")
    # The lock that lies beside a result is the one that it was made from.
    locks = {(tmp_path / name).read_text() for name in (f"{recipe.stem}.amd64.lock", "there.tar.lock", "here.tar.lock")}
    assert len(locks) == 1


@pytest.mark.parametrize("recipe", ["debian12"], indirect=True)
def test_with_and_without_a_lock_if_nothing_changed_upstream(recipe, store, tmp_path):
    free = rootfsbuild(recipe, "-o", tmp_path / "free.tar", "--cache-dir", store)
    assert free.status == 0, free.err
    words = ["--lock", tmp_path / "free.tar.lock", "-o", tmp_path / "bound.tar", "--cache-dir", store]
    bound = rootfsbuild(recipe, *words)
    assert bound.status == 0, bound.err
    assert sha256(tmp_path / "free.tar") == sha256(tmp_path / "bound.tar")
    assert rootfsbuild("lock", recipe, "--cache-dir", store).status == 0
    assert (tmp_path / "debian12.amd64.lock").read_bytes() == (tmp_path / "free.tar.lock").read_bytes()


@pytest.mark.parametrize("recipe", ["debian12"], indirect=True)
def test_a_locked_build_asks_for_packages_only(recipe, store, tmp_path):
    assert rootfsbuild("lock", recipe, "--cache-dir", store).status == 0
    asked = []

    class Note(socketserver.StreamRequestHandler):
        def handle(self):
            asked.append(self.rfile.readline().split()[1].decode())
            self.wfile.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Note) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        mirrors = [word for name in ("debian", "debian-security") for word in ("--mirror", f"{name}={url}/{name}")]
        words = ["--locked", recipe, "-o", tmp_path / "root", "--cache-dir", tmp_path / "empty", *mirrors]
        done = rootfsbuild(*words, http_proxy="", https_proxy="")
        server.shutdown()
    assert done.status == 5
    assert asked
    assert all("/pool/" in path for path in asked)
    assert not (tmp_path / "root").exists()
