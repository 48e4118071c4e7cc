/*
 * Options: flags (getopt_long), then SHOAL_* of the environment, then shoal.conf in the user's configuration folder, then the table's
 * default; the first that has the option wins. Every value is checked by its kind where it was given, and the message says where that
 * was. Unknown flags and unknown lines of the file are errors; unknown SHOAL_* variables are not (tools and tests use some).
 */
#include "cli/cli.h"
#include "os/os.h"

#include <ctype.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LETTER_BASE = 1000, CONF_LIMIT = 64 << 10 };

static const char *const kind_words[] = {"no value",
                                         "text",
                                         "a whole number",
                                         "a number",
                                         "a size such as 64k, 300M or 1.5G",
                                         "a duration such as 250ms, 30s, 5m or never"};

static status parse_flag(cli_value *v, const char *text)
{
    if (!strcmp(text, "1") || !strcmp(text, "yes") || !strcmp(text, "true") || !strcmp(text, "on"))
        v->whole = 1;
    else if (!strcmp(text, "0") || !strcmp(text, "no") || !strcmp(text, "false") ||
             !strcmp(text, "off") || !*text)
        v->whole = 0;
    else
        return STATUS_INVALID;
    return STATUS_OK;
}

static status set_value(cli *c, cli_option o, const char *text, const char *source, err *e)
{
    cli_value v = {.text = text, .source = source, .given = true};
    bool good = true;
    switch (cli_options[o].kind) {
    case KIND_FLAG:
        good = parse_flag(&v, text) == STATUS_OK;
        break;
    case KIND_TEXT:
        break;
    case KIND_COUNT:
        good = base_parse_u64(text, &v.whole);
        break;
    case KIND_NUMBER:
        good = base_parse_double(text, &v.number);
        break;
    case KIND_SIZE:
        good = base_parse_size(text, &v.whole);
        break;
    case KIND_DURATION:
        good = base_parse_duration(text, &v.whole);
        break;
    }
    if (!good)
        return err_set(e, STATUS_INVALID, "%s: expected %s, got '%s'", source,
                       kind_words[cli_options[o].kind], text);
    c->values[o] = v;
    return STATUS_OK;
}

static status set_default(cli *c, cli_option o)
{
    const char *fallback = cli_options[o].fallback;
    if (!*fallback)
        return STATUS_OK;
    err e;
    status s = set_value(c, o, fallback, "default", &e);
    REQUIRE(s == STATUS_OK); /* the table is ours */
    c->values[o].given = false;
    return s;
}

static const char *keep(cli *c, const char *format, const char *a, int line)
{
    char text[256];
    int n = snprintf(text, sizeof text, format, a, line);
    if (n < 0)
        n = 0;
    const char *kept = arena_strndup(&c->memory, text, BASE_MIN((size_t)n, sizeof text - 1));
    return kept ? kept : "an option";
}

static status read_environment(cli *c, err *e)
{
    for (int o = 0; o < OPT_COUNT; o++) {
        char name[64] = "SHOAL_";
        if (o == OPT_help || !cli_takes(c->command, (cli_option)o))
            continue;
        size_t n = strlen(name);
        for (const char *p = cli_options[o].name; *p && n + 1 < sizeof name; p++)
            name[n++] = *p == '-' ? '_' : (char)toupper((unsigned char)*p);
        name[n] = '\0';
        const char *text = getenv(name);
        if (!text || !*text)
            continue;
        status s = set_value(c, (cli_option)o, text, keep(c, "%s", name, 0), e);
        if (s != STATUS_OK)
            return s;
    }
    return STATUS_OK;
}

static char *trim(char *s)
{
    while (isspace((unsigned char)*s))
        s++;
    char *end = s + strlen(s);
    while (end > s && isspace((unsigned char)end[-1]))
        end--;
    *end = '\0';
    return s;
}

static int find_option(const char *name)
{
    for (int o = 0; o < OPT_COUNT; o++)
        if (!strcmp(cli_options[o].name, name))
            return o;
    return -1;
}

static status read_line(cli *c, char *line, const char *where, err *e)
{
    line[strcspn(line, "#")] = '\0';
    line = trim(line);
    if (!*line)
        return STATUS_OK;
    char *equals = strchr(line, '=');
    if (!equals)
        return err_set(e, STATUS_INVALID, "%s: expected `option = value`, got '%s'", where, line);
    *equals = '\0';
    const char *name = trim(line), *value = trim(equals + 1);
    int o = find_option(name);
    if (o < 0 || o == OPT_help)
        return err_set(e, STATUS_INVALID, "%s: there is no option '%s'", where, name);
    return cli_takes(c->command, (cli_option)o) ? set_value(c, (cli_option)o, value, where, e)
                                                : STATUS_OK;
}

