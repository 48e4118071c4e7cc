/*
 * ucx: a stream of UCP (UCX 1.13 or newer) for RDMA and for shared memory of the same host. A connected socket carries the two workers'
 * addresses and is afterwards the sign of life: UCX reports no death on its shared memory, and a stopped network late or never, so its own
 * error handling is not used. One context and worker a connection, driven by the group's thread only.
 *
 * Plaintext and without authentication: opened only for links that the caller has marked trusted, and never over UCX's own TCP, whose port
 * is as good as writing to our memory. Not here: registered memory and sends without a copy; what goes is copied once.
 * Without UCX at build time all that is left is the refusal at the end.
 */
#include "link/inside.h"

#ifdef SHOAL_HAS_UCX

#include <string.h>
#include <ucp/api/ucp.h>

#define OUT_BYTES     (256u << 10)
#define ADDRESS_BYTES 4096
#define LOOK_EVERY    64   /* empty looks between two looks at the socket */
#define CLOSE_LOOKS   2000 /* progress calls that an orderly end may take */

typedef struct ucx {
    ucp_context_h context;
    ucp_worker_h worker;
    ucp_ep_h ep;
    int fd;
    ucs_status_ptr_t sending; /* of `out`, NULL: nothing is */
    unsigned char *chunk;     /* that came, UCX's memory until it is released */
    size_t chunk_begin, chunk_end;
    unsigned char own[4 + ADDRESS_BYTES], theirs[4 + ADDRESS_BYTES];
    size_t own_bytes, own_sent, their_got;
    unsigned empty_looks;
    bool gone;
    unsigned char out[OUT_BYTES];
} ucx;

static status failed(const char *what, ucs_status_t code, err *e)
{
    return err_set(e, STATUS_IO, "UCX %s: %s", what, ucs_status_string(code));
}

static void look_at_socket(ucx *u)
{
    char byte;
    size_t got = 0;
    if (u->ep && !u->gone) /* before, addresses pass there */
        u->gone = os_try_recv(u->fd, &byte, 1, &got, NULL) != STATUS_OK || got > 0;
}

/* Both addresses have passed: makes the end point. */
static status connect_ends(ucx *u, err *e)
{
    ucp_ep_params_t p = {.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS,
                         .address = (const ucp_address_t *)(const void *)(u->theirs + 4)};
    ucs_status_t code = ucp_ep_create(u->worker, &p, &u->ep);
    return code == UCS_OK ? STATUS_OK : failed("end point", code, e);
}

static status exchange_addresses(ucx *u, bool *moved, err *e)
{
    size_t n, want = 0;
    status s = os_try_send(u->fd, u->own + u->own_sent, u->own_bytes - u->own_sent, &n, e);
    if (s != STATUS_OK)
        return s;
    u->own_sent += n;
    do {
        uint32_t length = u->their_got < 4 ? 0 : base_load_u32(u->theirs);
        if (u->their_got >= 4 && (length == 0 || length > ADDRESS_BYTES))
            return err_set(e, STATUS_CORRUPT, "UCX address of %u bytes", length);
        want = 4 + (size_t)length;
        if (u->their_got < want) {
            s = os_try_recv(u->fd, u->theirs + u->their_got, want - u->their_got, &n, e);
            if (s != STATUS_OK || n == 0)
                return s;
            u->their_got += n;
            *moved = true;
        }
    } while (u->their_got < want || want == 4);
    return u->own_sent == u->own_bytes ? connect_ends(u, e) : STATUS_OK;
}

static status ucx_pump(void *self, uint64_t *again_us, bool *moved, err *e)
{
    ucx *u = self;
    (void)again_us;
    if (!u->ep)
        return exchange_addresses(u, moved, e);
    (void)ucp_worker_progress(u->worker);
    if (u->sending && ucp_request_check_status(u->sending) != UCS_INPROGRESS) {
        ucs_status_t code = ucp_request_check_status(u->sending);
        ucp_request_free(u->sending);
        u->sending = NULL;
        *moved = true;
        if (code != UCS_OK)
            return failed("send", code, e);
    }
    return STATUS_OK;
}

