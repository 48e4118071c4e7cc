"""Days, months and the clock's fixed numbers."""
from common import PROPER, item

DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
LENGTH = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
ORDINAL = "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth".split()
PROPER.update(DAYS)
PROPER.update(MONTHS)

AFTER = ["What day comes after {x}?", "Which day comes after {x}?", "What is the day after {x}?", "Which day follows {x}?",
         "Today is {x}. What day is tomorrow?", "If today is {x}, what is tomorrow?", "What day is after {x}?"]
BEFORE = ["What day comes before {x}?", "Which day comes before {x}?", "What is the day before {x}?",
          "Today is {x}. What day was yesterday?", "If today is {x}, what was yesterday?", "What day is before {x}?"]
IN_DAYS = ["Today is {x}. What day is it in {n} days?", "What day is {n} days after {x}?", "Which day is {n} days after {x}?"]
M_AFTER = ["What month comes after {x}?", "Which month comes after {x}?", "What is the month after {x}?",
           "Which month follows {x}?", "What is the next month after {x}?"]
M_BEFORE = ["What month comes before {x}?", "Which month comes before {x}?", "What is the month before {x}?",
            "Which month is before {x}?"]
M_DAYS = ["How many days does {x} have?", "How many days are in {x}?", "How many days are there in {x}?", "How long is {x} in days?"]
NTH = ["What is the {o} month?", "Which month is the {o}?", "Which is the {o} month of the year?", "Name the {o} month."]
NTH_DAY = ["What is the {o} day of the week?", "Which is the {o} day of the week?", "Name the {o} day of the week."]
WHICH = ["Which number is {x} among the months?", "What number is the month {x}?", "{x} is which month of the year?"]
ALL_DAYS = ["List the days of the week.", "What are the days of the week?", "Name the days of the week.", "Tell me all days of the week."]
ALL_MONTHS = ["List the months of the year.", "What are the months of the year?", "Name the months.", "Tell me all months of the year."]
FIXED = [("days", "a week", "7"), ("days", "a year", "365"), ("months", "a year", "12"), ("hours", "a day", "24"),
         ("minutes", "an hour", "60"), ("seconds", "a minute", "60"), ("days", "a leap year", "366"), ("weeks", "a year", "52")]
FIXED_Q = ["How many {u} are in {w}?", "How many {u} are there in {w}?", "How many {u} does {w} have?", "How many {u} in {w}?"]


def make(g):
    r = g.r
    kind = r.choices(range(12), (4, 4, 2, 4, 4, 4, 3, 2, 2, 1, 1, 3))[0]
    d, m = r.randrange(7), r.randrange(12)

    def done(name, cores, value, answer, **v):
        values = value if isinstance(value, list) else [value]
        check = {"kind": "contains", "value": values[0]} if len(values) == 1 else {"kind": "contains_all", "values": values}
        return item("calendar", g.ask("calendar " + name, cores, **v), answer, check)
    if kind == 0:
        y = DAYS[(d + 1) % 7]
        return done("after", AFTER, y, "The day after %s is %s." % (DAYS[d], y), x=DAYS[d])
    if kind == 1:
        y = DAYS[(d - 1) % 7]
        return done("before", BEFORE, y, "The day before %s is %s." % (DAYS[d], y), x=DAYS[d])
    if kind == 2:
        n = r.randint(2, 6)
        steps = [DAYS[(d + i) % 7] for i in range(1, n + 1)]
        return done("in days", IN_DAYS, "It is " + steps[-1], "%s. It is %s." % (", ".join(steps), steps[-1]), x=DAYS[d], n=n)
    if kind == 3:
        y = MONTHS[(m + 1) % 12]
        return done("month after", M_AFTER, y, "The month after %s is %s." % (MONTHS[m], y), x=MONTHS[m])
    if kind == 4:
        y = MONTHS[(m - 1) % 12]
        return done("month before", M_BEFORE, y, "The month before %s is %s." % (MONTHS[m], y), x=MONTHS[m])
    if kind == 5:
        a = "February has 28 days, and 29 in a leap year." if m == 1 else "%s has %d days." % (MONTHS[m], LENGTH[m])
        return done("length", M_DAYS, "%d days" % LENGTH[m], a, x=MONTHS[m])
    if kind == 6:
        return done("nth", NTH, MONTHS[m], "The %s month is %s." % (ORDINAL[m], MONTHS[m]), o=ORDINAL[m])
    if kind == 7:
        return done("nth day", NTH_DAY, DAYS[d], "The %s day of the week is %s." % (ORDINAL[d], DAYS[d]), o=ORDINAL[d])
    if kind == 8:
        return done("number", WHICH, "month %d" % (m + 1), "%s is month %d." % (MONTHS[m], m + 1), x=MONTHS[m])
    if kind == 9:
        return done("days", ALL_DAYS, DAYS, ", ".join(DAYS) + ".")
    if kind == 10:
        return done("months", ALL_MONTHS, MONTHS, ", ".join(MONTHS) + ".")
    u, w, n = r.choice(FIXED)
    return done("fixed", FIXED_Q, n, "There are %s %s in %s." % (n, u, w), u=u, w=w)
