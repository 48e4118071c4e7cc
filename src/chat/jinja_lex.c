/*
 * Template source → tokens, with the white-space rules of trim_blocks and lstrip_blocks.
 *
 * The source is first brought to '\n' line ends and loses one newline at its very end. Outside tags the text up to the next
 * "{%", "{{" or "{#" is data; `-` strips it, lstrip_blocks drops the blanks before a block or comment that starts its line,
 * trim_blocks drops the newline behind one. Inside tags the end mark counts only while brackets are balanced.
 * Not here: line statements, other delimiters.
 */
#include <string.h>

#include "chat/jinja.h"

typedef struct lexer {
    arena *memory;
    const char *source;
    size_t n, at;
    uint32_t line;
    size_t counted, line_start; /* lines are counted up to here */
    chat_token *tokens;
    size_t n_tokens, capacity;
    bool line_starting;
    err *e;
    status code;
} lexer;

/* Moves the line counter to offset and gives the column there. */
static uint32_t locate(lexer *x, size_t offset)
{
    for (; x->counted < offset; x->counted++) {
        if (x->source[x->counted] == '\n') {
            x->line++;
            x->line_start = x->counted + 1;
        }
    }
    return (uint32_t)(offset - x->line_start + 1);
}

static bool fail(lexer *x, size_t offset, const char *what)
{
    uint32_t column = locate(x, offset);
    x->code = err_set(x->e, STATUS_CORRUPT, "chat template: line %u column %u: %s", x->line, column,
                      what);
    return false;
}

static bool no_memory(lexer *x)
{
    x->code = err_set(x->e, STATUS_NO_MEMORY, "chat template: no memory for its tokens");
    return false;
}

static chat_token *push(lexer *x, chat_token_kind kind, size_t from, size_t to)
{
    if (x->n_tokens == x->capacity) {
        size_t capacity = x->capacity ? x->capacity * 2 : 64;
        chat_token *more = arena_alloc(x->memory, capacity * sizeof *more);
        if (!more) {
            no_memory(x);
            return NULL;
        }
        if (x->n_tokens)
            memcpy(more, x->tokens, x->n_tokens * sizeof *more);
        x->tokens = more;
        x->capacity = capacity;
    }
    uint32_t column = locate(x, from);
    chat_token *t = &x->tokens[x->n_tokens++];
    *t = (chat_token){
        .kind = kind, .line = x->line, .column = column, .text = {x->source + from, to - from}};
    return t;
}

static bool blank_char(const lexer *x, size_t at, size_t *next)
{
    const char *p = x->source + at;
    uint32_t c = chat_utf8_next(&p, x->source + x->n);
    *next = (size_t)(p - x->source);
    return chat_char_space(c);
}

static size_t skip_blank(const lexer *x, size_t at)
{
    size_t next;
    while (at < x->n && blank_char(x, at, &next))
        at = next;
    return at;
}

static bool see(const lexer *x, size_t at, const char *text)
{
    size_t n = strlen(text);
    return x->n - at >= n && memcmp(x->source + at, text, n) == 0;
}

/* Data [from, to) before a tag with that sign: what is left of it. */
static size_t strip_end(const lexer *x, size_t from, size_t to, char sign, bool is_variable)
{
    if (sign == '-') {
        const char *begin = x->source + from, *p = x->source + to;
        while (p > begin) {
            const char *q = p;
            if (!chat_char_space(chat_utf8_previous(&q, begin)))
                break;
            p = q;
        }
        return (size_t)(p - x->source);
    }
    if (sign == '+' || is_variable)
        return to;
    size_t line = to;
    while (line > from && x->source[line - 1] != '\n')
        line--;
    if ((line > from || x->line_starting) && skip_blank(x, line) >= to)
        return line;
    return to;
}

/* Behind "%}" or "#}" at `at`: with sign '-' all white space goes, without one a newline does. */
static size_t after_end(const lexer *x, size_t at, char sign, bool trim)
{
    if (sign == '-')
        return skip_blank(x, at);
    if (sign == 0 && trim && at < x->n && x->source[at] == '\n')
        return at + 1;
    return at;
}

static char sign_at(const lexer *x, size_t at)
{
    return at < x->n && (x->source[at] == '-' || x->source[at] == '+') ? x->source[at] : 0;
}

/* Is there `{%[-+]? word -?%}` at `at`? Gives the offset behind it. */
static bool word_tag(const lexer *x, size_t at, const char *word, bool trim, size_t *end,
                     char *sign)
{
    if (!see(x, at, "{%"))
        return false;
    *sign = sign_at(x, at + 2);
    size_t p = skip_blank(x, at + 2 + (*sign != 0));
    if (!see(x, p, word))
        return false;
    p = skip_blank(x, p + strlen(word));
    char closing = sign_at(x, p);
    if (closing == '+' && !trim)
        return false;
    if (!see(x, p + (closing != 0), "%}"))
        return false;
    *end = after_end(x, p + (closing != 0) + 2, closing, trim);
    return true;
}

