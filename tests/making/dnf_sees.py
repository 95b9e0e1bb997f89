"""dnf as a judge: which packages modules leave in sight, and what groups mean.

This file is also the program that asks dnf's Python interface, under the Python that has it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile

PYTHON = "/usr/bin/python3"


def see(questions):
    """Return for each question {"packages": [[repository, nevra]], "streams": {}, "groups": {}} or {"error": text}.

    A question is {"repos": [{"id", "path", "hotfix"}], "enabled": [streams], "groups": [ids]}.
    """
    done = subprocess.run(
        [PYTHON, "-I", __file__], input=json.dumps(questions), capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def _answer(question, folder):
    import dnf
    import dnf.module.module_base
    import libdnf

    base = dnf.Base()
    conf = base.conf
    for name in ("root", "cache", "log", "lib"):
        os.makedirs(f"{folder}/{name}")
    conf.installroot, conf.cachedir = f"{folder}/root", f"{folder}/cache"
    conf.logdir, conf.persistdir = f"{folder}/log", f"{folder}/lib"
    conf.reposdir, conf.plugins = [], False
    conf.module_platform_id = "platform:el9"
    conf.substitutions.update({"arch": "x86_64", "basearch": "x86_64", "releasever": "9"})
    for repo in question["repos"]:
        url = f"file://{repo['path']}"
        base.repos.add_new_repo(repo["id"], conf, baseurl=[url], module_hotfixes=repo.get("hotfix", False))
    base.fill_sack(load_system_repo=False)
    try:
        if question.get("enabled"):
            dnf.module.module_base.ModuleBase(base).enable(question["enabled"])
    except dnf.exceptions.MarkingErrors as error:
        # As its command does: a default that cannot be is no failure.
        kind = error.module_depsolv_errors[1] if error.module_depsolv_errors else None
        if kind != libdnf.module.ModulePackageContainer.ModuleErrorType_ERROR_IN_DEFAULTS:
            return {"error": str(error)}
    packages = sorted([one.reponame, _nevra(one)] for one in base.sack.query().available())
    return {"packages": packages, "groups": _groups(base, question.get("groups", ()))}


def _nevra(one):
    return f"{one.name}-{f'{one.epoch}:' if one.epoch else ''}{one.version}-{one.release}.{one.arch}"


def _groups(base, wanted):
    from dnf.comps import CONDITIONAL, DEFAULT, MANDATORY

    if not wanted:
        return {}
    base.read_comps(arch_filter=True)
    found = {}
    for name in wanted:
        solver = base._build_comps_solver()
        install = solver._environment_install if base.comps._environment_by_id(name) else solver._group_install
        bunch = install(name, CONDITIONAL | DEFAULT | MANDATORY)
        found[name] = sorted([one.name, one.requires or ""] for one in bunch.install)
    return found


def main():
    answers = []
    for question in json.load(sys.stdin):
        with tempfile.TemporaryDirectory() as folder:
            answers.append(_answer(question, folder))
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
