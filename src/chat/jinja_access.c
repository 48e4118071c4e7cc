/*
 * Attributes, subscripts, slices and arithmetic on values, as jinja2's sandbox and Python do them: `a.b` looks for a method
 * first and for a member second, `a["b"]` the other way round, what is not there is undefined, and undefined has no parts.
 */
#include <math.h>
#include <string.h>

#include "chat/jinja.h"

static const chat_builtin *methods_of(chat_value v)
{
    switch (v.kind) {
    case CHAT_V_STRING:
        return chat_methods_string;
    case CHAT_V_LIST:
        return chat_methods_list;
    case CHAT_V_TUPLE:
        return chat_methods_tuple;
    case CHAT_V_DICT:
        return chat_methods_dict;
    case CHAT_V_FLOAT:
        return chat_methods_float;
    case CHAT_V_CYCLER:
        return chat_methods_cycler;
    case CHAT_V_LOOP:
        return chat_methods_loop;
    default:
        return NULL;
    }
}

static bool loop_attribute(chat_runtime *rt, const chat_loop *l, str name, chat_value *out)
{
    int64_t index0 = (int64_t)l->index0, n = (int64_t)l->n;
    if (str_is(name, "index"))
        *out = chat_int(index0 + 1);
    else if (str_is(name, "index0"))
        *out = chat_int(index0);
    else if (str_is(name, "revindex"))
        *out = chat_int(n - index0);
    else if (str_is(name, "revindex0"))
        *out = chat_int(n - index0 - 1);
    else if (str_is(name, "first"))
        *out = chat_bool(index0 == 0);
    else if (str_is(name, "last"))
        *out = chat_bool(index0 + 1 >= n);
    else if (str_is(name, "length"))
        *out = chat_int(n);
    else if (str_is(name, "depth"))
        *out = chat_int((int64_t)l->depth0 + 1);
    else if (str_is(name, "depth0"))
        *out = chat_int((int64_t)l->depth0);
    else if (str_is(name, "previtem"))
        *out = index0 > 0 ? l->items[index0 - 1]
                          : chat_undefined_hint(rt, "there is no previous item");
    else if (str_is(name, "nextitem"))
        *out = index0 + 1 < n ? l->items[index0 + 1]
                              : chat_undefined_hint(rt, "there is no next item");
    else
        return false;
    return true;
}

static bool macro_attribute(chat_runtime *rt, const chat_function *f, str name, chat_value *out)
{
    if (f->builtin)
        return false;
    if (str_is(name, "name")) {
        *out = f->macro->kind == CHAT_N_MACRO && f->macro->name
                   ? chat_string(rt, f->name.data, f->name.length)
                   : chat_none();
        return true;
    }
    if (str_is(name, "arguments")) {
        chat_value names = chat_tuple_value(rt, NULL, 0);
        for (uint32_t i = 0; i < f->macro->n_extra; i++) {
            str parameter = f->macro->extra[i]->name->text;
            chat_list_push(rt, names.as.list, chat_string(rt, parameter.data, parameter.length));
        }
        *out = names;
        return true;
    }
    if (str_is(name, "catch_kwargs") || str_is(name, "catch_varargs") || str_is(name, "caller")) {
        unsigned bit = str_is(name, "caller")         ? CHAT_USES_CALLER
                       : str_is(name, "catch_kwargs") ? CHAT_USES_KWARGS
                                                      : CHAT_USES_VARARGS;
        *out = chat_bool((f->macro->flag & bit) != 0);
        return true;
    }
    return false;
}