static status ucx_put(void *self, const link_part parts[2], size_t *taken, err *e)
{
    ucx *u = self;
    bool moved = false;
    uint64_t again = UINT64_MAX;
    *taken = 0;
    status s = ucx_pump(u, &again, &moved, e);
    if (s != STATUS_OK || !u->ep || u->sending)
        return s;
    for (int i = 0; i < 2 && *taken < OUT_BYTES; i++) {
        size_t n = BASE_MIN(parts[i].n, OUT_BYTES - *taken);
        if (n > 0)
            memcpy(u->out + *taken, parts[i].bytes, n);
        *taken += n;
    }
    if (*taken == 0)
        return STATUS_OK;
    ucp_request_param_t p = {.op_attr_mask = 0};
    ucs_status_ptr_t r = ucp_stream_send_nbx(u->ep, u->out, *taken, &p);
    if (UCS_PTR_IS_ERR(r))
        return failed("send", UCS_PTR_STATUS(r), e);
    u->sending = r;
    return STATUS_OK;
}

static status ucx_peek(void *self, const unsigned char **bytes, size_t *n, err *e)
{
    ucx *u = self;
    *n = 0;
    *bytes = NULL;
    if (!u->chunk && u->ep) {
        bool was_gone = u->gone;
        (void)ucp_worker_progress(u->worker);
        ucs_status_ptr_t r = ucp_stream_recv_data_nb(u->ep, &u->chunk_end);
        if (UCS_PTR_IS_ERR(r))
            return failed("receive", UCS_PTR_STATUS(r), e);
        u->chunk = r;
        u->chunk_begin = 0;
        if (!r && was_gone)
            return err_set(e, STATUS_CLOSED, "the other side is gone");
        if (!r && ++u->empty_looks % LOOK_EVERY == 0)
            look_at_socket(u);
    }
    if (u->chunk) {
        *bytes = u->chunk + u->chunk_begin;
        *n = u->chunk_end - u->chunk_begin;
    }
    return STATUS_OK;
}

static void ucx_skip(void *self, size_t n)
{
    ucx *u = self;
    u->chunk_begin += n;
    if (u->chunk_begin < u->chunk_end)
        return;
    ucp_stream_data_release(u->ep, u->chunk);
    u->chunk = NULL;
}

static status ucx_take(void *self, void *to, size_t n, size_t *got, err *e)
{
    *got = 0;
    while (*got < n) {
        const unsigned char *bytes;
        size_t ready;
        status s = ucx_peek(self, &bytes, &ready, e);
        if (s != STATUS_OK)
            return *got && s == STATUS_CLOSED ? STATUS_OK : s;
        if (ready == 0)
            return STATUS_OK;
        ready = BASE_MIN(ready, n - *got);
        memcpy((unsigned char *)to + *got, bytes, ready);
        *got += ready;
        ucx_skip(self, ready);
    }
    return STATUS_OK;
}

/* Only one descriptor can be waited for: the worker's. The socket is looked at after every sleep, which are short. */
static bool ucx_arm(void *self, os_interest *out)
{
    ucx *u = self;
    int fd;
    if (!u->ep) {
        *out = (os_interest){.fd = u->fd, .read = true, .write = u->own_sent < u->own_bytes};
        return true;
    }
    if (ucp_worker_get_efd(u->worker, &fd) != UCS_OK)
        fd = -1;
    else if (ucp_worker_arm(u->worker) != UCS_OK)
        return false;
    *out = (os_interest){.fd = fd, .read = true};
    return true;
}

static void ucx_disarm(void *self)
{
    look_at_socket(self);
}

static bool ucx_idle(void *self)
{
    ucx *u = self;
    return u->ep && !u->sending;
}

