/*
 * The rank process: one model behind a control socket. Three threads:
 *
 *   reader  takes frames off the socket into a queue; when the socket ends it ends the process: nobody is left to work for
 *   engine  (the caller) loads the model, then steps while there is work and sleeps while there is none
 *   writer  sends what the engine has to say, so that a node that does not read never blocks a step; when too much waits to be
 *           read the engine pauses between steps
 *
 * With a place (JOIN) it is one of several ranks: the first of them leads and is to its node what a rank alone is; the others load, say
 * that they are ready and follow until the end. A group that failed ends the process, after what it had to say has gone.
 *
 * A malformed frame is the node's bug: it is logged and ends the process, the node sees the death and says so.
 */
#include "engine/group.h"
#include "engine/wire.h"
#include "os/os.h"

#include <stdio.h>
#include <string.h>

enum {
    OUTGOING_LIMIT = 4 << 20,
    STATS_EVERY_US = 500000,
    PROGRESS_EVERY_US = 100000,
    FLUSH_US = 2000000,
    PLACE_US = 30000000 /* a place in an epoch that was announced */
};

typedef struct rank {
    int fd;
    status (*open)(file_model **out, const char *source, err *e);
    os_mutex *lock; /* guards incoming, outgoing, sending, place */
    os_cond *arrived, *leaving;
    sb incoming; /* whole frames, not yet handled */
    sb outgoing;
    bool sending; /* what was in outgoing is on its way */
    bool quit, joined;
    engine_place place;
    bool next_given, next_paused; /* the place in the next epoch, not yet taken */
    engine_place next;
    char *source;
    model_options options; /* as LOAD said */
    engine_change *change; /* NULL: none */
    bool change_paused;
    link_epoch change_epoch;
    model *m;
    engine_group *group; /* NULL: alone, or the threads of a team */
    engine_team *team;
    model *draft_model; /* NULL: none */
    engine *g;
    uint64_t last_stats_us, last_progress_us;
} rank;

/* ---- reader -------------------------------------------------------------------------------------------------------- */

static void die(const char *why)
{
    log_error("rank", "%s", why);
    os_exit_now(1);
}

/* The descriptors behind a JOIN or PREPARE, before the frame is passed on. */
static void take_place(rank *r, const wire_frame *frame)
{
    engine_place place;
    bool next = frame->message == WIRE_PREPARE, paused = false;
    err e;
    status s =
        next ? wire_get_prepare(&place, &paused, frame, &e) : wire_get_join(&place, frame, &e);
    for (int at = 0; s == STATUS_OK && at < place.n_handles; at += GROUP_DESCRIPTORS)
        s = os_recv_descriptors(r->fd, place.handles + at,
                                BASE_MIN(place.n_handles - at, (int)GROUP_DESCRIPTORS), 0, &e);
    os_mutex_lock(r->lock);
    if (s == STATUS_OK && r->joined && !next)
        s = err_set(&e, STATUS_INVALID, "a second place");
    if (s != STATUS_OK)
        die(e.text);
    if (next) {
        if (r->next_given)
            engine_place_close(&r->next);
        r->next = place;
        r->next_paused = paused;
        r->next_given = true;
        os_cond_signal(r->arrived);
    } else {
        r->place = place;
        r->joined = true;
    }
    os_mutex_unlock(r->lock);
}

