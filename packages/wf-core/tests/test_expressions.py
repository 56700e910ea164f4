"""Expressions and templates."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import threading
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wf_core.errors import DocumentError, ExpressionError
from wf_core.expressions import (
    Scope,
    compile_expression,
    compile_template,
    scan_expression,
    scan_template,
)
from wf_core.expressions.cel import MOST_ITEMS, MOST_STEPS, Program, _library
from wf_core.expressions.scan import DEEPEST, LONGEST, quick_fields, scan
from wf_core.expressions.tokens import string_value
from wf_core.expressions.values import follow
from wf_core.states import NodeStatus

BIG = 2**80
SCOPE = Scope(
    input={
        "day": "2026-01-01",
        "n": 3,
        "big": BIG,
        "list": [1, 2, 3],
        "map": {"b": 1, "a": 2},
        "a b": True,
        "none": None,
    },
    nodes={
        "x": {"output": {"rows": [{"q": 1}, {"q": 5}]}, "status": NodeStatus.COMPLETED, "error": None},
        "a-b": {"output": "dash", "status": "SKIPPED", "error": {"type": "E"}},
    },
    execution={"id": "e1"},
)


def value(text, scope=SCOPE):
    return compile_expression(text, "/when").evaluate(scope)


def problems(text):
    with pytest.raises(DocumentError) as caught:
        compile_expression(text, "/p")
    assert {(p.pointer, p.code) for p in caught.value.problems} == {("/p", "bad_expression")}
    return " | ".join(p.detail for p in caught.value.problems)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("input.n + 1", 4),
        ("${{ input.n + 1 }}", 4),
        ("  input.n > 2 ? 'many' : 'few'\n", "many"),
        ('nodes["a-b"].output + "!"', "dash!"),
        ("nodes.x.status == 'COMPLETED'", True),
        ("size(nodes.x.output.rows)", 2),
        ("has(input.q) ? 1 : 2", 2),
        ("execution.id == 'e1'", True),
        ("input.list.map(i, i * 2)", [2, 4, 6]),
        ("input.list.map(i, i > 1, i * 10)", [20, 30]),
        ("input.list.filter(i, i != 2)", [1, 3]),
        ("nodes.x.output.rows.filter(r, r.q > 2).map(r, r.q)", [5]),
        ("input.list.map(i, input.list.map(j, i * j))", [[1, 2, 3], [2, 4, 6], [3, 6, 9]]),
        ("input.list.map(i, input.list.filter(i, i > 2))", [[3], [3], [3]]),
        ("input.list.all(i, i > 0) && input.list.exists(i, i == 2)", True),
        ("input.list.exists_one(i, i == 2)", True),
        ("input.map.map(k, k)", ["a", "b"]),
        ("[].map(i, i)", []),
        ("size(input.list.filter(i, i > 1 // a ) in a comment\n))", 2),
        ("['}}', \"{{\"].map(s, s + '${{')", ["}}${{", "{{${{"]),
    ],
)
def test_cel(text, expected):
    """An expression is CEL over input, nodes and execution."""
    assert value(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("input.big", BIG),
        ("input['a b']", True),
        ("input.list[1]", 2),
        ("nodes.x.output.rows[1].q", 5),
        ("nodes['a-b'].error.type", "E"),
        ("input.none", None),
        ("execution", {"id": "e1"}),
    ],
)
def test_a_plain_path_hands_its_value_on_untouched(text, expected):
    """A path needs no CEL: integers of any size stay what they are."""
    assert value(text) == expected
    assert compile_expression(text, "").path is not None


def test_a_path_gives_the_very_object():
    """Nothing is copied on the way."""
    assert value("input.map") is SCOPE.input["map"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("timestamp('2026-01-01T01:00:00+01:00')", "2026-01-01T00:00:00Z"),
        ("[timestamp('2026-01-01T00:00:00.25Z')]", ["2026-01-01T00:00:00.250000Z"]),
        ("duration('1h30m')", "5400s"),
        ("duration('1500ms')", "1.5s"),
        ("duration('-1500ms')", "-1.5s"),
        ("b'abc'", "YWJj"),
        ("7u", 7),
        ("{'b': 1, 'a': {'d': 2, 'c': 3}}", {"a": {"c": 3, "d": 2}, "b": 1}),
    ],
)
def test_results_become_json(text, expected):
    """Times come out as RFC 3339, durations in seconds, bytes in base64."""
    assert value(text) == expected


def test_maps_come_out_in_order():
    """CEL's maps have a random order; what comes out is sorted, so that a replay gives the same bytes."""
    assert list(value("{'c': 1, 'a': 2, 'b': 3}")) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("input.q", "input (an object) has no key 'q'"),
        ("input.list[7]", "input.list (a list of 3) has no item 7"),
        ("input.n.m", "input.n (a number) has no key 'm'"),
        ("nodes.x.output.nope", "nodes.x.output (an object) has no key 'nope'"),
        ("nodes.gone.output", "nodes (an object) has no key 'gone'"),
        ("input.q + 1", "there is no key 'q'"),
        ("1 / (input.n - 3)", "division by zero"),
        ("9223372036854775807 + input.n", "overflow"),
        ("input.n + 1.5", "no operation `int + double`; CEL never mixes int and double by itself"),
        ("null > 10", "no operation `null > int`; where a value may be null, test it first: `x != null && …`"),
        ("input.day > 10", "no operation `string > int`; convert one of them with int(x)"),
        ("input.day + 1", "no operation `string + int`; convert one of them with int(x)"),
        ("input.n * (1.5 + 1)", "no operation `double + int`; CEL never mixes int and double"),
        ("[1] + input.n", "no operation `list + int`"),
        ("input.n > 2 && (input.none - 1 >= -input.n)", "no operation `null - int`"),
        ("input.n > 2 && 'x'", "no operation `bool && string`"),
        ("!input.n", "no operation `!int`"),
        ("(input.none > 1) ? 1 : 2", "no operation `null > int`"),
        ("'a' in input.n", "no operation `string in int`; `in` looks into a list or the keys of a map"),
        ("1.5 in 3", "no operation `double in int`; `in` looks into a list or the keys of a map"),
        ("null in 3", "no operation `null in int`; `in` looks into"),
        ("1 in input.none", "no operation `int in null`; where a value may be null, test it first"),
        (
            "'a' in 'abc'",
            "no operation `string in string`; `in` looks into a list or the keys of a map; for text",
        ),
        ("size(input.none)", "there is no size() for a value of this type; where it may be null, test it first"),
        ("input.n.startsWith('a')", "there is no startsWith() for a value of this type"),
        ("input.n > 1 ? input.none > 1 : false", "not there for values of these types"),
        ("input.list.exists(i, i > input.none)", "not there for values of these types"),
        ("1u + 1", "Cannot mix signed and unsigned"),
        ("input.list[9] + 1", "out of bounds"),
        ("1.0 / 0.0", "inf"),
        ("timestamp('0001-01-01T00:00:00+14:00')", "out of range"),
        ("0.0 / 0.0", "nan"),
        ("{1: 2}", "JSON keys are text"),
        ("'a'.matches('(')", "regex"),
        ("timestamp('soon')", "timestamp"),
        ("input.list.map(i, 1 / (i - 2))", "division by zero"),
    ],
)
def test_a_failed_evaluation_names_the_expression_and_its_place(text, reason):
    """A failed evaluation says what failed, where it stands, and why."""
    with pytest.raises(ExpressionError) as caught:
        value(text)
    assert (caught.value.expression, caught.value.pointer) == (text, "/when")
    assert reason.lower() in caught.value.reason.lower()