/* What Python's getattr finds: methods and properties, never members. */
static bool attribute(chat_runtime *rt, chat_value object, str name, chat_value *out)
{
    if (object.kind == CHAT_V_NAMESPACE) {
        chat_value *v = chat_dict_get_str(object.as.dict, name);
        if (v)
            *out = *v;
        return v != NULL;
    }
    if (object.kind == CHAT_V_LOOP && loop_attribute(rt, object.as.loop, name, out))
        return true;
    if (object.kind == CHAT_V_FUNCTION)
        return macro_attribute(rt, object.as.function, name, out);
    if (object.kind == CHAT_V_CYCLER && str_is(name, "current")) {
        *out = object.as.cycler->items[object.as.cycler->position];
        return true;
    }
    if (object.kind == CHAT_V_TUPLE && (object.flags & CHAT_FLAG_GROUP) &&
        (str_is(name, "grouper") || str_is(name, "list"))) {
        *out = object.as.list->items[str_is(name, "list")];
        return true;
    }
    const chat_builtin *table = methods_of(object),
                       *method = table ? chat_find_builtin(table, name) : NULL;
    if (!method)
        return false;
    chat_function *f = chat_alloc(rt, sizeof *f);
    *f = (chat_function){.builtin = method, .receiver = object, .name = str_from(method->name)};
    *out = (chat_value){.kind = CHAT_V_FUNCTION, .as.function = f};
    return true;
}

static const char *owner_name(chat_value v)
{
    return v.kind == CHAT_V_NONE ? "None" : chat_type_name(v);
}

chat_value chat_getattr(chat_runtime *rt, chat_value object, str name)
{
    chat_value out;
    if (object.kind == CHAT_V_UNDEFINED)
        chat_undefined_fail(rt, object);
    if (attribute(rt, object, name, &out))
        return out;
    if (object.kind == CHAT_V_DICT) {
        chat_value *member = chat_dict_get_str(object.as.dict, name);
        if (member)
            return *member;
    }
    return chat_undefined_value(rt, owner_name(object), name);
}

static chat_value character_at(chat_runtime *rt, chat_value s, int64_t at)
{
    if (s.flags & CHAT_FLAG_ASCII)
        return chat_string(rt, s.as.text + at, 1);
    const char *p = s.as.text, *end = p + s.length;
    chat_spend(rt, s.length);
    while (at-- > 0)
        chat_utf8_next(&p, end);
    const char *from = p;
    chat_utf8_next(&p, end);
    return chat_string(rt, from, (size_t)(p - from));
}

/* An element by position; false: no such one. */
static bool element(chat_runtime *rt, chat_value object, int64_t at, chat_value *out)
{
    int64_t n;
    if (object.kind != CHAT_V_STRING && object.kind != CHAT_V_LIST && object.kind != CHAT_V_TUPLE &&
        object.kind != CHAT_V_RANGE)
        return false;
    chat_length(object, &n);
    at += at < 0 ? n : 0;
    if (at < 0 || at >= n)
        return false;
    if (object.kind == CHAT_V_STRING)
        *out = character_at(rt, object, at);
    else if (object.kind == CHAT_V_RANGE)
        *out = chat_int(object.as.range->start + at * object.as.range->step);
    else
        *out = object.as.list->items[at];
    return true;
}

chat_value chat_getitem(chat_runtime *rt, chat_value object, chat_value key)
{
    int64_t at;
    chat_value out;
    if (object.kind == CHAT_V_UNDEFINED)
        chat_undefined_fail(rt, object);
    if (object.kind == CHAT_V_DICT) {
        chat_value *member = chat_dict_get(rt, object.as.dict, key);
        if (member)
            return *member;
    } else if (chat_integer(key, &at) && element(rt, object, at, &out))
        return out;
    if (key.kind == CHAT_V_STRING) {
        if (attribute(rt, object, chat_str(key), &out))
            return out;
        return chat_undefined_value(rt, owner_name(object), chat_str(key));
    }
    chat_value text = chat_to_string(rt, key);
    return chat_undefined_value(rt, owner_name(object), chat_str(text));
}

/* ---- slices --------------------------------------------------------------------------------------------------------- */

static int64_t bound(chat_runtime *rt, chat_value v, int64_t n, int64_t missing, int64_t low,
                     int64_t high)
{
    if (v.kind == CHAT_V_NONE)
        return missing;
    int64_t i = chat_want_integer(rt, v, "slice index");
    if (i < 0) {
        i = i < -n ? -1 : i + n;
        return i < low ? low : i;
    }
    return i > high ? high : i;
}

