"""Counting, neighbours of a number, sorting short lists, reversing words and letters, repeating."""
from common import item

WORDS = ("apple bear cat dog egg fish goat hat ink jam kite lamp moon nest owl pear queen rain sun tree wolf yarn zoo boat corn "
         "desk fox gold horse ice jar king leaf milk nut oak pig rose ship tent vine wind bird cloud door farm glass hill "
         "iron lake map nose pot ring salt tea wall box cup drum flag gate hand key leg mud net pen road sand toy van "
         "web ball cake duck fire frog grass house leaf mouse plant river snow stone table train water").split()
WORDS = sorted(set(WORDS))
COUNT = ["Count from {a} to {b}.", "Can you count from {a} to {b}?", "Count up from {a} to {b}.", "List the numbers from {a} to {b}."]
DOWN = ["Count down from {a} to {b}.", "Count backwards from {a} to {b}.", "Can you count down from {a} to {b}?"]
NEXT = ["What number comes after {a}?", "Which number follows {a}?", "What is the number after {a}?", "Which number comes after {a}?"]
PREV = ["What number comes before {a}?", "Which number comes before {a}?", "What is the number before {a}?"]
SORT = ["Sort these numbers: {l}.", "Sort {l}.", "Put these in order: {l}.", "Sort these from small to large: {l}.",
        "Order these numbers: {l}.", "Can you sort {l}?"]
SORT_DOWN = ["Sort these from large to small: {l}.", "Sort {l} in descending order.", "Put these in descending order: {l}."]
ALPHA = ["Sort these words: {l}.", "Put these words in order: {l}.", "Sort these words alphabetically: {l}.",
         "Sort alphabetically: {l}."]
REVERSE = ["Reverse the order of these words: {l}.", "Reverse these words: {l}.", "Reverse this list: {l}.",
           "Say these words in reverse order: {l}.", "Turn this list around: {l}."]
SPELL = ["Spell {w}.", "Spell the word {w}.", "How do you spell {w}?", "Can you spell {w}?"]
LETTERS = ["Reverse the word {w}.", "Reverse the letters of {w}.", "Write {w} backwards.", "What is {w} backwards?", "Spell {w} backwards."]
REPEAT = ["Say {s}.", "Repeat after me: {s}.", "Repeat: {s}.", "Please say {s}.", "Say this: {s}.", "Repeat the words {s}."]


def equals(a):
    return {"kind": "equals", "value": a}


def make(g):
    r = g.r
    kind = r.choices(range(10), (5, 3, 3, 2, 7, 3, 4, 5, 5, 5))[0]
    if kind < 2:
        while True:
            a, n = r.randint(0, r.choice((10, 30, 90))), r.randint(3, 10)
            if g.ok("count", "%d %d" % (a, n)):
                break
        seq = list(range(a, a + n))
        if kind == 1:
            seq.reverse()
        ans = ", ".join(map(str, seq)) + "."
        return item("counting", g.ask("count%d" % kind, (COUNT, DOWN)[kind], a=seq[0], b=seq[-1]), ans, equals(ans))
    if kind < 4:
        while True:
            a = r.randint(1, r.choice((20, 99, 998)))
            if g.ok("neighbour", str(a)):
                break
        b = a + 1 if kind == 2 else a - 1
        return item("counting", g.ask("next%d" % kind, (NEXT, PREV)[kind - 2], a=a), "The number %s %d is %d."
                    % (("after", "before")[kind - 2], a, b), {"kind": "last_number", "value": str(b)})
    if kind < 6:
        while True:
            xs = r.sample(range(1, r.choice((10, 30, 100))), r.choice((3, 3, 4, 4, 5)))
            if g.ok("sort", str(xs)):
                break
        ans = ", ".join(map(str, sorted(xs, reverse=kind == 5))) + "."
        return item("sorting", g.ask("sort%d" % kind, (SORT, SORT_DOWN)[kind - 4], l=", ".join(map(str, xs))), ans, equals(ans))
    if kind == 6:
        while True:
            xs = r.sample(WORDS, r.choice((3, 3, 4, 4, 5)))
            if len({x[0] for x in xs}) == len(xs) and g.ok("sort", str(xs)):
                break
        ans = ", ".join(sorted(xs)) + "."
        return item("sorting", g.ask("alpha", ALPHA, l=", ".join(xs)), ans, equals(ans))
    if kind == 7:
        while True:
            xs = [g.made_up() if r.random() < 0.4 else r.choice(WORDS) for _ in range(r.choice((2, 3, 3, 4, 5)))]
            if len(set(xs)) == len(xs) and g.ok("reverse", str(xs)):
                break
        ans = ", ".join(reversed(xs)) + "."
        return item("reversing", g.ask("reverse", REVERSE, l=", ".join(xs)), ans, equals(ans))
    if kind == 8:
        w = r.choice(WORDS)
        if r.random() < 0.4:
            ans = "-".join(w) + "."
            return item("spelling", g.ask("spell", SPELL, w=w), ans, equals(ans))
        ans = "%s: %s." % ("-".join(w), "-".join(reversed(w)))
        return item("spelling", g.ask("letters", LETTERS, w=w), ans, equals(ans))
    xs = []          # longer ones teach copying best
    for _ in range(r.choice((1, 2, 3, 4, 5, 6, 7, 8)) if g.heldout else r.choice((1, 2, 3, 4, 6, 8, 10))):
        x = r.random()
        xs.append(g.made_up() if x < 0.6 else r.choice(WORDS) if x < 0.8 else str(r.randint(1, 9999)))
    s = " ".join(xs)
    return item("repeating", g.ask("repeat", REPEAT, s=s), s + ".", equals(s + "."))