static void read_frames(void *context)
{
    rank *r = context;
    unsigned char *payload = NULL;
    size_t capacity = 0;
    for (;;) {
        unsigned char header[WIRE_HEADER];
        wire_frame frame;
        bool complete;
        err e;
        if (os_recv_all(r->fd, header, sizeof header, 0, &e) != STATUS_OK)
            os_exit_now(0); /* the node is gone */
        uint32_t bytes = base_load_u32(header);
        if (wire_next(&frame, &complete, header, sizeof header, &e) != STATUS_OK)
            die(e.text);
        if (bytes > capacity) {
            base_free(payload);
            payload = base_alloc(bytes);
            capacity = bytes;
            if (!payload)
                die("no memory for a message");
        }
        if (bytes && os_recv_all(r->fd, payload, bytes, 0, &e) != STATUS_OK)
            os_exit_now(0);
        frame = (wire_frame){frame.message, payload, bytes};
        if (frame.message == WIRE_JOIN || frame.message == WIRE_PREPARE)
            take_place(r, &frame);
        if (frame.message == WIRE_JOIN)
            continue;
        os_mutex_lock(r->lock);
        sb_add(&r->incoming, header, sizeof header);
        sb_add(&r->incoming, payload, bytes);
        bool failed = r->incoming.failed;
        os_cond_signal(r->arrived);
        os_mutex_unlock(r->lock);
        if (failed)
            die("no memory for messages");
    }
}

/* ---- writer -------------------------------------------------------------------------------------------------------- */

static void write_frames(void *context)
{
    rank *r = context;
    sb batch;
    sb_init(&batch);
    for (;;) {
        os_mutex_lock(r->lock);
        r->sending = false;
        os_cond_signal(r->arrived);
        while (r->outgoing.length == 0)
            os_cond_wait(r->leaving, r->lock);
        r->sending = true;
        sb empty = batch; /* swap, so that both keep their memory */
        batch = r->outgoing;
        r->outgoing = empty;
        sb_clear(&r->outgoing);
        os_cond_signal(r->arrived);
        os_mutex_unlock(r->lock);
        err e;
        if (os_send_all(r->fd, batch.data, batch.length, &e) != STATUS_OK)
            os_exit_now(0);
    }
}

/* Appends a frame with `put` under the lock. */
#define SAY(r, put)                                                                                \
    do {                                                                                           \
        os_mutex_lock((r)->lock);                                                                  \
        put;                                                                                       \
        if ((r)->outgoing.failed)                                                                  \
            die("no memory for messages");                                                         \
        os_cond_signal((r)->leaving);                                                              \
        os_mutex_unlock((r)->lock);                                                                \
    } while (0)

/* ---- engine thread ------------------------------------------------------------------------------------------------- */

static void say_event(void *context, const engine_event *event)
{
    rank *r = context;
    SAY(r, wire_put_event(&r->outgoing, event));
}

static void say_failed(rank *r, const err *e)
{
    wire_failed failed = {e->code, e->text};
    SAY(r, wire_put_failed(&r->outgoing, &failed));
}

static void say_stats(rank *r, bool now)
{
    uint64_t us = os_now_us();
    if (!r->g || (!now && us - r->last_stats_us < STATS_EVERY_US))
        return;
    r->last_stats_us = us;
    engine_stats stats;
    engine_get_stats(r->g, &stats);
    uint64_t resident = os_resident_bytes();
    SAY(r, wire_put_stats(&r->outgoing, &stats, resident));
}

static bool report_progress(void *context, uint64_t done, uint64_t total)
{
    rank *r = context;
    uint64_t us = os_now_us();
    if (done < total && us - r->last_progress_us < PROGRESS_EVERY_US)
        return true;
    r->last_progress_us = us;
    SAY(r, wire_put_progress(&r->outgoing, done, total));
    return true;
}

/* A draft model has no share of its own: that something is done is all that is told. */
static bool report_draft(void *context, uint64_t done, uint64_t total)
{
    (void)done;
    return report_progress(context, total, total);
}

static void add_need(model_need *to, const model *m)
{
    const model_need *used = model_used(m);
    to->weight_bytes += used->weight_bytes;
    to->state_bytes += used->state_bytes;
    to->scratch_bytes += used->scratch_bytes;
}

static void say_ready(rank *r, const wire_load *load, uint64_t load_us)
{
    model_need used = {0};
    engine_stats stats = {0};
    add_need(&used, r->m);
    if (r->draft_model)
        add_need(&used, r->draft_model);
    if (r->g)
        engine_get_stats(r->g, &stats);
    wire_ready ready = {.context = model_get_options(r->m)->context,
                        .state_tokens = stats.state_tokens,
                        .max_sequences = load->engine.max_sequences,
                        .weight_bytes = used.weight_bytes,
                        .state_bytes = used.state_bytes,
                        .scratch_bytes = used.scratch_bytes,
                        .load_us = load_us,
                        .isa = model_isa(r->m),
                        .numerics = model_numerics(r->m)};
    SAY(r, wire_put_ready(&r->outgoing, &ready));
}