static chat_value slice_string(chat_runtime *rt, chat_value s, int64_t start, int64_t stop,
                               int64_t step, int64_t count)
{
    if (s.flags & CHAT_FLAG_ASCII && step == 1)
        return chat_string(rt, s.as.text + (count ? start : 0), (size_t)count);
    const char **at = NULL;
    size_t n = chat_string_length(s);
    at = chat_alloc_array(rt, n + 1, sizeof *at);
    const char *p = s.as.text, *end = p + s.length;
    for (size_t i = 0; i < n; i++) {
        at[i] = p;
        chat_utf8_next(&p, end);
    }
    at[n] = end;
    char *out = chat_alloc(rt, s.length + 1), *to = out;
    for (int64_t i = start; step > 0 ? i < stop : i > stop; i += step) {
        size_t bytes = (size_t)(at[i + 1] - at[i]);
        memcpy(to, at[i], bytes);
        to += bytes;
        if (--count == 0)
            break;
    }
    return chat_string(rt, out, (size_t)(to - out));
}

chat_value chat_getslice(chat_runtime *rt, chat_value object, chat_value start, chat_value stop,
                         chat_value step)
{
    int64_t n, by = step.kind == CHAT_V_NONE ? 1 : chat_want_integer(rt, step, "slice step");
    if (object.kind == CHAT_V_UNDEFINED)
        chat_undefined_fail(rt, object);
    if (object.kind != CHAT_V_STRING && object.kind != CHAT_V_LIST && object.kind != CHAT_V_TUPLE &&
        object.kind != CHAT_V_RANGE)
        chat_fail(rt, "'%s' object cannot be sliced", chat_type_name(object));
    if (by == 0)
        chat_fail(rt, "slice step cannot be zero");
    chat_length(object, &n);
    chat_spend(rt, object.kind == CHAT_V_STRING ? object.length : (uint64_t)n * sizeof(chat_value));
    if (by > n + 1)
        by = n + 1;
    if (by < -n - 1)
        by = -n - 1;
    int64_t from = by > 0 ? bound(rt, start, n, 0, 0, n) : bound(rt, start, n, n - 1, -1, n - 1);
    int64_t to = by > 0 ? bound(rt, stop, n, n, 0, n) : bound(rt, stop, n, -1, -1, n - 1);
    int64_t count = by > 0 ? (to > from ? (to - from - 1) / by + 1 : 0)
                           : (from > to ? (from - to - 1) / -by + 1 : 0);
    if (object.kind == CHAT_V_STRING)
        return count ? slice_string(rt, object, from, to, by, count) : chat_string_literal("");
    if (object.kind == CHAT_V_RANGE) {
        chat_range *r = chat_alloc(rt, sizeof *r);
        const chat_range *o = object.as.range;
        *r = (chat_range){o->start + from * o->step, o->start + to * o->step, o->step * by, count};
        return (chat_value){.kind = CHAT_V_RANGE, .as.range = r};
    }
    chat_value out = chat_list_value(rt, (size_t)count);
    for (int64_t i = 0; i < count; i++)
        out.as.list->items[i] = object.as.list->items[from + i * by];
    out.as.list->n = (size_t)count;
    out.kind = object.kind;
    return out;
}

/* ---- arithmetic ----------------------------------------------------------------------------------------------------- */

static const char *const op_texts[] = {"+", "-", "*", "/", "//", "%", "** or pow()"};

BASE_NORETURN static void bad_operands(chat_runtime *rt, chat_op op, chat_value a, chat_value b)
{
    if (a.kind == CHAT_V_UNDEFINED)
        chat_undefined_fail(rt, a);
    if (b.kind == CHAT_V_UNDEFINED)
        chat_undefined_fail(rt, b);
    if (op == CHAT_OP_ADD && a.kind == CHAT_V_STRING)
        chat_fail(rt, "can only concatenate str (not \"%s\") to str", chat_type_name(b));
    chat_fail(rt, "unsupported operand type(s) for %s: '%s' and '%s'", op_texts[op],
              chat_type_name(a), chat_type_name(b));
}

