/* cli_main: finds the command, parses its options, runs it. Also the ways in which a command says that it failed. */
#include "cli/program.h"
#include "cli/cli.h"
#include "os/os.h"

#include <errno.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void print_message(const cli *c, const char *format, va_list args)
{
    if (c && c->command)
        fprintf(stderr, "shoal %s: ", c->command->name);
    else
        fputs("shoal: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
}

int cli_fail(const cli *c, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print_message(c, format, args);
    va_end(args);
    return 1;
}

int cli_fail_err(const cli *c, const err *e)
{
    return cli_fail(c, "%s", e->text);
}

int cli_usage(const cli *c, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print_message(c, format, args);
    va_end(args);
    if (c && c->command)
        fprintf(stderr, "`shoal help %s` says how it is called\n", c->command->name);
    else
        fputs("`shoal help` says what there is\n", stderr);
    return 2;
}

static int unknown_command(const char *typed)
{
    const char *names[64];
    int n = 0;
    for (int i = 0; i < cli_n_commands && n < (int)BASE_COUNT(names); i++)
        if (cli_commands[i].group == GROUP_MAIN)
            names[n++] = cli_commands[i].name;
    const char *near = cli_nearest(typed, names, n);
    if (near)
        return cli_usage(NULL, "there is no command '%s'; did you mean %s?", typed, near);
    return cli_usage(NULL, "there is no command '%s'", typed);
}

static status set_log_level(const cli *c, err *e)
{
    log_level level =
        strcmp(c->command->name, "serve") && strcmp(c->command->name, "rank") ? LOG_WARN : LOG_INFO;
    const char *text = cli_text(c, OPT_log);
    if (text && !log_level_parse(text, &level))
        return err_set(e, STATUS_INVALID, "%s: expected error, warn, info or debug, got '%s'",
                       c->values[OPT_log].source, text);
    log_set_level(level);
    return STATUS_OK;
}

/* What a command printed has to arrive: a full disk behind `> file` is an error, a reader that left (EPIPE) needs no words. */
static int end_output(const cli *c, int code)
{
    errno = 0;
    if (fflush(stdout) == 0 && !ferror(stdout))
        return code;
    int error = errno;
    if (code == 0 && error != EPIPE)
        cli_fail(c, "stdout cannot be written%s%s", error ? ": " : "",
                 error ? strerror(error) : "");
    return code == 0 ? 1 : code;
}

int cli_main(int argc, char **argv)
{
    setlocale(LC_CTYPE, "");
    if (MB_CUR_MAX == 1) /* no locale is set: what is typed and shown is UTF-8 all the same */
        setlocale(LC_CTYPE, "C.UTF-8");
    if (argc < 2) {
        cli_print_overview();
        return 2;
    }
    const char *name = argv[1];
    if (!strcmp(name, "--help") || !strcmp(name, "-h"))
        name = "help";
    if (!strcmp(name, "--version") || !strcmp(name, "version")) {
        puts("shoal " SHOAL_VERSION);
        return end_output(NULL, 0);
    }
    const cli_command *command = cli_find_command(name);
    if (!command)
        return unknown_command(name);
    cli c;
    err e;
    status s = cli_parse(&c, command, argc - 1, argv + 1, &e);
    if (s == STATUS_OK)
        s = set_log_level(&c, &e);
    int code;
    if (s != STATUS_OK) {
        code = cli_usage(&c, "%s", e.text);
    } else if (cli_flag(&c, OPT_help)) {
        cli_print_command_help(command);
        code = 0;
    } else {
        code = command->run(&c);
    }
    code = end_output(&c, code);
    arena_fini(&c.memory);
    return code;
}
