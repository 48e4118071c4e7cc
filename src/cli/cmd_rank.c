/* shoal rank: the engine process of one model. Started by a node, with its control socket as descriptor 3; not for people. */
#include "cli/cli.h"
#include "engine/engine.h"
#include "os/os.h"
#include "store/store.h"

enum { CONTROL_SOCKET = 3 };

int cli_cmd_rank(cli *c)
{
    engine_rank_options options = {CONTROL_SOCKET, store_open};
    if (!os_is_socket(CONTROL_SOCKET))
        return cli_fail(
            c, "descriptor %d is no socket: a rank is started by `shoal serve`, not by hand",
            CONTROL_SOCKET);
    os_ignore_interrupts();
    return engine_rank_run(&options);
}
