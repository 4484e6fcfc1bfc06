"""Change one thing at a time, and see whether a test notices.

From the root of a checkout, with the package's `test` extra, cosmic-ray and pytest-cov:

    python .ci/mutation/run.py map           # which test runs which line: once
    python .ci/mutation/run.py test -n 300   # the first 300 of a seed's sequence
    python .ci/mutation/run.py report -n 300 # share, interval, survivors

cosmic-ray says what can be changed; here it is drawn (first a place, then what becomes
of it), put into a copy of the tree and given to the tests that run its line, until one
fails: first those of its own folder. `test` goes on where it was interrupted. After new
tests, `map --tests TEST ...` adds them to the map, and `test --again` tries those that
survived once more. `test --only FILE:LINE ...` tries all changes of a line.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import json
import math
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import warnings
from collections import defaultdict
from itertools import accumulate, islice
from pathlib import Path
from typing import NamedTuple

import parso
import tomllib
from cosmic_ray import plugins
from cosmic_ray.mutating import mutate_code

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
CONFIG = tomllib.loads((HERE / "config.toml").read_text())
EQUIVALENT = tomllib.loads((HERE / "equivalent.toml").read_text())["equivalent"]
#: What arithmetic becomes: more would only be TypeErrors, which any test notices.
ARITHMETIC, BITS = {"Add", "Sub", "Mul", "Div"}, {"BitAnd", "BitOr"}
#: Nothing is changed inside these: annotations, and what only words depend on.
SPARED = {"annassign", "tfpdef", "param_annotation", "raise_stmt", "fstring"}
SPARED_CALLS = ("warn(", "_LOG.", "warnings.")


class Mutant(NamedTuple):
    file: str
    line: int
    column: int
    operator: str
    occurrence: int

    def __str__(self):
        return f"{self.file}:{self.line}:{self.column} {self.operator}"


class Constant:
    """Make a constant of the module ten times as large, or as small.

    A count that is larger by one is a matter of taste, which no test should fix.
    """

    def mutation_positions(self, node):
        if node.type == "number" and in_constant(node):
            yield (node.start_pos, node.end_pos)
            yield (node.start_pos, node.end_pos)

    def mutate(self, node, index):
        value = ast.literal_eval(node.value)
        changed = value / 10 if index else value * 10
        if isinstance(value, int):
            changed = int(changed) if index or value else 10
            changed = changed + 1 if changed == value else changed
        return type(node)(f" {changed}", node.start_pos)


OPERATORS = {"Constant": Constant()}
#: Seconds of tests that are tried before all others are collected.
_FIRST_PART = 5.0


def operators():
    """Return cosmic-ray's operators that make sense here, and our own."""
    for name in plugins.operator_names():
        short = name.removeprefix("core/")
        if short.startswith("Variable") or short == "NoOp":
            continue  # they need arguments
        if short.startswith("ReplaceBinaryOperator"):
            before, after = short.split("_")[1:]
            same = [kind for kind in (ARITHMETIC, BITS) if after in kind]
            if not same or (before in BITS | {"BitXor"}) != (after in BITS):
                continue
        if "_Is" in short and not short.endswith(("Is_IsNot", "IsNot_Is")):
            continue
        OPERATORS.setdefault(short, plugins.get_operator(name)())
    return OPERATORS


def in_constant(node):
    """Say whether a node is in an assignment outside of all functions and classes."""
    inside = node.search_ancestor("funcdef", "classdef", "lambdef")
    return inside is None and node.search_ancestor("expr_stmt") is not None


def spared(leaf):
    """Say whether a place is an annotation, a message, or an import for these."""
    node = leaf
    while node.parent is not None:
        parent = node.parent
        place = parent.children.index(node)
        # Of `x: int = 1`, only the value is changed.
        if parent.type in SPARED and (parent.type != "annassign" or place < 2):
            return True
        if parent.type == "funcdef" and parent.children[place - 1] == "->":
            return True
        if (
            parent.type == "if_stmt"
            and "TYPE_CHECKING" in parent.children[1].get_code()
        ):
            return True
        if node.type in ("power", "atom_expr") and node.get_code(
            include_prefix=False
        ).startswith(SPARED_CALLS):
            return True
        node = parent
    return False


def all_mutants():
    """Return the variants of every place, by place, in the order of the files."""
    places = defaultdict(list)
    for pattern in CONFIG["files"]:
        for path in sorted(ROOT.glob(pattern)):
            file = str(path.relative_to(ROOT))
            tree = parso.parse(path.read_text())
            counts = defaultdict(int)
            for node in walk(tree):
                for name, operator in operators().items():
                    for (line, column), _ in operator.mutation_positions(node):
                        mutant = Mutant(file, line, column, name, counts[name])
                        counts[name] += 1
                        leaf = tree.get_leaf_for_position((line, column)) or node
                        if spared(leaf) or (
                            name == "NumberReplacer" and in_constant(node)
                        ):
                            continue
                        places[mutant[:3]].append(mutant)
    return places


