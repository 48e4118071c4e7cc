/* The two tables as data: what commands.def and options.def say, and lookups over them. */
#include "cli/cli.h"

#include <string.h>

const cli_option_row cli_options[OPT_COUNT] = {
#define OPTION(name, long_name, short_name, kind, argument, fallback, commands, text)              \
    {long_name, short_name, KIND_##kind, argument, fallback, commands, text},
#include "cli/options.def"
#undef OPTION
};

const cli_command cli_commands[] = {
#define COMMAND(name, arguments, fewest, most, group, summary)                                     \
    {#name, arguments, fewest, most, GROUP_##group, summary, cli_cmd_##name},
#include "cli/commands.def"
#undef COMMAND
};

const int cli_n_commands = (int)BASE_COUNT(cli_commands);

const cli_command *cli_find_command(const char *name)
{
    for (int i = 0; i < cli_n_commands; i++)
        if (!strcmp(cli_commands[i].name, name))
            return &cli_commands[i];
    return NULL;
}

bool cli_takes(const cli_command *command, cli_option o)
{
    const char *list = cli_options[o].commands;
    char word[40];
    if (!strcmp(list, " all "))
        return true;
    size_t n = strlen(command->name);
    if (n + 3 > sizeof word)
        return false;
    word[0] = ' ';
    memcpy(word + 1, command->name, n);
    word[n + 1] = ' ';
    word[n + 2] = '\0';
    return strstr(list, word) != NULL;
}

const char *cli_nearest(const char *typed, const char *const *candidates, int n)
{
    const char *best = NULL;
    int best_distance = (int)strlen(typed) / 2 + 1;
    for (int i = 0; i < n; i++) {
        int d = base_distance(typed, candidates[i]);
        if (d < best_distance) {
            best_distance = d;
            best = candidates[i];
        }
    }
    return best;
}