def test_a_condition_must_be_a_boolean():
    """`when` gives true or false, nothing else."""
    assert compile_expression("input.n == 3", "").holds(SCOPE)
    with pytest.raises(ExpressionError, match=r"this gives a list of 3"):
        compile_expression("input.list", "").holds(SCOPE)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "the expression ends too early (column 1)"),
        ("1 +", "the expression ends too early (column 4)"),
        ("a b", "unexpected 'b' (column 3)"),
        ("'abc", "there is no such token"),
        ("input.n >\n  @", "(line 2, column 3)"),
        ("99999999999999999999", "invalid int literal"),
        ("upper('x')", "there is no function upper()"),
        ("sise(input.list)", "did you mean size()?"),
        ("input.list.mapp(i, i)", "did you mean map()?"),
        ("map(input.list, 1)", "list.map(x, …)"),
        ("Point{x: 1}", "makes a message"),
        (".input.n", "leading dot"),
        ("nodes", "id of a node written out"),
        ("nodes[input.day].output", "computed key"),
        ("nodes.x", "output, status and error"),
        ("nodes.x.outptu", "not 'outptu'"),
        ("input.list.map(nodes, 1)", "that name is taken"),
        ("input.list.map(__x, 1)", "that name is taken"),
        ("[1].map(a, [1].map(b, [1].map(c, 1)))", "inside 2 other comprehensions"),
        ("(" * (DEEPEST + 1) + "1" + ")" * (DEEPEST + 1), "brackets are 41 deep"),
        ("1" + "+1" * LONGEST, "characters long"),
    ],
)
def test_what_does_not_compile(text, sentence):
    """An expression that does not compile is a problem in a sentence, with its place in the text."""
    detail = problems(text)
    assert sentence in detail
    assert len(detail) < 400