def walk(node):
    """Go through a tree in cosmic-ray's order, which numbers the occurrences."""
    yield node
    for child in getattr(node, "children", ()):
        yield from walk(child)


def drawn(seed):
    """Yield all places in random order, with one change of each."""
    places = sorted(all_mutants().items())
    choose = random.Random(seed)
    choose.shuffle(places)
    for _, variants in places:
        choose.shuffle(variants)
        for mutant in variants:
            if is_code(mutant) and compiles(mutated(mutant)):
                yield mutant
                break


def is_code(mutant):
    """Say no to the star of a signature, which cosmic-ray takes for a product."""
    line = (ROOT / mutant.file).read_text().splitlines()[mutant.line - 1]
    return line[mutant.column : mutant.column + 2] != "*,"


def compiles(source):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        try:
            compile(source, "", "exec")
        except SyntaxError:
            return False
    return True


def mutated(mutant):
    source = (ROOT / mutant.file).read_text()
    operator = operators()[mutant.operator]
    return mutate_code(source, operator, mutant.occurrence)


def difference(mutant):
    """Return the line before and after."""
    before = (ROOT / mutant.file).read_text().splitlines()
    after = mutated(mutant).splitlines()
    for b, a in zip(before, after, strict=False):
        if a != b:
            return f"- {b.strip()}\n    + {a.strip()}"
    return "(nothing)"


# Which test runs which line ----------------------------------------


class Watch:
    """A pytest plugin that writes down how long each test took, in CPU time."""

    def __init__(self, path):
        self.path, self.began = path, {}

    def pytest_runtest_logstart(self, nodeid):
        self.began[nodeid] = time.process_time()

    def pytest_runtest_logfinish(self, nodeid):
        with self.path.open("a") as file:
            seconds = time.process_time() - self.began[nodeid]
            file.write(json.dumps([nodeid, seconds]) + "\n")


def copy_of_the_tree(work):
    tree = work / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    ignored = shutil.ignore_patterns(".git", "__pycache__", ".hypothesis", "_build")
    shutil.copytree(ROOT, tree, ignore=ignored)
    return tree


def make_map(work, tests):
    """Run tests, all by default, and write down lines, tests and times."""
    tree = copy_of_the_tree(work)
    if not tests:
        (work / "times.jsonl").unlink(missing_ok=True)
    (work / "cov.ini").write_text(
        f"[run]\nsource = curvdetect\ndata_file = {work / 'coverage.db'}\n"
    )
    environment = os.environ | {
        "PYTHONPATH": f"{tree}:{HERE}",
        "MUTATION_WORK": str(work),
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "run",
        "-p",
        "no:cacheprovider",
    ]
    command += ["--cov=curvdetect", "--cov-context=test", "--cov-report="]
    command += ["--cov-append"] if tests else []
    command += [f"--cov-config={work / 'cov.ini'}", *(tests or CONFIG["tests"])]
    subprocess.run(command, cwd=tree, env=environment, check=True)


def pytest_configure(config):
    """Be the plugin of :func:`make_map`."""
    config.pluginmanager.register(
        Watch(Path(os.environ["MUTATION_WORK"], "times.jsonl"))
    )


class Map:
    """Which tests run a line."""

    def __init__(self, work, most):
        self.seconds, self.most = {}, most
        for line in (work / "times.jsonl").read_text().splitlines():
            test, seconds = json.loads(line)
            self.seconds[test] = seconds
        self.tests = defaultdict(lambda: defaultdict(set))
        rows = sqlite3.connect(work / "coverage.db").execute(
            "select path, context, numbits from line_bits "
            "join file on file.id = file_id join context on context.id = context_id"
        )
        for path, context, bits in rows:
            file = path[path.rindex("/curvdetect/") + 1 :]
            test = context.rpartition("|")[0]
            for i, byte in enumerate(bits):
                for bit in range(8):
                    if byte >> bit & 1:
                        self.tests[file][8 * i + bit].add(test)

    def of(self, file, line):
        """Return the tests that may notice a change of a line, the fastest first."""
        tests = set()
        for at in lines_that_tell(ROOT / file, line):
            tests |= self.tests[file][at]
        if not tests & self.seconds.keys():
            tests = set().union(*self.tests[file].values())
        tests |= self._that_name(class_at(ROOT / file, line))
        tests &= self.seconds.keys()
        of_file = defaultdict(float)
        for test in tests:
            of_file[test.partition("::")[0]] += self.seconds[test]
        folder = Path(file).parent.name

        def order(test):
            where = test.partition("::")[0]
            apart = f"/{folder}/" not in where  # its own tests come first
            return apart, of_file[where], where, self.seconds[test]

        chosen, spent = [], 0.0
        for test in sorted(tests, key=order):
            if not chosen or spent + self.seconds[test] <= self.most:
                chosen.append(test)
                spent += self.seconds[test]
        return chosen

    def _that_name(self, name):
        """Return tests in files that name a class: making one may run no line of it."""
        files = {test.partition("::")[0] for test in self.seconds}
        those = {f for f in files if name and name in (ROOT / f).read_text()}
        return {test for test in self.seconds if test.partition("::")[0] in those}

    def in_parts(self, tests):
        """Split: most mutants die early, and to collect all tests takes time."""
        spent = accumulate(self.seconds[test] for test in tests)
        n_first = max(sum(s <= _FIRST_PART for s in spent), 1)
        return [part for part in (tests[:n_first], tests[n_first:]) if part]