/* Waits a little for an orderly end: with a peer that is dead there is none. */
static void finish(ucx *u, ucs_status_ptr_t r)
{
    if (!r || UCS_PTR_IS_ERR(r))
        return;
    for (int i = 0; i < CLOSE_LOOKS && ucp_request_check_status(r) == UCS_INPROGRESS; i++) {
        (void)ucp_worker_progress(u->worker);
        if (i % 100 == 99)
            os_sleep_us(500);
    }
    ucp_request_free(r);
}

static void ucx_close(void *self)
{
    ucx *u = self;
    if (u->chunk)
        ucp_stream_data_release(u->ep, u->chunk);
    if (u->sending)
        finish(u, u->sending);
    if (u->ep) {
        ucp_request_param_t p = {.op_attr_mask = 0};
        finish(u, ucp_ep_close_nbx(u->ep, &p));
    }
    if (u->worker)
        ucp_worker_destroy(u->worker);
    if (u->context)
        ucp_cleanup(u->context);
    os_close(u->fd);
    base_free(u);
}

static const link_backend backend = {
    .name = "ucx",
    .put = ucx_put,
    .take = ucx_take,
    .peek = ucx_peek,
    .skip = ucx_skip,
    .pump = ucx_pump,
    .arm = ucx_arm,
    .disarm = ucx_disarm,
    .idle = ucx_idle,
    .close = ucx_close,
};

static status set_up_context(ucx *u, err *e)
{
    ucp_config_t *config;
    ucs_status_t code = ucp_config_read(NULL, NULL, &config);
    if (code != UCS_OK)
        return failed("configuration", code, e);
    code = ucp_config_modify(config, "TLS", "^tcp");
    ucp_params_t p = {.field_mask = UCP_PARAM_FIELD_FEATURES,
                      .features = UCP_FEATURE_STREAM | UCP_FEATURE_WAKEUP};
    if (code == UCS_OK)
        code = ucp_init(&p, config, &u->context);
    ucp_config_release(config);
    return code == UCS_OK ? STATUS_OK : failed("start", code, e);
}

static status set_up_worker(ucx *u, err *e)
{
    ucp_worker_params_t p = {.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE,
                             .thread_mode = UCS_THREAD_MODE_SINGLE};
    ucp_address_t *address;
    size_t n = 0;
    ucs_status_t code = ucp_worker_create(u->context, &p, &u->worker);
    if (code != UCS_OK)
        return failed("worker", code, e);
    code = ucp_worker_get_address(u->worker, &address, &n);
    if (code != UCS_OK)
        return failed("address", code, e);
    status s = n <= ADDRESS_BYTES ? STATUS_OK
                                  : err_set(e, STATUS_TOO_LARGE, "UCX address of %zu bytes", n);
    if (s == STATUS_OK) {
        base_store_u32(u->own, (uint32_t)n);
        memcpy(u->own + 4, address, n);
        u->own_bytes = 4 + n;
    }
    ucp_worker_release_address(u->worker, address);
    return s;
}

static status open_ucx(link_conn **out, int fd, err *e)
{
    ucx *u = base_zalloc(1, sizeof *u);
    if (!u) {
        os_close(fd);
        return err_set(e, STATUS_NO_MEMORY, "a UCX connection");
    }
    u->fd = fd;
    status s = os_set_nonblocking(fd, true, e);
    if (s == STATUS_OK)
        s = set_up_context(u, e);
    if (s == STATUS_OK)
        s = set_up_worker(u, e);
    if (s != STATUS_OK) {
        ucx_close(u);
        return s;
    }
    return link_conn_create(out, &backend, u, e);
}

#else

static status open_ucx(link_conn **out, int fd, err *e)
{
    (void)out;
    os_close(fd);
    return err_set(e, STATUS_UNSUPPORTED, "this build has no UCX");
}

#endif

status link_ucx_open(link_conn **out, int fd, bool trusted, err *e)
{
    if (trusted)
        return open_ucx(out, fd, e);
    os_close(fd);
    return err_set(e, STATUS_DENIED, "UCX sends plaintext: only for links that are marked trusted");
}