@pytest.mark.parametrize(
    ("text", "references", "names"),
    [
        ("nodes.x.output", {"x"}, set()),
        ('nodes["a-b"].output.c + nodes.y.status', {"a-b", "y"}, set()),
        ("nodes['it\\'s \\u0041'].output", {"it's A"}, set()),
        ("nodes /* */ .x", None, None),
        ("'nodes.x.output' + input.y", set(), {"input"}),
        ("r'\\' + nodes.x.output // nodes.z.output", {"x"}, set()),
        ("'''nodes.q''' + nodes.x.error.type", {"x"}, set()),
        ("input.nodes.y.output == 1", set(), {"input"}),
        ("input . nodes . y", set(), {"input"}),
        ("nodes . x . output", {"x"}, set()),
        ("nodes['x']['output'][0]", {"x"}, set()),
        ("{'nodes': nodes.x.output}", {"x"}, set()),
        ("input.l.map(v, v + nodes.x.output)", {"x"}, {"input"}),
        ("foo + v + input.l.map(v, v)[0]", set(), {"foo", "v", "input"}),
        ("true && null == execution.id", set(), {"execution"}),
    ],
)
def test_references(text, references, names):
    """`references` are the nodes that an expression names, found by its tokens: not in strings, comments or fields."""
    found = scan(text)
    if references is None:
        assert found.problems
        return
    assert not found.problems
    assert {node for node, _ in found.fields} == references
    assert found.names == names


def test_values_are_the_references_that_read_more_than_a_status():
    """A node whose status alone is read need not keep its output."""
    expression = compile_expression("nodes.a.status == 'FAILED' && nodes.b.error == null", "")
    assert expression.references == {"a", "b"}
    assert expression.values == {"b"}


PIECES = st.sampled_from(
    [
        "nodes.x.output",
        "nodes.y.status",
        "nodes['z'].error",
        "input.n",
        "execution.id",
        "input.nodes.q.output",
        "'nodes.s.output'",
        "size(nodes.w.output)",
        "1",
        "true",
    ]
)


@given(st.lists(PIECES, min_size=1, max_size=5), st.sampled_from([" + ", " ? 1 : ", "&&", ","]))
def test_the_quick_reading_agrees_with_the_full_one(pieces, glue):
    """Loading a plan finds by a short cut the very references that validation found."""
    text = f"[{glue.join(pieces)}]".removeprefix("[").removesuffix("]")
    found = scan(text)
    quick = quick_fields(text)
    assert quick is None or quick == tuple(sorted(found.fields))
    if not found.problems:
        assert set(scan_expression(text, "").fields) == found.fields


