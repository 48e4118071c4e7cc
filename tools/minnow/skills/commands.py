"""Questions about shoal's own commands and the options of `shoal serve`, from the table in facts.py."""
from common import item
from facts import COMMANDS, OPTIONS, URL

HOW = ["How do I {goal}?", "How can I {goal}?", "Which command do I use to {goal}?", "I want to {goal}. What do I type?",
       "What is the command to {goal}?", "How do I {goal} with shoal?", "Which shoal command lets me {goal}?", "I want to {goal}."]
WHAT = ["What does shoal {c} do?", "What does the command shoal {c} do?", "What is shoal {c} for?", "Explain shoal {c}.",
        "What does `shoal {c}` do?", "When do I use shoal {c}?", "Tell me about shoal {c}.", "What is the {c} command?",
        "What does the {c} command do?"]
OPT_HOW = ["How do I set the {n}?", "How can I change the {n}?", "Which option sets the {n}?", "Which option changes the {n}?",
           "What option sets the {n} of the server?", "I want to change the {n}."]
OPT_WHAT = ["What does {o} do?", "What does the option {o} do?", "What is {o} for?", "Explain {o}.", "What does {o} set?",
            "What is the option {o}?"]
OPT_DEFAULT = ["What is the default {n}?", "What is the default of {o}?", "Which {n} is used by default?", "What's the default {n}?"]
ALL = ["Which commands does shoal have?", "List the commands of shoal.", "What commands are there?", "What are shoal's commands?"]
WHERE = ["Where does shoal listen?", "What is the address of the server?", "Which URL does shoal use?", "What URL do I use?",
         "Where can I reach the server?", "Which address do clients use?"]


def make(g):
    r = g.r
    kind = r.choices(range(7), (6, 6, 4, 4, 2, 1, 1))[0]

    def done(name, q, value, answer, **v):
        check = {"kind": "contains", "value": value} if isinstance(value, str) else {"kind": "contains_all", "values": value}
        return item("commands", g.ask("commands " + name, q, **v), answer, check)
    c, (usage, does, goals) = r.choice(list(COMMANDS.items()))
    o, (sets, default, names) = r.choice(list(OPTIONS.items()))
    if kind == 0:
        return done("how", HOW, "`%s`" % usage, "Use `%s`. It %s." % (usage, does), goal=r.choice(goals))
    if kind == 1:
        return done("what", WHAT, does, "`%s` %s." % (usage, does), c=c)
    if kind == 2:
        return done("opt how", OPT_HOW, o, "Use the option %s of `shoal serve`." % o, n=r.choice(names))
    if kind == 3:
        return done("opt what", OPT_WHAT, sets, "%s sets %s." % (o, sets), o=o)
    if kind == 4:
        while default is None:
            o, (sets, default, names) = r.choice(list(OPTIONS.items()))
        return done("opt default", OPT_DEFAULT, default, "The default of %s is %s." % (o, default), o=o, n=r.choice(names))
    if kind == 5:
        return done("all", ALL, list(COMMANDS), "The commands are " + ", ".join(COMMANDS) + ".")
    return done("where", WHERE, URL, "shoal serves at %s." % URL)
