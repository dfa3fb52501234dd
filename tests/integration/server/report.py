"""Checks that all run, are printed one by one and counted."""

import sys
import time


class Report:
    def __init__(self, tie, drift):
        self.tie = tie  # see Answer.differs_from
        self.drift = drift
        self.passed = 0
        self.failed = []
        self.begin = time.monotonic()
        self.same = self.asked = 0
        self.moved = 0.0

    def check(self, what, fault):
        """`fault` says what is wrong, or is None or empty."""
        if fault:
            self.failed.append(what)
            print(f"FAILED {what}: {fault}", flush=True)
        else:
            self.passed += 1
        return not fault

    def answer(self, what, answer, *expected):
        """One of the expected answers, which differ where timing decides what a server had computed already."""
        faults = [answer.differs_from(one, self.tie, self.drift) for one in expected]
        same, moved = max(answer.distance_from(one) for one in expected)
        self.same += same
        self.asked += len(answer.tokens)
        self.moved = max(self.moved, moved)
        self.check(what, None if None in faults else "; or: ".join(faults))

    def say(self, text):
        print(f"[{time.monotonic() - self.begin:6.1f} s] {text}", flush=True)

    def finish(self):
        print(f"{self.same} of {self.asked} compared tokens are the same, their log-probabilities within "
              f"{self.moved:.4f}", flush=True)
        print(f"{self.passed} checks passed, {len(self.failed)} failed", flush=True)
        sys.exit(1 if self.failed else 0)
