"""dnf as a judge: what it would install into an empty root.

This file is also the program that asks dnf's Python interface, under the Python that has it: starting dnf for every
question would take a second each.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile

PYTHON = "/usr/bin/python3"


def find_dnf():
    """Tell whether this host has dnf 4 with its Python interface."""
    if not shutil.which("dnf") or not os.path.exists(PYTHON):
        return False
    return subprocess.run([PYTHON, "-c", "import dnf.base"], capture_output=True, check=False).returncode == 0


def ask_dnf(questions):
    """Return, for each question, for each of its requests, what dnf installs: sorted lines, or the text of its error.

    A question is {"repos": [{"id", "path", "priority"…}], "requests": [{"specs", "weak", "exclude"}]}.
    """
    done = subprocess.run(
        [PYTHON, __file__], input=json.dumps(questions), capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def _answer(question, folder):
    import dnf
    import dnf.base

    base = dnf.Base()
    conf = base.conf
    for name in ("root", "cache", "log", "lib"):
        os.makedirs(f"{folder}/{name}")
    conf.installroot, conf.cachedir = f"{folder}/root", f"{folder}/cache"
    conf.logdir, conf.persistdir = f"{folder}/log", f"{folder}/lib"
    conf.reposdir, conf.plugins, conf.best = [], False, True
    conf.module_platform_id = "platform:el9"
    conf.substitutions.update({"arch": "x86_64", "basearch": "x86_64", "releasever": "9"})
    for settings in question["repos"]:
        name, path = settings.pop("id"), settings.pop("path")
        if "excludepkgs" in settings:
            settings["excludepkgs"] = ",".join(settings["excludepkgs"])  # of a list it takes the first alone
        base.repos.add_new_repo(name, conf, baseurl=[f"file://{path}"], **settings)
    answers = []
    excluded = None
    for request in question["requests"]:
        if request.get("exclude", []) != excluded:
            excluded = request.get("exclude", [])
            conf.excludepkgs = excluded
            base.reset(sack=True, goal=True)
            base.fill_sack(load_system_repo=False)
        answers.append(_resolve(base, request, dnf.exceptions.Error))
    base.close()
    return answers


def _resolve(base, request, error):
    base.conf.install_weak_deps = request["weak"]
    base.reset(goal=True)
    try:
        base.install_specs(request["specs"])
        base.resolve()
    except error as problem:
        return str(problem)
    return sorted(f"{p.reponame} {p.name}-{p.evr}.{p.arch}" for p in base.transaction.install_set)


def _main():
    questions = json.load(sys.stdin)
    answers = []
    with tempfile.TemporaryDirectory() as folder:
        for number, question in enumerate(questions):
            answers.append(_answer(question, f"{folder}/{number}"))
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    del sys.path[0]  # this folder has a module named dnf
    _main()
