"""llama-bench at depth beside bench/run engine: two programs that time the same step have to agree.

llama-bench computes a depth once and restores it by llama_state_seq_set_data for every further repetition.
"""

import json
import os
import subprocess
import tempfile

from client import ServerError


def run_program(command, environment=None):
    done = subprocess.run(command, env={**os.environ, **(environment or {})}, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, check=False)
    if done.returncode:
        raise ServerError(f"{' '.join(command)} ended with status {done.returncode}:\n"
                          f"{done.stderr.decode(errors='replace')[-800:]}")
    return done.stdout.decode()


def llama_bench(options, build, policy):
    """{depth: tokens a second}; policy None is llama.cpp alone."""
    command = [os.path.join(build, "bin/llama-bench"), "-m", options.model, "-fa", "1", "-p", "0", "-n",
               str(options.predict), "-d", options.depths, "-r", str(options.repetitions), "-t", str(options.threads or 1),
               "-o", "json"]
    plugin = os.path.join(build, "lib/libggml-zeromerge.so")
    environment = {"GGML_BACKEND_PATH": plugin, "ZEROMERGE_POLICY": policy} if policy else {}
    return {test["n_depth"]: sorted(test["samples_ts"])[len(test["samples_ts"]) // 2]
            for test in json.loads(run_program(command, environment))}


def bench_engine(options, build):
    """{(policy, depth): tokens a second}"""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "engine.json")
        command = [os.path.join(build, "bin/zeromerge-bench-engine"), "--model", options.model, "--contexts", options.depths,
                   "--predict", str(options.predict), "--repetitions", str(options.repetitions), "--threads",
                   str(options.threads or 1), "--settings", "flash-f16", "--budgets", "50%", "--json", path]
        for policy in options.policy:
            if policy != "full":
                command += ["--policy", policy]
        run_program(command)
        with open(path, encoding="utf-8") as file:
            return {(row["policy"], row["context"]): row["decode_tokens_per_s"] for row in json.load(file)["rows"]}


def depths(options, build):
    """Rows of contender and depth; also printed as a table."""
    engine = bench_engine(options, build)
    rows = []
    print("| contender | depth | llama-bench tokens/s | bench/run engine tokens/s | ratio |\n| --- | --- | --- | --- | --- |")
    for policy in [None, *options.policy]:
        for depth, speed in llama_bench(options, build, policy).items():
            name = policy or "llama.cpp flash f16"
            ours = engine.get((name, depth))
            rows.append({"contender": name, "depth": depth, "llama_bench_tokens_per_s": speed,
                         "engine_tokens_per_s": ours, "ratio": ours and speed / ours})
            print(f"| {name} | {depth} | {speed:.1f} | {ours or 0:.1f} | {ours and speed / ours or 0:.2f} |", flush=True)
    return rows
