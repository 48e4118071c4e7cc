/*
 * chat: messages → the text a model was trained on, and the text a model wrote → reasoning, answer and tool calls.
 *
 * 1. Templates: an interpreter of the Jinja language (jinja2 3.1, as Hugging Face transformers' apply_chat_template sets
 *    it: trim_blocks, lstrip_blocks, loop controls, autoescape off, `tojson` = json.dumps(ensure_ascii=False), generation
 *    blocks, raise_exception, strftime_now). A template is parsed once and rendered any number of times.
 * 2. Parsers: a stream of text pieces → a stream of events. One file a syntax, one const table each.
 *
 * Trust: templates come out of model files and messages from clients: both are hostile. Every render has a budget of steps,
 * memory and output bytes; nesting is bounded; nothing in a template reaches files, the network, clocks or the heap at large.
 * Threads: a chat_template is immutable and may be rendered by many threads at once; a chat_parser has one owner.
 * Not here: tokens (src/text), wire JSON of API dialects (src/api), clocks (the caller passes the time).
 */
#ifndef SHOAL_CHAT_H
#define SHOAL_CHAT_H

#include "base/base.h"

/* ---- templates ---------------------------------------------------------------------------------------------------- */

typedef struct chat_template chat_template;

/* source: n bytes of UTF-8, copied. A syntax error is CORRUPT and says `line L column C: what` (1-based, columns in bytes). */
status chat_template_parse(chat_template **out, const char *source, size_t n, err *e);
void chat_template_destroy(chat_template *t);     /* NULL is fine */
str chat_template_source(const chat_template *t); /* borrowed from t */

/* Broken-down wall-clock time for strftime_now. All zero (month 0) = no clock: `strftime_now` is then undefined in the template. */
typedef struct chat_time {
    int year, month, day;     /* 2025, 1..12, 1..31 */
    int hour, minute, second; /* 0..23, 0..59, 0..59 */
} chat_time;

/* Seconds since 1970 UTC plus an offset in seconds (0 = UTC) → broken down. */
chat_time chat_time_from_unix(int64_t seconds, int32_t offset_seconds);
/* "2025-07-15T09:30:00", "2025-07-15 09:30" or "2025-07-15". */
bool chat_time_parse(const char *text, chat_time *out);

typedef struct chat_render_options {
    chat_time now;
    uint64_t max_steps;  /* evaluated nodes, loop turns and bytes touched / 64; 0 = 20 million */
    uint64_t max_output; /* bytes; 0 = 64 MiB */
    uint64_t max_memory; /* bytes of values; 0 = 512 MiB */
    /* Adapt messages as OpenAI clients send them to what this template understands (see chat_template_traits): tool-call
     * arguments given as a JSON string become an object (or the other way), content given as text parts becomes one string,
     * role `developer` becomes `system`. Off: variables are used exactly as they are. */
    bool adapt;
    str bos_token, eos_token; /* when variables has none; borrowed for the call */
} chat_render_options;

/* variables: a JSON object {messages, tools?, add_generation_prompt?, bos_token?, eos_token?, …}; every member becomes a template
 * variable, key order is kept. Absent: messages [], tools and documents None, add_generation_prompt False, bos/eos_token
 * those of the options.
 * The text is appended to out (on an error out is as before). o NULL = all defaults.
 * Errors: INVALID   the template called raise_exception; e->text is exactly its message (cut at ERR_TEXT): tell the client;
 *         CORRUPT   the template failed (`line L column C: …`) or variables is not such an object;
 *         TOO_LARGE steps, output, memory or depth went over the budget;
 *         NO_MEMORY. */
status chat_render(const chat_template *t, const char *variables, size_t n,
                   const chat_render_options *o, sb *out, err *e);

/* What the template does with its input, found at parse time by rendering small probes. */
typedef struct chat_traits {
    bool
        argument_objects; /* wants tool_call.function.arguments as an object (else as a JSON string) */
    bool argument_strings;  /* copes with a JSON string */
    bool content_parts;     /* iterates over message.content given as parts */
    bool system_role;       /* prints a system message */
    bool tools;             /* prints the tools it is given */
    bool generation_prompt; /* add_generation_prompt makes a difference */
} chat_traits;
const chat_traits *chat_template_traits(const chat_template *t); /* borrowed from t */

