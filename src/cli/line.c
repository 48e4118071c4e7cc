/*
 * See line.h. libedit reads characters through a function of ours that waits for the keyboard and for signals at once; for a signal it
 * ends the line. libedit's own handlers are not used: they would leave the chat on Ctrl-C.
 */
#include "cli/line.h"
#include "os/os.h"

#include <histedit.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

enum { HISTORY_ENTRIES = 1000, LONGEST = 24 << 20 };

struct line_reader {
    EditLine *edit; /* NULL: no terminal */
    History *history;
    char *history_path; /* NULL = not kept */
    const char *prompt;
    int signals, signal; /* signal: the one that ended the line, else 0 */
    bool ended;          /* the other side of the terminal is gone */
    bool pastes;         /* the terminal is asked to mark what is pasted */
    FILE *screen;
    char buffer[4096]; /* without a terminal */
    size_t at, end;
};

/* ---- on a terminal ------------------------------------------------------------------------------------------------- */

static const char *prompt_of(EditLine *edit)
{
    line_reader *r;
    el_get(edit, EL_CLIENTDATA, &r);
    return r->prompt;
}

/* 1 = a byte, 0 = end, −1 = a signal. */
static int next_byte(line_reader *r, char *out)
{
    struct pollfd fds[] = {{.fd = 0, .events = POLLIN}, {.fd = r->signals, .events = POLLIN}};
    for (;;) {
        if (poll(fds, 2, -1) < 0)
            continue; /* a signal of no interest here, SIGWINCH and the like */
        char number;
        if (fds[1].revents && read(r->signals, &number, 1) == 1) {
            r->signal = number;
            return -1;
        }
        if (fds[0].revents) {
            ssize_t n = read(0, out, 1);
            if (n <= 0)
                r->ended = true;
            return n == 1 ? 1 : 0;
        }
    }
}

static int next_character(EditLine *edit, wchar_t *out)
{
    line_reader *r;
    mbstate_t state = {0};
    el_get(edit, EL_CLIENTDATA, &r);
    for (;;) {
        char byte;
        int got = next_byte(r, &byte);
        if (got != 1)
            return got;
        size_t n = mbrtowc(out, &byte, 1, &state);
        if (n == (size_t)-2)
            continue; /* more bytes to come */
        if (n == (size_t)-1) {
            memset(&state, 0, sizeof state);
            continue; /* no character: dropped */
        }
        if (n == 0)
            *out = L'\0';
        return 1;
    }
}

/* Bound to the mark that terminals send before pasted text: everything up to the end mark goes into the line, line breaks too, so that
 * several lines are one turn and nothing is sent before Enter is typed. */
static unsigned char paste(EditLine *edit, int typed)
{
    static const char end[] = "\033[201~";
    line_reader *r;
    sb text = {0};
    char byte;
    (void)typed;
    el_get(edit, EL_CLIENTDATA, &r);
    while (text.length < LONGEST && !text.failed && next_byte(r, &byte) == 1) {
        sb_putc(&text, byte == '\r' ? '\n' : byte);
        size_t n = text.length, m = sizeof end - 1;
        if (n < m || memcmp(text.data + n - m, end, m))
            continue;
        text.data[n - m] = '\0';
        el_insertstr(edit, text.data);
        sb_fini(&text);
        return CC_REFRESH;
    }
    sb_fini(&text);
    return CC_EOF; /* a signal, or the end of the terminal */
}

static status open_edit(line_reader *r, err *e)
{
    HistEvent event;
    const char *term = getenv("TERM");
    r->screen = os_is_terminal(1) ? stdout : stderr;
    r->pastes = term && *term && strcmp(term, "dumb");
    r->edit = el_init("shoal", stdin, r->screen, stderr);
    r->history = history_init();
    if (!r->edit || !r->history)
        return err_set(e, STATUS_NO_MEMORY, "no memory for the line editor");
    el_set(r->edit, EL_CLIENTDATA, r);
    el_set(r->edit, EL_EDITOR, "emacs");
    el_set(r->edit, EL_SIGNAL, 0);
    el_set(r->edit, EL_PROMPT, prompt_of);
    el_set(r->edit, EL_GETCFN, next_character);
    el_set(r->edit, EL_BIND, "^R", "em-inc-search-prev", NULL);
    el_set(r->edit, EL_ADDFN, "paste", "insert what is pasted", paste);
    el_set(r->edit, EL_BIND, "\\e[200~", "paste", NULL);
    history(r->history, &event, H_SETSIZE, HISTORY_ENTRIES);
    history(r->history, &event, H_SETUNIQUE, 1);
    el_set(r->edit, EL_HIST, history, r->history);
    if (r->history_path && os_is_file(r->history_path))
        history(r->history, &event, H_LOAD, r->history_path);
    return STATUS_OK;
}