/* Waits until everything said has gone out, but not for ever. */
static void flush(rank *r)
{
    uint64_t until = os_now_us() + FLUSH_US;
    os_mutex_lock(r->lock);
    while ((r->outgoing.length || r->sending) && os_now_us() < until)
        os_cond_wait_us(r->arrived, r->lock, 10000);
    os_mutex_unlock(r->lock);
}

/* Our part of the model, and the others met. */
static status load_part(rank *r, const wire_load *load, err *e)
{
    model_options options = load->model;
    model_progress progress = {report_progress, r};
    file_model *file = NULL;
    if (r->joined && r->place.cut.link == ENGINE_LINK_LOOP) {
        engine_team_options o = {.cut = r->place.cut,
                                 .source = load->source,
                                 .model = options,
                                 .epoch = r->place.epoch,
                                 .deadline_us = r->place.deadline_us,
                                 .open = r->open};
        status s = engine_team_load(&r->team, &o, &progress, e);
        r->m = s == STATUS_OK ? engine_team_model(r->team) : NULL;
        return s;
    }
    status s = r->open(&file, load->source, e);
    if (s == STATUS_OK && r->joined)
        s = engine_group_create(&r->group, &r->place, file, &options, e);
    if (s == STATUS_OK)
        s = model_load(&r->m, file, &options, &progress, e);
    file_close(file);
    return s == STATUS_OK && r->joined ? engine_group_join(r->group, r->m, e) : s;
}

/* The draft model beside the model; one that does not fit it, or into memory, is left out. */
static void load_draft(rank *r, wire_load *load)
{
    const model_options *o = model_get_options(r->m);
    model_options options = {.device = load->model.device,
                             .isa = load->model.isa,
                             .n_threads = load->model.n_threads,
                             .kv = o->kv,
                             .context = o->context,
                             .state_tokens = o->state_tokens,
                             .n_sequences = o->n_sequences,
                             .max_outputs = o->n_sequences};
    model_progress progress = {report_draft, r};
    file_model *file = NULL;
    model_card *card = NULL;
    err e;
    if (load->model.memory_limit) {
        const model_need *used = model_used(r->m);
        uint64_t taken = used->weight_bytes + used->state_bytes + used->scratch_bytes;
        options.memory_limit =
            load->model.memory_limit > taken ? load->model.memory_limit - taken : 1;
    }
    status s = r->open(&file, load->draft_source, &e);
    if (s == STATUS_OK)
        s = model_card_read(&card, file, &e);
    if (s == STATUS_OK)
        s = engine_draft_check(card, model_get_card(r->m), &e);
    if (s == STATUS_OK)
        s = model_load(&r->draft_model, file, &options, &progress, &e);
    if (s != STATUS_OK) {
        log_warn("rank", "going on without drafts: %s", e.text);
        load->engine.draft = ENGINE_DRAFT_NONE;
    }
    load->engine.draft_model = r->draft_model;
    model_card_destroy(card);
    file_close(file);
}

/* For the engine thread: its place in the next epoch. */
static bool claim_next(rank *r, engine_place *place, bool *paused, uint64_t patience_us)
{
    uint64_t until = os_now_us() + patience_us;
    os_mutex_lock(r->lock);
    while (!r->next_given && os_now_us() < until)
        os_cond_wait_us(r->arrived, r->lock, 10000);
    bool given = r->next_given;
    if (given) {
        *place = r->next;
        *paused = r->next_paused;
        r->next_given = false;
    }
    os_mutex_unlock(r->lock);
    return given;
}

