#!/usr/bin/env python3
"""What a decode step should take on a device, from bytes and arithmetic: no figure here is measured. Prints the
tables of include/zeromerge/kernels/cuda/README.md, which says where each count comes from.
"""

# Vendors' figures: GB/s of memory, multiprocessors, GHz under load.
DEVICES = {"A100 80GB": (2039, 108, 1.41), "H100 SXM": (3352, 132, 1.70), "B200": (8000, 148, 1.85)}
SHAPES = [(9, 3, 64), (32, 8, 128), (32, 32, 128), (4, 1, 256)]

COPY = 0.90  # of the memory's figure, what a large copy gets
ISSUE = 0.75  # of four instructions a clock, what a loop of this kind gets
SM_BYTES = 32  # bytes a clock that one multiprocessor can draw from the near cache
FIXED_US = {"attend": 4.0, "combine": 3.0, "evict": 3.0}  # of one kernel in a replayed graph, with nothing to do


def instantiated(group):
    """Query heads that a pass computes: a group of 3 is computed as 4."""
    return next((n for n in (1, 2, 4, 8) if group <= n), 8)


def instructions(group, dim, size):
    """Warp instructions for an entry, keys and values."""
    heads, passes = instantiated(group), -(-group // 8)
    tile = min(32, 4096 // (dim * size))
    products = 2 * heads * dim / 32
    conversions = 2 * dim / 32 * (1 if size == 2 else 2)
    from_shared = 2 * dim * size / 512 + heads * dim / 128 + heads * dim / 1024
    softmax = 24 * heads / tile
    copies = 4 * 2 * dim * size / 512
    return passes * (products + conversions + from_shared + softmax + copies)


def segment_of(sms, heads, entries):
    """plan_decode of include/zeromerge/cuda/decode_step.hpp."""
    wanted = -(-sms * 4 // heads)
    even = -(-entries // wanted)
    return max(64, -(-even // 32) * 32)


def step(device, shape, size, sequences, entries, scores):
    """Microseconds of attention with its combination, and the bytes of keys and values."""
    gb_per_s, sms, ghz = DEVICES[device]
    query_heads, kv_heads, dim = shape
    group, heads = query_heads // kv_heads, kv_heads * sequences
    segment = segment_of(sms, heads, entries)
    blocks = heads * -(-entries // segment)
    entry_bytes = 2 * (dim * size + (4 if size == 1 else 0))
    read = heads * entries * entry_bytes
    parts = 2 * blocks * group * (dim + 2) * 4  # written, and read again
    logits = (2 * group + 2) * 4 * heads * entries if scores else 0
    memory = (read + parts + logits) / (COPY * gb_per_s * 1e3)
    issue = heads * entries * instructions(group, dim, size) / (sms * 4 * ISSUE * ghz * 1e3)
    busiest = -(-blocks // sms) * min(segment, entries)
    one = busiest * entry_bytes / (SM_BYTES * ghz * 1e3)
    fixed = FIXED_US["attend"] + FIXED_US["combine"] + (FIXED_US["evict"] if scores else 0)
    return fixed + max(memory, issue, one), read


def share(device, shape, size, sequences, entries, scores):
    us, read = step(device, shape, size, sequences, entries, scores)
    return read / (us * 1e3) / (COPY * DEVICES[device][0])


def table(scores):
    heads = [f"{d}, {t}" for d in DEVICES for t in ("f16", "q8")]
    print("| heads x dim | sequences | entries | " + " | ".join(heads) + " |")
    print("| --- " * (3 + len(heads)) + "|")
    for shape in SHAPES:
        for sequences in (1, 16):
            for entries in (410, 8192, 32768):
                row = [f"{share(d, shape, s, sequences, entries, scores):.2f}" for d in DEVICES for s in (2, 1)]
                print(f"| {shape[0]}/{shape[1]}x{shape[2]} | {sequences} | {entries} | " + " | ".join(row) + " |")


def limits():
    """Of the time that memory takes, the time that issuing the instructions takes: above 1 they are the limit."""
    print("| group | dim | type | instructions an entry | " + " | ".join(DEVICES) + " |")
    print("| --- " * (4 + len(DEVICES)) + "|")
    for group in (1, 4, 8, 16):
        for dim, size, name in ((64, 2, "f16"), (128, 2, "f16"), (128, 1, "q8")):
            count = instructions(group, dim, size)
            entry_bytes = 2 * (dim * size + (4 if size == 1 else 0))
            ratios = []
            for gb_per_s, sms, ghz in DEVICES.values():
                clocks = entry_bytes / (COPY * gb_per_s / sms / ghz)
                ratios.append(f"{count / (4 * ISSUE) / clocks:.2f}")
            print(f"| {group} | {dim} | {name} | {count:.0f} | " + " | ".join(ratios) + " |")


if __name__ == "__main__":
    limits()
    print("\nattention alone\n")
    table(False)
    print("\na whole step with scores and eviction\n")
    table(True)