static bool lex_comment(lexer *x, size_t start)
{
    for (size_t p = x->at; p + 1 < x->n; p++) {
        if (x->source[p] != '#' || x->source[p + 1] != '}')
            continue;
        char sign = p > x->at && (x->source[p - 1] == '-' || x->source[p - 1] == '+')
                        ? x->source[p - 1]
                        : 0;
        x->at = after_end(x, p + 2, sign, true);
        return true;
    }
    return fail(x, start, "this comment has no end");
}

static bool lex_raw(lexer *x, size_t start)
{
    for (size_t p = x->at; p < x->n; p++) {
        size_t end;
        char sign;
        if (x->source[p] != '{' || !word_tag(x, p, "endraw", true, &end, &sign))
            continue;
        size_t cut = strip_end(x, x->at, p, sign, false);
        if (cut > x->at && !push(x, CHAT_T_DATA, x->at, cut))
            return false;
        x->at = end;
        return true;
    }
    return fail(x, start, "this raw block has no end");
}

static uint32_t hex_digits(const char *p, size_t n, bool *ok)
{
    uint32_t v = 0;
    for (size_t i = 0; i < n; i++) {
        char c = p[i];
        uint32_t d = c >= '0' && c <= '9'   ? (uint32_t)(c - '0')
                     : c >= 'a' && c <= 'f' ? (uint32_t)(c - 'a' + 10)
                     : c >= 'A' && c <= 'F' ? (uint32_t)(c - 'A' + 10)
                                            : 99;
        if (d > 15)
            *ok = false;
        v = v << 4 | d;
    }
    return v;
}

/* One escape of a string literal; p is behind the backslash. Gives the offset behind the escape, NULL when it is malformed. */
static const char *unescape_one(const char *p, const char *end, char **out)
{
    static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
    const char *simple = memchr(from, *p, sizeof from - 1);
    if (simple) {
        *(*out)++ = to[simple - from];
        return p + 1;
    }
    if (*p == '\n')
        return p + 1;
    if (*p >= '0' && *p <= '7') {
        uint32_t v = 0;
        for (int i = 0; i < 3 && p < end && *p >= '0' && *p <= '7'; i++)
            v = v * 8 + (uint32_t)(*p++ - '0');
        *out += chat_utf8_put(*out, v);
        return p;
    }
    size_t digits = *p == 'x' ? 2 : *p == 'u' ? 4 : *p == 'U' ? 8 : 0;
    if (digits) {
        bool ok = (size_t)(end - p) > digits;
        uint32_t v = ok ? hex_digits(p + 1, digits, &ok) : 0;
        if (!ok || v > 0x10ffff)
            return NULL;
        *out += chat_utf8_put(*out, v);
        return p + 1 + digits;
    }
    if (*p == 'N')
        return NULL;  /* names of characters are not known here */
    *(*out)++ = '\\'; /* unknown escapes keep their backslash */
    return p;
}

static bool lex_string(lexer *x)
{
    size_t start = x->at;
    char quote = x->source[start];
    bool escaped = false;
    size_t p = start + 1;
    for (; p < x->n && x->source[p] != quote; p++) {
        if (x->source[p] == '\\') {
            escaped = true;
            p++;
        }
    }
    if (p >= x->n)
        return fail(x, start, "this string has no end");
    chat_token *t = push(x, CHAT_T_STRING, start, p + 1);
    if (!t)
        return false;
    t->text = (str){x->source + start + 1, p - start - 1};
    x->at = p + 1;
    if (!escaped)
        return true;
    char *to = arena_alloc(x->memory, t->text.length + 4); /* no escape is shorter than its UTF-8 */
    if (!to)
        return no_memory(x);
    const char *from = t->text.data, *end = from + t->text.length;
    t->text.data = to;
    while (from < end) {
        if (*from != '\\') {
            *to++ = *from++;
            continue;
        }
        from = unescape_one(from + 1, end, &to);
        if (!from)
            return fail(x, start, "an escape in this string that is cut, too large or \\N");
    }
    t->text.length = (size_t)(to - t->text.data);
    return true;
}

static bool is_digit(const lexer *x, size_t at)
{
    return at < x->n && x->source[at] >= '0' && x->source[at] <= '9';
}