static status take_next(void *context, link_epoch epoch, engine_place *place, model_options *o,
                        file_model **file, err *e)
{
    rank *r = context;
    engine_place next;
    bool paused;
    do {
        if (!claim_next(r, &next, &paused, PLACE_US))
            return err_set(e, STATUS_TIMEOUT, "no place in epoch %u came", epoch.number);
        if (next.epoch.number != epoch.number)
            engine_place_close(&next); /* of one that came to nothing */
    } while (next.epoch.number != epoch.number);
    status s = r->open(file, r->source, e);
    if (s != STATUS_OK) {
        engine_place_close(&next);
        return s;
    }
    *place = next;
    *o = r->options;
    return s;
}

/* A follower's life after loading; does not return. */
static void follow(rank *r)
{
    err e = {0};
    const engine_taker taker = {take_next, r};
    if (engine_group_follow(&r->group, &r->m, &taker, &e) == STATUS_OK) {
        engine_group_destroy(r->group);
        os_exit_now(0);
    }
    log_info("rank", "rank %d ends: %s", r->place.rank,
             e.text);  /* at a group's end peers go in any order */
    say_failed(r, &e); /* who started us says what of it matters */
    flush(r);
    os_exit_now(1);
}

static status load_model(rank *r, const wire_frame *frame, err *e)
{
    arena memory;
    arena_init(&memory, 0);
    wire_load load;
    uint64_t begin = os_now_us();
    status s = wire_get_load(&load, frame, &memory, e);
    if (s == STATUS_OK && r->m)
        s = err_set(e, STATUS_CONFLICT, "rank: a model is loaded already");
    if (s == STATUS_OK)
        s = load_part(r, &load, e);
    if (s == STATUS_OK && !(r->source = base_strdup(load.source)))
        s = err_set(e, STATUS_NO_MEMORY, "rank: no memory for a name");
    if (s == STATUS_OK) {
        r->options = load.model;
        r->options.device = model_get_options(r->m)->device; /* for as long as we live */
        r->options.isa = model_get_options(r->m)->isa;
    }
    bool leads = !r->joined || r->place.rank == 0;
    if (s == STATUS_OK && leads && load.draft_source)
        load_draft(r, &load);
    if (s == STATUS_OK && leads)
        s = engine_create(&r->g, r->m, &load.engine, say_event, r, e);
    if (s == STATUS_OK)
        say_ready(r, &load, os_now_us() - begin);
    arena_fini(&memory);
    if (s == STATUS_OK && !leads)
        follow(r);
    return s;
}

/* ---- from one epoch to the next ------------------------------------------------------------------------------------- */

static void say_switched(rank *r, status code, const char *text)
{
    const model_need *used = model_used(r->m);
    wire_switched m = {.code = code,
                       .text = text,
                       .number = r->place.epoch.number,
                       .weight_bytes = used->weight_bytes,
                       .state_bytes = used->state_bytes,
                       .scratch_bytes = used->scratch_bytes,
                       .read_bytes = model_read_bytes(r->m),
                       .moved_bytes = model_moved_bytes(r->m)};
    SAY(r, wire_put_switched(&r->outgoing, &m));
}

/* Nothing is left to go on with. */
static void give_up(rank *r, const err *e)
{
    say_failed(r, e);
    flush(r);
    os_exit_now(1);
}

/* PREPARE for the leading rank: its place is there. */
static status start_change(rank *r, err *e)
{
    engine_place place;
    bool paused;
    file_model *file = NULL;
    err why = {0};
    if (!r->g || !claim_next(r, &place, &paused, 0))
        return err_set(e, STATUS_INVALID, "rank: an epoch for a rank that does not lead");
    bool cut = engine_cut_ranks(&place.cut) > 1;
    link_epoch epoch = place.epoch;
    status s = STATUS_OK;
    if (r->change)
        s = err_set(&why, STATUS_BUSY, "another epoch is being prepared");
    else if (r->team || place.cut.link == ENGINE_LINK_LOOP || place.rank != 0)
        s = err_set(&why, STATUS_UNSUPPORTED, "ranks that are threads keep their cut here");
    else
        s = r->open(&file, r->source, &why);
    if (s == STATUS_OK && paused) {
        log_info("rank", "paused for epoch %u: memory has room for one", epoch.number);
        engine_leave(r->g);
    }
    bool taken = s == STATUS_OK;
    if (taken)
        s = engine_change_begin(&r->change, r->group, r->m, cut ? &place : NULL, file, &r->options,
                                paused, &why);
    if (!taken || !cut)
        engine_place_close(&place);
    r->change_paused = paused;
    r->change_epoch = epoch;
    if (s != STATUS_OK && taken && (paused || (r->group && engine_group_failed(r->group))))
        give_up(r, &why);
    if (s != STATUS_OK)
        say_switched(r, s, why.text);
    return STATUS_OK;
}

