#!/usr/bin/env python3
"""llama-server with the plug-in beside llama-server alone: speed and memory with one conversation and with several.

Called by bench/run server, which builds what is needed. Each run has a server of its own; contenders take turns, so that
a machine that drifts does not favour one. The table has medians.
"""

import argparse
import contextlib
import json
import os
import random
import statistics
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "tests", "integration", "server"))

from client import Server, ServerError  # noqa: E402
from depth import depths  # noqa: E402
from measure import measure  # noqa: E402

BUILD = os.path.join(ROOT, "build", "release")
PLAIN = {"llama.cpp, flash attention": "on", "llama.cpp, no flash attention": "off"}
COLUMNS = [  # key, heading, factor, digits, whether more is better (None: no ratio)
    ("prompt_s", "prompt s", 1, 2, None),
    ("decode_tokens_per_s", "tokens/s, one", 1, 1, True),
    ("decode_tokens_per_s_together", "tokens/s, all", 1, 1, True),
    ("second_turn_s", "second turn s", 1, 3, False),
    ("kv_bytes", "KV MiB", 2**-20, 1, None),
    ("engine_bytes", "cells MiB", 2**-20, 1, None),
    ("kv_share", "KV / cells of plain", 1, 3, None),
    ("resident_bytes", "resident MiB", 2**-20, 0, None),
    ("resident_bytes_peak", "peak MiB", 2**-20, 0, None),
]


def parse():
    parser = argparse.ArgumentParser(prog="bench/run server", description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=os.path.join(ROOT, "build/models/SmolLM2-135M-Instruct.Q4_1.gguf"), metavar="FILE")
    parser.add_argument("--json", metavar="FILE", help="file to write the figures to")
    parser.add_argument("--policy", action="append", metavar="SPEC",
                        help="may be given several times; full, zeromerge:budget=5%% and best:budget=5%% if not at all")
    parser.add_argument("--tokens", type=int, default=4096, help="of each conversation's prompt, default %(default)s")
    parser.add_argument("--turn", type=int, default=50, help="tokens of the second turn, default %(default)s")
    parser.add_argument("--predict", type=int, default=64, help="tokens of an answer, default %(default)s")
    parser.add_argument("--conversations", type=int, default=4, help="at once, default %(default)s, at most 4")
    parser.add_argument("--repetitions", type=int, default=3, help="default %(default)s")
    parser.add_argument("--threads", type=int, help="of llama-server; its own default if not given")
    parser.add_argument("--reclaim", action="store_true", help="the plug-in with ZEROMERGE_RECLAIM=1 too")
    parser.add_argument("--cell-bytes", type=int, default=2 * 2 * 64 * 3 * 30,
                        help="of a token in llama.cpp's cache, all layers; default %(default)s, SmolLM2-135M in f16")
    parser.add_argument("--depths", metavar="N,...", help="llama-bench at these depths beside bench/run engine, and nothing else")
    options = parser.parse_args()
    for name in ("tokens", "turn", "predict", "repetitions", "cell_bytes"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')} {getattr(options, name)} is not positive")
    if options.predict < 2:
        parser.error("--predict 1 leaves nothing to measure: give 2 or more")
    if not 1 <= options.conversations <= 4:
        parser.error(f"--conversations {options.conversations}: llama-server has 4 slots by default, give 1 to 4")
    if not os.path.exists(options.model):
        parser.error(f"no model at {options.model}; cmake -P cmake/model.cmake fetches the default one")
    options.policy = options.policy or ["full", "zeromerge:budget=5%", "best:budget=5%"]
    return options


def machine():
    model = "unknown"
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return {"cpu": model, "cores": len(os.sched_getaffinity(0))}


def contenders(options):
    """[(name, policy or None, flash attention, reclaim)]"""
    found = [(name, None, flash, False) for name, flash in PLAIN.items()]
    found += [(policy, policy, "on", False) for policy in options.policy]
    if options.reclaim:
        found += [(f"{policy}, reclaiming", policy, "on", True) for policy in options.policy]
    return found


@contextlib.contextmanager
def server_of(contender, options):
    _, policy, flash, reclaim = contender
    context = options.conversations * (options.tokens + 2 * options.predict + options.turn + 64)
    flags = ["-fa", flash, "-c", str(context)]
    if options.threads:
        flags += ["-t", str(options.threads)]
    log = os.path.join(BUILD, "bench-server.log")
    server = Server(os.path.join(BUILD, "bin/llama-server"), options.model, log,
                    plugin=policy and os.path.join(BUILD, "lib/libggml-zeromerge.so"), options=flags,
                    settings={"ZEROMERGE_POLICY": policy or "", "ZEROMERGE_RECLAIM": "1" if reclaim else "0"},
                    preload=[os.path.join(BUILD, "lib/libzeromerge-tap.so")])
    with server:
        yield server


def run(options):
    runs = {}
    all_contenders = contenders(options)
    for repetition in range(options.repetitions):
        for contender in random.Random(repetition).sample(all_contenders, len(all_contenders)):
            name = contender[0]
            with server_of(contender, options) as server:
                found = measure(server, options)
            if contender[1] and "kv_bytes" not in found:
                raise ServerError(f"the plug-in is not loaded in {' '.join(server.command)}; its log: {server.log}")
            runs.setdefault(name, []).append(found)
            print(f"{repetition + 1}/{options.repetitions} {name}: " +
                  ", ".join(f"{key} {value:.4g}" for key, value in found.items()), file=sys.stderr, flush=True)
    return {name: runs[name] for name, *_ in all_contenders}


def rows_of(runs):
    """Medians, with ratios to the faster of plain llama.cpp's settings."""
    rows = []
    for name, found in runs.items():
        row = {"contender": name, **{key: statistics.median(one[key] for one in found) for key in found[0]}}
        row["runs"] = found
        if "kv_bytes" in row:
            row["kv_share"] = row["kv_bytes"] / row["cells_bytes"]
        rows.append(row)
    for key, _, _, _, more in COLUMNS:
        if more is None:
            continue
        best = (max if more else min)(row[key] for row in rows if row["contender"] in PLAIN)
        for row in rows:
            row[f"{key}_ratio"] = row[key] / best
    return rows


def table(rows):
    headings = ["contender"]
    for _, heading, _, _, more in COLUMNS:
        headings += [heading] + (["x plain"] if more is not None else [])
    print("| " + " | ".join(headings) + " |")
    print("| " + " | ".join("---" for _ in headings) + " |")
    for row in rows:
        cells = [row["contender"]]
        for key, _, factor, digits, more in COLUMNS:
            cells.append(f"{row[key] * factor:.{digits}f}" if key in row else "-")
            if more is not None:
                cells.append(f"{row[key + '_ratio']:.2f}")
        print("| " + " | ".join(cells) + " |")


def main():
    options = parse()
    try:
        rows = depths(options, BUILD) if options.depths else rows_of(run(options))
    except ServerError as error:
        sys.exit(f"error: {error}")
    if not options.depths:
        table(rows)
    if options.json:
        notes = ["medians of --repetitions runs, each in a server of its own; ratios to the faster of llama.cpp's settings"]
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"bench": "server", "command": os.environ.get("ZEROMERGE_BENCH_COMMAND", "bench/run server"),
                       "machine": {**machine(), "model": os.path.basename(options.model)}, "rows": rows, "notes": notes},
                      file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main()
