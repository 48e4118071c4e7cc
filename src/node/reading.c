/*
 * The part of an instance that the API side needs: card, tokenizer, template; and the card of the model that guesses for it. Read on a thread of its own, because a vocabulary of 128k
 * tokens takes a while and the loop must not stand still; handed over by a post to the loop.
 */
#include "node/node_internal.h"
#include "store/store.h"

#include <string.h>

struct node_reading {
    node_instance *instance;
    http_loop *loop;
    char *source, *draft_source;
    os_thread *thread;
    model_card *card, *draft_card;
    text_tokenizer *tokenizer;
    status result;
    err why;
};

static void free_reading(node_reading *r)
{
    model_card_destroy(r->card);
    model_card_destroy(r->draft_card);
    text_tokenizer_destroy(r->tokenizer);
    base_free(r->source);
    base_free(r->draft_source);
    base_free(r);
}

/* On the loop. */
static void take_over(void *context)
{
    node_reading *r = context;
    node_instance *i = r->instance;
    node *n = i->of;
    os_thread_join(r->thread);
    i->reading = NULL;
    n->depth++;
    if (r->result != STATUS_OK) {
        instance_failed(i, &r->why);
    } else {
        i->card = r->card;
        i->draft_card = r->draft_card;
        i->tokenizer = r->tokenizer;
        r->card = r->draft_card = NULL;
        r->tokenizer = NULL;
        str source =
            i->card->n_templates ? str_from(i->card->templates[0].source) : chat_template_chatml();
        i->format = chat_syntax_detect(source);
        err e;
        if (rank_start(i, &e) != STATUS_OK)
            instance_failed(i, &e);
    }
    n->depth--;
    free_reading(r);
}

static status read_card(model_card **out, const char *source, err *e)
{
    file_model *file = NULL;
    status s = store_open(&file, source, e);
    if (s == STATUS_OK)
        s = model_card_read(out, file, e);
    file_close(file);
    return s;
}

static void read_all(void *context)
{
    node_reading *r = context;
    r->result = read_card(&r->card, r->source, &r->why);
    if (r->result == STATUS_OK && r->draft_source) {
        err e; /* the rank will find the same, say it, and go on without drafts */
        if (read_card(&r->draft_card, r->draft_source, &e) == STATUS_OK &&
            engine_draft_check(r->draft_card, r->card, &e) != STATUS_OK) {
            model_card_destroy(r->draft_card);
            r->draft_card = NULL;
        }
    }
    if (r->result == STATUS_OK)
        r->result = model_tokenizer_create(&r->tokenizer, r->card, &r->why);
    http_loop_post(r->loop, take_over, r);
}

status reading_start(node_instance *i, err *e)
{
    node_reading *r = base_zalloc(1, sizeof *r);
    const char *draft = i->of->draft_source;
    if (r) {
        r->source = base_strdup(i->source);
        r->draft_source = draft ? base_strdup(draft) : NULL;
    }
    if (!r || !r->source || (draft && !r->draft_source)) {
        if (r)
            free_reading(r);
        return err_set(e, STATUS_NO_MEMORY, "node: no memory to read %s", i->name);
    }
    r->instance = i;
    r->loop = i->of->loop;
    i->reading = r;
    status s = os_thread_create(&r->thread, read_all, r, "reading", e);
    if (s != STATUS_OK) {
        i->reading = NULL;
        free_reading(r);
    }
    return s;
}

void reading_abandon(node_instance *i)
{
    node_reading *r = i->reading;
    if (!r)
        return;
    os_thread_join(r->thread);
    http_loop_forget(r->loop, r);
    i->reading = NULL;
    free_reading(r);
}
