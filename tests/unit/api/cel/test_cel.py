"""CEL as Kubernetes 1.36 has it: values, errors in upstream's words, libraries, costs and budgets."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polder.api.cel import Budget, CelError, OutOfBudgetError, TooLongError, compile_cel
from polder.api.cel.declarations import declared, escape, wrapper
from polder.api.cel.estimate import max_cost
from polder.api.cel.mutations import to_json, to_patch
from polder.api.cel.program import REQUEST_LIMIT
from polder.api.cel.types import DYN, INT, STRING, list_of, map_of, struct
from polder.api.cel.values import Meter, equal, iterate

VARIABLES = {
    "self": struct("selfType", {"n": INT, "s": STRING, "l": list_of(INT), "m": map_of(STRING, STRING), "d": DYN}),
    "x": INT,
    "o": DYN,
}
VALUES: dict[str, Any] = {
    "self": {"n": 3, "s": "héllo", "l": [3, 1, 2], "m": {"a": "b"}, "d": 5},
    "x": 1,
    "o": {"a": {"b": [1, 2]}, "list": [{"n": 1}, {"n": 2}], "nothing": None},
}


def run(expression: str, budget: Budget | None = None) -> Any:
    return compile_cel(expression, VARIABLES).run(VALUES, budget or Budget())


TRUE = """
1 + 2 * 3 == 7
(1 + 2) * 3 == 9
-7 / 2 == -3 && -7 % 2 == -1
2 - 1 - 1 == 0
1 < 2 && 2u < 3u && 1.5 < 2.5 && 'a' < 'b' && b'a' < b'b' && false < true
1 < 1.5 && 2u > 1 && dyn(1) == 1.0 && dyn(1u) == 1
dyn(1) != 'a' && dyn([1]) != {'a': 1}
'a' + 'b' == 'ab' && [1] + [2] == [1, 2] && b'a' + b'b' == b'ab'
{'a': 1, 'b': 2} == {'b': 2, 'a': 1}
true ? 1 == 1 : 1 / 0 == 1
false && 1 / 0 == 1 ? false : true
1 / 0 == 1 || true
true || 1 / 0 == 1
!(1 / 0 == 1 && false)
x in [1, 2] && !(3 in [1, 2]) && 'a' in self.m && !('z' in self.m)
self.l[0] == 3 && self.m['a'] == 'b' && self.m.a == 'b'
has(self.n) && has(o.a.b) && !has(o.z)
o.nothing == null
size('héllo') == 5 && 'héllo'.size() == 5 && [1, 2].size() == 2 && {'a': 1}.size() == 1 && b'abc'.size() == 3
'hello'.contains('ell') && 'hello'.startsWith('he') && 'hello'.endsWith('lo') && 'hello'.matches('^h.*o$')
type(1) == int && type('a') == string && type([]) == list && type({}) == map && type(1u) == uint && type(null) == null_type
type(type(1)) == type && type(timestamp('2020-01-01T00:00:00Z')) == google.protobuf.Timestamp
int('42') == 42 && int(3.9) == 3 && uint(7) == 7u && double('1.5') == 1.5 && string(42) == '42' && bool('true')
string(1.5) == '1.5' && string(true) == 'true' && string(b'abc') == 'abc' && bytes('é') == b'é'
string(duration('90m')) == '5400s' && duration('1.5s') == duration('1500ms')
string(timestamp('2020-01-02T03:04:05.5+01:00')) == '2020-01-02T02:04:05.5Z'
timestamp('2020-01-01T00:00:00Z') + duration('24h') == timestamp('2020-01-02T00:00:00Z')
timestamp('2020-01-02T00:00:00Z') - timestamp('2020-01-01T00:00:00Z') == duration('24h')
timestamp('2020-02-03T04:05:06.007Z').getMonth() == 1 && timestamp('2020-02-03T04:05:06.007Z').getMilliseconds() == 7
timestamp('2020-02-03T23:30:00Z').getDate('+01:00') == 4 && timestamp('2020-02-03T23:30:00Z').getHours('Europe/Berlin') == 0
duration('90m').getHours() == 1 && duration('-90s').getMinutes() == -1
[1, 2, 3].all(i, i > 0) && [1, 2, 3].exists(i, i == 2) && [1, 2, 3].exists_one(i, i > 2) && !([1, 2].exists_one(i, i > 0))
[1, 2, 3].map(i, i * 2) == [2, 4, 6] && [1, 2, 3].map(i, i > 1, i * 2) == [4, 6] && [1, 2, 3].filter(i, i != 2) == [1, 3]
[0, 1].exists(i, 1 / i == 1)
{'a': 1, 'b': 2}.all(k, k in ['a', 'b']) && {'a': 1}.map(k, k) == ['a']
[[1, 2], [3]].map(l, l.map(i, i + 1)) == [[2, 3], [4]]
[1, 2].map(i, [10, 20].map(j, i + j)) == [[11, 21], [12, 22]]
[1, 2, 3].all(i, v, i + 1 == v) && {'a': 1}.exists(k, v, k == 'a' && v == 1) && [5, 6].existsOne(i, v, v == 6 && i == 1)
[1, 2, 3].transformList(i, v, i * v) == [0, 2, 6] && [1, 2, 3].transformList(i, v, i > 0, v) == [2, 3]
{'a': 1, 'b': 2}.transformMap(k, v, v * 2) == {'a': 2, 'b': 4} && {'a': 1, 'b': 2}.transformMap(k, v, k == 'b', v) == {'b': 2}
{'a': 'x'}.transformMapEntry(k, v, {v: k}) == {'x': 'a'}
o.?a.b.orValue([]) == [1, 2] && o.?z.b.orValue([9]) == [9] && !o.?z.hasValue() && o.a.?b.hasValue()
optional.of(1).value() == 1 && optional.none().orValue(2) == 2 && optional.of(1).or(optional.of(2)).value() == 1
optional.of(1).optMap(v, v + 1).value() == 2 && !optional.none().optMap(v, v + 1).hasValue()
optional.of([1]).optFlatMap(l, l[?0]).value() == 1 && [1, 2][?5] == optional.none() && {'a': 1}[?'a'].value() == 1
optional.ofNonZeroValue('') == optional.none() && optional.ofNonZeroValue('a').hasValue()
[1, ?optional.none(), ?optional.of(3)] == [1, 3] && {'a': 1, ?'b': optional.none()} == {'a': 1}
[1, 2].first().value() == 1 && [1, 2].last().value() == 2 && ![].first().hasValue()
'hello'.charAt(1) == 'e' && 'hello'.indexOf('l') == 2 && 'hello'.lastIndexOf('l') == 3 && 'hello'.indexOf('l', 3) == 3
'A-b'.lowerAscii() == 'a-b' && 'A-b'.upperAscii() == 'A-B' && ' a '.trim() == 'a' && 'aXbX'.replace('X', '-', 1) == 'a-bX'
'a,b,c'.split(',') == ['a', 'b', 'c'] && 'a,b,c'.split(',', 2) == ['a', 'b,c'] && ['a', 'b'].join('-') == 'a-b'
'hello'.substring(1) == 'ello' && 'hello'.substring(1, 3) == 'el' && 'abc'.split('') == ['a', 'b', 'c']
'%d %s %.1f %x %b %o'.format([dyn(42), 'a', 1.25, 255, 5, 8]) == '42 a 1.2 ff 101 10'
'%s'.format([[1, 2]]) == '[1, 2]' && '%s %%'.format([{'a': true}]) == '{"a":true} %'
strings.quote('a"b') == '"a\\\\"b"'
'abc123'.find('[0-9]+') == '123' && 'a1b22'.findAll('[0-9]+') == ['1', '22'] && 'a1b22'.findAll('[0-9]+', 1) == ['1']
'abc'.find('x') == ''
[1, 2, 3].isSorted() && ![2, 1].isSorted() && [1, 2].sum() == 3 && [1.5, 1.5].sum() == 3.0 && [].sum() == 0
[3, 1].min() == 1 && [3, 1].max() == 3 && ['b', 'a'].max() == 'b' && [1, 2, 1].indexOf(1) == 0 && [1, 2, 1].lastIndexOf(1) == 2
[3, 1, 2].sort() == [1, 2, 3] && [3, 1, 2].sortBy(e, -e) == [3, 2, 1] && [1, 2].reverse() == [2, 1] && lists.range(3) == [0, 1, 2]
[1, 1, 2].distinct() == [1, 2] && [[1], [2, 3]].flatten() == [1, 2, 3] && [1, 2, 3, 4].slice(1, 3) == [2, 3]
sets.contains([1, 2, 3], [2]) && sets.equivalent([1, 1, 2], [2, 1]) && sets.intersects([1], [1, 2]) && !sets.intersects([1], [2])
quantity('1Gi').isGreaterThan(quantity('1G')) && quantity('1.5').add(quantity('500m')) == quantity('2') && isQuantity('10Ki')
quantity('50k').asInteger() == 50000 && !quantity('50m').isInteger() && quantity('-1').sign() == -1 && !isQuantity('ten')
quantity('200M').compareTo(quantity('0.2G')) == 0 && quantity('3').sub(1) == quantity('2')
ip('10.0.0.1').family() == 4 && ip('::1').isLoopback() && isIP('1.2.3.4') && !isIP('1.2.3') && ip.isCanonical('::1')
string(ip('2001:db8::1')) == '2001:db8::1' && ip('224.0.0.1').isLinkLocalMulticast() && ip('8.8.8.8').isGlobalUnicast()
cidr('10.0.0.0/8').containsIP('10.1.2.3') && cidr('10.0.0.0/8').containsCIDR(cidr('10.1.0.0/16')) && isCIDR('10.0.0.0/8')
cidr('10.1.2.3/8').masked() == cidr('10.0.0.0/8')
cidr('10.0.0.0/8').prefixLength() == 8 && cidr('10.0.0.0/8').ip() == ip('10.0.0.0')
url('https://user@example.com:80/a b?c=d&c=e').getHost() == 'example.com:80' && url('https://[::1]:80/').getHostname() == '::1'
url('https://example.com/a?c=d&c=e').getQuery()['c'] == ['d', 'e'] && isURL('https://a/b') && !isURL('a/b')
url('https://example.com:80/').getPort() == '80' && url('https://example.com/a b').getEscapedPath() == '/a%20b'
semver('1.2.3').isLessThan(semver('1.10.0')) && semver('1.0.0-alpha').compareTo(semver('1.0.0')) == -1 && isSemver('1.2.3')
semver('v1.2', true).minor() == 2 && !isSemver('v1.2') && semver('1.2.3+a') == semver('1.2.3+b')
format.dns1123Label().validate('ok').hasValue() == false && format.dns1123Label().validate('No_').hasValue()
format.named('uuid').value().validate('x').value() == ['does not match the UUID format'] && !format.named('none').hasValue()
"""


@pytest.mark.parametrize("expression", [line for line in TRUE.splitlines() if line])
def test_expressions_that_are_true(expression: str) -> None:
    assert run(expression) is True


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("1 / 0", "division by zero"),
        ("1 % 0", "modulus by zero"),
        ("9223372036854775807 + 1", "integer overflow"),
        ("0u - 1u", "unsigned integer overflow"),
        ("int(1e30)", "integer overflow"),
        ("self.l[5]", "index out of bounds: 5"),
        ("o.z", "no such key: z"),
        ("self.m['z']", "no such key: z"),
        ("o.a + 1", "no such overload: _+_(map, int)"),
        ("int('x')", "type conversion error from 'string' to 'int'"),
        ("timestamp(self.s)", "type conversion error from 'string' to 'google.protobuf.Timestamp'"),
        ("[].min()", "min called on empty list"),
        ("optional.none().value()", "optional.none() dereference"),
        ("'a'.charAt(5)", "index out of range: 5"),
        ("quantity('x')", "quantities must match the regular expression"),
        ("ip('1.2.3.4.5')", 'IP Address "1.2.3.4.5" parse error'),
        ("url('a')", 'URL parse error during conversion from string: parse "a": invalid URI for request'),
        ("[1, 2].all(i, i / 0 == 1)", "division by zero"),
        ("self.s.matches(self.s + '(')", "error parsing regexp: missing closing ): `héllo(`"),
        ("semver('1')", "No Major.Minor.Patch elements found"),
    ],
)
def test_evaluation_fails_in_upstreams_words(expression: str, message: str) -> None:
    with pytest.raises(CelError) as failed:
        run(expression)
    assert message in str(failed.value)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("self.z == 1", "ERROR: <input>:1:5: undefined field 'z'\n | self.z == 1\n | ....^"),
        ("y", "ERROR: <input>:1:1: undeclared reference to 'y' (in container '')\n | y\n | ^"),
        ("x.foo", "ERROR: <input>:1:2: type 'int' does not support field selection"),
        ("x + 'a'", "ERROR: <input>:1:3: found no matching overload for '_+_' applied to '(int, string)'"),
        ("x.startsWith('a')", "found no matching overload for 'startsWith' applied to 'int.(string)'"),
        ("nothing(x)", "ERROR: <input>:1:8: undeclared reference to 'nothing' (in container '')"),
        ("[1, 'a']", "ERROR: <input>:1:5: expected type 'int' but found 'string'"),
        ("x && true", "ERROR: <input>:1:1: expected type 'bool' but found 'int'"),
        (
            "x.all(i, true)",
            "expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)",
        ),
        ("self.l.all(i, i)", "expected type 'bool' but found 'int'"),
        ("duration('x')", "ERROR: <input>:1:10: invalid duration argument"),
        ("'a'.matches('(')", "invalid matches argument"),
        ("has(x)", "invalid argument to has() macro"),
        ("[1].map(a.b, 1)", "argument is not an identifier"),
        ("{'a': 1}.all(k, k, true)", "duplicate variable name: k"),
        ("a b", "Syntax error: mismatched input 'b' expecting <EOF>"),
        ("1 +", "Syntax error: mismatched input '<EOF>' expecting"),
        ("'abc", "Syntax error: token recognition error at: '''"),
        ("self.n == 1 &&\n  self.z", "ERROR: <input>:2:7: undefined field 'z'\n |   self.z\n | ......^"),
        ("if", "reserved identifier: if"),
        ("99999999999999999999", "invalid int literal"),
        ("(" * 200 + "1" + ")" * 200, "expression recursion limit exceeded"),
        ("+".join(["x"] * 400), "expression recursion limit exceeded"),
        ("Object{a: 1}", "undeclared reference to 'Object'"),
        ("'" + "a" * 100_001 + "'", "expression code point size exceeds limit"),
    ],
)
def test_expressions_that_do_not_compile(expression: str, message: str) -> None:
    with pytest.raises(CelError) as failed:
        compile_cel(expression, VARIABLES)
    assert message in str(failed.value)


def test_a_long_chain_of_conditions_is_no_deep_expression() -> None:
    assert run(" && ".join(["x == 1"] * 2000)) is True


@pytest.mark.parametrize(
    ("expression", "cost"),
    [
        ("true", 0), ("x == 1", 2), ("self.n == 1", 3), ("has(self.n)", 1), ("self.l.all(i, i > 0)", 2 + 3 * 5 + 1),
        ("[1, 2]", 10), ("{'a': 1}", 30), ("self.s.contains('ll')", 3), ("'x'.size() == 1", 2),
        ("self.l.map(i, i)", 2 + 10 + 3 * 13 + 1),
    ],
)  # fmt: skip
def test_costs_are_counted_as_upstream_counts(expression: str, cost: int) -> None:
    budget = Budget()
    run(expression, budget)
    assert REQUEST_LIMIT - budget.left == cost


def test_a_program_ends_at_its_limit_and_at_the_budget_of_all() -> None:
    program = compile_cel("o.all(a, o.all(b, o.all(c, a + b + c >= 0)))", VARIABLES)
    many = {"o": list(range(200))}
    budget = Budget()
    with pytest.raises(OutOfBudgetError) as ended:
        program.run(many, budget)
    assert str(ended.value) == "operation cancelled: actual cost limit exceeded" and ended.value.per_call
    assert REQUEST_LIMIT - budget.left <= 1_000_100
    with pytest.raises(OutOfBudgetError) as spent:
        program.run(many, Budget(left=500))
    assert not spent.value.per_call


def test_what_takes_longer_than_a_turn_says_so() -> None:
    program = compile_cel("o.all(a, o.all(b, a + b >= 0))", VARIABLES)
    with pytest.raises(TooLongError):
        program.run({"o": list(range(200))}, Budget.of_one_turn())
    turn = Budget.of_one_turn()
    assert compile_cel("x == 1", VARIABLES).run(VALUES, turn) is True
    assert turn.turn < Budget.of_one_turn().turn


def test_objects_and_patches_are_made_where_that_is_allowed() -> None:
    def made(expression: str) -> Any:
        return compile_cel(expression, VARIABLES, mutating=True).run(VALUES, Budget())

    built = made(
        "Object{metadata: Object.metadata{labels: {'a': 'b'}}, spec: Object.spec{n: x + 1, ?z: optional.none()}}"
    )
    assert to_json(built) == {"metadata": {"labels": {"a": "b"}}, "spec": {"n": 2}}
    patch = made("[JSONPatch{op: 'add', path: '/a/' + jsonpatch.escapeKey('x/y~z'), value: [1]}]")
    assert to_patch(patch) == [{"op": "add", "path": "/a/x~1y~0z", "value": [1]}]
    with pytest.raises(CelError, match="undefined field 'nope'"):
        made("JSONPatch{nope: 1}")
    with pytest.raises(CelError, match="expected type of field 'op' is 'string' but provided type is 'int'"):
        made("JSONPatch{op: 1}")


# --- values with a schema -----------------------------------------------------------------------------------------------

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "when": {"type": "string", "format": "date-time"},
        "long": {"type": "string", "format": "duration"},
        "raw": {"type": "string", "format": "byte"},
        "ratio": {"type": "number"},
        "any": {"x-kubernetes-int-or-string": True},
        "a-b/c.d": {"type": "integer"},
        "namespace": {"type": "string"},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "map": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer"}}},
        },
        "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "maps": {
            "type": "object",
            "additionalProperties": {"type": "object", "properties": {"n": {"type": "integer"}}},
        },
    },
}
OBJECT: dict[str, Any] = {
    "when": "2020-01-01T00:00:00Z", "long": "1h", "raw": "YWJj", "ratio": 2, "any": "50%", "a-b/c.d": 7, "namespace": "ns",
    "set": ["a", "b"], "map": [{"k": "x", "v": 1}, {"k": "y", "v": 2}], "open": {"secret": 1}, "maps": {"p": {"n": 4}},
}  # fmt: skip


def schemed(expression: str) -> Any:
    kind = declared(SCHEMA)
    assert kind is not None
    return compile_cel(expression, {"self": kind}).run({"self": wrapper(SCHEMA)(OBJECT)}, Budget())


@pytest.mark.parametrize(
    "expression",
    [
        "self.when.getFullYear() == 2020 && self.long == duration('60m') && self.raw == b'abc'",
        "type(self.ratio) == double && self.ratio == 2.0",
        "type(self.any) == string && self.any.endsWith('%')",
        "self.a__dash__b__slash__c__dot__d == 7 && self.__namespace__ == 'ns'",
        "self.set == ['b', 'a'] && self.set + ['b', 'c'] == ['a', 'b', 'c']",
        "self.map == self.map && self.map.exists(e, e.k == 'y' && e.v == 2) && self.map[0].v == 1",
        "self.maps.p.n == 4 && self.maps.all(k, self.maps[k].n > 3) && !has(self.maps.q)",
    ],
)
def test_values_are_typed_by_their_schema(expression: str) -> None:
    assert schemed(expression) is True


def test_what_a_schema_does_not_describe_cannot_be_named() -> None:
    with pytest.raises(CelError, match="undefined field 'secret'"):
        schemed("self.open.secret == 1")


@pytest.mark.parametrize(
    ("name", "escaped"),
    [("a", "a"), ("a-b", "a__dash__b"), ("a__b", "a__underscores__b"), ("if", "__if__"), ("true", "__true__"),
     ("1a", None), ("a b", None), ("", None)],
)  # fmt: skip
def test_names_of_fields_are_escaped(name: str, escaped: str | None) -> None:
    assert escape(name) == escaped


@pytest.mark.parametrize(
    "rule",
    [
        "self.all(x, x.startsWith('a'))", "self.exists(x, x == 'abc')", "self.map(x, x + x).all(y, y.size() > 0)",
        "self.filter(x, x > 'a').size() >= 0", "self.all(x, self.exists(y, x == y))", "self.isSorted() || true",
        "self.join(',').contains('b')", "self.all(x, x.matches('^[a-z]*$'))", "sets.contains(self, ['a'])",
        "self.transformList(i, v, v).size() > 0", "self.sort().size() > 0", "self.all(x, x.split('').size() >= 0)",
    ],
)  # fmt: skip
def test_the_estimate_is_never_below_what_it_costs(rule: str) -> None:
    kind = declared({"type": "array", "maxItems": 8, "items": {"type": "string", "maxLength": 5}})
    assert kind is not None
    program = compile_cel(rule, {"self": kind})
    budget = Budget()
    program.run({"self": ["aaaaa"] * 8}, budget)
    assert REQUEST_LIMIT - budget.left <= max_cost(program, {"self": kind}) < 10_000_000


# --- laws ---------------------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=8,
)


@given(JSON, JSON)
def test_equality_is_symmetric_and_reflexive(a: Any, b: Any) -> None:
    meter = Meter(10**9, 10**9)
    assert equal(a, a, meter)
    assert equal(a, b, meter) is equal(b, a, meter)


@given(st.text(max_size=40))
def test_any_text_compiles_or_is_refused(text: str) -> None:
    try:
        compile_cel(text, VARIABLES)
    except CelError as refused:
        assert str(refused).startswith("ERROR: <input>:")


ATOMS = ("x", "self", "self.l", "'a'", "1", "o", "[1]", "true", "{'a': 1}", "null", "1.5", "b'x'", "2u")
TEMPLATES = (
    "({0} + {1})", "({0} == {1})", "({0} && {1})", "{0}.all(v, {1})", "{0}.map(v, {1})", "{0}[{1}]", "size({0})", "-{0}",
    "{0} in {1}", "({0} ? {1} : {0})", "{0}.?a.orValue({1})", "string({0})", "{0}.exists(k, v, {1})",
)  # fmt: skip


@given(st.recursive(st.sampled_from(ATOMS), lambda inner: st.builds(
    lambda form, a, b: form.format(a, b), st.sampled_from(TEMPLATES), inner, inner), max_leaves=6))  # fmt: skip
def test_any_expression_gives_a_value_or_an_error(expression: str) -> None:
    try:
        found = compile_cel(expression, VARIABLES).run(VALUES, Budget())
    except CelError:
        return
    iterate(found)
