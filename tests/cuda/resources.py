#!/usr/bin/env python3
"""What nvcc's assembler says of each kernel, per target: registers, shared memory, spills; and the occupancy that
follows with the blocks and the dynamic shared memory that the emulated tests launch it with.

Fails if a kernel spills or keeps a stack, if one that is launched was not compiled for a target, if one of the library
is never launched, or if not even one block of it fits a multiprocessor.
"""
import argparse
import os
import re
import subprocess
import sys
import tempfile

# CUDA programming guide, technical specifications per compute capability.
WARP = 32
REGISTERS = 65536  # of a multiprocessor; given to warps by 256
REGISTER_UNIT = 256
MOST_BLOCKS = 32
RESERVED_SHARED = 1024  # bytes a block, taken by the system
SHARED_UNIT = 128
TARGETS = {  # warps and bytes of shared memory of a multiprocessor, name
    80: (64, 164 << 10, "A100"),
    90: (64, 228 << 10, "H100"),
    100: (64, 228 << 10, "B200"),
}


def parse_log(text):
    """{(mangled name, target): {registers, shared, stack, spills}}"""
    found = {}
    current = None
    for line in text.splitlines():
        entry = re.search(r"Compiling entry function '(\S+)' for 'sm_(\d+)a?'", line)
        if entry:
            current = found.setdefault((entry[1], int(entry[2])), {"stack": 0, "spills": 0, "shared": 0})
            continue
        if current is None:
            continue
        frame = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line)
        if frame:
            current["stack"] = int(frame[1])
            current["spills"] = int(frame[2]) + int(frame[3])
        used = re.search(r"Used (\d+) registers", line)
        if used:
            current["registers"] = int(used[1])
            shared = re.search(r"(\d+) bytes smem", line)
            current["shared"] = int(shared[1]) if shared else 0
            current = None
    return {key: value for key, value in found.items() if "registers" in value}


def launches_of(program):
    """{mangled name: (threads, bytes of dynamic shared memory)}, the most of each, as the emulated tests use them"""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "launches")
        run = subprocess.run(
            [program, "--gtest_brief=1"],
            env={**os.environ, "ZEROMERGE_SIMT_LAUNCHES": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if run.returncode != 0:
            sys.exit(f"{program} failed:\n{run.stdout[-4000:]}")
        with open(path) as lines:
            fields = [line.split() for line in lines]
    return {name: (int(threads), int(shared)) for name, threads, shared in fields}


def round_up(value, unit):
    return -(-value // unit) * unit


def resident_blocks(target, registers, threads, shared):
    most_warps, most_shared, _ = TARGETS[target]
    warps = round_up(threads, WARP) // WARP
    registers_of_warp = round_up(registers * WARP, REGISTER_UNIT)
    by_registers = REGISTERS // registers_of_warp // warps
    by_shared = most_shared // round_up(shared + RESERVED_SHARED, SHARED_UNIT)
    return min(most_warps // warps, by_registers, by_shared, MOST_BLOCKS)


def readable(names):
    text = subprocess.run(["c++filt"], input="\n".join(names), stdout=subprocess.PIPE, text=True, check=True).stdout
    result = {}
    for mangled, name in zip(names, text.splitlines()):
        name = re.sub(r"^void ", "", name).replace("zeromerge::cuda::", "").replace("zeromerge::", "")
        result[mangled] = re.sub(r"\([^()]*\)$", "", name)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", type=int, nargs="+", required=True, choices=sorted(TARGETS))
    parser.add_argument("--program", required=True, help="the emulated tests")
    parser.add_argument("--logs", nargs="+", required=True, help="what ptxas -v said")
    parser.add_argument("--table", help="a file for what is printed")
    arguments = parser.parse_args()
    table = open(arguments.table, "w") if arguments.table else None

    def say(line):
        print(line)
        if table:
            print(line, file=table)

    compiled = {}
    for path in arguments.logs:
        with open(path) as log:
            compiled.update(parse_log(log.read()))
    launches = launches_of(arguments.program)
    if not compiled or not launches:
        sys.exit(f"{len(compiled)} kernels in the logs and {len(launches)} launched by the tests: nothing was checked")

    names = readable(sorted({name for name, _ in compiled} | set(launches)))
    problems = [
        f"{names[name]} is launched but was not compiled for sm_{target}"
        for name in sorted(launches)
        for target in arguments.targets
        if (name, target) not in compiled
    ]
    say(f"{'registers':>9} {'shared':>7} {'threads':>7} {'blocks':>6} {'warps':>8}  kernel, target")
    for (name, target), used in sorted(compiled.items(), key=lambda item: (names[item[0][0]], item[0][1])):
        label = f"{names[name]}, sm_{target} ({TARGETS[target][2]})"
        if used["spills"] or used["stack"]:
            problems.append(f"{label}: {used['spills']} bytes of spills, a stack of {used['stack']} bytes")
        if name not in launches:
            # Kernels of the tests themselves have no name outside of their file.
            if "(anonymous namespace)" not in label:
                problems.append(f"{label} is launched by no test")
            say(f"{used['registers']:9} {used['shared']:7} {'-':>7} {'-':>6} {'-':>8}  {label}")
            continue
        threads, dynamic = launches[name]
        blocks = resident_blocks(target, used["registers"], threads, used["shared"] + dynamic)
        warps = blocks * round_up(threads, WARP) // WARP
        share = f"{warps}/{TARGETS[target][0]}"
        say(f"{used['registers']:9} {used['shared'] + dynamic:7} {threads:7} {blocks:6} {share:>8}  {label}")
        if blocks == 0:
            problems.append(f"{label}: not even one block fits a multiprocessor")
    say(f"{len(names)} kernels, {len(launches)} of them launched by the tests, {len(arguments.targets)} targets")
    if problems:
        sys.exit("\n".join(["", *problems]))


if __name__ == "__main__":
    main()
