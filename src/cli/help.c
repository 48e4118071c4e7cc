/*
 * Help, man page and completion scripts, all written from commands.def and options.def, so that none can tell another story.
 * Lines wrap at the terminal's width (80 when there is none).
 */
#include "cli/cli.h"
#include "os/os.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

/* Prints text from column `indent` on, wrapped. */
static void print_wrapped(const char *text, int indent)
{
    int width = BASE_MIN(os_terminal_columns(1), 110), column = indent;
    while (*text) {
        int n = (int)strcspn(text, " ");
        if (column > indent && column + 1 + n > width) {
            printf("\n%*s", indent, "");
            column = indent;
        } else if (column > indent) {
            putchar(' ');
            column++;
        }
        printf("%.*s", n, text);
        column += n;
        text += n;
        text += strspn(text, " ");
    }
    putchar('\n');
}

void cli_print_overview(void)
{
    puts("shoal turns the machines you own into one computer for language models.\n\n"
         "usage: shoal COMMAND [options]\n");
    for (int i = 0; i < cli_n_commands; i++) {
        const cli_command *command = &cli_commands[i];
        if (command->group == GROUP_HIDDEN)
            continue;
        printf("  %-12s ", command->name);
        print_wrapped(command->summary, 15);
    }
    puts("\n`shoal help COMMAND` or `shoal COMMAND --help` says more. Options can also stand in "
         "shoal.conf (see `shoal paths`)\n"
         "as `option = value`, or in the environment as SHOAL_OPTION.");
}

static void option_label(char out[64], const cli_option_row *row)
{
    char letter[8] = "    ";
    if (row->letter)
        snprintf(letter, sizeof letter, "-%c, ", row->letter);
    snprintf(out, 64, "%s--%s%s%s", letter, row->name, *row->argument ? " " : "", row->argument);
}

static void print_option(const cli_option_row *row)
{
    char label[64], text[512];
    option_label(label, row);
    if (*row->fallback)
        snprintf(text, sizeof text, "%s (default %s)", row->text, row->fallback);
    else
        snprintf(text, sizeof text, "%s", row->text);
    printf("  %-26s ", label);
    if (strlen(label) > 26)
        printf("\n%29s", "");
    print_wrapped(text, 29);
}

void cli_print_command_help(const cli_command *command)
{
    printf("usage: shoal %s [options]%s%s\n\n", command->name, *command->arguments ? " " : "",
           command->arguments);
    print_wrapped(command->summary, 0);
    puts("");
    for (int o = 0; o < OPT_COUNT; o++)
        if (cli_takes(command, (cli_option)o))
            print_option(&cli_options[o]);
}

int cli_cmd_help(cli *c)
{
    if (c->n_arguments == 0) {
        cli_print_overview();
        return 0;
    }
    const cli_command *command = cli_find_command(c->arguments[0]);
    if (!command)
        return cli_usage(c, "there is no command '%s'", c->arguments[0]);
    cli_print_command_help(command);
    return 0;
}

/* ---- the man page ---------------------------------------------------------------------------------------------- */

/* A line of roff: dashes escaped, a leading dot or quote defused. */
static void print_roff(const char *text)
{
    if (*text == '.' || *text == '\'')
        fputs("\\&", stdout);
    for (; *text; text++) {
        if (*text == '-')
            fputs("\\-", stdout);
        else if (*text == '\\')
            fputs("\\e", stdout);
        else
            putchar(*text);
    }
    putchar('\n');
}

static void print_man_options(const cli_command *command)
{
    for (int o = 0; o < OPT_COUNT; o++) {
        char label[64];
        const cli_option_row *row = &cli_options[o];
        bool for_all = !strcmp(row->commands, " all ");
        if (command ? for_all || !cli_takes(command, (cli_option)o) : !for_all)
            continue;
        option_label(label, row);
        fputs(".TP\n.B ", stdout);
        print_roff(label + strspn(label, " "));
        print_roff(row->text);
        if (*row->fallback) {
            fputs("Default: ", stdout);
            print_roff(row->fallback);
        }
    }
}

static void print_man(void)
{
    printf(".TH SHOAL 1 \"\" \"shoal " SHOAL_VERSION "\" \"User commands\"\n"
           ".SH NAME\nshoal \\- one computer for language models out of the machines you own\n"
           ".SH SYNOPSIS\n.B shoal\n.I COMMAND\n[options]\n.SH COMMANDS\n");
    for (int i = 0; i < cli_n_commands; i++) {
        const cli_command *command = &cli_commands[i];
        if (command->group == GROUP_HIDDEN)
            continue;
        printf(".SS shoal %s ", command->name);
        print_roff(command->arguments);
        print_roff(command->summary);
        print_man_options(command);
    }
    puts(".SH OPTIONS OF EVERY COMMAND");
    print_man_options(NULL);
    puts(".SH FILES\n.TP\n.I shoal.conf\nin the configuration folder that `shoal paths` names: "
         "lines `option = value`, comments "
         "after #.\n.SH ENVIRONMENT\nEvery option as SHOAL_ and its name in capitals, dashes as "
         "underscores.");
}