/* digits with single underscores between them, copied without those; false when there is none at `at`. */
static bool digits(const lexer *x, size_t *at, char *out, size_t *n, size_t limit)
{
    if (!is_digit(x, *at))
        return false;
    while (is_digit(x, *at) || (*at < x->n && x->source[*at] == '_' && is_digit(x, *at + 1))) {
        if (x->source[*at] != '_' && *n < limit)
            out[(*n)++] = x->source[*at];
        ++*at;
    }
    return true;
}

static bool lex_based(lexer *x, size_t start, unsigned base)
{
    size_t p = start + 2;
    uint64_t v = 0;
    bool any = false;
    for (; p < x->n; p++) {
        char c = x->source[p];
        bool ok = true;
        if (c == '_' && p + 1 < x->n)
            continue;
        uint32_t d = hex_digits(&c, 1, &ok);
        if (!ok || d >= base)
            break;
        any = true;
        if (v > (uint64_t)INT64_MAX / base)
            return fail(x, start, "this integer does not fit 64 bits");
        v = v * base + d;
        if (v > (uint64_t)INT64_MAX)
            return fail(x, start, "this integer does not fit 64 bits");
    }
    if (!any)
        return fail(x, start, "digits expected");
    chat_token *t = push(x, CHAT_T_INT, start, p);
    if (!t)
        return false;
    t->as.integer = (int64_t)v;
    x->at = p;
    return true;
}

static bool lex_number(lexer *x)
{
    size_t start = x->at, p = start, n = 0;
    if (x->source[start] == '0' && start + 1 < x->n) {
        char c = (char)(x->source[start + 1] | 32);
        unsigned base = c == 'x' ? 16 : c == 'o' ? 8 : c == 'b' ? 2 : 0;
        if (base)
            return lex_based(x, start, base);
    }
    char text[400];
    const size_t limit = sizeof text - 8;
    digits(x, &p, text, &n, limit);
    bool is_float = false;
    bool after_dot = start > 0 && x->source[start - 1] == '.'; /* `a.0.1`: two subscripts */
    if (!after_dot) {
        size_t q = p + 1;
        if (p < x->n && x->source[p] == '.' && is_digit(x, q)) {
            text[n++] = '.';
            digits(x, &q, text, &n, limit);
            p = q;
            is_float = true;
        }
        q = p + 1;
        if (p < x->n && (x->source[p] == 'e' || x->source[p] == 'E')) {
            char sign = sign_at(x, q);
            if (is_digit(x, q + (sign != 0))) {
                q += sign != 0;
                text[n++] = 'e';
                text[n++] = sign ? sign : '+';
                digits(x, &q, text, &n, limit + 4);
                p = q;
                is_float = true;
            }
        }
    }
    if (n >= limit)
        return fail(x, start, "this number is too long");
    chat_token *t = push(x, is_float ? CHAT_T_FLOAT : CHAT_T_INT, start, p);
    if (!t)
        return false;
    text[n] = 0;
    x->at = p;
    if (is_float) {
        t->as.number = chat_parse_double(text, n);
        return true;
    }
    if (!base_parse_i64(text, &t->as.integer))
        return fail(x, start, "this integer does not fit 64 bits");
    return true;
}

static bool name_char(const lexer *x, size_t at, size_t *next)
{
    if (at >= x->n)
        return false;
    const char *p = x->source + at;
    uint32_t c = chat_utf8_next(&p, x->source + x->n);
    *next = (size_t)(p - x->source);
    if (c < 0x80)
        return c == '_' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
               (c >= 'A' && c <= 'Z');
    return chat_char_class(c) & (CHAT_ALPHA | CHAT_NUMERIC);
}

static bool lex_operator(lexer *x, char *stack, size_t *depth)
{
    static const char *const two[] = {"//", "**", "==", "!=", ">=", "<="};
    size_t start = x->at;
    for (size_t i = 0; i < BASE_COUNT(two); i++) {
        if (see(x, start, two[i])) {
            x->at += 2;
            return push(x, CHAT_T_OPERATOR, start, start + 2) != NULL;
        }
    }
    char c = x->source[start];
    if (!strchr("+-/*%~[](){}><=.:|,;", c) || c == 0)
        return fail(x, start, "a character that no expression has");
    if (c == '{' || c == '(' || c == '[') {
        if (*depth >= 2 * CHAT_MAX_NESTING)
            return fail(x, start, "brackets nested too deeply");
        stack[(*depth)++] = c == '{' ? '}' : c == '(' ? ')' : ']';
    } else if (c == '}' || c == ')' || c == ']') {
        if (*depth == 0 || stack[*depth - 1] != c)
            return fail(x, start, "a closing bracket that closes nothing");
        --*depth;
    }
    x->at++;
    return push(x, CHAT_T_OPERATOR, start, start + 1) != NULL;
}

