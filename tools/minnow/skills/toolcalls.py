"""Tool calls in Hermes form for schemas given in the prompt, and answers from their results.

Tools are put together from a verb, a noun and parameters, so that a call cannot be learnt by heart: the name and the
keys must be copied from the schema and the values from the question. One to three tools are offered. In some items no
tool fits: then the answer is a refusal, or the plain answer when minnow knows it itself. (verb, noun) pairs, values
and wordings are held out by hash.
"""
import json
from common import frame, lower_first
from skills.lists import WORDS

# noun -> phrase after the verb
NOUNS = ("door light lamp window heater alarm timer song movie ticket order invoice recipe room table report letter message note task file "
         "folder image backup meeting lesson game account user product parcel train flight bus taxi hotel weather price stock route printer "
         "camera robot garden oven fan radio playlist album battery sensor server job contact event reminder book word").split()
LOOK = [("get", "Get the {n}", ["Get the {n}", "What is the {n}", "Tell me the {n}", "I need the {n}"]),
        ("check", "Check the {n}", ["Check the {n}", "Please check the {n}", "How is the {n}"]),
        ("find", "Find the {n}", ["Find the {n}", "Where is the {n}", "Look for the {n}"]),
        ("show", "Show the {n}", ["Show the {n}", "Show me the {n}", "Let me see the {n}"]),
        ("search", "Search for a {n}", ["Search for a {n}", "Search a {n}", "Look for a {n}"])]
ACT = [("open", "Open the {n}", ["Open the {n}", "Please open the {n}", "I want to open the {n}"]),
       ("close", "Close the {n}", ["Close the {n}", "Please close the {n}", "I want to close the {n}"]),
       ("start", "Start the {n}", ["Start the {n}", "Please start the {n}", "Begin the {n}"]),
       ("stop", "Stop the {n}", ["Stop the {n}", "Please stop the {n}", "End the {n}"]),
       ("add", "Add a {n}", ["Add a {n}", "Add a new {n}", "I want to add a {n}"]),
       ("create", "Create a {n}", ["Create a {n}", "Make a {n}", "Create a new {n}", "I need a new {n}"]),
       ("delete", "Delete the {n}", ["Delete the {n}", "Remove the {n}", "Get rid of the {n}"]),
       ("send", "Send a {n}", ["Send a {n}", "Please send a {n}", "I want to send a {n}"]),
       ("book", "Book a {n}", ["Book a {n}", "Reserve a {n}", "I want to book a {n}"]),
       ("set", "Set the {n}", ["Set the {n}", "Please set the {n}", "Change the {n}"]),
       ("move", "Move the {n}", ["Move the {n}", "Please move the {n}", "Bring the {n}"]),
       ("play", "Play the {n}", ["Play the {n}", "Please play the {n}", "I want to hear the {n}"])]
# Requests that nobody could tell apart: one noun never stands with two verbs of a group ("Show me the door": show, get, check?).
ALIKE = {"get": "see", "check": "see", "find": "see", "show": "see", "search": "see", "add": "make", "create": "make",
         "start": "start", "play": "start"}
# key -> (type, description, phrases)
PARAMS = {
    "city": ("string", "The city", ["in {v}", "in the city of {v}", "for {v}"]),
    "name": ("string", "The name", ["called {v}", "named {v}", "with the name {v}"]),
    "location": ("string", "The place", ["at {v}", "in {v}", "located in {v}"]),
    "room": ("string", "The room", ["in the room {v}", "in room {v}"]),
    "owner": ("string", "The owner", ["of {v}", "owned by {v}", "that belongs to {v}"]),
    "title": ("string", "The title", ["titled {v}", "with the title {v}"]),
    "color": ("string", "The color", ["in color {v}", "with the color {v}", "colored {v}"]),
    "id": ("integer", "The number", ["with id {v}", "with number {v}", "number {v}", "id {v}"]),
    "count": ("integer", "How many", ["{v} times", "with a count of {v}"]),
    "minutes": ("integer", "Minutes", ["for {v} minutes", "in {v} minutes"]),
    "level": ("integer", "The level", ["at level {v}", "with level {v}", "to level {v}"]),
    "day": ("string", "The day", ["on {v}"]),
    "to": ("string", "The receiver", ["to {v}"]),
    "text": ("string", "The text", ["that says {v}", "with the text {v}", "saying {v}"]),
    "unit": ("string", "The unit", ["in {v}"]),
    "query": ("string", "What to look for", ["about {v}", "matching {v}"]),
}
CITIES = ("Paris Berlin Rome Madrid Oslo London Vienna Tokyo Cairo Lima Boston Dublin Prague Delhi Sydney Milan Lyon Kyoto Porto Bergen "
          "Geneva Hamburg Naples Seville Toronto Chicago Denver Dallas Austin Seattle").split()
