"""OpenVINO GenAI as a contender of the engine bench: speaks the lines of bench/engine/child.hpp.

  openvino_genai_decoder.py [--entries N] [--precision f32]
"""
import argparse
import json
import os
import sys
import time

BLOCK = 32  # entries in a block of its cache on CPUs; sizes are multiples of it
LONGEST_PROMPT = 8192  # what it does not cut
SETTLE = 3


class UsageError(Exception):
    pass


def scheduler(genai, entries, cells):
    config = genai.SchedulerConfig()
    config.num_kv_blocks = cells // BLOCK + 16
    config.enable_prefix_caching = False
    config.use_cache_eviction = entries is not None
    if entries is not None:
        # The first block and the last tokens stay; the shares of ours: 4 sinks, 40 % recent.
        recent = int(0.4 * entries) // BLOCK * BLOCK
        config.cache_eviction_config = genai.CacheEvictionConfig(
            start_size=BLOCK,
            recent_size=recent,
            max_cache_size=entries,
            aggregation_mode=genai.AggregationMode.NORM_SUM,
        )
    return config


class Decoder:
    def __init__(self, request, entries, precision):
        import numpy
        import openvino
        import openvino_genai as genai

        job, context = request["job"], request["context"]
        self.empty = request["empty"]
        if context > LONGEST_PROMPT:
            raise UsageError(f"--contexts: OpenVINO GenAI takes prompts of up to {LONGEST_PROMPT} tokens here, not {context}")
        self.tokens = context
        self.entries = entries
        self.config = scheduler(genai, entries, job["ctx"])
        properties = {"INFERENCE_NUM_THREADS": job["threads"], "KV_CACHE_PRECISION": "f16"}
        if precision:
            properties["INFERENCE_PRECISION_HINT"] = precision
        self.pipeline = genai.ContinuousBatchingPipeline(job["model"], self.config, "CPU", properties)
        generation = genai.GenerationConfig()
        generation.max_new_tokens = job["ctx"] + 1  # never reached: the bursts end before
        generation.ignore_eos = True
        generation.do_sample = False
        # "Empty" begins with one token and grows by the bursts: too little to be felt.
        prompt = numpy.array([job["prompt"][: max(context, 1)]], dtype=numpy.int64)
        self.handle = self.pipeline.add_request(0, openvino.Tensor(prompt), generation)
        while not self.new_tokens():
            self.pipeline.step()

    def new_tokens(self):
        count = 0
        while self.handle.can_read():
            count += sum(len(output.generated_ids) for output in self.handle.read().values())
        return count

    # One step more than is timed: the other contenders have had the CPU's caches meanwhile.
    def burst(self, steps):
        self.pipeline.step()
        start = time.perf_counter()
        for _ in range(steps):
            self.pipeline.step()
        seconds = time.perf_counter() - start
        made = self.new_tokens()
        if made != steps + 1:
            raise RuntimeError(f"{steps + 1} steps made {made} tokens")
        return {"seconds": seconds}

    # Its cache in whole blocks, so a few entries more than asked for. What exceeds the budget goes within the first
    # steps after the prompt.
    def statistics(self):
        if self.empty:
            return {"tokens": 0}
        for _ in range(SETTLE):
            self.pipeline.step()
        self.new_tokens()
        metrics = self.pipeline.get_metrics()
        entries = metrics.cache_usage / 100 * self.config.num_kv_blocks * BLOCK
        wanted = self.tokens if self.entries is None else self.entries
        if not wanted <= entries + 0.5 <= wanted + 2 * BLOCK:
            raise RuntimeError(f"its cache holds {entries:.0f} entries instead of about {wanted}")
        share = entries / (self.config.num_kv_blocks * BLOCK)
        return {
            "tokens": self.tokens,
            "entries_per_head": entries,
            "kv_bytes": metrics.cache_size_in_bytes * share,
        }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--entries", type=int, help="evict to so many; without: the full cache")
    parser.add_argument("--precision", help="of the computation, by OpenVINO's name; without: its own choice")
    options = parser.parse_args()
    # Whatever the libraries print must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    decoder = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "job" in request:
                decoder = Decoder(request, options.entries, options.precision)
            answer = decoder.burst(request["burst"]) if "burst" in request else decoder.statistics()
        except UsageError as error:
            answer = {"error": str(error), "usage": True}
        except Exception as error:  # the bench shows it and ends
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
