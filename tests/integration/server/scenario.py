"""What people do with llama-server: each function drives one server and checks what it answers.

The expected answers are those of a server that has the same policy and one conversation only. They come in two kinds,
since a policy compresses anew what is read from restored cells: `in place`, where the conversation stays in its slot,
and `restored`, where it is saved, erased and restored before each further turn. llama-server does that by itself with
every idle slot (its default), unless --no-cache-idle-slots is given.
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


def reload(chat):
    """What llama-server does with idle slots, by its own actions.

    Another sequence takes the first cells meanwhile: in the same cells, with the same content, a restored state could not
    be told from one that has been there all along.
    """
    chat.server.slot("save", chat.slot)
    chat.server.slot("erase", chat.slot)
    chat.server.complete("Hello", 1, id_slot=chat.slot + 1)
    chat.server.slot("restore", chat.slot)
    chat.server.slot("erase", chat.slot + 1)


def alone(server, conversation, restored):
    """All steps of one conversation with a fresh server."""
    chat, reference = Chat(server, conversation, slot=0), Reference()
    for number, turn in enumerate(conversation.turns[:3], 1):
        if number > 1 and restored:
            reload(chat)
        answer = reference.keep(f"turn {number}", chat, chat.ask(turn))
        if number < 3:
            chat.accept(turn, answer)
    if restored:
        reload(chat)
    reference.keep("again", chat, chat.ask(conversation.turns[2]))
    reference.keep("edited", chat, chat.ask(conversation.edited))
    reference.keep("edited again", chat, chat.ask(conversation.edited))
    if not restored:
        after_edit(chat, reference)
    return reference


def after_edit(chat, reference):
    """Turn 4 in place and, taken back, from restored cells."""
    edited, turn = chat.conversation.edited, chat.conversation.turns[3]
    past = list(chat.past)
    chat.accept(edited, reference.answers["edited"])
    reference.keep("turn 4", chat, chat.ask(turn))
    continued, chat.past = chat.past, past
    chat.ask(edited)
    chat.past = continued
    reload(chat)
    reference.keep("restored turn 4", chat, chat.ask(turn))


class Scenario:
    """One server with all conversations, and the answers that each is expected to get."""

    def __init__(self, server, report, label, conversations, in_place, restored, reclaim=False):
        self.server = server
        self.report = report
        self.label = label
        self.chats = [Chat(server, conversation) for conversation in conversations]
        self.in_place = in_place
        # With reclaiming there is nothing in a saved state to read again: what the caches hold has to go on.
        self.restored = in_place if reclaim else restored
        self.turn_4 = "turn 4" if reclaim else "restored turn 4"

    # ---- steps

    def turn_of(self, chat, step):
        turns = chat.conversation.turns
        return chat.conversation.edited if step.startswith("edited") else turns[2 if step == "again" else int(step[-1]) - 1]

    def ask(self, chat, step, expected, slot=-1, compare=True):
        """Asks with the past that the expected answer had. A refused request is a failed check."""
        reference = expected[chat.conversation.index]
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
        if compare:
            self.report.answer(what, answer, *likely)
        return answer

    def at_once(self, step, expected):
        with ThreadPoolExecutor(len(self.chats)) as pool:
            list(pool.map(lambda chat: self.ask(chat, step, expected), self.chats))

    def in_turns(self, step, expected):
        for chat in self.chats:
            self.ask(chat, step, expected)

    def cancel(self, chat, step, expected, after):
        chat.past = list(expected[chat.conversation.index].pasts[step])
        try:
            chat.cancel(self.turn_of(chat, step), after)
        except ServerError as error:
            self.report.check(f"{self.label}: cancelled after {after} tokens", str(error))

    def occupy_idle_slots(self):
        """A short request by which a server in its default setting saves and clears every idle slot."""
        self.server.complete("Hello", 1)

    # ---- scenarios

    def default_setting(self):
        """Slots that are saved and cleared by the server itself as soon as another conversation goes on."""
        self.report.say(f"{self.label}: four at once, in turns, at once again")
        self.at_once("turn 1", self.in_place)
        self.occupy_idle_slots()
        self.in_turns("turn 2", self.restored)
        self.occupy_idle_slots()
        self.at_once("turn 3", self.restored)
        self.report.say(f"{self.label}: regenerated, edited, broken off")
        # One conversation, in its slot once it is restored: any other would be restored at its next request.
        self.occupy_idle_slots()
        chat = self.chats[0]
        for step in ("again", "edited", "edited again"):
            self.ask(chat, step, self.restored)
        self.cancel(chat, "turn 3", self.restored, after=3)
        self.cancel(chat, "edited", self.restored, after=0)
        # A restored state is compressed some tokens later: which of them were broken off is a matter of time.
        self.ask(chat, "edited", self.restored, compare=self.restored is self.in_place)

    def slots_kept(self):
        """Each conversation stays in its slot."""
        self.report.say(f"{self.label}: four at once, in turns, at once again")
        self.at_once("turn 1", self.in_place)
        self.in_turns("turn 2", self.in_place)
        self.at_once("turn 3", self.in_place)
        self.report.say(f"{self.label}: regenerated, edited, broken off")
        self.at_once("again", self.in_place)
        self.in_turns("edited", self.in_place)
        for chat in self.chats[:2]:
            self.cancel(chat, "turn 3", self.in_place, after=3)
        self.at_once("edited again", self.in_place)

    def save_and_restore(self):
        """A slot saved, erased and restored twice, then all erased. Follows slots_kept()."""
        self.report.say(f"{self.label}: a slot saved, erased, restored")
        chat = self.chats[3]
        found = self.ask(chat, "edited again", self.in_place)
        if found is None:
            return
        try:
            self.server.slot("save", found.slot)
            for _ in range(2):
                self.server.slot("erase", found.slot)
                self.server.slot("restore", found.slot)
                self.ask(chat, self.turn_4, self.in_place, slot=found.slot)
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
