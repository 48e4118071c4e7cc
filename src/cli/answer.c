/* See answer.h. */
#include "cli/answer.h"

#include <errno.h>
#include <string.h>

void answer_init(answer *a, const cli *c, const char *model)
{
    const char *think = cli_text(c, OPT_think);
    bool on = think && !strcmp(think, "on"), off = think && !strcmp(think, "off");
    *a = (answer){.out = look_of(1), .notes = look_of(2), .model = model};
    a->show_reasoning = a->out.terminal ? !off : on;
    a->reasoning_to_stderr = !a->out.terminal;
}

void answer_fini(answer *a)
{
    sb_fini(&a->text);
    sb_fini(&a->piece);
}

/* ---- writing ------------------------------------------------------------------------------------------------------- */

static status put(answer *a, FILE *to, const char *bytes, size_t n, err *e)
{
    if (n == 0)
        return STATUS_OK;
    if (to == stdout)
        a->last = bytes[n - 1];
    if (fwrite(bytes, 1, n, to) == n && fflush(to) == 0)
        return STATUS_OK;
    if (errno == EPIPE)
        return err_set(e, STATUS_CLOSED, "nobody reads the answer any more");
    return err_errno(e, errno, "the answer cannot be written");
}

static void unshow_loading(answer *a)
{
    if (a->told_loading)
        fputs("\r\033[K", stderr);
    a->told_loading = false;
}

static status put_reasoning(answer *a, str text, err *e)
{
    if (!a->show_reasoning)
        return STATUS_OK;
    if (a->reasoning_to_stderr)
        return put(a, stderr, text.data, text.length, e);
    if (!a->in_reasoning)
        sb_puts(&a->piece, a->out.dim);
    a->in_reasoning = true;
    look_clean(&a->piece, text.data, text.length);
    return put(a, stdout, a->piece.data, a->piece.length, e);
}

static status end_reasoning(answer *a, err *e)
{
    if (!a->in_reasoning)
        return STATUS_OK;
    a->in_reasoning = false;
    sb_puts(&a->piece, a->out.off);
    sb_puts(&a->piece, a->last == '\n' ? "\n" : "\n\n");
    status s = put(a, stdout, a->piece.data, a->piece.length, e);
    sb_clear(&a->piece);
    return s;
}

static status on_text(void *context, str text, bool reasoning, err *e)
{
    answer *a = context;
    unshow_loading(a);
    sb_clear(&a->piece);
    if (reasoning)
        return put_reasoning(a, text, e);
    status s = end_reasoning(a, e);
    if (s != STATUS_OK)
        return s;
    sb_add(&a->text, text.data, text.length);
    if (!a->out.terminal)
        return put(a, stdout, text.data, text.length, e);
    markdown_feed(&a->m, &a->piece, text.data, text.length);
    if (a->piece.failed || a->text.failed)
        return err_set(e, STATUS_NO_MEMORY, "no memory for the answer");
    return put(a, stdout, a->piece.data, a->piece.length, e);
}

static void on_loading(void *context, int percent)
{
    answer *a = context;
    if (!a->notes.terminal)
        return;
    fprintf(stderr, "\r\033[K%sloading %s: %d%%%s", a->notes.dim, a->model, percent, a->notes.off);
    fflush(stderr);
    a->told_loading = true;
}

static void end_answer(answer *a)
{
    err ignored;
    unshow_loading(a);
    sb_clear(&a->piece);
    markdown_end(&a->m, &a->piece);
    if (a->in_reasoning)
        sb_puts(&a->piece, a->out.off);
    a->in_reasoning = false;
    put(a, stdout, a->piece.data, a->piece.length, &ignored);
    if (a->last && a->last != '\n')
        put(a, stdout, "\n", 1, &ignored);
}

status answer_run(answer *a, client *cl, const json_t *request, err *e)
{
    client_events events = {on_text, on_loading, a};
    sb_clear(&a->text);
    a->last = 0;
    markdown_begin(&a->m, &a->out);
    status s = client_chat(cl, &a->cost, request, &events, e);
    end_answer(a);
    return s;
}

/* ---- what it cost -------------------------------------------------------------------------------------------------- */

void answer_cost_text(sb *out, const client_answer *cost)
{
    uint64_t decode = cost->whole_us - BASE_MIN(cost->whole_us, cost->first_us);
    if (cost->signal)
        sb_puts(out, "stopped; ");
    else if (!strcmp(cost->finish, "length"))
        sb_puts(out, "cut at the limit of tokens; ");
    if (cost->n_generated)
        sb_printf(out, "%d tokens", cost->n_generated);
    else
        sb_printf(out, "%.2f s", (double)cost->whole_us / 1e6);
    if (cost->n_generated > 1 && decode > 5000)
        sb_printf(out, ", %.1f a second", (cost->n_generated - 1) / ((double)decode / 1e6));
    if (cost->first_us)
        sb_printf(out, ", first after %.2f s", (double)cost->first_us / 1e6);
    if (cost->n_prompt)
        sb_printf(out, "; prompt of %d tokens", cost->n_prompt);
    if (cost->n_cached)
        sb_printf(out, ", %d of them known", cost->n_cached);
}

void answer_print_cost(const answer *a)
{
    sb text = {0};
    if (!a->notes.terminal)
        return;
    answer_cost_text(&text, &a->cost);
    fprintf(stderr, "%s%s%s\n", a->notes.dim, text.data ? text.data : "", a->notes.off);
    sb_fini(&text);
}
