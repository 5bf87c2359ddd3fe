"""Calls of LAPACK that may run at the same time, in a compiled program; see `smcdiff.base._cpu`."""

import re

DECOMPOSES = re.compile(r"lapack_[sd](potrf|syevd|gesdd|geqrf|getrf)")


def unordered(program: str) -> list[tuple[str, str]]:
    """Pairs of instructions that decompose matrices, neither of which waits for the other.

    Args:
        program: the text of a compiled program.
    """
    bodies, name = {}, ""
    for line in program.splitlines():
        if line and not line.startswith((" ", "}")) and line.endswith("{"):
            name = re.match(r"(?:ENTRY )?%?([\w.\-]+)", line).group(1)
            bodies[name] = {}
        elif found := re.match(r"\s+(?:ROOT )?%?([\w.\-]+) = (.*)", line):
            bodies[name][found.group(1)] = found.group(2)

    heavy = {}

    def is_heavy(instruction):
        called = [word for word in re.findall(r"%([\w.\-]+)", instruction) if word in bodies]
        return bool(DECOMPOSES.search(instruction)) or any(map(holds, called))

    def holds(computation):
        if computation not in heavy:
            heavy[computation] = any(map(is_heavy, bodies[computation].values()))
        return heavy[computation]

    pairs = []
    for body in bodies.values():
        before = {}
        for name, instruction in body.items():  # operands come first
            operands = [word for word in re.findall(r"%([\w.\-]+)", instruction) if word in body]
            before[name] = set(operands).union(*(before[operand] for operand in operands))
        calls = [name for name, instruction in body.items() if is_heavy(instruction)]
        pairs += [
            (one, other) for i, other in enumerate(calls) for one in calls[:i]
            if one not in before[other]
        ]  # fmt: skip
    return pairs