def lines_that_tell(path, line):
    """Return the lines which a test must run to notice a change of this one.

    In the body of a function, those of the statement; of a signature, those of the
    function; in a class, all of it; of a constant, those that use it.
    """
    tree = ast.parse(path.read_text())
    around = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.stmt) and line in lines_of(node)
    ]
    innermost = min(around, key=lambda node: len(lines_of(node)))
    if any(is_function(node) and line >= node.body[0].lineno for node in around):
        body = getattr(innermost, "body", None)
        last = body[0].lineno - 1 if body else innermost.end_lineno
        return range(innermost.lineno, max(last, innermost.lineno) + 1)
    if is_function(innermost):
        return lines_of(innermost)
    classes = [node for node in around if isinstance(node, ast.ClassDef)]
    if classes:
        return lines_of(classes[0])
    names = {node.id for node in ast.walk(innermost) if isinstance(node, ast.Name)}
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and node.id in names
    ]


def class_at(path, line):
    """Return the name of the class to which a line outside of its methods belongs."""
    inside = [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) or is_function(node)
        if line in lines_of(node)
    ]
    if any(map(is_function, inside)) or not inside:
        return None
    return inside[0].name


def is_function(node):
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


def lines_of(node):
    decorators = getattr(node, "decorator_list", [])
    first = min([node.lineno, *(each.lineno for each in decorators)])
    return range(first, node.end_lineno + 1)


# Testing -----------------------------------------------------------


def judged(mutant, tree, of_lines):
    """Return what became of a mutant: (outcome, which test, seconds, tests)."""
    code = mutated(mutant)
    tests = of_lines.of(mutant.file, mutant.line)
    if not tests:
        return "no test", "", 0.0, 0
    path = tree / mutant.file
    path.write_text(code)
    shutil.rmtree(tree / ".hypothesis", ignore_errors=True)
    for compiled in path.parent.glob(f"__pycache__/{path.stem}.*"):
        compiled.unlink()  # as old and as large, it could be taken for this one
    times, seconds = CONFIG["time_limit"]
    began = time.monotonic()
    said = tree.parent / "said.txt"
    try:
        for part in of_lines.in_parts(tests):
            limit = times * sum(of_lines.seconds[test] for test in part) + seconds
            status = in_a_fork(lambda p=part, c=limit: run_tests(p, c), tree, said)
            if status:
                break
    finally:
        path.write_text((ROOT / mutant.file).read_text())
    took = time.monotonic() - began
    words = said.read_text(errors="replace")
    failed = [
        line for line in words.splitlines() if line.startswith(("FAILED", "ERROR"))
    ]
    if os.WIFSIGNALED(status):
        return f"killed by signal {os.WTERMSIG(status)}", "", took, len(tests)
    code = os.WEXITSTATUS(status)
    outcome = {0: "survived", 1: "killed", 2: "killed", 4: "killed"}.get(
        code, f"? {code}"
    )
    return outcome, failed[0][:200] if failed else "", took, len(tests)