/* Between two steps. */
static void work_on_change(rank *r)
{
    bool over;
    err why = {0};
    status s = engine_change_work(r->change, r->g, &over, &why);
    if (s == STATUS_OK && !over)
        return;
    if (s == STATUS_OK) {
        engine_change_commit(r->change, &r->group, &r->m);
        r->place.epoch = r->change_epoch;
    } else if (r->change_paused || (r->group && engine_group_failed(r->group))) {
        give_up(r, &why);
    } else {
        engine_change_cancel(r->change, r->g);
    }
    r->change = NULL;
    say_switched(r, s, why.text);
}

/* The engine refused the request: every choice of it ends at once. */
static void say_refused(rank *r, const engine_request *request, const err *why)
{
    int choices = request->n_choices > 0 ? request->n_choices : 1;
    for (int i = 0; i < BASE_MIN(choices, (int)ENGINE_CHOICES); i++) {
        engine_event event = {.kind = ENGINE_DONE,
                              .id = request->id,
                              .choice = i,
                              .reason = ENGINE_ERROR,
                              .n_prompt = request->n_prompt,
                              .code = why->code};
        snprintf(event.text, sizeof event.text, "%s", why->text);
        say_event(r, &event);
    }
}

static status submit(rank *r, const wire_frame *frame, err *e)
{
    arena memory;
    arena_init(&memory, 0);
    engine_request request;
    status s = wire_get_submit(&request, frame, &memory, e);
    if (s == STATUS_OK && !r->g)
        s = err_set(e, STATUS_INVALID, "rank: a request before the model is ready");
    if (s == STATUS_OK) {
        err why;
        if (engine_submit(r->g, &request, &why) != STATUS_OK)
            say_refused(r, &request, &why);
    }
    arena_fini(&memory);
    return s;
}

static status handle(rank *r, const wire_frame *frame, err *e)
{
    uint64_t id;
    int choice;
    bool on;
    status s;
    switch (frame->message) {
    case WIRE_LOAD:
        s = load_model(r, frame, e);
        if (s == STATUS_OK)
            return s;
        say_failed(r, e); /* the node decides what to do about it; it will close the socket */
        if (!r->joined)
            return STATUS_OK;
        flush(r); /* the others learn it from our end */
        os_exit_now(1);
        return s;
    case WIRE_SUBMIT:
        return submit(r, frame, e);
    case WIRE_CANCEL:
        s = wire_get_cancel(&id, &choice, frame, e);
        if (s == STATUS_OK && r->g)
            engine_cancel(r->g, id, choice);
        return s;
    case WIRE_HOLD:
        s = wire_get_hold(&id, &choice, &on, frame, e);
        if (s == STATUS_OK && r->g)
            engine_hold(r->g, id, choice, on);
        return s;
    case WIRE_PREPARE:
        return start_change(r, e);
    case WIRE_QUIT:
        r->quit = true;
        return STATUS_OK;
    default:
        return err_set(e, STATUS_INVALID, "rank: message %d is not for a rank",
                       (int)frame->message);
    }
}

