/*
 * The messages between a node and its rank, as structs, and their bytes. Encoding appends one frame to an sb; decoding reads one frame's
 * payload and checks every length: either side survives nonsense from the other. Pointers in a decoded message point into the payload
 * or into the arena given. Not here: sockets.
 */
#ifndef SHOAL_ENGINE_WIRE_H
#define SHOAL_ENGINE_WIRE_H

#include "engine/engine.h"
#include "engine/ranks.h"

enum { WIRE_VERSION = 6, WIRE_HEADER = 8, WIRE_MAX_PAYLOAD = 64 << 20 };

typedef enum wire_message {
#define MESSAGE(name, number, direction) WIRE_##name = number,
#include "engine/messages.def"
#undef MESSAGE
} wire_message;

typedef struct wire_load {
    const char *source; /* a path, or "builtin:minnow" */
    model_options model;
    engine_options engine; /* draft_model is not sent */
    const char *
        draft_source; /* of a draft model; NULL = none. One of another vocabulary is left out, with a warning */
} wire_load;

typedef struct wire_ready {
    int64_t context;
    uint64_t state_tokens;
    int max_sequences;
    uint64_t weight_bytes, state_bytes, scratch_bytes;
    uint64_t load_us;
    const char *isa, *numerics;
} wire_ready;

typedef struct wire_failed {
    status code;
    const char *text;
} wire_failed;

typedef struct wire_switched {
    status code; /* not OK: the old epoch goes on, and text says why */
    const char *text;
    uint32_t number;                                   /* of the epoch */
    uint64_t weight_bytes, state_bytes, scratch_bytes; /* of the leading rank */
    uint64_t read_bytes, moved_bytes;
} wire_switched;

/* The frame in front of bytes[n]: false when it is not complete yet; INVALID payload lengths give an error. */
typedef struct wire_frame {
    wire_message message;
    const unsigned char *payload;
    size_t bytes; /* of the payload */
} wire_frame;
status wire_next(wire_frame *out, bool *complete, const void *bytes, size_t n, err *e);

void wire_put_load(sb *out, const wire_load *m);
void wire_put_submit(sb *out, const engine_request *m);
void wire_put_cancel(sb *out, uint64_t id, int choice);
void wire_put_hold(sb *out, uint64_t id, int choice, bool on);
void wire_put_quit(sb *out);
void wire_put_join(sb *out, const engine_place *m); /* n_handles descriptors follow the frame */
void wire_put_prepare(sb *out, const engine_place *m, bool paused); /* likewise */
void wire_put_hello(sb *out);
void wire_put_progress(sb *out, uint64_t done, uint64_t total);
void wire_put_ready(sb *out, const wire_ready *m);
void wire_put_failed(sb *out, const wire_failed *m);
void wire_put_switched(sb *out, const wire_switched *m);
void wire_put_event(sb *out, const engine_event *m);
void wire_put_stats(sb *out, const engine_stats *m, uint64_t resident_bytes);

status wire_get_load(wire_load *out, const wire_frame *f, arena *memory, err *e);
status wire_get_submit(engine_request *out, const wire_frame *f, arena *memory, err *e);
status wire_get_cancel(uint64_t *id, int *choice, const wire_frame *f, err *e);
status wire_get_hold(uint64_t *id, int *choice, bool *on, const wire_frame *f, err *e);
status wire_get_join(engine_place *out, const wire_frame *f, err *e); /* handles are not filled */
status wire_get_prepare(engine_place *out, bool *paused, const wire_frame *f, err *e);
status wire_get_hello(uint32_t *version, const wire_frame *f, err *e);
status wire_get_progress(uint64_t *done, uint64_t *total, const wire_frame *f, err *e);
status wire_get_ready(wire_ready *out, const wire_frame *f, arena *memory, err *e);
status wire_get_failed(wire_failed *out, const wire_frame *f, arena *memory, err *e);
status wire_get_switched(wire_switched *out, const wire_frame *f, arena *memory, err *e);
status wire_get_event(engine_event *out, const wire_frame *f, err *e);
status wire_get_stats(engine_stats *out, uint64_t *resident_bytes, const wire_frame *f, err *e);

#endif