/* ---- completions ----------------------------------------------------------------------------------------------- */

static void print_names(const char *before, const char *after)
{
    for (int i = 0; i < cli_n_commands; i++)
        if (cli_commands[i].group == GROUP_MAIN)
            printf("%s%s%s", before, cli_commands[i].name, after);
}

static void print_bash(void)
{
    fputs("_shoal() {\n    local word=${COMP_WORDS[COMP_CWORD]}\n    if [ \"$COMP_CWORD\" -eq 1 ]; "
          "then\n"
          "        COMPREPLY=($(compgen -W '",
          stdout);
    print_names("", " ");
    puts("' -- \"$word\"))\n        return\n    fi\n    local options=\n    case ${COMP_WORDS[1]} "
         "in");
    for (int i = 0; i < cli_n_commands; i++) {
        const cli_command *command = &cli_commands[i];
        if (command->group == GROUP_HIDDEN)
            continue;
        printf("    %s) options='", command->name);
        for (int o = 0; o < OPT_COUNT; o++)
            if (cli_takes(command, (cli_option)o))
                printf("--%s ", cli_options[o].name);
        puts("' ;;");
    }
    puts("    esac\n    case $word in\n    -*) COMPREPLY=($(compgen -W \"$options\" -- \"$word\")) "
         ";;\n"
         "    *) COMPREPLY=($(compgen -f -- \"$word\")) ;;\n    esac\n}\ncomplete -o filenames -F "
         "_shoal shoal");
}

/* Single quotes end a shell word: write them as '\''. */
static void print_quoted(const char *text)
{
    for (; *text; text++) {
        if (*text == '\'')
            fputs("'\\''", stdout);
        else
            putchar(*text);
    }
}

static void print_fish(void)
{
    for (int i = 0; i < cli_n_commands; i++) {
        const cli_command *command = &cli_commands[i];
        if (command->group == GROUP_HIDDEN)
            continue;
        printf("complete -c shoal -n __fish_use_subcommand -f -a %s -d '", command->name);
        print_quoted(command->summary);
        puts("'");
        for (int o = 0; o < OPT_COUNT; o++) {
            const cli_option_row *row = &cli_options[o];
            if (!cli_takes(command, (cli_option)o))
                continue;
            printf("complete -c shoal -n '__fish_seen_subcommand_from %s' -l %s%s -d '",
                   command->name, row->name, row->kind == KIND_FLAG ? "" : " -r");
            print_quoted(row->text);
            puts("'");
        }
    }
}

static void print_zsh(void)
{
    puts("#compdef shoal\n_shoal() {\n    local -a commands\n    commands=(");
    for (int i = 0; i < cli_n_commands; i++) {
        if (cli_commands[i].group == GROUP_HIDDEN)
            continue;
        printf("        '%s:", cli_commands[i].name);
        print_quoted(cli_commands[i].summary);
        puts("'");
    }
    puts("    )\n    if (( CURRENT == 2 )); then\n        _describe command commands\n        "
         "return\n    fi\n"
         "    case $words[2] in");
    for (int i = 0; i < cli_n_commands; i++) {
        const cli_command *command = &cli_commands[i];
        if (command->group == GROUP_HIDDEN)
            continue;
        printf("    %s) _arguments", command->name);
        for (int o = 0; o < OPT_COUNT; o++)
            if (cli_takes(command, (cli_option)o))
                printf(" '--%s%s'", cli_options[o].name,
                       cli_options[o].kind == KIND_FLAG ? "" : "=:value:_files");
        puts(" '*:file:_files' ;;");
    }
    puts("    esac\n}\n_shoal \"$@\"");
}

int cli_cmd_completions(cli *c)
{
    static const struct {
        const char *name;
        void (*print)(void);
    } kinds[] = {
        {"bash", print_bash}, {"zsh", print_zsh}, {"fish", print_fish}, {"man", print_man}};
    for (size_t i = 0; i < BASE_COUNT(kinds); i++) {
        if (!strcmp(kinds[i].name, c->arguments[0])) {
            kinds[i].print();
            return 0;
        }
    }
    return cli_usage(c, "expected bash, zsh, fish or man, got '%s'", c->arguments[0]);
}
