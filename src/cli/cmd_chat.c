/*
 * shoal chat [MODEL]: a conversation. Lines are turns; a backslash at a line's end, or """ around several lines, makes one turn of them. Lines
 * that begin with / are commands (the table below). Ctrl-C stops the answer, or drops what was typed; Ctrl-D ends. Without a terminal
 * the same on plain lines: answers on stdout, everything else on stderr, exit code 1 when a turn failed.
 *
 * The conversation lives here and is sent whole with every turn; the node reuses the state of what it has seen.
 */
#include "cli/answer.h"
#include "cli/cli.h"
#include "cli/client.h"
#include "cli/line.h"
#include "os/os.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

typedef struct chat {
    const cli *c;
    client *cl;
    line_reader *lines;
    answer a;
    char model[STORE_PATH]; /* "" = the node's default */
    json_t *turns;          /* without the system message */
    sb system;
    bool answered, failed, over;
    uint64_t n_answers, n_generated;
    int code; /* of the process, when a signal ended the chat */
} chat;

static void note(const chat *x, const char *format, ...) BASE_PRINTF(2, 3);

static void note(const chat *x, const char *format, ...)
{
    va_list args;
    fputs(x->a.notes.dim, stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "%s\n", x->a.notes.off);
}

/* ---- turns --------------------------------------------------------------------------------------------------------- */

static bool add_turn(chat *x, const char *role, const char *text, size_t n)
{
    json_t *content = json_stringn(text ? text : "", n);
    if (!content)
        return false;
    json_array_append_new(x->turns, json_pack("{s:s, s:o}", "role", role, "content", content));
    return true;
}

static void drop_turn(chat *x)
{
    if (json_array_size(x->turns))
        json_array_remove(x->turns, json_array_size(x->turns) - 1);
}

static bool last_is(const chat *x, const char *role)
{
    size_t n = json_array_size(x->turns);
    const char *got =
        n ? json_string_value(json_object_get(json_array_get(x->turns, n - 1), "role")) : NULL;
    return got && !strcmp(got, role);
}

static status send_turns(chat *x, err *e)
{
    json_t *request, *messages = json_array();
    if (x->system.length)
        json_array_append_new(messages, json_pack("{s:s, s:o}", "role", "system", "content",
                                                  look_json_text(x->system.data)));
    json_array_extend(messages, x->turns);
    status s = client_request(&request, x->c, x->model, messages, e);
    if (s == STATUS_OK) {
        s = answer_run(&x->a, x->cl, request, e);
        json_decref(request);
    }
    json_decref(messages);
    return s;
}

/* Answers the conversation as it stands; it ends with a user's turn. */
static void answer_turns(chat *x)
{
    err e;
    status s = send_turns(x, &e);
    int number = x->a.cost.signal;
    if (s == STATUS_OK && (number == 0 || x->a.text.length)) {
        add_turn(x, "assistant", x->a.text.data, x->a.text.length);
        x->answered = true;
        x->n_answers++;
        x->n_generated += (uint64_t)x->a.cost.n_generated;
        answer_print_cost(&x->a);
    } else {
        drop_turn(x);
        if (s != STATUS_OK) {
            cli_fail_err(x->c, &e);
            x->failed = true;
            if (s == STATUS_TOO_LONG)
                note(x, "/clear begins anew");
        } else if (number == SIGINT) {
            note(x, "stopped");
        }
    }
    x->over |= s == STATUS_CLOSED;
    if (number == SIGTERM || (number && !line_on_terminal(x->lines))) {
        x->over = true;
        x->code = 128 + number;
    }
}

static void take_turn(chat *x, const sb *text)
{
    if (text->length == 0)
        return;
    if (add_turn(x, "user", text->data, text->length)) {
        answer_turns(x);
        return;
    }
    cli_fail(x->c, "that is not UTF-8 text");
    x->failed = true;
}

/* ---- commands ------------------------------------------------------------------------------------------------------ */

