"""Mutants of source files: the whole text with one place changed, as Cosmic Ray changes it.

Runs in the environment of Cosmic Ray (.venv-mutants) and prints each mutant as a line of JSON, for
mutants.py, which runs the tests.
"""

import json
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator, operator_names

OPERATORS = re.compile(
    r"""core/(
        NumberReplacer | AddNot | Replace(True|False|And|Or)With\w+ | ExceptionReplacer
        | ReplaceBreakWithContinue | ReplaceContinueWithBreak | ZeroIterationForLoop
        | RemoveDecorator | ReplaceUnaryOperator_Delete_\w+
        | ReplaceComparisonOperator_(
            Eq_NotEq | NotEq_Eq | Is_IsNot | IsNot_Is
            | Lt_(LtE|GtE) | LtE_(Lt|Gt) | Gt_(GtE|LtE) | GtE_(Gt|Lt) )
        | ReplaceBinaryOperator_(
            Add_Sub | Sub_Add | Mul_FloorDiv | FloorDiv_Mul | Div_Mul | Mod_FloorDiv | Pow_Mul
            | LShift_RShift | RShift_LShift | BitOr_BitAnd | BitAnd_BitOr )
    )""",
    re.VERBOSE,
)
"""An operator of Python's is replaced by its opposite, and a comparison's bound by the next one:
what kills these kills the other ten replacements that Cosmic Ray knows for each."""


def main() -> None:
    """Print the mutants of the files that are named."""
    for path in map(Path, sys.argv[1:]):
        for operator, text in mutants_of(path.read_text()):
            print(json.dumps({"path": str(path), "operator": operator, "text": text}))


def mutants_of(source: str) -> Iterator[tuple[str, str]]:
    """Yield each mutant of a source, with the name of the operator that made it."""
    tree = get_ast(source)
    for name in filter(OPERATORS.fullmatch, operator_names()):
        operator: Operator = get_operator(name)()
        places = sum(1 for node in ast_nodes(tree) for _ in operator.mutation_positions(node))
        for place in range(places):
            # The / between parameters is no division, and of exceptions it knows plain names only.
            with suppress(SyntaxError, AttributeError):
                text = mutate_code(source, operator, place)
                compile(text, name, "exec")
                yield name.rpartition("/")[2], text


if __name__ == "__main__":
    main()
