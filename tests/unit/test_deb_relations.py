from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootfsbuild.formats.deb.relations import Alternative, Relation, parse_relations


def test_groups_and_alternatives():
    assert parse_relations("Depends", "a (>= 1.0~), b:any | c (<< 2), d") == (
        Relation("Depends", (Alternative("a", "", ">=", "1.0~"),)),
        Relation("Depends", (Alternative("b", "any"), Alternative("c", "", "<<", "2"))),
        Relation("Depends", (Alternative("d"),)),
    )


@pytest.mark.parametrize(
    ("written", "operator"),
    [("a (< 1)", "<="), ("a (> 1)", ">="), ("a(=1)", "="), ("a (>>1)", ">>"), ("a (1)", "="), ("a ( << 1 )", "<<")],
)
def test_how_people_write_operators(written, operator):
    ((relation,),) = (parse_relations("Depends", written),)
    assert relation.alternatives == (Alternative("a", "", operator, "1"),)


@pytest.mark.parametrize("empty", ["", "  ", ",", "a, ,b,"])
def test_empty_groups_are_nothing(empty):
    assert [str(relation) for relation in parse_relations("Breaks", empty)] == (
        ["Breaks: a", "Breaks: b"] if "a" in empty else []
    )


@pytest.mark.parametrize("bad", ["a b", "a (>= 1", "a >= 1)", "(>= 1)", "a | ", "a (~ 1)", "a ()", "a:", "a [amd64]"])
def test_what_cannot_be_read(bad):
    with pytest.raises(ValueError, match="cannot read the relation"):
        parse_relations("Depends", bad)


alternatives = st.builds(
    lambda name, qualifier, limit: Alternative(name, qualifier, *limit),
    st.from_regex(r"[a-z0-9][a-z0-9+.-]{1,6}", fullmatch=True),
    st.sampled_from(["", "any", "native", "amd64"]),
    st.one_of(
        st.just(("", "")),
        st.tuples(
            st.sampled_from(["<<", "<=", "=", ">=", ">>"]), st.from_regex(r"[0-9][0-9a-z.+~:-]{0,5}", fullmatch=True)
        ),
    ),
)


@given(st.lists(st.lists(alternatives, min_size=1, max_size=3), max_size=4))
def test_what_is_written_is_read_back(groups):
    relations = tuple(Relation("Depends", tuple(group)) for group in groups)
    written = ", ".join(str(relation).removeprefix("Depends: ") for relation in relations)
    assert parse_relations("Depends", written) == relations
