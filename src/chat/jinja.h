/*
 * The template language inside chat: the running state and what statements and expressions share. Internal to src/chat.
 *
 * source → tree (jinja_tree.h) → jinja_run.c (statements), jinja_eval.c (expressions) over values (jinja_value.h, in the render's arena).
 *
 * A failure inside a render leaves by longjmp to chat_render: everything a render allocates is in its arena or in the list of open
 * captures, so nothing is lost, and the hundred small functions of the language need no error paths.
 * Not here: includes, imports, extends, autoescape, async, and the `random` and `urlize` filters of jinja2.
 */
#ifndef SHOAL_CHAT_JINJA_H
#define SHOAL_CHAT_JINJA_H

#include <setjmp.h>

#include "chat/jinja_tree.h"
#include "chat/jinja_unicode.h"
#include "chat/jinja_value.h"

/* ---- running ------------------------------------------------------------------------------------------------------- */

typedef struct chat_binding {
    const chat_symbol *name;
    chat_value value;
} chat_binding;

struct chat_scope {
    chat_scope *parent;
    chat_binding *bindings;
    uint32_t n, capacity;
    bool captured; /* a macro holds it: a loop may not reuse it */
};

typedef struct
    chat_capture { /* an output that is being collected; on the C stack of its owner, known to the runtime */
    sb text;
    struct chat_capture *outer;
} chat_capture;

struct chat_runtime {
    const chat_template *t;
    arena memory;
    chat_capture *capture; /* the innermost */
    chat_scope *root;
    const chat_node *at; /* for messages */
    chat_value filter_input;
    chat_time now;
    uint64_t steps, max_steps, output, max_output;
    int depth;
    jmp_buf escape;
    err *e;
    status code;
};

enum { CHAT_MAX_DEPTH = 800, CHAT_MAX_NESTING = 200, CHAT_MAX_SOURCE = 1 << 24 };

BASE_NORETURN void chat_fail(chat_runtime *rt, const char *format, ...) BASE_PRINTF(2, 3);
BASE_NORETURN void chat_fail_status(chat_runtime *rt, status code, const char *format, ...)
    BASE_PRINTF(3, 4);
void chat_spend(chat_runtime *rt, uint64_t bytes); /* one step and those bytes */
void chat_enter(chat_runtime *rt); /* one level of recursion; `rt->depth--` leaves it */
void *chat_alloc(chat_runtime *rt, size_t bytes);
void *chat_alloc_array(chat_runtime *rt, size_t n, size_t size);

void chat_capture_begin(chat_runtime *rt, chat_capture *c);
chat_value chat_capture_end(chat_runtime *rt, chat_capture *c); /* → a string in the arena */
void chat_capture_check(
    chat_runtime *rt); /* after adding to rt->capture->text: memory and budget */
void chat_write(chat_runtime *rt, const char *bytes, size_t n);

chat_value *chat_scope_find(chat_scope *s,
                            const chat_symbol *name); /* in s and its parents; NULL: nowhere */
void chat_scope_set(chat_runtime *rt, chat_scope *s, const chat_symbol *name, chat_value v);
chat_scope *chat_scope_create(chat_runtime *rt, chat_scope *parent);

typedef enum chat_flow { CHAT_FLOW_NORMAL, CHAT_FLOW_BREAK, CHAT_FLOW_CONTINUE } chat_flow;
chat_flow chat_run_body(chat_runtime *rt, chat_scope *s, chat_node *const *items, uint32_t n);
chat_value chat_eval(chat_runtime *rt, chat_scope *s, const chat_node *node);
void chat_eval_args(chat_runtime *rt, chat_scope *s, const chat_node *node, chat_args *out);
chat_value chat_call(chat_runtime *rt, chat_value callee, const chat_args *args);
chat_value chat_call_builtin(chat_runtime *rt, const chat_builtin *b, chat_value subject,
                             const chat_args *args);
chat_value chat_call_macro(chat_runtime *rt, const chat_function *f, const chat_args *args);
chat_value chat_run_loop(chat_runtime *rt, chat_scope *s, const chat_node *node,
                         chat_value iterable, size_t depth0, bool captured, chat_flow *flow);

#endif