BASE_NORETURN static void overflow(chat_runtime *rt)
{
    chat_fail_status(rt, STATUS_TOO_LARGE, "an integer beyond 64 bits");
}

static chat_value integer_power(chat_runtime *rt, int64_t base, int64_t exponent)
{
    if (exponent < 0) {
        if (base == 0)
            chat_fail(rt, "0.0 cannot be raised to a negative power");
        return chat_float(pow((double)base, (double)exponent));
    }
    int64_t result = 1;
    while (exponent > 0) {
        if ((exponent & 1) && __builtin_mul_overflow(result, base, &result))
            overflow(rt);
        exponent >>= 1;
        if (exponent && __builtin_mul_overflow(base, base, &base))
            overflow(rt);
    }
    return chat_int(result);
}

static chat_value integer_binary(chat_runtime *rt, chat_op op, int64_t a, int64_t b)
{
    int64_t r = 0;
    bool over = false;
    switch (op) {
    case CHAT_OP_ADD:
        over = __builtin_add_overflow(a, b, &r);
        break;
    case CHAT_OP_SUBTRACT:
        over = __builtin_sub_overflow(a, b, &r);
        break;
    case CHAT_OP_MULTIPLY:
        over = __builtin_mul_overflow(a, b, &r);
        break;
    case CHAT_OP_POWER:
        return integer_power(rt, a, b);
    default:
        if (b == 0)
            chat_fail(rt, op == CHAT_OP_DIVIDE ? "division by zero"
                                               : "integer division or modulo by zero");
        if (op == CHAT_OP_DIVIDE)
            return chat_float((double)a / (double)b);
        if (b == -1) { /* INT64_MIN / -1 traps */
            if (op == CHAT_OP_MODULO)
                return chat_int(0);
            over = __builtin_sub_overflow((int64_t)0, a, &r);
            break;
        }
        int64_t quotient = a / b, rest = a % b;
        if (rest != 0 && (rest < 0) != (b < 0)) {
            quotient--;
            rest += b;
        }
        r = op == CHAT_OP_MODULO ? rest : quotient;
    }
    if (over)
        overflow(rt);
    return chat_int(r);
}

static chat_value float_binary(chat_runtime *rt, chat_op op, double a, double b)
{
    switch (op) {
    case CHAT_OP_ADD:
        return chat_float(a + b);
    case CHAT_OP_SUBTRACT:
        return chat_float(a - b);
    case CHAT_OP_MULTIPLY:
        return chat_float(a * b);
    case CHAT_OP_POWER:
        if (a == 0 && b < 0)
            chat_fail(rt, "0.0 cannot be raised to a negative power");
        if (a < 0 && b != floor(b))
            chat_fail(rt, "a negative number to a fractional power is not real");
        return chat_float(pow(a, b));
    default:
        break;
    }
    if (b == 0)
        chat_fail(rt,
                  op == CHAT_OP_DIVIDE ? "float division by zero" : "float floor division by zero");
    if (op == CHAT_OP_DIVIDE)
        return chat_float(a / b);
    double rest = fmod(a, b);
    if (rest != 0 && (rest < 0) != (b < 0))
        rest += b;
    else if (rest == 0)
        rest = copysign(0.0, b);
    if (op == CHAT_OP_MODULO)
        return chat_float(rest);
    double quotient = (a - rest) / b, whole = floor(quotient);
    return chat_float(quotient - whole > 0.5 ? whole + 1 : whole);
}

static chat_value repeat_string(chat_runtime *rt, chat_value s, int64_t times)
{
    uint64_t bytes;
    if (times <= 0 || s.length == 0)
        return chat_string_literal("");
    if (!checked_mul(s.length, (uint64_t)times, &bytes) || bytes > UINT32_MAX)
        chat_fail_status(rt, STATUS_TOO_LARGE, "a string of more than 4 GiB");
    chat_spend(rt, bytes);
    char *out = chat_alloc(rt, bytes + 1);
    for (int64_t i = 0; i < times; i++)
        memcpy(out + (size_t)i * s.length, s.as.text, s.length);
    return chat_string(rt, out, bytes);
}