COLORS = "red blue green white black yellow orange purple pink brown".split()
UNITS = "celsius fahrenheit meters miles euros dollars grams liters".split()
PEOPLE = "Anna Ben Clara David Emma Felix Greta Hugo Ida Jan Kim Leo Mia Nora Otto Paul Rosa Sam Tom Uma Vera Walt Yara Zoe".split()
WEEK = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
NO_TOOL = "Sorry, none of my tools can do that."
RESULT_KEYS = "status price temperature state total size length speed distance weight humidity rating score owner place color name".split()
ERRORS = ["not found", "no permission", "out of order", "time out", "invalid id", "already closed", "too many requests"]


class NoWording(Exception):
    """This tool has no wording on this side: another one is made."""


def value(g, key):
    r = g.r
    if PARAMS[key][0] == "integer":
        return g.value("number", range(1, r.choice((40, 100, 1000, 10000))))
    if key == "unit":
        return r.choice(UNITS)
    if key == "day":
        return r.choice(WEEK)
    if r.random() < 0.55:
        if key in ("text", "title", "query") and r.random() < 0.5:
            return g.made_up() + " " + g.made_up()
        return g.made_up()
    if key == "color":
        return r.choice(COLORS)
    if key in ("text", "title", "query"):
        return " ".join(g.value("word", WORDS) for _ in range(r.choice((1, 2, 3))))
    return g.value("word", CITIES if key in ("city", "location") else PEOPLE if key in ("owner", "to", "name") else WORDS)


def tool(g, taken):
    """A new tool: (verb row, noun, params in order, required, is a look-up, schema)."""
    r = g.r
    while True:
        look = r.random() < 0.5
        verb, noun = r.choice(LOOK if look else ACT), r.choice(NOUNS)
        sense = (ALIKE.get(verb[0], verb[0]), noun)
        if (noun not in taken or (r.random() < 0.3 and sense not in taken)) and g.ok("tool", verb[0] + noun):
            break
    taken.update((noun, sense))
    keys = r.sample(list(PARAMS), r.choice((0, 1, 1, 2, 2, 2, 3) if not g.heldout else (0, 1, 1, 1, 1, 2, 2, 3)))
    if len({"city", "location", "room", "unit"} & set(keys)) > 1:   # "in X in Y" could not be told apart
        keys = [k for k in keys if k not in ("location", "room", "unit")] or ["city"]
    required = [k for i, k in enumerate(keys) if i == 0 or r.random() < 0.6]
    name = r.choice(("{v}_{n}", "{v}_{n}", "{v}_{n}", "{v}_{n}", "{n}_{v}", "{v}{N}")).format(v=verb[0], n=noun, N=noun.capitalize())
    described = r.random() < 0.4
    props = {}
    for k in keys:
        props[k] = {"type": PARAMS[k][0]}
        if described:
            props[k]["description"] = PARAMS[k][1]
    fn = {"name": name, "description": verb[1].format(n=noun), "parameters": {"type": "object", "properties": props, "required": required}}
    return verb, noun, keys, required, look, {"type": "function", "function": fn}


def request(g, t):
    """A question that wants this tool, and the arguments."""
    r = g.r
    verb, noun, keys, required, look, _ = t
    given = [k for k in keys if k in required or r.random() < 0.5]
    args = {k: value(g, k) for k in given}
    order = given[:]
    r.shuffle(order)
    for tries in range(300):
        core = r.choice(verb[2])
        phrases = {k: r.choice(PARAMS[k][2]) for k in order}
        f = r.choice(("{Q}", "{Q}", "{Q}", "{Q}", "{lower}", "Please: {q}", "{Q} Thanks!", "Hi! {Q}", "Can you help? {Q}", "{nopunct}",
                      "Now: {q}", "Hey minnow, {q}"))
        if g.ok("wording tool", core + "|" + f + "|" + "|".join(phrases.values())):
            break
    else:
        raise NoWording
    q = " ".join([core.format(n=noun)] + [phrases[k].format(v=args[k]) for k in order])
    q += "?" if core.startswith(("What", "How", "Where")) else "."
    return frame(f, q) if f != "{lower}" else lower_first(q)[:-1], args