typedef struct chat_command {
    const char *name, *argument, *text;
    void (*run)(chat *x, const char *argument);
} chat_command;

static void set_system(chat *x, const char *argument)
{
    if (!*argument) {
        note(x, "%s", x->system.length ? x->system.data : "there is no system message");
        return;
    }
    sb_clear(&x->system);
    sb_puts(&x->system, argument);
    note(x, "from the next turn on");
}

static void clear(chat *x, const char *argument)
{
    (void)argument;
    json_array_clear(x->turns);
    x->answered = false;
    note(x, "the conversation begins anew");
}

static void regenerate(chat *x, const char *argument)
{
    (void)argument;
    if (last_is(x, "assistant"))
        drop_turn(x);
    if (last_is(x, "user"))
        answer_turns(x);
    else
        note(x, "there is nothing to answer anew");
}

static void stats(chat *x, const char *argument)
{
    sb text = {0};
    (void)argument;
    answer_cost_text(&text, &x->a.cost);
    if (x->answered)
        note(x, "last answer: %s", text.data ? text.data : "");
    note(x, "so far: %llu %s, %llu tokens; %zu turns in the conversation; %s",
         (unsigned long long)x->n_answers, x->n_answers == 1 ? "answer" : "answers",
         (unsigned long long)x->n_generated, json_array_size(x->turns),
         client_is_private(x->cl) ? "computed by this command" : "computed by the running node");
    sb_fini(&text);
}

static void leave(chat *x, const char *argument)
{
    (void)argument;
    x->over = true;
}

static void help(chat *x, const char *argument);

static const chat_command commands[] = {
    {"/help", "", "this", help},
    {"/system", "[TEXT]", "set the system message, or show it", set_system},
    {"/clear", "", "forget the conversation", clear},
    {"/regenerate", "", "answer the last turn anew", regenerate},
    {"/stats", "", "what the last answer took", stats},
    {"/exit", "", "end (also Ctrl-D)", leave},
};
static const int n_commands = (int)BASE_COUNT(commands);

static void help(chat *x, const char *argument)
{
    (void)argument;
    for (int i = 0; i < n_commands; i++)
        note(x, "  %s %-*s %s", commands[i].name, 16 - (int)strlen(commands[i].name),
             commands[i].argument, commands[i].text);
    note(x, "  a \\ at the end of a line, or \"\"\" before and behind, joins lines to one turn; "
            "Ctrl-C stops an answer, Ctrl-D ends");
}

static void run_command(chat *x, const char *line)
{
    size_t n = strcspn(line, " \t\n");
    const char *argument = line + n + strspn(line + n, " \t\n");
    const char *names[BASE_COUNT(commands)];
    char typed[64];
    for (int i = 0; i < n_commands; i++) {
        names[i] = commands[i].name;
        if (strlen(names[i]) == n && !strncmp(names[i], line, n)) {
            commands[i].run(x, argument);
            return;
        }
    }
    snprintf(typed, sizeof typed, "%.*s", (int)BASE_MIN(n, (size_t)40), line);
    const char *near = cli_nearest(typed, names, n_commands);
    x->failed = true;
    cli_fail(x->c, "there is no command %s%s%s; /help says what there is", typed,
             near ? "; did you mean " : "", near ? near : "");
}

/* ---- reading ------------------------------------------------------------------------------------------------------- */

/* The rest of a turn that begins with """: up to a line that ends with it. */
static line_result read_block(chat *x, sb *turn)
{
    char *open = strstr(turn->data, "\"\"\"");
    size_t at = (size_t)(open - turn->data), n = turn->length - at - 3;
    memmove(open, open + 3, n + 1);
    turn->length = at + n;
    for (;;) {
        if (turn->length >= 3 && !memcmp(turn->data + turn->length - 3, "\"\"\"", 3)) {
            turn->length -= 3;
            while (turn->length && turn->data[turn->length - 1] == '\n')
                turn->length--;
            turn->data[turn->length] = '\0';
            return LINE_GOT;
        }
        sb line = {0};
        line_result got = line_read(x->lines, &line, ". ");
        if (got == LINE_GOT) {
            if (turn->length)
                sb_putc(turn, '\n');
            sb_add(turn, line.data, line.length);
        }
        sb_fini(&line);
        if (got != LINE_GOT)
            return got == LINE_END && turn->length ? LINE_GOT : got;
    }
}

