"""What a client of llama-server sees of its speed and memory: one run of one contender, in a server of its own."""

import http.client
import json
import threading
import time

from client import ServerError, completion
from conversations import document

SENTENCE_TOKENS = 16  # fewer than a sentence of a document has


def prompts(server, count, tokens):
    """`count` prompts of exactly so many tokens, no two of which begin alike."""
    found = []
    for index in range(count):
        text, _, _ = document(index, tokens // SENTENCE_TOKENS + 1)
        found.append(server.tokens(f"Report number {index}. {text}")[:tokens])
        if len(found[-1]) < tokens:
            raise ServerError(f"a document has {len(found[-1])} tokens, {tokens} are needed: SENTENCE_TOKENS is too large")
    return found


class Stream:
    """A streamed answer: when each of its tokens came, in seconds since it was asked for, and which they are."""

    def __init__(self, server, prompt, predict):
        self.times = []
        self.tokens = []
        self.begin = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=3600)
        connection.request("POST", "/completion", json.dumps(completion(prompt, predict, stream=True)),
                           {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            raise ServerError(f"HTTP {response.status}: {response.read(300)!r}")
        for line in response:
            if line.startswith(b"error:"):
                raise ServerError(line.decode(errors="replace").strip())
            if line.startswith(b"data:"):
                self.take(json.loads(line[5:]))
        connection.close()
        if len(self.tokens) < predict:
            raise ServerError(f"{len(self.tokens)} tokens of {predict}; the end of {server.log}:\n{server.log_tail()}")

    def take(self, part):
        if "error" in part:
            raise ServerError(json.dumps(part["error"])[:300])
        if part.get("tokens") and not part.get("stop"):
            self.tokens += part["tokens"]
            self.times += [time.monotonic()] * len(part["tokens"])

    @property
    def first(self):
        return self.times[0] - self.begin

    def tokens_per_second(self):
        return (len(self.times) - 1) / (self.times[-1] - self.times[0])


def together(streams):
    """Tokens a second of all streams, while all of them had their first token and none its last."""
    begin = max(stream.times[0] for stream in streams)
    end = min(stream.times[-1] for stream in streams)
    count = sum(sum(begin < moment <= end for moment in stream.times) for stream in streams)
    if end <= begin or not count:
        raise ServerError("the answers never overlapped: ask for more tokens (--predict)")
    return count / (end - begin)


def at_once(server, all_prompts, predict):
    streams, errors = [], []

    def ask(prompt):
        try:
            streams.append(Stream(server, prompt, predict))
        except (ServerError, OSError) as error:
            errors.append(error)

    threads = [threading.Thread(target=ask, args=(prompt,)) for prompt in all_prompts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return streams


def measure(server, options):
    """{name: figure} of this server."""
    asked = prompts(server, options.conversations + 1, options.tokens)
    alone = asked.pop()
    found = {}
    idle, _ = server.memory()

    one = Stream(server, alone, options.predict)
    found["prompt_s"] = one.first
    found["decode_tokens_per_s"] = one.tokens_per_second()
    turn = server.tokens(document(99, options.turn)[0])[:options.turn]
    found["second_turn_s"] = Stream(server, alone + one.tokens + turn, 2).first

    # Otherwise the four begin with a slot that is saved and cleared, or given to one of them.
    for slot in range(options.conversations):
        server.slot("erase", slot)
    streams = at_once(server, asked, options.predict)
    found["decode_tokens_per_s_together"] = together(streams)

    held = server.statistics()
    found["resident_bytes"], found["resident_bytes_peak"] = server.memory()
    found["resident_bytes_idle"] = idle
    if held["loaded"]:
        found["kv_bytes"], found["engine_bytes"] = held["kv_bytes"], held["engine_bytes"]
        found["stateless_calls"] = held["stateless_calls"]
        found["rebuilds"] = held["rebuilds"]
    found["cells_bytes"] = sum(len(prompt) + options.predict - 1 for prompt in asked) * options.cell_bytes
    return found
