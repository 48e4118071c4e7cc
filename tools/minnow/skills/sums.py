"""Adding and subtracting whole numbers of up to three digits, worked in columns from the right.

The working first restates the sum ("347 + 285:"), then does ones, tens, hundreds with the carry (or borrow) written as
a third term, then gives the result. With thinking on, the working stands inside <think>.
"""
from common import item

ADD = ["What is {a} + {b}?", "{a} + {b}", "{a}+{b}", "{a} + {b} = ?", "{a}+{b}=", "What is {a} plus {b}?", "Add {a} and {b}.",
       "Calculate {a} + {b}.", "How much is {a} plus {b}?", "What is the sum of {a} and {b}?", "Compute {a}+{b}.",
       "I have {a} {things} and get {b} more. How many {things} do I have?", "What do {a} and {b} make together?",
       "{a} {things} and {b} {things}, how many in all?", "What's {a} + {b}?", "what is {a}+{b}", "{a} plus {b}"]
SUB = ["What is {a} - {b}?", "{a} - {b}", "{a}-{b}", "{a} - {b} = ?", "{a}-{b}=", "What is {a} minus {b}?",
       "Subtract {b} from {a}.", "Take {b} away from {a}.", "Calculate {a} - {b}.", "How much is {a} minus {b}?",
       "Compute {a}-{b}.", "I have {a} {things} and give away {b}. How many {things} are left?", "What's {a} - {b}?",
       "There were {a} {things} and {b} are gone. How many are left?", "what is {a}-{b}", "{a} minus {b}"]
THINGS = "apples books coins stones cards boats shells pens eggs cups".split()
PLACES = ["ones", "tens", "hundreds"]


def columns(a, b, sign):
    """The columns of a (+|-) b with a >= b when subtracting: list of texts."""
    n, out, carry = max(len(str(a)), len(str(b))), [], 0
    for i in range(n):
        x, y = a // 10 ** i % 10, b // 10 ** i % 10
        tail = sign + "1" if carry else ""
        if sign == "+":
            s = x + y + carry
            out.append("%s %d+%d%s=%d" % (PLACES[i], x, y, tail, s))
            carry = s // 10
        else:
            borrow = x - carry < y
            x += 10 * borrow
            out.append("%s %d-%d%s=%d" % (PLACES[i], x, y, tail, x - y - carry))
            carry = borrow
    return ", ".join(out)


def working(a, b, sign):
    if sign == "-" and a < b:
        return "%d - %d is below zero. %d - %d: %s, so -%d." % (a, b, b, a, columns(b, a, "-"), b - a)
    return "%d %s %d: %s, so %d." % (a, sign, b, columns(a, b, sign), a + b if sign == "+" else a - b)


def number(g, digits):
    return g.r.randint(0 if digits == 1 else 10 ** (digits - 1), 10 ** digits - 1)


def make(g, digits=None, thinking=None, below_zero=None):
    r = g.r
    n = digits or r.choice((1, 2, 2, 3, 3, 3))
    sign = "-" if below_zero else r.choice("+-")
    while True:
        other = n if r.random() < 0.65 else r.randint(1, n)
        a, b = number(g, n), number(g, other)
        if r.random() < 0.5:
            a, b = b, a
        if sign == "-" and a < b:
            below = r.random() < 0.2 if below_zero is None else below_zero
            if not below:
                a, b = b, a
        elif below_zero:
            continue
        if g.ok("operands", "%d %s %d" % (a, sign, b), 8):
            break
    q = g.ask("sums", ADD if sign == "+" else SUB, a=a, b=b, things=r.choice(THINGS))
    result = a + b if sign == "+" else a - b
    check = {"kind": "last_number", "value": str(result)}
    category = "arithmetic below zero" if result < 0 else "arithmetic 3 digits" if n == 3 else "arithmetic up to 2 digits"
    think = r.random() < 0.35 if thinking is None else thinking
    if think:
        return item(category, q, "%d %s %d = %d." % (a, sign, b, result), check, working(a, b, sign))
    return item(category, q, working(a, b, sign), check)