/* The end mark of the open tag at x->at? Pushes its token and moves behind it. */
static bool at_end(lexer *x, bool is_variable, bool *failed)
{
    char sign = sign_at(x, x->at);
    if (is_variable && sign == '+')
        sign = 0;
    size_t mark = x->at + (sign != 0);
    if (mark > x->n || !see(x, mark, is_variable ? "}}" : "%}"))
        return false;
    *failed = !push(x, is_variable ? CHAT_T_VARIABLE_END : CHAT_T_BLOCK_END, x->at, mark + 2);
    x->at = after_end(x, mark + 2, sign, !is_variable);
    return true;
}

static bool lex_tag(lexer *x, size_t start, bool is_variable)
{
    char stack[2 * CHAT_MAX_NESTING];
    size_t depth = 0;
    if (!push(x, is_variable ? CHAT_T_VARIABLE_BEGIN : CHAT_T_BLOCK_BEGIN, start, x->at))
        return false;
    while (x->at < x->n) {
        bool failed = false, ok;
        size_t next;
        if (depth == 0 && at_end(x, is_variable, &failed))
            return !failed;
        char c = x->source[x->at];
        if (blank_char(x, x->at, &next)) {
            x->at = next;
            continue;
        }
        if (c >= '0' && c <= '9')
            ok = lex_number(x);
        else if (c == '\'' || c == '"')
            ok = lex_string(x);
        else if (name_char(x, x->at, &next)) {
            size_t from = x->at;
            while (name_char(x, x->at, &next))
                x->at = next;
            ok = push(x, CHAT_T_NAME, from, x->at) != NULL;
        } else
            ok = lex_operator(x, stack, &depth);
        if (!ok)
            return false;
    }
    return fail(x, start, is_variable ? "this expression has no }}" : "this tag has no %}");
}

/* The next tag from x->at on, or the end of the text. */
static size_t find_tag(const lexer *x)
{
    for (size_t p = x->at; p + 1 < x->n; p++) {
        if (x->source[p] == '{' &&
            (x->source[p + 1] == '%' || x->source[p + 1] == '{' || x->source[p + 1] == '#'))
            return p;
    }
    return x->n;
}

static bool lex_root(lexer *x)
{
    while (x->at < x->n) {
        size_t tag = find_tag(x), end = 0;
        if (tag == x->n)
            return push(x, CHAT_T_DATA, x->at, x->n) != NULL;
        char sign = 0, kind = x->source[tag + 1];
        bool raw = word_tag(x, tag, "raw", false, &end, &sign);
        if (!raw)
            sign = sign_at(x, tag + 2);
        size_t cut = strip_end(x, x->at, tag, sign, kind == '{');
        if (cut > x->at && !push(x, CHAT_T_DATA, x->at, cut))
            return false;
        x->at = raw ? end : tag + 2 + (sign != 0);
        x->line_starting = x->source[x->at - 1] == '\n';
        bool ok = raw           ? lex_raw(x, tag)
                  : kind == '#' ? lex_comment(x, tag)
                                : lex_tag(x, tag, kind == '{');
        if (!ok)
            return false;
        x->line_starting = x->source[x->at - 1] == '\n';
    }
    return true;
}

/* "\r\n" and "\r" → "\n"; one newline at the very end goes. */
static status normalise(lexer *x, str source)
{
    char *to = arena_alloc(x->memory, source.length + 1);
    if (!to) {
        no_memory(x);
        return x->code;
    }
    size_t n = 0;
    for (size_t i = 0; i < source.length; i++) {
        char c = source.data[i];
        if (c == '\r') {
            c = '\n';
            i += i + 1 < source.length && source.data[i + 1] == '\n';
        }
        to[n++] = c;
    }
    if (n && to[n - 1] == '\n')
        n--;
    to[n] = 0;
    x->source = to;
    x->n = n;
    return STATUS_OK;
}

status chat_jinja_lex(arena *a, str source, chat_token **out, size_t *out_n, err *e)
{
    lexer x = {.memory = a, .line = 1, .line_starting = true, .e = e};
    size_t valid = chat_utf8_check(source.data, source.length);
    if (valid != source.length)
        return err_set(e, STATUS_CORRUPT, "chat template: not UTF-8 at byte %zu of %zu", valid,
                       source.length);
    status s = normalise(&x, source);
    if (s != STATUS_OK)
        return s;
    if (!lex_root(&x) || !push(&x, CHAT_T_EOF, x.n, x.n))
        return x.code;
    *out = x.tokens;
    *out_n = x.n_tokens;
    return STATUS_OK;
}