BODIES = st.sampled_from(["i", "i * 2", "i + input.k", "[i]", "{'v': i}", "i / 2", "10 / i", "'s'", "string(i)"])
PREDICATES = st.sampled_from(["i > 2", "i == 2", "true", "10 / i > 3", "i in input.l"])
NESTED = st.sampled_from(
    ["input.l.map(j, j + i)", "input.l.filter(j, j > i)", "input.l.exists(j, j == i)", "[i, i].map(i, i + 1)"]
)
RECEIVERS = st.sampled_from(["input.l", "[3, 1, 2]", "(input.l + [7])", "input.l.filter(q, q > 1)", "{'l': [1]}.l"])


@given(st.lists(st.integers(-3, 5), max_size=6), RECEIVERS, st.one_of(BODIES, NESTED), PREDICATES)
def test_limits_change_no_result(items, receiver, body, predicate):
    """A comprehension that is counted gives what the library gives for the text as written, paths read ahead or not."""
    for text in (
        f"{receiver}.map(i, {body})",
        f"{receiver}.map(i, {predicate}, {body})",
        f"{receiver}.filter(i, {predicate})",
        f"{receiver}.all(i, {predicate})",
        f"{receiver}.exists(i, {predicate})",
        f"{receiver}.exists_one(i, {predicate})",
    ):
        variables = {"input": {"l": items, "k": 2}}
        program, scope = Program(text, scan(text)), Scope(variables["input"], {}, {})
        forms = [partial(program.run, variables)]
        if program.paths:
            read = {name: follow(path, scope) for name, path in program.paths.items()}
            forms.append(partial(program.run_direct, read if program.is_direct else variables | read))
        try:
            expected = _library().compile(text).execute(variables)
        except Exception:  # noqa: BLE001 - whatever the library refuses
            for run in forms:
                with pytest.raises(ValueError, match=r"."):
                    run()
        else:
            assert [run() for run in forms] == [expected] * len(forms)


@pytest.mark.parametrize(
    ("text", "paths", "is_direct"),
    [
        ("nodes.x.output.rows.map(r, r.q in nodes.x.output.rows[0].ids)", 2, True),
        ("input.list.map(i, size(input.list))", 2, True),
        ("input.list.filter(i, has(input.q) && i > input.n)", 2, False),
        ("input.list.map(i, input.n > 1 || i > input.q.r)", 3, True),
        ("input['list'].map(n, input.day.startsWith('2') ? n : input.n)", 3, True),
        ("[1, 2].map(i, i + size(input))", 0, False),
    ],
)
def test_paths_in_comprehensions_are_read_once(text, paths, is_direct):
    """They become variables: CEL copies all that lies under a key each time that it follows one."""
    program = Program(text, scan(text))
    assert (len(program.paths), program.is_direct) == (paths, is_direct)


def test_a_path_that_leads_nowhere_matters_only_when_it_is_reached():
    """It is not read ahead then, so that CEL decides."""
    assert value("input.list.map(i, input.n > 1 || i > input.q.r)") == [True] * 3
    with pytest.raises(ExpressionError, match="there is no key 'q'"):
        value("input.list.map(i, input.n > 5 || i > input.q.r)")


def test_a_comprehension_has_a_limit():
    """A comprehension goes over 10,000 items, and takes time in proportion."""
    scope = Scope({"l": list(range(MOST_ITEMS))}, {}, {})
    assert len(value("input.l.map(i, i + 1).filter(i, i > 5)", scope)) == MOST_ITEMS - 5
    scope.input["l"].append(0)
    with pytest.raises(ExpressionError, match="10,001 items; the limit is"):
        value("input.l.map(i, i)", scope)


def test_comprehensions_inside_each_other_have_a_limit():
    """All comprehensions of one evaluation together have a limit on steps and one on what they copy."""
    scope = Scope({"l": list(range(1000)), "text": "x" * 100_000}, {}, {})
    with pytest.raises(ExpressionError, match=rf"{MOST_STEPS:,} items in all"):
        value("input.l.all(i, input.l.all(j, true))", scope)
    with pytest.raises(ExpressionError, match="copy more than"):
        value("input.l.map(i, input.text + 'y')", scope)


