"""Four conversations with different documents, and answers that can be compared."""

import random

PREDICT = 12  # tokens of an answer
TOP = 5  # how many of a position's most likely tokens come with it

PLACES = ["Aldermoor", "Brackwater", "Calder Point", "Dunmere", "Eastholm", "Fallow Bay", "Greywick", "Harrowgate",
          "Inverlea", "Kestrel Rock", "Langness", "Marrow Sound", "Northolt", "Oxley", "Penhale", "Quarrel Head"]
KEEPERS = ["Agnes", "Bertram", "Cecily", "Dorian", "Edith", "Fergus", "Greta", "Hamish", "Isolde", "Jasper", "Keziah",
           "Lionel", "Mabel", "Nathan", "Odette", "Piers"]
COLOURS = ["white", "red", "black", "green", "grey", "blue", "yellow", "brown"]


def document(seed, sentences):
    """A report with facts that a question can ask for; different words for each seed."""
    draw = random.Random(seed)
    places = draw.sample(PLACES, len(PLACES))
    keepers = draw.sample(KEEPERS, len(KEEPERS))
    facts = []
    for i in range(sentences):
        place, keeper = places[i % len(places)], keepers[i % len(keepers)]
        facts.append(draw.choice([
            f"The lighthouse at {place} is {draw.choice(COLOURS)} and has {draw.randint(40, 300)} steps.",
            f"At {place} the lamp is lit by {keeper}, who has kept it for {draw.randint(2, 40)} years.",
            f"{keeper} of {place} writes down the height of the water {draw.randint(2, 9)} times a day.",
            f"The fog bell of {place} was cast in {draw.randint(1780, 1930)} and cracked in the winter after.",
        ]))
    return " ".join(facts), places, keepers


class Conversation:
    """A conversation's turns as text. The answers within the past are given, so that every run has the same one."""

    def __init__(self, index, sentences=16):
        self.index = index
        text, places, keepers = document(index, sentences)
        self.turns = [
            f"<|im_start|>user\nReport number {index}. {text}\nWhat does the report say about {places[1]}?<|im_end|>\n"
            "<|im_start|>assistant\n",
            f"\n<|im_end|>\n<|im_start|>user\nAnd who is {keepers[2]}, and what of {places[2]}?<|im_end|>\n"
            "<|im_start|>assistant\n",
            f"\n<|im_end|>\n<|im_start|>user\nName three places of the report, {places[0]} first.<|im_end|>\n"
            "<|im_start|>assistant\n",
            "\n<|im_end|>\n<|im_start|>user\nWrite one sentence about the sea.<|im_end|>\n<|im_start|>assistant\n",
        ]
        self.edited = (f"\n<|im_end|>\n<|im_start|>user\nWhich keeper is at {places[3]}?<|im_end|>\n"
                       "<|im_start|>assistant\n")


class Answer:
    """What the model said: tokens, and of each the most likely ones' log-probabilities."""

    def __init__(self, response):
        self.tokens = response["tokens"]
        self.slot = response["id_slot"]
        self.text = response["content"]
        self.reused = response["timings"]["cache_n"]
        self.top = [{entry["id"]: entry["logprob"] for entry in position["top_logprobs"]}
                    for position in response["completion_probabilities"]]

    def differs_from(self, expected, tie, drift):
        """Why this is not the expected answer, or None.

        Greedy text is one thing or another where two tokens are equally likely, up to the rounding of sums in another
        order. So texts may part where the expected answer itself puts the two tokens within `tie` of each other, and
        until then the log-probabilities of what was said may differ by `drift`.
        """
        if len(self.tokens) != len(expected.tokens):
            return f"{len(self.tokens)} tokens, expected {len(expected.tokens)}"
        for i, (token, wanted) in enumerate(zip(self.tokens, expected.tokens)):
            ours, theirs = self.top[i], expected.top[i]
            if token != wanted:
                lead = theirs[wanted] - theirs.get(token, min(theirs.values()))
                return None if lead <= tie and token in theirs else (
                    f"token {i} is another one, where the expected one led by {lead:.3f}: "
                    f"{self.text!r} instead of {expected.text!r}")
            moved = abs(ours[token] - theirs[token])
            if moved > drift:
                return f"token {i} is the same with a log-probability that differs by {moved:.3f}"
        return None

    def distance_from(self, expected):
        """(how many tokens are the same from the start, largest difference of their log-probabilities)"""
        same, moved = 0, 0.0
        for i, (token, wanted) in enumerate(zip(self.tokens, expected.tokens)):
            if token != wanted:
                break
            same += 1
            moved = max(moved, abs(self.top[i][token] - expected.top[i][wanted]))
        return same, moved


class Chat:
    """A conversation as it goes on with one server."""

    def __init__(self, server, conversation, slot=-1):
        self.server = server
        self.conversation = conversation
        self.slot = slot
        self.past = []  # tokens: turns and the answers that belong to them

    def prompt(self, turn):
        return self.past + self.server.tokens(turn)

    def ask(self, turn, predict=PREDICT):
        """The answer to a turn, which does not become part of the past: a client may ask again, or otherwise."""
        return Answer(self.server.complete(self.prompt(turn), predict, n_probs=TOP, id_slot=self.slot))

    def cancel(self, turn, after):
        # All of it together is less than what a sequence can take back (rollback=64): the server may be late to notice.
        self.server.cancel_after(after, self.prompt(turn), 2 * PREDICT, id_slot=self.slot)

    def accept(self, turn, answer):
        self.past = self.prompt(turn) + answer.tokens
