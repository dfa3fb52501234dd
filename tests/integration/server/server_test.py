#!/usr/bin/env python3
"""Drives llama-server with the plug-in as its clients do, and compares answers with those of one conversation alone.

    server_test.py --server llama-server --quantize llama-quantize --plugin libggml-zeromerge.so --tap libzeromerge-tap.so
                   --model model.gguf --logs FOLDER [--policy SPEC] [--plain]
"""

import argparse
import contextlib
import os
import subprocess
import sys

from client import Server
from conversations import Conversation
from report import Report
from scenario import Scenario, alone

CELL_BYTES = 2 * 2 * 64 * 3  # of a token in one layer of SmolLM2-135M: keys and values in f16


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", required=True, help="llama-server")
    parser.add_argument("--quantize", required=True, help="llama-quantize, which writes the copy of the model in f16")
    parser.add_argument("--plugin", required=True, help="libggml-zeromerge.so")
    parser.add_argument("--tap", required=True, help="the library that tells the plug-in's statistics")
    parser.add_argument("--model", required=True, help="SmolLM2-135M-Instruct (cmake -P cmake/model.cmake fetches it)")
    parser.add_argument("--logs", required=True, help="folder for the servers' logs")
    parser.add_argument("--policy", default="full", help="default: %(default)s")
    parser.add_argument("--plain", action="store_true", help="llama.cpp alone, to see that the scenario itself holds")
    parser.add_argument("--reclaim", choices=["no", "yes", "both"], default="both", help="default: %(default)s")
    parser.add_argument("--threads", type=int, help="of llama-server; one a core if not given (on a busy machine 1 is far faster)")
    parser.add_argument("--preload", action="append", default=[], help="a sanitizer's library, say; more than one if repeated")
    parser.add_argument("--tie", type=float, help="nats within which two tokens are equally likely (default: by the policy)")
    parser.add_argument("--drift", type=float, help="nats by which a log-probability may differ (default: by the policy)")
    options = parser.parse_args()
    for name in ("server", "quantize", "plugin", "tap", "model"):
        path = getattr(options, name)
        if not os.path.exists(path):
            sys.exit(f"error: no {name} at {path}" +
                     ("; cmake -P cmake/model.cmake fetches it" if name == "model" else "; build zeromerge-server-tests"))
    os.makedirs(options.logs, exist_ok=True)
    return options


def expanded(options):
    """The copy with f16 weights. With quantised ones llama.cpp quantises activations too, and what it computes depends
    on how many tokens stand in a batch."""
    copy = os.path.splitext(options.model)[0] + ".f16.gguf"
    if os.path.exists(copy) and os.path.getmtime(copy) >= os.path.getmtime(options.model):
        return copy
    partial = f"{copy}.partial.{os.getpid()}"
    done = subprocess.run([options.quantize, "--allow-requantize", options.model, partial, "F16"],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        sys.exit(f"error: {options.quantize} cannot write {partial}:\n{done.stdout.decode(errors='replace')[-800:]}")
    os.replace(partial, copy)
    return copy


class Run:
    def __init__(self, options):
        self.options = options
        self.model = expanded(options)
        # The rounding of sums depends on what else is in a batch. With a budget it may decide which of two entries stays.
        exact = options.plain or options.policy == "full"
        tie, drift = (0.05, 0.05) if exact else (0.2, 0.3)
        self.report = Report(tie if options.tie is None else options.tie, drift if options.drift is None else options.drift)
        self.conversations = [Conversation(i) for i in range(4)]
        self.threads = ["-t", str(options.threads)] if options.threads else []
        self.compressed = not options.plain and options.policy != "full"

    @contextlib.contextmanager
    def server(self, name, *flags, reclaim=False):
        """A server that has to end in good order, without a word from a sanitizer."""
        options = self.options
        settings = {"ZEROMERGE_POLICY": options.policy, "ZEROMERGE_RECLAIM": "1" if reclaim else "0"}
        log = os.path.join(options.logs, f"{name.replace(' ', '-').replace(',', '')}.log")
        server = Server(options.server, self.model, log, plugin=None if options.plain else options.plugin,
                        options=[*(["-fa", "on"] if options.plain else []), *flags, *self.threads], settings=settings,
                        preload=[*options.preload, options.tap])
        with server:
            yield server
            status = server.stop()
        self.report.check(f"{name}: ends in good order", status and f"status {status}; log: {log}")
        found = [line for line in server.log_text().splitlines() if "Sanitizer" in line]
        self.report.check(f"{name}: no finding of a sanitizer", found and f"{found[0]}; log: {log}")

    def references(self):
        found = []
        for conversation in self.conversations:
            with self.server(f"alone {conversation.index}") as server:
                found.append(alone(server, conversation))
        self.report.say("alone: answered")
        return found

    def expect_nothing_read_again(self, scenario):
        seen = scenario.statistics(self.compressed)
        # What `full` holds of a restored state is read from its cells, exactly.
        if seen.get("loaded") and (self.compressed or "slots kept" in scenario.label):
            self.report.check(f"{scenario.label}: nothing was read again", seen["rebuilds"] and f"{seen['rebuilds']} rebuilds")
        return seen

    def scenarios(self, expected, reclaim):
        suffix = ", reclaiming" if reclaim else ""
        with self.server(f"default{suffix}", reclaim=reclaim) as server:
            scenario = Scenario(server, self.report, f"default{suffix}", self.conversations, expected)
            scenario.default_setting()
            if not self.options.plain:
                self.expect_nothing_read_again(scenario)
        with self.server(f"slots kept{suffix}", "--no-cache-idle-slots", reclaim=reclaim) as server:
            scenario = Scenario(server, self.report, f"slots kept{suffix}", self.conversations, expected)
            scenario.slots_kept()
            if reclaim:  # otherwise it would be read again from the cells, which are there
                scenario.long_answer(150)
            before = {} if self.options.plain else self.expect_nothing_read_again(scenario)
            scenario.save_and_restore()
            after = {} if self.options.plain else scenario.statistics(False)
            if after.get("loaded"):
                most = 16 * 30  # tokens of the request that was left, in layers
                self.report.check(f"{scenario.label}: what was erased is gone",
                                  after["tokens"] > most and f"{after['tokens']} tokens in layers, {after['kv_bytes']} bytes")
            return before

    def all(self):
        expected = self.references()
        seen = {}
        wanted = {"no": [False], "yes": [True], "both": [False, True]}[self.options.reclaim]
        for reclaim in wanted if not self.options.plain else [False]:
            seen[reclaim] = self.scenarios(expected, reclaim)
        if len(seen) == 2 and all(one.get("loaded") for one in seen.values()):
            given_back = seen[False]["engine_bytes"] - seen[True]["engine_bytes"]
            least = seen[True]["tokens"] * CELL_BYTES // 2
            self.report.check("reclaiming gives at least half of the cells back",
                              given_back < least and f"{given_back} bytes, {least} are half")
        self.report.finish()


if __name__ == "__main__":
    Run(parse()).all()