def test_the_largest_expressions_fit_the_stack_of_a_thread():
    """No expression within the limits overflows the stack of a thread."""
    texts = [
        "1" + "+1" * 1990,
        "!" * 3990 + "true",
        "input" + ".a" * 1990,
        "input" + "[0]" * 1300,
        "[" * DEEPEST + "1" + "]" * DEEPEST,
        "(" * DEEPEST + "1" + ")" * DEEPEST,
        "false ? 1 : " * 330 + "1",
        "true" + " && true" * 490,
    ]
    ended = []

    def run():
        for text in texts:
            with contextlib.suppress(DocumentError, ExpressionError):
                compile_expression(text, "").evaluate(SCOPE)
            ended.append(text)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    assert ended == texts


def test_the_library_is_loaded_late_and_alone():
    """Importing expressions loads no CEL, and the first CEL expression loads no command line."""
    program = (
        "import sys; from wf_core.expressions import Scope, compile_expression as c;"
        "c('input.x', '').evaluate(Scope({'x': 1}, {}, {})); assert 'cel.cel' not in sys.modules;"
        "c('1 + 1', ''); assert 'cel.cel' in sys.modules; assert not {'typer', 'rich', 'cel.cli'} & set(sys.modules);"
        "import cel; assert cel.evaluate('1 + 1') == 2"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def render(template, scope=SCOPE):
    return compile_template(template, "/params").render(scope)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("${{ input.list }}", [1, 2, 3]),
        ("${{input.big}}", BIG),
        ("n=${{ input.n }} day=${{ input.day }}", "n=3 day=2026-01-01"),
        ("${{ input.list }}${{ input.none }}", "[1,2,3]null"),
        (" ${{ input.n }}", " 3"),
        ("$${{ input.n }}", "${{ input.n }}"),
        ("cost $${{ ${{ input.n }} }}", "cost ${{ 3 }}"),
        ("${{ {'a': {'b': '}}'}} }}", {"a": {"b": "}}"}}),
        ('x${{ nodes["a-b"].output }}y', "xdashy"),
        ("${{ {input.day: input.n} }}", {"2026-01-01": 3}),
        ({"a": ["${{ input.n }}", {"b": "v${{ input.n }}"}], "c": 1.5}, {"a": [3, {"b": "v3"}], "c": 1.5}),
        ("plain $ {{ text }}", "plain $ {{ text }}"),
        ("größe ${{ 'ü' + '😀' }}", "größe ü😀"),
        ([], []),
    ],
)
def test_templates(template, expected):
    """A whole template keeps the JSON type; inside text a string stays and the rest becomes compact JSON."""
    assert render(template) == expected


def test_a_template_knows_what_it_names():
    """A template's references are those of all its expressions."""
    template = compile_template(
        {"a": "${{ nodes.x.output }} ${{ input.n }}", "b": ["${{ nodes.y.status }}"]}, "/params"
    )
    assert (template.references, template.values, template.names) == ({"x", "y"}, {"x"}, {"input"})
    assert not template.is_constant


def test_a_constant_is_encoded_once():
    """A template without expressions is a constant, and its JSON is made once."""
    template = compile_template({"a": [1, "$${{ x }}"], "b": BIG}, "/params")
    assert template.is_constant
    assert template.constant_json == b'{"a":[1,"${{ x }}"],"b":%d}' % BIG
    assert template.constant_json is template.constant_json
    with pytest.raises(ValueError, match="no constant"):
        _ = compile_template("${{ input.n }}", "/p").constant_json


def test_all_problems_of_a_template_are_reported():
    """Every expression of a template is compiled, and every problem has its pointer."""
    with pytest.raises(DocumentError) as caught:
        compile_template({"a/b": ["${{ 1 + }}", "${{ open"], "c": "x ${{ nodes }} ${{ foo( }}"}, "/params")
    assert [p.pointer for p in caught.value.problems] == ["/params/a~1b/0", "/params/a~1b/1", "/params/c", "/params/c"]
    assert "no closing }}" in caught.value.problems[1].detail