def call_message(g, t, args, think):
    name = t[5]["function"]["name"]
    m = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": {"name": name, "arguments": args}}]}
    if think:
        m["reasoning_content"] = "The tool %s fits." % name
    return m


def result_messages(g, t, think):
    """The tool's result and the answer from it: ([messages], check)."""
    r = g.r
    if r.random() < 0.12:
        e = r.choice(ERRORS)
        res, answer, check = {"error": e}, "Sorry, that did not work: %s." % e, {"kind": "contains", "value": e}
    elif t[4]:
        keys = r.sample(RESULT_KEYS, r.choice((1, 1, 2)))
        res = {k: g.value("number", range(1, r.choice((40, 100, 1000)))) if r.random() < 0.5 else
               (g.made_up() if r.random() < 0.6 else g.value("word", WORDS)) for k in keys}
        answer = "The " + " and the ".join("%s is %s" % (k, v) for k, v in res.items()) + "."
        check = {"kind": "contains_all", "values": ["%s is %s" % (k, v) for k, v in res.items()]}
    else:
        res = {"status": r.choice(("ok", "done", "success"))}
        answer, check = "Done.", {"kind": "contains", "value": "Done"}
    a = {"role": "assistant", "content": answer}
    if think:
        a["reasoning_content"] = "The tool has answered."
    return [{"role": "tool", "content": json.dumps(res)}, a], check


def refused(g, other, think):
    """A question that wants a tool which is not offered, and the refusal."""
    q, _ = request(g, other)
    a = {"role": "assistant", "content": NO_TOOL}
    if think:
        a["reasoning_content"] = "No tool fits."
    return [{"role": "user", "content": q}, a]


def make(*args, **kwargs):
    while True:
        try:
            return make_once(*args, **kwargs)
        except NoWording:
            pass


def make_once(g, others=None, rounds=None, kind=None):
    """kind: call (ends with the call), result (ends with the answer), none (no tool fits), plain (needs no tool)."""
    r = g.r
    kind = kind or r.choices(("call", "result", "none", "plain"), (5, 3, 3, 1))[0]
    taken, think = set(), r.random() < 0.15
    tools = [tool(g, taken) for _ in range(r.choice((1, 1, 2, 2, 3) if g.heldout else (1, 2, 2, 3, 3)))]
    fresh = tools
    it = {"category": "tool calls", "tools": [t[5] for t in tools]}
    if think:
        it["enable_thinking"] = True
    messages = []
    # rounds before: many questions to one list of tools teach choosing at the price of one schema
    for _ in range(rounds if rounds is not None else r.choice((0, 0, 1) if g.heldout else (0, 0, 1, 2, 3))):
        if not g.heldout and r.random() < 0.25:
            messages += refused(g, tool(g, set(taken)), think)
            continue
        t = r.choice(tools if g.heldout else fresh or tools)     # a tool called before could be copied from the call
        fresh = [x for x in fresh if x is not t]
        q, args = request(g, t)
        messages += [{"role": "user", "content": q}, call_message(g, t, args, think)]
        if g.heldout or r.random() < 0.5:       # results are learnt sooner than calls
            messages += result_messages(g, t, think)[0]
    if kind in ("call", "result"):
        t = r.choice(tools if g.heldout else fresh or tools)
        q, args = request(g, t)
        messages += [{"role": "user", "content": q}, call_message(g, t, args, think)]
        it["check"] = {"kind": "tool_call", "name": t[5]["function"]["name"], "arguments": args}
        if kind == "result":
            more, it["check"] = result_messages(g, t, think)
            messages += more
            it["category"] = "tool results"
    elif kind == "none":
        messages += refused(g, tool(g, taken), think)
        it["check"], it["category"] = {"kind": "declines"}, "no tool fits"
    else:
        o = others(g)
        it["category"] = o["category"]
        it.pop("enable_thinking", None)
        if o.get("enable_thinking"):
            it["enable_thinking"] = True
        for m in messages:
            m.pop("reasoning_content", None)
        messages += o["messages"]
        it["check"] = o["check"]
    it["messages"] = messages
    return it
