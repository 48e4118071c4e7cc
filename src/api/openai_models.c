/* GET /v1/models and /v1/models/{id}: every model that could be named in a request, loaded or not. */
#include "api/api_internal.h"

#include <string.h>
#include <strings.h>

typedef struct listing {
    sb out;
    int n;
    const char *only; /* NULL = all */
} listing;

static void visit(void *context, const node_model_info *m)
{
    listing *l = context;
    if (l->only && (l->n || strcasecmp(l->only, m->name)))
        return;
    if (l->n++)
        sb_putc(&l->out, ',');
    sb_putc(&l->out, '{');
    api_put_member(&l->out, "id", str_from(m->name));
    sb_printf(&l->out, ",\"object\":\"model\",\"created\":%lld,", (long long)m->modified_unix);
    api_put_member(&l->out, "owned_by", str_from(m->origin));
    sb_printf(&l->out, ",\"bytes\":%llu}", (unsigned long long)m->bytes);
}

static void list_models(const api_request *q)
{
    listing l = {0};
    api_fault f;
    err e;
    sb_init(&l.out);
    sb_puts(&l.out, "{\"object\":\"list\",\"data\":[");
    if (node_list_models(q->of->n, visit, &l, &e) != STATUS_OK) {
        api_fault_from(&f, &e);
        api_reply_fault(q->r, &api_openai_models, &f);
    } else {
        sb_puts(&l.out, "]}");
        api_reply_json(q->r, 200, &l.out);
    }
    sb_fini(&l.out);
}

static void get_model(const api_request *q)
{
    listing l = {.only = q->rest};
    api_fault f;
    err e;
    sb_init(&l.out);
    if (node_list_models(q->of->n, visit, &l, &e) != STATUS_OK) {
        api_fault_from(&f, &e);
        api_reply_fault(q->r, &api_openai_models, &f);
    } else if (l.n == 0) {
        api_fault_set(&f, STATUS_NOT_FOUND, "model", "there is no model '%.100s'", q->rest);
        f.code = "model_not_found";
        api_reply_fault(q->r, &api_openai_models, &f);
    } else {
        api_reply_json(q->r, 200, &l.out);
    }
    sb_fini(&l.out);
}

static const api_route routes[] = {
    {"GET", "/v1/models", list_models, false},
    {"GET", "/v1/models/*", get_model, false},
};

const api_dialect api_openai_models = {"openai models", routes, BASE_COUNT(routes),
                                       api_openai_error};
