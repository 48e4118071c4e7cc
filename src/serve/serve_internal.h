/* Inside of serve: a call, its choices, and the way of a token through one. See serve.h. */
#ifndef SHOAL_SERVE_INTERNAL_H
#define SHOAL_SERVE_INTERNAL_H

#include "os/os.h"
#include "serve/serve.h"

enum {
    SERVE_SHOWN_MAX = 16,
    SERVE_LONG_BYTES = 64 << 10
}; /* a longer text is encoded by the worker */

/* Something for the worker. run: on its thread; done: on the loop, exactly once, also when it was never run (serve ends). */
typedef struct serve_work serve_work;
struct serve_work {
    void (*run)(serve_work *w, text_scratch *scratch);
    void (*done)(serve_work *w);
    serve_work *next;
};

/* A token that came while nothing may be shown yet (best_of). */
typedef struct serve_kept {
    int32_t token;
    float logprob;
    int n_top;
    struct engine_top top[ENGINE_TOP_LOGPROBS];
} serve_kept;

typedef struct serve_choice {
    serve_call *of;
    int index; /* in events */
    text_decoder decoder;
    sample_stop *stop;
    chat_parser *parser;  /* NULL: text goes out as it is */
    sb bytes, text;       /* of the token at hand: decoded; what may be shown */
    bool begun, finished; /* pipeline; engine */
    bool cut;             /* a stop string or the listener ended it: later tokens do not count */
    int stopped_by;       /* index of the stop string, −1 */
    bool called_once;     /* one_call: it was made */
    engine_reason reason;
    int n_tokens;
    double logprob_sum;
    serve_kept *kept; /* best_of */
    int n_kept, kept_capacity;
} serve_choice;

typedef struct serve_worker serve_worker;

typedef enum serve_phase { PHASE_WAITING, PHASE_RUNNING, PHASE_OVER } serve_phase;

struct serve_call {
    serve *of;
    char *id, *model;
    serve_request r; /* arrays owned by memory */
    arena memory;
    serve_sink sink;
    void *context;
    node_lease *lease;
    uint64_t engine_id;
    bool submitted;
    serve_phase phase;
    int n_engine_choices; /* max(n_choices, best_of) */
    int n_finished;
    bool buffered; /* best_of > n_choices */
    serve_choice choices[ENGINE_CHOICES];
    int32_t shown[SERVE_SHOWN_MAX]; /* special tokens that are text for the parser */
    int n_shown;
    bool reasoning_open;
    sb prompt_text;
    serve_work
        work; /* the prompt is being built on the worker's thread; our depth holds the call until then */
    text_ids ids; /* the prompt, until it is submitted */
    sb form;      /* the grammar of the answer, empty = free */
    status built;
    err built_why;
    int n_prompt, n_cached, n_drafted, n_accepted;
    int32_t first_prompt_token;
    double share;
    uint64_t began_us, first_us, last_us;
    int depth; /* callbacks of the sink on the stack */
    bool dead; /* to be freed when depth is 0 again */
    serve_call *next;
};

struct serve {
    http_loop *loop;
    node *n;
    serve_options o;
    serve_call *calls;
    struct tokens_job *jobs;
    serve_embedding *embeddings;
    http_timer *tick;
    text_scratch *scratch; /* the loop's */
    serve_worker *worker;
    serve_counters counters;
};

/* call.c */
void call_emit(serve_call *c, serve_event *event);
bool call_is_over(const serve_call *c); /* cancelled or ended meanwhile: touch nothing more */
void call_fail(serve_call *c, const err *why);
void call_enter(serve_call *c);
void call_leave(serve_call *c); /* frees a dead call */

/* choice.c: decoding, stop strings, parsing */
status choice_init(serve_choice *h, serve_call *c, int index, err *e);
void choice_fini(serve_choice *h);
/* One token. *stopped: a stop string was found. Nothing is emitted when `muted`. */
status choice_feed(serve_choice *h, const serve_kept *token, bool muted, bool *stopped, err *e);
status choice_end(serve_choice *h, err *e); /* flushes and emits SERVE_FINISH */
status choice_keep(serve_choice *h, const engine_event *event, err *e);

/* form.c: the grammar of the answer, appended to c->form; on any thread, once the prompt's text is there. */
status form_build(serve_call *c, err *e);

/* embed.c */
serve_embedding *serve_embed_next(const serve_embedding *j);

/* prompt.c */
bool prompt_is_long(const serve_call *c);
/* On any thread, when nobody else has the scratch; node_instance_template was asked on the loop before. */
status prompt_build(serve_call *c, text_scratch *scratch, text_ids *ids, err *e);

/* worker.c */
status worker_create(serve_worker **out, http_loop *loop, err *e);
void worker_add(serve_worker *w, serve_work *item);
/* Waits for what runs; whatever is left is done, not run. */
void worker_destroy(serve_worker *w);

void counters_add(serve_histogram *h, uint64_t us);

#endif