/* Handles every frame that has arrived. */
static status handle_all(rank *r, sb *frames, err *e)
{
    size_t at = 0;
    while (at < frames->length && !r->quit) {
        wire_frame frame;
        bool complete;
        status s = wire_next(&frame, &complete, frames->data + at, frames->length - at, e);
        if (s == STATUS_OK)
            s = handle(r, &frame, e);
        if (s != STATUS_OK)
            return s;
        at += WIRE_HEADER + frame.bytes;
    }
    return STATUS_OK;
}

/* Waits until there is something to do, or time to say how we are, and takes what arrived. With work at hand it waits only for the node to read its
 * events. Returns whether a step may be made. */
static bool wait_for_frames(rank *r, sb *frames, bool busy)
{
    uint64_t most = STATS_EVERY_US;
    if (r->group)
        most = BASE_MIN(most, engine_group_beats(r->group).every_us);
    sb_clear(frames);
    os_mutex_lock(r->lock);
    bool full = r->outgoing.length > OUTGOING_LIMIT;
    if (r->incoming.length == 0 && (!busy || full)) {
        os_cond_wait_us(r->arrived, r->lock, most);
        full = r->outgoing.length > OUTGOING_LIMIT;
    }
    sb empty = *frames;
    *frames = r->incoming;
    r->incoming = empty;
    os_mutex_unlock(r->lock);
    return !busy || !full || frames->length > 0;
}

/* The other ranks learn that we live, and we that they do. */
static void beat(rank *r)
{
    err why;
    if (!r->group || engine_group_beat(r->group, &why) == STATUS_OK)
        return;
    log_error("rank", "a rank is lost: %s", why.text);
    give_up(r, &why);
}

/* Its requests know; a group can do no other step. */
static void step_failed(rank *r, const err *e)
{
    log_error("rank", "a step failed: %s", e->text);
    if (!r->joined && !r->group)
        return;
    flush(r);
    os_exit_now(1);
}

static status serve_node(rank *r, err *e)
{
    sb frames;
    sb_init(&frames);
    bool busy = false, was_busy = false;
    status s = STATUS_OK;
    while (s == STATUS_OK && !r->quit) {
        bool go_on = wait_for_frames(r, &frames, busy);
        err step;
        s = handle_all(r, &frames, e);
        /* while the node does not read, the other ranks hear beats, and those come between steps */
        if (s == STATUS_OK && r->group && r->g && !r->quit && !go_on &&
            engine_land(r->g, &step) != STATUS_OK)
            step_failed(r, &step);
        if (s == STATUS_OK && !r->quit)
            beat(r);
        if (s == STATUS_OK && r->g && !r->quit && go_on) {
            if (engine_step(r->g, &busy, &step) != STATUS_OK)
                step_failed(r, &step);
            if (r->change)
                work_on_change(r);
            say_stats(r, was_busy && !busy);
            was_busy = busy;
            busy |= r->change != NULL;
        }
    }
    sb_fini(&frames);
    return s;
}

int engine_rank_run(const engine_rank_options *o)
{
    rank r = {.fd = o->fd, .open = o->open};
    os_thread *reader, *writer;
    err e;
    os_sigbus_exit("shoal rank: a model file was cut short while it was being read");
    status s = os_mutex_create(&r.lock, &e);
    if (s == STATUS_OK)
        s = os_cond_create(&r.arrived, &e);
    if (s == STATUS_OK)
        s = os_cond_create(&r.leaving, &e);
    if (s == STATUS_OK)
        s = os_thread_create(&reader, read_frames, &r, "reader", &e);
    if (s == STATUS_OK)
        s = os_thread_create(&writer, write_frames, &r, "writer", &e);
    if (s == STATUS_OK) {
        SAY(&r, wire_put_hello(&r.outgoing));
        s = serve_node(&r, &e);
    }
    if (s != STATUS_OK)
        die(e.text);
    engine_change_cancel(r.change, r.g);
    engine_destroy(r.g);
    model_destroy(r.draft_model);
    engine_group_destroy(r.group);
    if (r.team)
        engine_team_destroy(r.team);
    else
        model_destroy(r.m);
    os_exit_now(0); /* reader and writer are blocked in the socket */
    return 0;
}
