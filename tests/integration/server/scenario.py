"""What people do with llama-server: each function drives one server and checks what it answers.

The expected answers are those of a server that has the same policy and one conversation only, which stays in its slot.
llama-server saves and clears every idle slot by itself (its default, unless --no-cache-idle-slots is given) and restores
it before the next turn; that must not show in what is answered, with whatever policy.
"""

from concurrent.futures import ThreadPoolExecutor

from client import ServerError
from conversations import Chat


class Reference:
    """One conversation's answers and pasts, by step."""

    def __init__(self):
        self.answers = {}
        self.pasts = {}

    def keep(self, step, chat, answer):
        self.answers[step] = answer
        self.pasts[step] = list(chat.past)
        return answer


def alone(server, conversation):
    """All steps of one conversation with a fresh server."""
    chat, reference = Chat(server, conversation, slot=0), Reference()
    for number, turn in enumerate(conversation.turns[:3], 1):
        answer = reference.keep(f"turn {number}", chat, chat.ask(turn))
        if number < 3:
            chat.accept(turn, answer)
    reference.keep("again", chat, chat.ask(conversation.turns[2]))
    reference.keep("edited", chat, chat.ask(conversation.edited))
    reference.keep("edited again", chat, chat.ask(conversation.edited))
    chat.accept(conversation.edited, reference.answers["edited"])
    reference.keep("turn 4", chat, chat.ask(conversation.turns[3]))
    return reference


class Scenario:
    """One server with all conversations, and the answers that each is expected to get."""

    def __init__(self, server, report, label, conversations, expected):
        self.server = server
        self.report = report
        self.label = label
        self.chats = [Chat(server, conversation) for conversation in conversations]
        self.expected = expected

    # ---- steps

    def turn_of(self, chat, step):
        turns = chat.conversation.turns
        return chat.conversation.edited if step.startswith("edited") else turns[2 if step == "again" else int(step[-1]) - 1]

    def ask(self, chat, step, slot=-1):
        """Asks with the past that the expected answer had. A refused request is a failed check."""
        reference = self.expected[chat.conversation.index]
        chat.past = list(reference.pasts[step])
        chat.slot = slot
        what = f"{self.label}: conversation {chat.conversation.index}, {step}"
        try:
            answer = chat.ask(self.turn_of(chat, step))
        except ServerError as error:
            self.report.check(what, str(error))
            return None
        # Asked again after an answer was broken off, a server may or may not have begun.
        likely = [reference.answers[name] for name in (step, f"{step} again") if name in reference.answers]
        self.report.answer(what, answer, *likely)
        return answer

    def at_once(self, step):
        with ThreadPoolExecutor(len(self.chats)) as pool:
            list(pool.map(lambda chat: self.ask(chat, step), self.chats))

    def in_turns(self, step):
        for chat in self.chats:
            self.ask(chat, step)

    def cancel(self, chat, step, after):
        chat.past = list(self.expected[chat.conversation.index].pasts[step])
        try:
            chat.cancel(self.turn_of(chat, step), after)
            self.server.wait_until_idle()
        except ServerError as error:
            self.report.check(f"{self.label}: cancelled after {after} tokens", str(error))

    def occupy_idle_slots(self):
        """A short request by which a server in its default setting saves and clears every idle slot."""
        self.server.complete("Hello", 1)

    # ---- scenarios

    def default_setting(self):
        """Slots that are saved and cleared by the server itself as soon as another conversation goes on."""
        self.report.say(f"{self.label}: four at once, in turns, at once again")
        self.at_once("turn 1")
        self.occupy_idle_slots()
        self.in_turns("turn 2")
        self.occupy_idle_slots()
        self.at_once("turn 3")
        self.report.say(f"{self.label}: regenerated, edited, broken off")
        # One conversation, in its slot once it is restored: any other would be restored at its next request.
        self.occupy_idle_slots()
        chat = self.chats[0]
        for step in ("again", "edited", "edited again"):
            self.ask(chat, step)
        self.cancel(chat, "turn 3", after=3)
        self.cancel(chat, "edited", after=0)
        self.ask(chat, "edited")

    def slots_kept(self):
        """Each conversation stays in its slot."""
        self.report.say(f"{self.label}: four at once, in turns, at once again")
        self.at_once("turn 1")
        self.in_turns("turn 2")
        self.at_once("turn 3")
        self.report.say(f"{self.label}: regenerated, edited, broken off")
        self.at_once("again")
        self.in_turns("edited")
        for chat in self.chats[:2]:
            self.cancel(chat, "turn 3", after=3)
        self.at_once("edited again")

    def long_answer(self, tokens):
        """More tokens than can be taken back one by one, and then the answer is asked for anew. Follows slots_kept()."""
        self.report.say(f"{self.label}: a long answer is asked for anew")
        chat = self.chats[2]
        chat.past, chat.slot = list(self.expected[chat.conversation.index].pasts["turn 4"]), -1
        try:
            chat.ask(self.turn_of(chat, "turn 4"), tokens)
        except ServerError as error:
            self.report.check(f"{self.label}: a long answer", str(error))
        self.ask(chat, "turn 4")

    def save_and_restore(self):
        """A slot saved, erased and restored twice, then all erased. Follows slots_kept()."""
        self.report.say(f"{self.label}: a slot saved, erased, restored")
        chat = self.chats[3]
        found = self.ask(chat, "edited again")
        if found is None:
            return
        try:
            self.server.slot("save", found.slot)
            for _ in range(2):
                self.server.slot("erase", found.slot)
                self.server.slot("restore", found.slot)
                self.ask(chat, "turn 4", slot=found.slot)
            for slot in range(4):
                self.server.slot("erase", slot)
            self.occupy_idle_slots()
        except ServerError as error:
            self.report.check(f"{self.label}: slots saved, erased and restored", str(error))

    # ---- what the plug-in says

    def statistics(self, compressed):
        """Checks the counters after conversations; returns them."""
        s = self.server.statistics()
        self.report.say(f"{self.label}: {s}")
        if not self.report.check(f"{self.label}: the plug-in is loaded", None if s["loaded"] else "it is not"):
            return s
        for counter in ("stateless_calls", "refusals"):
            self.report.check(f"{self.label}: no {counter.replace('_', ' ')}", s[counter] and f"{s[counter]} of "
                              f"{s['cached_calls'] + s[counter]}")
        if compressed:
            most = 0.7 * s["tokens"] * 3  # kv heads of SmolLM2-135M
            self.report.check(f"{self.label}: entries were dropped",
                              s["entries"] > most and f"{s['entries']} entries of {s['tokens']} tokens in layers")
        return s