static line_result read_turn(chat *x, sb *turn)
{
    line_result got = line_read(x->lines, turn, "> ");
    sb_puts(turn, "");
    while (got == LINE_GOT && turn->length && turn->data[turn->length - 1] == '\\') {
        turn->data[turn->length - 1] = '\n';
        got = line_read(x->lines, turn, ". ");
        if (got == LINE_END)
            return LINE_GOT;
    }
    if (got == LINE_GOT && turn->length >= 3 && !strncmp(turn->data, "\"\"\"", 3))
        got = read_block(x, turn);
    return got;
}

/* false: the end. */
static bool one_turn(chat *x)
{
    sb turn = {0};
    line_result got = read_turn(x, &turn);
    bool blank = !turn.length || strspn(turn.data, " \t\n") == turn.length;
    if (got == LINE_TERMINATED || (got == LINE_INTERRUPTED && !line_on_terminal(x->lines))) {
        x->code = 128 + (got == LINE_TERMINATED ? SIGTERM : SIGINT);
        x->over = true;
    } else if (got == LINE_END) {
        x->over = true;
    } else if (got == LINE_GOT && !blank) {
        line_remember(x->lines, turn.data);
        if (turn.data[0] == '/')
            run_command(x, turn.data);
        else
            take_turn(x, &turn);
    }
    sb_fini(&turn);
    return !x->over;
}

/* ---- all of it ----------------------------------------------------------------------------------------------------- */

static const char *history_path(char out[STORE_PATH])
{
    err e;
    if (os_user_dir(out, STORE_PATH - 16, "state", &e) != STATUS_OK ||
        os_make_dirs(out, 0700, &e) != STATUS_OK) {
        log_debug("chat", "no history: %s", e.text);
        return NULL;
    }
    memcpy(out + strlen(out), "/chat-history", sizeof "/chat-history");
    return out;
}

static void greet(const chat *x, const char *name)
{
    if (!line_on_terminal(x->lines))
        return;
    note(x, "%s%s. /help says what can be typed, Ctrl-D ends.", name,
         client_is_private(x->cl) ? ", computed by this command"
                                  : ", computed by the running node");
}

int cli_cmd_chat(cli *c)
{
    chat x = {.c = c, .turns = json_array()};
    char path[STORE_PATH];
    const char *system = cli_text(c, OPT_system);
    const char *name = c->n_arguments ? c->arguments[0] : "minnow";
    json_t *probe = NULL;
    err e;
    answer_init(&x.a, c, name);
    if (system)
        sb_puts(&x.system, system);
    status s = client_request(&probe, c, NULL, x.turns, &e); /* wrong options are told at once */
    json_decref(probe);
    if (s == STATUS_OK)
        s = client_open(&x.cl, c, &e);
    if (s == STATUS_OK && (c->n_arguments || client_is_private(x.cl)))
        s = client_model(x.cl, x.model, name, &e);
    if (s == STATUS_OK)
        s = line_open(&x.lines, history_path(path), client_signals(x.cl), &e);
    if (s == STATUS_OK) {
        greet(&x, c->n_arguments || client_is_private(x.cl) ? name : "the node's default model");
        while (one_turn(&x))
            ;
    }
    line_close(x.lines);
    client_close(x.cl);
    json_decref(x.turns);
    sb_fini(&x.system);
    answer_fini(&x.a);
    if (s != STATUS_OK)
        return cli_fail_err(c, &e);
    return x.code ? x.code : x.failed && !os_is_terminal(0);
}
