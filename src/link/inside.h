/*
 * Inside link: what a back end implements, and the form of a frame. Not for other modules.
 */
#ifndef SHOAL_LINK_INSIDE_H
#define SHOAL_LINK_INSIDE_H

#include "link/link.h"

/* Bytes of one frame that are still to go: the rest of its header and of its payload. */
typedef struct link_part {
    const unsigned char *bytes;
    size_t n;
} link_part;

/* A back end: an ordered stream of bytes in both directions that never blocks. A message-based transport puts one frame a message.
 * Errors are final: nothing is called after one but close. */
typedef struct link_backend {
    const char *name;
    unsigned caps;
    /* Takes a beginning of the two parts; *taken 0: full for now. All parts of a call belong to one frame, and the next call goes on where
     * this one ended; the first call of a frame has its whole header. Either all of the header or nothing is taken. */
    status (*put)(void *self, const link_part parts[2], size_t *taken, err *e);
    /* *got 0: nothing for now. CLOSED only after everything that came has been taken. */
    status (*take)(void *self, void *to, size_t n, size_t *got, err *e);
    /* May be NULL. What take would give next, where it lies: *n bytes in a row (0: nothing for now), good until skip, which takes the first
     * n of them away without copying. */
    status (*peek)(void *self, const unsigned char **bytes, size_t *n, err *e);
    void (*skip)(void *self, size_t n);
    /* Moves what is held inside. *again_us: lowered to the time (of the clock) at which to call again. *moved: set when something moved. */
    status (*pump)(void *self, uint64_t *again_us, bool *moved, err *e);
    /* About to wait: fills what to wait for and returns true; false: do not wait, look again. fd −1: nothing can be waited for. */
    bool (*arm)(void *self, os_interest *out);
    void (*disarm)(void *self);
    bool (*idle)(void *self); /* nothing is held inside that pump would still move */
    void (*close)(void *self);
} link_backend;

struct link_conn {
    const link_backend *ops;
    void *self;
};

/* Makes the connection; on failure closes self. */
status link_conn_create(link_conn **out, const link_backend *ops, void *self, err *e);

/* For tests: a tls connection renews its keys after so many records. */
void link_tls_update_after(link_conn *c, uint64_t records);

/* ---- frames (frame.c) ------------------------------------------------------------------------------------------- */

enum {
#define MESSAGE(name, number) LINK_MESSAGE_##name = number,
#include "link/messages.def"
#undef MESSAGE
    LINK_HEADER_BYTES = 24,
    LINK_MAGIC = 0x6b6e6c73 /* "slnk" */
};

typedef struct link_header {
    uint16_t kind;
    uint8_t op, phase;
    uint32_t bytes, sequence;
    uint64_t epoch; /* term << 32 | number */
} link_header;

uint64_t link_epoch_tag(link_epoch epoch);
void link_header_write(unsigned char out[LINK_HEADER_BYTES], const link_header *h);
status link_header_read(link_header *out, const unsigned char in[LINK_HEADER_BYTES], err *e);

enum {
    LINK_HELLO_BYTES = 0
#define FIELD(name, bytes, check, text) +bytes
#include "link/handshake.def"
#undef FIELD
};
/* The HELLO of `config` on `lane`, of rank `rank`. */
void link_hello_write(unsigned char out[LINK_HELLO_BYTES], const link_group_config *config,
                      int rank, int lane);
/* Refuses by the name of the first field in which theirs differs from what was expected. */
status link_hello_check(const unsigned char *theirs, size_t n,
                        const unsigned char expected[LINK_HELLO_BYTES], err *e);

/* ---- values on the wire (wire.c) ------------------------------------------------------------------------------- */

/* Values travel in units: so many bytes hold so many values; the last unit of a frame may hold fewer. BLOCKS has none: its blocks say how
 * long they are. */
typedef struct link_unit {
    size_t bytes, values;
} link_unit;
link_unit link_wire_unit(link_wire wire);
size_t link_wire_bytes(link_wire wire, size_t n); /* of n values; of BLOCKS the most */
/* |v| must stay below this. */
double link_wire_limit(link_wire wire);
/* False: a value is out of range or no multiple of 2^-24. */
bool link_pack(unsigned char *out, const double *values, size_t n, link_wire wire);
/* values = what is on the wire, or values += what is on the wire. False: a value, addend or sum is out of range. */
bool link_unpack(double *values, const unsigned char *in, size_t n, link_wire wire);
bool link_add(double *values, const unsigned char *in, size_t n, link_wire wire);
enum { LINK_BLOCK = 64 };
/* BLOCKS: packs n values into at most link_wire_bytes; returns how many. */
size_t link_pack_blocks(unsigned char *out, const double *values, size_t n);
/* How long the block of m values is that begins with the byte `form`, with it; 0: no such block. */
size_t link_block_bytes(unsigned char form, size_t m);
/* Stores or adds the m values of a block of that form, which begin at `in`. False: a value, addend or sum is out of range. */
bool link_take_block(double *values, const unsigned char *in, unsigned char form, size_t m,
                     bool add);
bool link_in_range(const double *values, size_t n, link_wire wire);

/* The loops behind these functions, one table an instruction set; all give the same bits (loops.h). */
typedef struct link_loops {
    bool (*in_range)(const double *values, size_t n, double limit);
    bool (*add_f64)(double *restrict values, const unsigned char *restrict in, size_t n);
    bool (*pack_48)(unsigned char *restrict out, const double *restrict values, size_t n);
    bool (*take_48)(double *restrict values, const unsigned char *restrict in, size_t n, bool add);
    size_t (*pack_blocks)(unsigned char *restrict out, const double *restrict values, size_t n);
    bool (*take_32)(double *restrict values, const unsigned char *restrict in, size_t n, bool add);
} link_loops;
const link_loops *link_loops_baseline(void);
#if defined(__x86_64__)
extern const link_loops link_loops_avx2;
#endif

#endif