def run_tests(tests, limit):
    import pytest
    from hypothesis.internal.conjecture.engine import ConjectureRunner

    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(limit), math.ceil(limit) + 5))
    # What fails need not be made simple.
    ConjectureRunner.shrink_interesting_examples = lambda self: None
    options = ["-x", "-q", "--tb=no", "-p", "no:cacheprovider", "-p", "no:cov"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # hypothesis is here
    return pytest.main([*options, *tests])


def in_a_fork(function, tree, said, writes=False):
    """Run something in a child that imports the package from a tree."""
    child = os.fork()
    if child == 0:
        code = 3
        try:
            os.setpgid(0, 0)
            out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(out, 1)
            os.dup2(out, 2)
            os.chdir(tree)
            os.environ["PYTHONPATH"] = str(tree)
            sys.path[:] = [str(tree)] + [
                p for p in sys.path if Path(p).resolve() not in (ROOT, HERE)
            ]
            sys.dont_write_bytecode = not writes
            code = int(function())
        except BaseException as error:
            print(repr(error), flush=True)
        finally:
            sys.stdout.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what it started
    return status


def test(work, seed, first, n, only, minutes, most, again):
    """Test mutants of the sequence, and write down what became of them."""
    ends = time.monotonic() + 60 * minutes
    chosen = islice(drawn(seed), first, first + n)
    if only:
        chosen = [m for v in all_mutants().values() for m in v]
        chosen = [m for m in chosen if f"{m.file}:{m.line}" in only]
    results = work / f"results-{seed}.jsonl"
    known = {} if only else dict(read(results))
    if again:
        known = {m: o for m, o in known.items() if is_dead(o) or reason(m)}
    of_lines = Map(work, most)
    tree = copy_of_the_tree(work)
    os.environ.setdefault("SCIPY_ARRAY_API", "1")  # as tests/conftest.py
    os.environ["OMP_NUM_THREADS"] = "1"  # threads do not survive a fork
    for name in CONFIG["imports"]:
        importlib.import_module(name)
    assert "curvdetect" not in sys.modules
    collect = lambda: run_tests(["--collect-only", *CONFIG["tests"]], 999)
    assert in_a_fork(collect, tree, work / "said.txt", writes=True) == 0
    for mutant in chosen:
        if mutant in known:
            continue
        if time.monotonic() > ends:
            break
        outcome = judged(mutant, tree, of_lines)
        with results.open("a") as file:
            file.write(json.dumps([mutant, outcome, difference(mutant)]) + "\n")
        print(mutant, *outcome, f"\n    {difference(mutant)}", flush=True)


def is_dead(outcome):
    return outcome[0].startswith("killed")


def read(results):
    if results.exists():
        for line in results.read_text().splitlines():
            mutant, outcome, _ = json.loads(line)
            yield Mutant(*mutant), outcome


def report(work, seed, first, n):
    chosen = set(islice(drawn(seed), first, first + n))
    outcomes = {m: o for m, o in read(work / f"results-{seed}.jsonl") if m in chosen}
    alive = [m for m, outcome in outcomes.items() if not is_dead(outcome)]
    n_equivalent = 0
    for mutant in sorted(alive):
        change = difference(mutant)
        why = reason(mutant)
        n_equivalent += why is not None
        print(mutant, outcomes[mutant][0], f"\n    {change}")
        if why is not None:
            print(f"    equivalent: {why}")
    total, dead = len(outcomes), len(outcomes) - len(alive)
    print(f"killed: {share(dead, total)}")
    print(f"besides those that change nothing: {share(dead, total - n_equivalent)}")


def reason(mutant):
    """Return why a change makes no difference, where that is known."""
    after = difference(mutant).partition("\n    + ")[2]
    for each in EQUIVALENT:
        if (each["file"], each["change"]) == (mutant.file, after):
            return each["why"]
    return None


def share(k, n):
    low, high = wilson(k, n)
    return f"{k} of {n}, {k / n:.1%} ({low:.1%} to {high:.1%})"


def wilson(k, n, z=1.96):
    p, square = k / n, z**2 / n
    middle = (p + square / 2) / (1 + square)
    half = z * math.sqrt(p * (1 - p) / n + square / (4 * n)) / (1 + square)
    return middle - half, middle + half


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=("map", "list", "test", "report"))
    parser.add_argument("--work", type=Path, default=Path("/tmp/mutation"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("-n", type=int, default=300)
    parser.add_argument("--tests", nargs="*", help="of `map`: to add to it")
    parser.add_argument("--only", nargs="*", help="FILE:LINE, all changes of it")
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument(
        "--most", type=float, default=60, help="seconds of tests a mutant, unchanged"
    )
    parser.add_argument(
        "--again", action="store_true", help="test those that survived once more"
    )
    given = parser.parse_args()
    work = given.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    if given.step == "map":
        make_map(work, given.tests)
    elif given.step == "list":
        for mutant in islice(drawn(given.seed), given.first, given.first + given.n):
            print(mutant, f"\n    {difference(mutant)}")
    elif given.step == "test":
        test(
            work,
            given.seed,
            given.first,
            given.n,
            given.only,
            given.minutes,
            given.most,
            given.again,
        )
    else:
        report(work, given.seed, given.first, given.n)


if __name__ == "__main__":
    main()
