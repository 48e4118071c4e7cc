/*
 * cli: the command line. main, the table of subcommands (commands.def), the table of options (options.def) that feeds parsing, help,
 * man page and completions, and the configuration file. The only place that reads flags, environment and shoal.conf, and the only one
 * that wires modules together.
 *
 * A command is one file cmd_<name>.c with `int cli_cmd_<name>(cli *c)`: it returns the exit code (0 done, 1 failed, 2 wrongly called),
 * having printed what went wrong with cli_fail. Options are typed by their row; asking for the wrong kind is a bug (REQUIRE).
 */
#ifndef SHOAL_CLI_H
#define SHOAL_CLI_H

#include "base/base.h"

typedef enum cli_option {
#define OPTION(name, long_name, short_name, kind, argument, fallback, commands, text) OPT_##name,
#include "cli/options.def"
#undef OPTION
    OPT_COUNT
} cli_option;

typedef struct cli_command cli_command;

typedef struct cli_value {
    const char *text;   /* as given, or the default; NULL when there is neither */
    const char *source; /* "--port", "SHOAL_PORT", "shoal.conf:3", "default" */
    bool given;         /* not by default */
    uint64_t whole;     /* FLAG (0 or 1), COUNT, SIZE in bytes, DURATION in microseconds */
    double number;      /* NUMBER */
} cli_value;

typedef struct cli {
    const cli_command *command;
    cli_value values[OPT_COUNT];
    int n_arguments;
    char **arguments; /* borrowed from argv */
    arena memory;     /* lives as long as the program */
} cli;

bool cli_given(const cli *c, cli_option o);
bool cli_flag(const cli *c, cli_option o);
const char *cli_text(const cli *c, cli_option o); /* NULL when not given and without default */
uint64_t cli_whole(const cli *c, cli_option o);
double cli_number(const cli *c, cli_option o);

/* Prints "shoal <command>: ..." to stderr and returns 1. */
int cli_fail(const cli *c, const char *format, ...) BASE_PRINTF(2, 3);
int cli_fail_err(const cli *c, const err *e);
/* The same for a wrong call: returns 2 and points to the help. */
int cli_usage(const cli *c, const char *format, ...) BASE_PRINTF(2, 3);

/* ---- for main.c, help.c and options.c -------------------------------------------------------------------------- */

typedef enum cli_kind {
    KIND_FLAG,
    KIND_TEXT,
    KIND_COUNT,
    KIND_NUMBER,
    KIND_SIZE,
    KIND_DURATION
} cli_kind;
typedef enum cli_group { GROUP_MAIN, GROUP_HIDDEN } cli_group;

typedef struct cli_option_row {
    const char *name; /* long */
    int letter;
    cli_kind kind;
    const char *argument, *fallback, *commands, *text;
} cli_option_row;

struct cli_command {
    const char *name, *arguments;
    int fewest, most; /* arguments; most -1 = any number */
    cli_group group;
    const char *summary;
    int (*run)(cli *c);
};

extern const cli_option_row cli_options[OPT_COUNT];
extern const cli_command cli_commands[];
extern const int cli_n_commands;

const cli_command *cli_find_command(const char *name);
bool cli_takes(const cli_command *command, cli_option o);
/* The name among candidates that is nearest to a mistyped one, NULL when none is near. */
const char *cli_nearest(const char *typed, const char *const *candidates, int n);
/* Fills values and arguments from shoal.conf, environment and flags (argv[0] is the command's name). */
status cli_parse(cli *c, const cli_command *command, int argc, char **argv, err *e);

void cli_print_overview(void);
void cli_print_command_help(const cli_command *command);

/* X-macro expansion of the commands' functions. */
#define COMMAND(name, arguments, fewest, most, group, summary) int cli_cmd_##name(cli *c);
#include "cli/commands.def"
#undef COMMAND

#endif
