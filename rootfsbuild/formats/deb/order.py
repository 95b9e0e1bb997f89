"""In which order packages are installed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

Graph = Mapping[str, Sequence[str]]


def install_order(depends: Graph, pre_depends: Graph, first: Iterable[str] = ()) -> list[str]:
    """Return all names of `depends` so that what a package depends on comes before it.

    Both graphs hold, by package, the names that it needs; `pre_depends` is a part of `depends`. In a cycle of
    Depends only Pre-Depends count, in a cycle of those only names. `first` are names to begin with, which matters
    only where the graphs leave a choice.
    """
    begin = dict.fromkeys([*sorted(first), *sorted(depends)])
    order: list[str] = []
    for group in _components(depends, begin):
        members = set(group)
        if len(group) == 1:
            order += group
            continue
        inner = {name: [to for to in pre_depends.get(name, ()) if to in members] for name in sorted(group)}
        order += [name for part in _components(inner, inner) for name in sorted(part)]
    return order


def _components(graph: Graph, begin: Iterable[str]) -> list[list[str]]:
    """Return the strongly connected components, those that others lead to first (Tarjan), without recursion."""
    found: dict[str, int] = {}
    lowest: dict[str, int] = {}
    open_names: dict[str, None] = {}
    components: list[list[str]] = []
    for root in begin:
        work = [] if root in found else [(root, iter(sorted(graph[root])))]
        for name, _ in work:
            found[name] = lowest[name] = len(found)
            open_names[name] = None
        while work:
            name, rest = work[-1]
            for target in rest:
                if target not in found:
                    found[target] = lowest[target] = len(found)
                    open_names[target] = None
                    work.append((target, iter(sorted(graph[target]))))
                    break
                if target in open_names:
                    lowest[name] = min(lowest[name], found[target])
            else:
                work.pop()
                if work:
                    lowest[work[-1][0]] = min(lowest[work[-1][0]], lowest[name])
                if lowest[name] == found[name]:
                    components.append(_close(open_names, name))
    return components


def _close(open_names: dict[str, None], name: str) -> list[str]:
    component: list[str] = []
    while not component or component[-1] != name:
        component.append(open_names.popitem()[0])
    return component