/* Choosing among the templates of a model: `tokenizer.chat_template` (name "" or "default") and named ones (`tool_use`, `rag`, …).
 * wanted NULL or "": `tool_use` when has_tools and there is one, else the default, else the only one. wanted given and absent:
 * NOT_FOUND, naming what there is. n = 0: the built-in ChatML template, and *fallback is true (the log says so, once a call). */
typedef struct chat_named_template {
    str name, source;
} chat_named_template;
status chat_template_select(str *out_source, bool *fallback, const chat_named_template *templates,
                            size_t n, const char *wanted, bool has_tools, err *e);
str chat_template_chatml(void); /* the built-in template: ChatML with tools in the Hermes way */

/* ---- output parsers ----------------------------------------------------------------------------------------------- */

typedef enum chat_event_kind {
    CHAT_TEXT,           /* text: a piece of the answer */
    CHAT_REASONING,      /* text: a piece of the model's thinking */
    CHAT_TOOL_BEGIN,     /* index, id, name */
    CHAT_TOOL_ARGUMENTS, /* index, text: the next piece of the JSON object of arguments */
    CHAT_TOOL_END        /* index */
} chat_event_kind;

typedef struct chat_event {
    chat_event_kind kind;
    int index;          /* of the tool call in this message, from 0 */
    str text, id, name; /* borrowed for the time of the call */
} chat_event;

/* A non-OK return stops the feed, which returns that status. */
typedef status (*chat_event_sink)(void *context, const chat_event *event);

/* How one kind of model writes. Tables live in the syntax files. */
typedef struct chat_syntax chat_syntax;

/* A message is read in two stages: reasoning is split off, the rest is searched for tool calls. Plain: both NULL. */
typedef struct chat_format {
    const chat_syntax *reasoning;
    const chat_syntax *tools;
} chat_format;

/* By the markers in the template's source. Unknown markers: plain. */
chat_format chat_syntax_detect(str template_source);
/* By name ("think", "hermes", "llama3"; "plain" → NULL and true). false: no such syntax. */
bool chat_syntax_find(const chat_syntax **out, const char *name);
const char *chat_syntax_name(const chat_syntax *s); /* NULL → "plain" */

/* What serve must do: detokenise with special tokens hidden EXCEPT those listed here, which are the syntax's markers (some models
 * have them as special tokens, some as ordinary text; after detokenising both are text). NULL-terminated; pieces may be cut anywhere. */
const char *const *chat_syntax_shown(const chat_syntax *s);

/* How a syntax writes a tool call: [marker] before NAME behind_name ARGUMENTS after; NAME as in a JSON string, ARGUMENTS a JSON object. */
typedef struct chat_call_form {
    const char *marker; /* in front of a call in the midst of text */
    const char *before, *behind_name, *after;
    const char *between; /* of two calls */
    bool bare;           /* as the whole message a call has no marker */
} chat_call_form;
const chat_call_form *
chat_syntax_call_form(const chat_syntax *s); /* NULL: it has none, or s is NULL */
/* The tags around reasoning; false: s is none of reasoning, or NULL. */
bool chat_syntax_reasoning_tags(const chat_syntax *s, const char **open, const char **close);

/* Does the rendered prompt end inside an open reasoning block ("…<think>\n")? Then the model starts in reasoning. */
bool chat_prompt_opens_reasoning(chat_format f, const char *prompt, size_t n);

typedef struct chat_parser_options {
    bool reasoning_open; /* from chat_prompt_opens_reasoning */
    bool tools;          /* tools were offered; false: tool-call syntax is ordinary text */
    uint64_t seed;       /* ids of tool calls are a function of (seed, index) */
} chat_parser_options;

typedef struct chat_parser chat_parser;

/* Events are the same for every way of cutting the text into pieces, when neighbouring TEXT and REASONING pieces are joined.
 * A tool call is announced when it is complete and well-formed, its arguments in one piece; a malformed or unfinished one becomes TEXT
 * exactly as written. White space between reasoning, answer and tool calls is dropped, everything else comes out.
 * Names of tools are not checked here. */
status chat_parser_create(chat_parser **out, chat_format f, const chat_parser_options *o,
                          chat_event_sink sink, void *context, err *e);
status chat_parser_feed(chat_parser *p, const char *bytes, size_t n, err *e);
status chat_parser_finish(chat_parser *p,
                          err *e); /* the message is over: flushes what was held back */
int chat_parser_tool_calls(
    const chat_parser *p); /* how many so far: finish_reason "tool_calls" when > 0 */
void chat_parser_destroy(chat_parser *p);

#endif