static chat_value repeat_list(chat_runtime *rt, chat_value l, int64_t times)
{
    uint64_t n;
    if (!checked_mul(l.as.list->n, (uint64_t)BASE_MAX(times, 0), &n) || n > UINT32_MAX)
        chat_fail_status(rt, STATUS_TOO_LARGE, "a list of more than 4 billion items");
    chat_spend(rt, n * sizeof(chat_value));
    chat_value out = chat_list_value(rt, n);
    for (uint64_t i = 0; i < n; i++)
        out.as.list->items[i] = l.as.list->items[i % l.as.list->n];
    out.as.list->n = n;
    out.kind = l.kind;
    return out;
}

static chat_value add_strings(chat_runtime *rt, chat_value a, chat_value b)
{
    uint8_t markup = (a.flags | b.flags) & CHAT_FLAG_MARKUP;
    if (markup) {
        a = a.flags & CHAT_FLAG_MARKUP ? a : chat_escape(rt, a);
        b = b.flags & CHAT_FLAG_MARKUP ? b : chat_escape(rt, b);
    }
    size_t n = (size_t)a.length + b.length;
    chat_spend(rt, n);
    char *out = chat_alloc(rt, n + 1);
    memcpy(out, a.as.text, a.length);
    memcpy(out + a.length, b.as.text, b.length);
    chat_value v = chat_string(rt, out, n);
    v.flags |= markup;
    return v;
}

static chat_value add_lists(chat_runtime *rt, chat_value a, chat_value b)
{
    size_t n = a.as.list->n + b.as.list->n;
    chat_spend(rt, n * sizeof(chat_value));
    chat_value out = chat_list_value(rt, n);
    for (size_t i = 0; i < n; i++)
        out.as.list->items[i] =
            i < a.as.list->n ? a.as.list->items[i] : b.as.list->items[i - a.as.list->n];
    out.as.list->n = n;
    out.kind = a.kind;
    return out;
}

chat_value chat_binary(chat_runtime *rt, chat_op op, chat_value a, chat_value b)
{
    int64_t i, k;
    double x, y;
    bool a_list = a.kind == CHAT_V_LIST || a.kind == CHAT_V_TUPLE;
    bool b_list = b.kind == CHAT_V_LIST || b.kind == CHAT_V_TUPLE;
    if (chat_integer(a, &i) && chat_integer(b, &k))
        return integer_binary(rt, op, i, k);
    if (chat_number(a, &x) && chat_number(b, &y))
        return float_binary(rt, op, x, y);
    if (op == CHAT_OP_ADD) {
        if (a.kind == CHAT_V_STRING && b.kind == CHAT_V_STRING)
            return add_strings(rt, a, b);
        if (a_list && a.kind == b.kind)
            return add_lists(rt, a, b);
    } else if (op == CHAT_OP_MULTIPLY) {
        if (a.kind == CHAT_V_STRING && chat_integer(b, &i))
            return repeat_string(rt, a, i);
        if (b.kind == CHAT_V_STRING && chat_integer(a, &i))
            return repeat_string(rt, b, i);
        if (a_list && chat_integer(b, &i))
            return repeat_list(rt, a, i);
        if (b_list && chat_integer(a, &i))
            return repeat_list(rt, b, i);
    } else if (op == CHAT_OP_MODULO && a.kind == CHAT_V_STRING)
        return chat_format_percent(rt, chat_str(a), b);
    bad_operands(rt, op, a, b);
}

chat_value chat_negate(chat_runtime *rt, chat_value v)
{
    int64_t i;
    double d;
    if (v.kind == CHAT_V_UNDEFINED)
        chat_undefined_fail(rt, v);
    if (chat_integer(v, &i)) {
        if (i == INT64_MIN)
            overflow(rt);
        return chat_int(-i);
    }
    if (!chat_number(v, &d))
        chat_fail(rt, "bad operand type for unary -: '%s'", chat_type_name(v));
    return chat_float(-d);
}