@pytest.mark.parametrize("key", ["${{ input.n }}", "n=${{ input.n }}", "$${{ x"])
def test_a_key_is_no_template(key):
    """A key would stay as it is, so one that looks like a template is refused and the remedy named."""
    with pytest.raises(DocumentError) as caught:
        compile_template({"a": [{key: 1}]}, "/params")
    (problem,) = caught.value.problems
    assert (problem.pointer, problem.code) == (f"/params/a/0/{key}", "bad_key")
    assert "`${{ {input.name: 1} }}`" in problem.detail


@pytest.mark.parametrize("bad", [float("nan"), {"a": {1, 2}}, "\ud800"])
def test_a_template_is_json(bad):
    """A value that is no JSON is no template."""
    with pytest.raises(DocumentError, match=re.escape("/p: ")):
        compile_template(bad, "/p")


def test_a_failing_template_names_its_place():
    """The error of a template points to the string in the document."""
    with pytest.raises(ExpressionError) as caught:
        compile_template({"a": [1, "x${{ input.q }}"]}, "/nodes/n/params").render(SCOPE)
    assert caught.value.pointer == "/nodes/n/params/a/1"


KEYS = st.text().filter(lambda key: "${{" not in key)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_a_value_travels_through_a_template(json_value):
    """Any JSON value comes out of a whole template as it went in, and so does a literal with `${{` escaped."""
    scope = Scope({"v": json_value}, {}, {})
    assert render({"v": "${{ input.v }}"}, scope) == {"v": json_value}
    assert render(_escaped(json_value), scope) == json_value
    assert scan_template(_escaped(json_value), "/p").render(scope) == json_value


def _escaped(json_value):
    if isinstance(json_value, str):
        return json_value.replace("${{", "$${{")
    if isinstance(json_value, list):
        return [_escaped(item) for item in json_value]
    if isinstance(json_value, dict):
        return {key: _escaped(item) for key, item in json_value.items()}
    return json_value


@given(st.text(alphabet="abcn\\'\"{}xu0041 é", max_size=12))
def test_a_string_literal_is_read_as_cel_reads_it(text):
    """The tokenizer gives the ids in `nodes["…"]` as CEL would."""
    literal = f'"{text}"'
    try:
        expected = _library().compile(literal).execute({})
    except ValueError:
        return
    if isinstance(expected, str) and scan(literal).tokens[0].text == literal:
        assert string_value(literal) == expected


def test_names_that_only_some_places_give():
    """A map's item and its like are names beside input, nodes and execution; a plain path hands them on untouched."""
    scope = Scope({}, {}, {}, extra={"order": {"id": BIG, "a b": [1]}, "index": 3})
    assert value("order.id", scope) == BIG
    assert value('order["a b"][0]', scope) == 1
    assert value("index + size(order['a b'])", scope) == 4
    assert value("[1, 2].map(order, order + 1)", scope) == [2, 3], "the variable of a comprehension hides it"
    for text, names in (("order.id", {"order"}), ("index + last.x", {"index", "last"}), ("true", set())):
        assert compile_expression(text, "").names == scan_expression(text, "").names == names
    with pytest.raises(ExpressionError, match="no name 'item'; known are input, nodes, execution, order and index"):
        value("item", scope)


@pytest.mark.parametrize(
    "source",
    [
        {},
        {"a": 1, "b": ["plain", None, 2.5]},
        {"a": "${{ nodes.x.output }}", "b": ["<${{ input.n }}> $${{ no }}", {"c": "$$${{ no }}", "d": "$${{"}]},
        {"é": "${{ {'b': 1}.b + size(nodes['x'].output) }}"},
    ],
)
def test_the_source_of_a_template_makes_the_same_template(source):
    """As it travels with a task message: what it names, and the template that a worker makes of it, are the same."""
    template = scan_template(source, "/p")
    again = scan_template(json.loads(template.source_json), "/p")
    assert (again, again.references, again.names) == (template, template.references, template.names)
    assert again.source_json == template.source_json
