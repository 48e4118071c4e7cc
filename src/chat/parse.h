/*
 * Inside the output parsers: what a syntax file sees. A message passes two stages, each with the text it has not decided about yet;
 * a syntax's `run` takes what it can from the front of that text and leaves the rest. Internal to src/chat.
 */
#ifndef SHOAL_CHAT_PARSE_H
#define SHOAL_CHAT_PARSE_H

#include "chat/chat.h"

typedef struct chat_stage {
    sb held;        /* bytes [from, length) wait for a decision */
    size_t from;    /* taken up to here */
    int state;      /* the syntax's own; 0 at the start */
    size_t scanned; /* of the waiting text, already looked at by chat_object_end */
    int nesting;
    bool in_string, escaped;
} chat_stage;

struct chat_syntax {
    const char *name;
    bool is_tools;
    const char *const *shown;
    bool (*detect)(str template_source);
    /* end: the message is over, everything must be decided. */
    status (*run)(chat_parser *p, chat_stage *s, bool end, err *e);
    bool (*prompt_open)(const char *prompt,
                        size_t n); /* reasoning: see chat_prompt_opens_reasoning */
    int open_state;                /* the state to start in then */
    const chat_call_form *form;    /* tools */
    const char *open, *close;      /* reasoning */
};

extern const chat_syntax chat_syntax_think, chat_syntax_hermes, chat_syntax_llama3;

str chat_stage_text(const chat_stage *s);      /* what waits */
void chat_stage_take(chat_stage *s, size_t n); /* n bytes are done; forgets the object scan */

/* Events. text: an empty one is not sent. The reasoning stage's text goes on to the tools stage. */
status chat_emit_text(chat_parser *p, const char *bytes, size_t n, err *e);
status chat_emit_reasoning(chat_parser *p, const char *bytes, size_t n, err *e);
status chat_pass_on(chat_parser *p, const char *bytes, size_t n, err *e);
status chat_emit_call(chat_parser *p, str name, str arguments, err *e);

/* Text helpers. */
bool chat_blank(char c);                   /* space, tab, newline, return */
size_t chat_blanks(str text, size_t from); /* how many blanks from there on */
size_t chat_trailing_blanks(str text);
size_t chat_find(str text, const char *marker); /* offset, text.length when not there */
size_t chat_partial(str text,
                    const char *marker); /* how many bytes at the end could begin the marker */

/* Where the JSON object that begins at `start` of the waiting text ends (behind its last brace), 0 while it is open. Counts brackets
 * outside strings; remembers how far it looked. */
size_t chat_object_end(chat_stage *s, size_t start);

/* One tool call out of a complete JSON object. arguments: the slice as written, "{}" when absent and may_lack_arguments. */
typedef struct chat_call {
    char *name; /* heap: base_free */
    str arguments;
    char *owned; /* heap, behind arguments when they came as a string; may be NULL */
} chat_call;
bool chat_call_read(chat_call *out, str object, bool may_lack_arguments);
void chat_call_fini(chat_call *c);

#endif