static status read_conf(cli *c, err *e)
{
    char path[4096 + 16];
    err ignored;
    if (os_user_dir(path, sizeof path - 16, "config", &ignored) != STATUS_OK)
        return STATUS_OK; /* no home: no file */
    memcpy(path + strlen(path), "/shoal.conf", sizeof "/shoal.conf");
    if (!os_is_file(path))
        return STATUS_OK;
    char *text;
    size_t length;
    status s = os_read_file(&text, &length, path, CONF_LIMIT, e);
    if (s != STATUS_OK)
        return s;
    char *kept = arena_strndup(&c->memory, text, length);
    base_free(text);
    if (!kept)
        return err_set(e, STATUS_NO_MEMORY, "cli: no memory for %s", path);
    int number = 0;
    for (char *line = kept, *next; line; line = next) {
        next = strchr(line, '\n');
        if (next)
            *next++ = '\0';
        s = read_line(c, line, keep(c, "%s:%d", path, ++number), e);
        if (s != STATUS_OK)
            return s;
    }
    return STATUS_OK;
}

static status unknown_flag(const cli *c, const char *typed, err *e)
{
    const char *names[OPT_COUNT];
    int n = 0;
    for (int o = 0; o < OPT_COUNT; o++)
        if (cli_takes(c->command, (cli_option)o))
            names[n++] = cli_options[o].name;
    const char *bare = typed + strspn(typed, "-");
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)strcspn(bare, "="), bare);
    const char *near = cli_nearest(name, names, n);
    if (near)
        return err_set(e, STATUS_INVALID, "there is no option '%s'; did you mean --%s?", typed,
                       near);
    return err_set(e, STATUS_INVALID, "there is no option '%s'", typed);
}

static status read_flags(cli *c, int argc, char **argv, err *e)
{
    struct option longs[OPT_COUNT + 1];
    char shorts[3 * OPT_COUNT + 2] = ":";
    int n = 0;
    size_t m = 1;
    for (int o = 0; o < OPT_COUNT; o++) {
        const cli_option_row *row = &cli_options[o];
        if (!cli_takes(c->command, (cli_option)o))
            continue;
        longs[n++] =
            (struct option){row->name, row->kind == KIND_FLAG ? no_argument : required_argument,
                            NULL, LETTER_BASE + o};
        if (row->letter) {
            shorts[m++] = (char)row->letter;
            if (row->kind != KIND_FLAG)
                shorts[m++] = ':';
        }
    }
    longs[n] = (struct option){0};
    shorts[m] = '\0';
    opterr = 0;
    optind = 1;
    for (int found; (found = getopt_long(argc, argv, shorts, longs, NULL)) != -1;) {
        const char *typed = argv[optind - 1];
        if (found == '?')
            return unknown_flag(c, typed, e);
        if (found == ':')
            return err_set(e, STATUS_INVALID, "%s needs a value", typed);
        int o = found - LETTER_BASE;
        for (int i = 0; o < 0 && i < OPT_COUNT; i++)
            if (cli_options[i].letter == found && cli_takes(c->command, (cli_option)i))
                o = i;
        REQUIRE(o >= 0 && o < OPT_COUNT);
        status s = set_value(c, (cli_option)o, optarg ? optarg : "1",
                             keep(c, "--%s", cli_options[o].name, 0), e);
        if (s != STATUS_OK)
            return s;
    }
    c->arguments = argv + optind;
    c->n_arguments = argc - optind;
    return STATUS_OK;
}

static status check_arguments(const cli *c, err *e)
{
    const cli_command *command = c->command;
    const char *gap = *command->arguments ? " " : "";
    if (c->n_arguments < command->fewest)
        return err_set(e, STATUS_INVALID, "something is missing: shoal %s%s%s", command->name, gap,
                       command->arguments);
    if (command->most >= 0 && c->n_arguments > command->most)
        return err_set(e, STATUS_INVALID, "'%s' is too much: shoal %s%s%s",
                       c->arguments[command->most], command->name, gap, command->arguments);
    return STATUS_OK;
}

status cli_parse(cli *c, const cli_command *command, int argc, char **argv, err *e)
{
    *c = (cli){.command = command};
    arena_init(&c->memory, 0);
    for (int o = 0; o < OPT_COUNT; o++)
        if (cli_takes(command, (cli_option)o))
            set_default(c, (cli_option)o);
    status s = read_conf(c, e);
    if (s == STATUS_OK)
        s = read_environment(c, e);
    if (s == STATUS_OK)
        s = read_flags(c, argc, argv, e);
    if (s == STATUS_OK && !cli_flag(c, OPT_help))
        s = check_arguments(c, e);
    return s;
}

bool cli_given(const cli *c, cli_option o)
{
    return c->values[o].given;
}

bool cli_flag(const cli *c, cli_option o)
{
    REQUIRE(cli_options[o].kind == KIND_FLAG);
    return c->values[o].whole != 0;
}

const char *cli_text(const cli *c, cli_option o)
{
    return c->values[o].text;
}

uint64_t cli_whole(const cli *c, cli_option o)
{
    REQUIRE(cli_options[o].kind != KIND_TEXT && cli_options[o].kind != KIND_NUMBER);
    return c->values[o].whole;
}

double cli_number(const cli *c, cli_option o)
{
    REQUIRE(cli_options[o].kind == KIND_NUMBER);
    return c->values[o].number;
}