static line_result read_edited(line_reader *r, sb *out)
{
    int n = 0;
    r->signal = 0;
    el_resize(r->edit);
    if (r->pastes)
        fputs("\033[?2004h", r->screen);
    fflush(r->screen);
    /* libedit itself does this only behind the prompt, and a Ctrl-D typed between the two is lost */
    el_set(r->edit, EL_PREP_TERM, 1);
    const char *text = el_gets(r->edit, &n);
    if (r->pastes)
        fputs("\033[?2004l", r->screen);
    fflush(r->screen);
    if (r->signal) {
        fputs("\n", r->screen);
        return r->signal == SIGINT ? LINE_INTERRUPTED : LINE_TERMINATED;
    }
    if (!text || n <= 0) {
        if (!r->ended)
            fputs("\n", r->screen);
        return LINE_END;
    }
    size_t length = strlen(text);
    while (length && (text[length - 1] == '\n' || text[length - 1] == '\r'))
        length--;
    sb_add(out, text, length);
    return LINE_GOT;
}

/* ---- without one --------------------------------------------------------------------------------------------------- */

static line_result read_plain(line_reader *r, sb *out)
{
    bool any = false;
    for (;;) {
        if (r->at == r->end) {
            struct pollfd fds[] = {{.fd = 0, .events = POLLIN},
                                   {.fd = r->signals, .events = POLLIN}};
            char number;
            if (poll(fds, 2, -1) < 0)
                continue;
            if (fds[1].revents && read(r->signals, &number, 1) == 1)
                return number == SIGINT ? LINE_INTERRUPTED : LINE_TERMINATED;
            ssize_t n = fds[0].revents ? read(0, r->buffer, sizeof r->buffer) : -1;
            if (n < 0 && fds[0].revents == 0)
                continue;
            if (n <= 0)
                return any ? LINE_GOT : LINE_END;
            r->at = 0;
            r->end = (size_t)n;
        }
        const char *from = r->buffer + r->at;
        const char *newline = memchr(from, '\n', r->end - r->at);
        size_t n = newline ? (size_t)(newline - from) : r->end - r->at;
        sb_add(out, from, n);
        any = true;
        r->at += n + (newline != NULL);
        if (out->failed || out->length > LONGEST) {
            fprintf(stderr, "shoal: a line of more than %d MiB\n", LONGEST >> 20);
            return LINE_END;
        }
        if (newline) {
            if (out->length && out->data[out->length - 1] == '\r')
                out->data[--out->length] = '\0';
            return LINE_GOT;
        }
    }
}

/* ---- both ---------------------------------------------------------------------------------------------------------- */

status line_open(line_reader **out, const char *history_path, int signals, err *e)
{
    line_reader *r = base_zalloc(1, sizeof *r);
    if (!r)
        return err_set(e, STATUS_NO_MEMORY, "no memory for reading lines");
    r->signals = signals;
    r->prompt = "";
    status s = STATUS_OK;
    if (os_is_terminal(0)) {
        r->history_path = history_path ? base_strdup(history_path) : NULL;
        s = open_edit(r, e);
    }
    if (s == STATUS_OK)
        *out = r;
    else
        line_close(r);
    return s;
}

void line_close(line_reader *r)
{
    if (!r)
        return;
    if (r->edit)
        el_end(r->edit);
    if (r->history)
        history_end(r->history);
    base_free(r->history_path);
    base_free(r);
}

bool line_on_terminal(const line_reader *r)
{
    return r->edit != NULL;
}

line_result line_read(line_reader *r, sb *out, const char *prompt)
{
    r->prompt = prompt;
    return r->edit ? read_edited(r, out) : read_plain(r, out);
}

/* Beside the old one first: libedit truncates what it writes to, and a full disk would take the whole history with it. */
static void save_history(line_reader *r)
{
    char beside[4096 + 8];
    HistEvent event;
    if (!r->history_path)
        return;
    int n = snprintf(beside, sizeof beside, "%s.new", r->history_path);
    if (n > 0 && (size_t)n < sizeof beside && history(r->history, &event, H_SAVE, beside) >= 0 &&
        rename(beside, r->history_path) == 0)
        return;
    remove(beside);
    log_debug("chat", "the history cannot be written to %s", r->history_path);
}

void line_remember(line_reader *r, const char *text)
{
    HistEvent event;
    if (!r->history || !*text)
        return;
    history(r->history, &event, H_ENTER, text);
    save_history(r);
}
