/* See markdown.h. A machine over characters; a run of marks is held back until the character behind it. */
#include "cli/markdown.h"

#include <string.h>

void markdown_begin(markdown *m, const look *l)
{
    *m = (markdown){.l = *l};
}

/* All colours that are in force, anew. */
static void paint(const markdown *m, sb *out)
{
    sb_puts(out, m->l.off);
    if (m->fence_line)
        sb_puts(out, m->l.dim);
    else if (m->fence || m->code)
        sb_puts(out, m->l.code);
    else if (m->heading || m->strong)
        sb_puts(out, m->l.bold);
}

static void put_run(const markdown *m, sb *out)
{
    for (int i = 0; i < m->n_run; i++)
        sb_putc(out, m->run);
}

/* The marks before `next` are complete. */
static void end_run(markdown *m, sb *out, char next)
{
    bool opens = false, closes = false;
    if (m->run == '`' && m->n_run >= 3 && !m->line_started) {
        m->fence = !m->fence;
        m->fence_line = opens = true;
    } else if (m->fence) {
        opens = false;
    } else if (m->run == '`') {
        opens = m->code == 0;
        closes = m->code == m->n_run; /* ``a ` b`` is one */
        m->code = opens ? m->n_run : closes ? 0 : m->code;
    } else if (m->run == '*' && m->n_run == 2 && !m->code) {
        opens = !m->strong;
        closes = m->strong;
        m->strong = !m->strong;
    } else if (m->run == '#' && m->n_run <= 6 && !m->line_started && next == ' ') {
        m->heading = opens = true;
    }
    if (opens)
        paint(m, out);
    put_run(m, out);
    if (closes)
        paint(m, out);
    m->line_started = true;
    m->n_run = 0;
    m->run = 0;
}

static void end_line(markdown *m, sb *out)
{
    bool painted = m->fence_line || m->heading || m->strong || m->code;
    m->fence_line = m->heading = m->strong = m->line_started = false;
    m->code = 0;
    if (painted)
        paint(m, out);
}

void markdown_feed(markdown *m, sb *out, const char *text, size_t n)
{
    if (!m->l.colour) {
        look_clean(out, text, n);
        return;
    }
    sb clean = {0};
    look_clean(&clean, text, n);
    out->failed |= clean.failed;
    for (size_t i = 0; i < clean.length; i++) {
        char c = clean.data[i];
        if (m->run && c != m->run)
            end_run(m, out, c);
        if (!m->fence_line && (c == '`' || c == '*' || (c == '#' && !m->line_started))) {
            m->run = c;
            m->n_run++;
            continue;
        }
        if (c == '\n')
            end_line(m, out);
        else if (c != ' ' && c != '\t')
            m->line_started = true;
        sb_putc(out, c);
    }
    sb_fini(&clean);
}

void markdown_end(markdown *m, sb *out)
{
    if (m->run)
        end_run(m, out, '\n');
    if (m->fence || m->fence_line || m->heading || m->strong || m->code)
        sb_puts(out, m->l.off);
    *m = (markdown){.l = m->l};
}
